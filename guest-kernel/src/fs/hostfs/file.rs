//! An open regular file of a passed-through tree: written through, its pages shared with whoever
//! maps it.

use std::{any::Any, sync::Arc};

use super::Node;
use crate::{
    error::Errno,
    fs::{
        body::{Body, MAX_SIZE},
        buf::{Sink, Source},
        file::{FileOps, OpenFile},
        flags::OpenFlags,
    },
    mm::object::MemObject,
};

/// The operations.
pub struct RegularFile {
    node: Arc<Node>,
    body: Arc<Body>,
}

impl RegularFile {
    /// Opens `node`, whose contents are `body`.
    #[must_use]
    pub fn new(node: Arc<Node>, body: Arc<Body>) -> RegularFile {
        RegularFile { node, body }
    }
    /// Where an append goes: the host may have appended, too.
    fn end(&self) -> Result<u64, Errno> {
        self.node.refresh(&self.body)?;
        Ok(self.body.size())
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
                *position = self.end()?;
            }
            let wrote = self.body.write_at(src, *position, MAX_SIZE)?;
            *position += wrote as u64;
            Ok(wrote)
        })
    }
    fn read_at(&self, _file: &OpenFile, dst: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        if offset.saturating_add(dst.left() as u64) > self.body.size() {
            self.node.refresh(&self.body)?;
        }
        self.body.read_at(dst, offset)
    }
    fn write_at(&self, file: &OpenFile, src: &mut Source<'_>, at: u64) -> Result<usize, Errno> {
        let _writing = self.body.writing();
        let append = file.flags().contains(OpenFlags::APPEND);
        let at = if append { self.end()? } else { at };
        self.body.write_at(src, at, MAX_SIZE)
    }
    fn seek(&self, file: &OpenFile, offset: i64, whence: u32) -> Result<u64, Errno> {
        let find = |at, data| self.body.seek(at, data);
        crate::fs::file::seek_in(file, offset, whence, || self.end(), find)
    }
    fn object(&self) -> Result<Arc<dyn MemObject>, Errno> {
        Ok(self.body.clone())
    }
    fn sync(&self, _file: &OpenFile, _data: bool) -> Result<(), Errno> {
        self.body.write_back(0, u64::MAX)?;
        self.body.lower().ok_or(Errno::EIO)?.handle()?.sync()
    }
    fn allocate(&self, _file: &OpenFile, mode: u32, at: u64, len: u64) -> Result<(), Errno> {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        let end = at.checked_add(len).filter(|end| *end <= MAX_SIZE).ok_or(Errno::EFBIG)?;
        match mode {
            m if m == PUNCH_HOLE | KEEP_SIZE => self.body.punch(at, len),
            0 if end > self.end()? => self.body.set_size(end),
            // Room is the host's affair, and is not reserved.
            0 | KEEP_SIZE => Ok(()),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
    fn release(&self, _file: &OpenFile) {
        // Stores through mappings are on the host at the latest now; nobody is left to be told of a
        // refusal, which fsync(2) would have told.
        let _ = self.body.write_back(0, u64::MAX);
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
