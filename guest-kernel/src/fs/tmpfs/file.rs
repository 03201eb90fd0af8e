//! An open regular file of a tmpfs or overlay.

use std::{
    any::Any,
    sync::{Arc, atomic::Ordering},
};

use super::node::Node;
use crate::{
    error::Errno,
    fs::{
        body::{Body, MAX_SIZE, Use},
        buf::{Sink, Source},
        file::{FileOps, OpenFile},
        flags::OpenFlags,
        inode::Inode,
    },
    mm::object::MemObject,
};

/// F_SEAL_* of memfd_create(2).
#[expect(missing_docs, reason = "fcntl(2) names them")]
pub mod seal {
    pub const SEAL: u32 = 1;
    pub const SHRINK: u32 = 2;
    pub const GROW: u32 = 4;
    pub const WRITE: u32 = 8;
    pub const FUTURE_WRITE: u32 = 0x10;
    pub const EXEC: u32 = 0x20;
}

/// The operations.
pub struct RegularFile {
    node: Arc<Node>,
    body: Arc<Body>,
    /// What it counts as among the file's users.
    kind: Option<Use>,
}

impl RegularFile {
    /// Opens `node`, whose contents are `body`, for a `kind` of use that excludes the other.
    #[must_use]
    pub fn new(node: Arc<Node>, body: Arc<Body>, kind: Option<Use>) -> RegularFile {
        if let Some(kind) = kind {
            body.users(kind).fetch_add(1, Ordering::Relaxed);
        }
        RegularFile { node, body, kind }
    }
    /// The contents.
    #[must_use]
    pub fn body(&self) -> &Arc<Body> {
        &self.body
    }
    /// A write may not grow a file sealed against that, nor touch one sealed against writing.
    fn limit(&self) -> Result<u64, Errno> {
        let seals = self.body.seals();
        if seals & (seal::WRITE | seal::FUTURE_WRITE) != 0 {
            return Err(Errno::EPERM);
        }
        Ok(if seals & seal::GROW != 0 { self.body.size() } else { MAX_SIZE })
    }
    fn write_from(&self, src: &mut Source<'_>, offset: u64) -> Result<usize, Errno> {
        let limit = self.limit()?;
        let sealed = limit < MAX_SIZE;
        let wrote = match self.body.write_at(src, offset, limit) {
            Err(Errno::EFBIG) if sealed => return Err(Errno::EPERM),
            other => other?,
        };
        if wrote > 0 {
            self.node.modified();
        }
        Ok(wrote)
    }
}

impl Drop for RegularFile {
    fn drop(&mut self) {
        if let Some(kind) = self.kind {
            self.body.users(kind).fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl FileOps for RegularFile {
    fn read(&self, file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        file.with_position(|position| {
            let read = self.read_at(file, dst, *position)?;
            *position += read as u64;
            Ok(read)
        })
    }
    fn write(&self, file: &OpenFile, src: &mut Source<'_>) -> Result<usize, Errno> {
        file.with_position(|position| {
            let _writing = self.body.writing();
            if file.flags().contains(OpenFlags::APPEND) {
                *position = self.body.size();
            }
            let wrote = self.write_from(src, *position)?;
            *position += wrote as u64;
            Ok(wrote)
        })
    }
    fn read_at(&self, file: &OpenFile, dst: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        let read = self.body.read_at(dst, offset)?;
        if read > 0 && !file.flags().contains(OpenFlags::NOATIME) {
            self.node.accessed();
        }
        Ok(read)
    }
    fn write_at(&self, file: &OpenFile, src: &mut Source<'_>, at: u64) -> Result<usize, Errno> {
        let _writing = self.body.writing();
        // pwrite(2), BUGS: O_APPEND appends whatever the offset.
        let append = file.flags().contains(OpenFlags::APPEND);
        self.write_from(src, if append { self.body.size() } else { at })
    }
    fn seek(&self, file: &OpenFile, offset: i64, whence: u32) -> Result<u64, Errno> {
        crate::fs::file::seek_in(
            file,
            offset,
            whence,
            || Ok(self.body.size()),
            |at, data| self.body.seek(at, data),
        )
    }
    fn object(&self) -> Result<Arc<dyn MemObject>, Errno> {
        Ok(self.body.clone())
    }
    fn sync(&self, _file: &OpenFile, _data: bool) -> Result<(), Errno> {
        Ok(())
    }
    fn allocate(&self, _file: &OpenFile, mode: u32, at: u64, len: u64) -> Result<(), Errno> {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        const ZERO_RANGE: u32 = 0x10;
        let end = at.checked_add(len).filter(|end| *end <= MAX_SIZE).ok_or(Errno::EFBIG)?;
        let seals = self.body.seals();
        let size = self.body.size();
        if mode & (PUNCH_HOLE | ZERO_RANGE) != 0 && seals & (seal::WRITE | seal::FUTURE_WRITE) != 0
        {
            return Err(Errno::EPERM);
        }
        let grows = mode & KEEP_SIZE == 0 && end > size;
        if grows && seals & seal::GROW != 0 {
            return Err(Errno::EPERM);
        }
        match mode {
            m if m == PUNCH_HOLE | KEEP_SIZE => self.body.punch(at, len)?,
            0 | KEEP_SIZE => {
                self.body.reserve(at, len)?;
                if grows {
                    self.body.set_size(end)?;
                }
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        self.node.modified();
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Changes the size of the file `inode` is, if it is a sealed one that forbids it.
///
/// # Errors
/// EPERM.
pub fn check_resize(inode: &Arc<dyn Inode>, size: u64) -> Result<(), Errno> {
    let Some(body) = super::TmpFs::of(inode).and_then(Node::body) else { return Ok(()) };
    let (seals, now) = (body.seals(), body.size());
    let shrinks = size < now && seals & seal::SHRINK != 0;
    let grows = size > now && seals & seal::GROW != 0;
    if shrinks || grows { Err(Errno::EPERM) } else { Ok(()) }
}
