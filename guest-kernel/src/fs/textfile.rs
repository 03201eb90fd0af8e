//! Regular files whose contents a function makes: what proc and sysfs show.
//!
//! The text is made when it is read from its start and kept for the reads that follow, as Linux's
//! seq_file does: a reader sees one moment whole, and one that goes back to the start sees the
//! present.

use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    buf::{Sink, Source},
    file::{FileOps, OpenFile},
    inode::Actor,
};
use crate::{creds::Creds, error::Errno, num::Word, task::Tid};

/// Who opened a file that can be written: what its writes are judged by.
#[derive(Clone)]
pub struct Opener {
    /// Credentials.
    pub creds: Arc<Creds>,
    /// Process; 0 for the kernel itself.
    pub pid: Tid,
}

impl Opener {
    /// `who` as it is now.
    #[must_use]
    pub fn of(who: &Actor) -> Opener {
        let pid = who.task.as_ref().map_or(0, |task| task.process.pid);
        Opener { creds: who.creds.clone(), pid }
    }
    /// The capability is in the effective set.
    #[must_use]
    pub fn capable(&self, capability: u32) -> bool {
        self.creds.capable(capability)
    }
}

/// Makes the text.
pub type Make = Box<dyn Fn() -> Result<Vec<u8>, Errno> + Send + Sync>;
/// Takes what is written, whole.
pub type Put = Box<dyn Fn(&[u8]) -> Result<(), Errno> + Send + Sync>;

/// Most bytes of one write that are looked at; a longer one is taken in parts, as Linux's page-sized
/// buffer does.
const MAX_WRITE: usize = 4096;

/// An open text.
pub struct TextFile {
    make: Make,
    put: Option<Put>,
    /// What a write to a file that takes none says.
    refusal: Errno,
    text: Mutex<Option<Arc<Vec<u8>>>>,
}

impl TextFile {
    /// A text that takes no writes; one is answered `refusal`.
    #[must_use]
    pub fn new(make: Make, refusal: Errno) -> TextFile {
        TextFile { make, put: None, refusal, text: Mutex::default() }
    }
    /// A text that takes writes.
    #[must_use]
    pub fn writable(make: Make, put: Put) -> TextFile {
        TextFile { make, put: Some(put), refusal: Errno::EIO, text: Mutex::default() }
    }
    fn text(&self, fresh: bool) -> Result<Arc<Vec<u8>>, Errno> {
        let lock = || self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if !fresh && let Some(text) = &*lock() {
            return Ok(text.clone());
        }
        // Made without the lock: the maker looks at other tasks.
        let text = Arc::new((self.make)()?);
        *lock() = Some(text.clone());
        Ok(text)
    }
}

impl FileOps for TextFile {
    fn read(&self, file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        file.with_position(|position| {
            let read = self.read_at(file, dst, *position)?;
            *position += read as u64;
            Ok(read)
        })
    }
    fn read_at(&self, _file: &OpenFile, dst: &mut Sink<'_>, at: u64) -> Result<usize, Errno> {
        let text = self.text(at == 0)?;
        dst.put(text.get(at.size()..).unwrap_or_default())
    }
    fn write(&self, file: &OpenFile, src: &mut Source<'_>) -> Result<usize, Errno> {
        let wrote = self.write_at(file, src, 0)?;
        file.with_position(|position| *position += wrote as u64);
        Ok(wrote)
    }
    fn write_at(&self, _file: &OpenFile, src: &mut Source<'_>, _at: u64) -> Result<usize, Errno> {
        let put = self.put.as_ref().ok_or(self.refusal)?;
        let mut bytes = vec![0; src.left().min(MAX_WRITE)];
        let got = src.take(&mut bytes)?;
        put(&bytes[..got])?;
        Ok(got)
    }
    fn seek(&self, file: &OpenFile, offset: i64, whence: u32) -> Result<u64, Errno> {
        let end = || Err(Errno::EINVAL);
        super::file::seek_in(file, offset, whence, end, |_, _| Err(Errno::EINVAL))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A decimal number with blanks around it, as proc's own parsers take it.
///
/// # Errors
/// EINVAL.
pub fn number(bytes: &[u8]) -> Result<i64, Errno> {
    let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0');
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => i64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    let plain = digits.starts_with(|c: char| c.is_ascii_digit());
    value.ok().filter(|_| plain).map(|v: i64| v * sign).ok_or(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::flags::OpenFlags;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_text_is_made_again_from_its_start_only() {
        let count = AtomicU32::new(0);
        let make = move || Ok(format!("text {}\n", count.fetch_add(1, Ordering::Relaxed)).into());
        let ops = Arc::new(TextFile::new(Box::new(make), Errno::EIO));
        let file = OpenFile::new(ops, OpenFlags::empty());
        let mut half = [0; 3];
        let read = |buf: &mut [u8]| file.ops.read(&file, &mut Sink::kernel(buf));
        assert_eq!(read(&mut half), Ok(3));
        let mut rest = [0; 16];
        assert_eq!(read(&mut rest), Ok(4));
        assert_eq!(&rest[..4], b"t 0\n");
        assert_eq!(file.ops.seek(&file, 0, 0), Ok(0));
        assert_eq!(read(&mut rest), Ok(7));
        assert_eq!(&rest[..7], b"text 1\n");
    }

    #[test]
    fn numbers_are_whole() {
        assert_eq!(number(b" -17\n"), Ok(-17));
        assert_eq!(number(b"0x10"), Ok(16));
        for bad in [&b""[..], b"x", b"1x", b"--1", b"- 1", b"\xff"] {
            assert_eq!(number(bad), Err(Errno::EINVAL));
        }
    }
}
