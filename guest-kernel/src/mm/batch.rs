//! Edits gathered while an address space is locked, and what may be given up once the platform has
//! made them.
//!
//! Invariant: a frame leaves through [`Batch::drop_frame`] only, so it is released only after the
//! `apply` that revoked it has returned.

use super::vma::Vma;
use crate::platform::{Edit, Gpa, PAGE_SIZE, Prot};

/// Pending edits of one address space.
#[derive(Default)]
pub struct Batch {
    /// To be applied, in order; neighbours are merged as they come.
    pub edits: Vec<Edit>,
    /// Ownerships to be given up after the edits were applied.
    pub frames: Vec<Gpa>,
    /// Mappings to be dropped once the lock is open (a file's last reference may go with them).
    pub vmas: Vec<Vma>,
}

impl Batch {
    /// Translates one page.
    pub fn map(&mut self, page: u64, frame: Gpa, prot: Prot) {
        if let Some(Edit::Map { va, gpa, len, prot: p }) = self.edits.last_mut()
            && *va + *len == page
            && gpa.0 + *len == frame.0
            && *p == prot
        {
            *len += PAGE_SIZE;
            return;
        }
        self.edits.push(Edit::Map { va: page, gpa: frame, len: PAGE_SIZE, prot });
    }
    /// Removes the translations of a range.
    pub fn unmap(&mut self, start: u64, bytes: u64) {
        if let Some(Edit::Unmap { va, len }) = self.edits.last_mut()
            && *va + *len == start
        {
            *len += bytes;
            return;
        }
        self.edits.push(Edit::Unmap { va: start, len: bytes });
    }
    /// Changes the access of a range's translations.
    pub fn protect(&mut self, start: u64, bytes: u64, access: Prot) {
        if let Some(Edit::Protect { va, len, prot }) = self.edits.last_mut()
            && *va + *len == start
            && *prot == access
        {
            *len += bytes;
            return;
        }
        self.edits.push(Edit::Protect { va: start, len: bytes, prot: access });
    }
    /// Gives up an ownership once the edits so far are made.
    pub fn drop_frame(&mut self, frame: Gpa) {
        self.frames.push(frame);
    }
}
