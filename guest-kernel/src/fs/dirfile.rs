//! An open directory, of any file system.
//!
//! Positions 1 and 2 are `.` and `..`; the file system's own follow, moved up by two.

use std::any::Any;

use super::{
    file::{FileOps, OpenFile},
    inode::{Actor, DirEntry},
};
use crate::{error::Errno, num::Word};

/// The operations.
pub struct DirFile;

const DT_DIR: u8 = 4;
const OWN: u64 = 2;

impl FileOps for DirFile {
    fn read(&self, _f: &OpenFile, _d: &mut super::buf::Sink<'_>) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }
    fn read_at(
        &self,
        _file: &OpenFile,
        _dst: &mut super::buf::Sink<'_>,
        _offset: u64,
    ) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }
    fn seek(&self, file: &OpenFile, offset: i64, whence: u32) -> Result<u64, Errno> {
        let end = || Ok(i64::MAX.cast_unsigned());
        super::file::seek_in(file, offset, whence, end, |_, _| Err(Errno::EINVAL))
    }
    fn read_dir(
        &self,
        file: &OpenFile,
        who: &Actor,
        from: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        let path = file.path.as_ref().ok_or(Errno::ENOTDIR)?;
        if path.dentry.is_deleted() {
            return Err(Errno::ENOENT);
        }
        if from < 1 {
            let ino = path.attr()?.ino;
            if !emit(DirEntry { name: b".", ino, kind: DT_DIR, next: 1 }) {
                return Ok(());
            }
        }
        if from < OWN {
            let up = path.up().filter(|_| !path.same(&who.fs.root()));
            let ino = up.as_ref().unwrap_or(path).attr()?.ino;
            if !emit(DirEntry { name: b"..", ino, kind: DT_DIR, next: OWN }) {
                return Ok(());
            }
        }
        let from = from.saturating_sub(OWN);
        path.inode().read_dir(who, from, &mut |entry| {
            emit(DirEntry { next: entry.next.saturating_add(OWN), ..entry })
        })
    }
    fn sync(&self, _file: &OpenFile, _data: bool) -> Result<(), Errno> {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `DT_*` of a file mode.
#[must_use]
pub fn kind_of(mode: u32) -> u8 {
    (mode >> 12).low_u8() & 15
}
