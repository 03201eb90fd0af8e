//! Where a read puts its bytes and where a write takes them: guest iovecs or a kernel buffer.
//!
//! Each byte of guest memory is copied once. A fault after some bytes were moved ends the transfer
//! with what was moved, as Linux does.

use crate::{error::Errno, mm::Mm};

enum Place<'a, K> {
    User { mm: &'a Mm, segments: Vec<(u64, usize)>, at: usize, offset: usize },
    Kernel { bytes: K, at: usize },
}

impl<K> Place<'_, K> {
    /// Address and length of the next contiguous guest piece, at most `max` bytes.
    fn piece(
        segments: &[(u64, usize)],
        at: usize,
        offset: usize,
        max: usize,
    ) -> Option<(u64, usize)> {
        let (base, len) = segments.get(at)?;
        Some((base + offset as u64, (len - offset).min(max)))
    }
    fn user_left(segments: &[(u64, usize)], at: usize, offset: usize) -> usize {
        segments[at.min(segments.len())..].iter().map(|s| s.1).sum::<usize>() - offset
    }
    fn advance(segments: &[(u64, usize)], at: &mut usize, offset: &mut usize, by: usize) {
        *offset += by;
        while *at < segments.len() && *offset >= segments[*at].1 {
            *offset -= segments[*at].1;
            *at += 1;
        }
    }
}

/// A read's destination.
pub struct Sink<'a>(Place<'a, &'a mut [u8]>);

/// A write's source.
pub struct Source<'a>(Place<'a, &'a [u8]>);

impl<'a> Sink<'a> {
    /// Guest memory: (address, length) pieces, already checked against the address-space limit.
    #[must_use]
    pub fn user(mm: &'a Mm, segments: Vec<(u64, usize)>) -> Sink<'a> {
        let mut sink = Sink(Place::User { mm, segments, at: 0, offset: 0 });
        sink.skip(0);
        sink
    }
    /// A kernel buffer.
    pub fn kernel(bytes: &'a mut [u8]) -> Sink<'a> {
        Sink(Place::Kernel { bytes, at: 0 })
    }
    /// Bytes of room left.
    #[must_use]
    pub fn left(&self) -> usize {
        match &self.0 {
            Place::User { segments, at, offset, .. } => {
                Place::<()>::user_left(segments, *at, *offset)
            }
            Place::Kernel { bytes, at } => bytes.len() - at,
        }
    }
    /// Moves past `by` bytes without writing them.
    pub fn skip(&mut self, by: usize) {
        match &mut self.0 {
            Place::User { segments, at, offset, .. } => {
                Place::<()>::advance(segments, at, offset, by);
            }
            Place::Kernel { bytes, at } => *at = (*at + by).min(bytes.len()),
        }
    }
    /// Stores as much of `src` as there is room for; the count.
    ///
    /// # Errors
    /// EFAULT if not one byte could be stored and some should have been.
    pub fn put(&mut self, src: &[u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < src.len() {
            let n = match &mut self.0 {
                Place::Kernel { bytes, at } => {
                    let n = (bytes.len() - *at).min(src.len() - done);
                    bytes[*at..*at + n].copy_from_slice(&src[done..done + n]);
                    n
                }
                Place::User { mm, segments, at, offset } => {
                    match Place::<()>::piece(segments, *at, *offset, src.len() - done) {
                        None => 0,
                        Some((addr, n)) => match mm.write_partial(addr, &src[done..done + n]) {
                            0 if done == 0 => return Err(Errno::EFAULT),
                            n => n,
                        },
                    }
                }
            };
            if n == 0 {
                break;
            }
            self.skip(n);
            done += n;
        }
        Ok(done)
    }
}

impl<'a> Source<'a> {
    /// Guest memory: (address, length) pieces, already checked against the address-space limit.
    #[must_use]
    pub fn user(mm: &'a Mm, segments: Vec<(u64, usize)>) -> Source<'a> {
        let mut source = Source(Place::User { mm, segments, at: 0, offset: 0 });
        source.skip(0);
        source
    }
    /// A kernel buffer.
    #[must_use]
    pub fn kernel(bytes: &'a [u8]) -> Source<'a> {
        Source(Place::Kernel { bytes, at: 0 })
    }
    /// Bytes left.
    #[must_use]
    pub fn left(&self) -> usize {
        match &self.0 {
            Place::User { segments, at, offset, .. } => {
                Place::<()>::user_left(segments, *at, *offset)
            }
            Place::Kernel { bytes, at } => bytes.len() - at,
        }
    }
    /// Moves past `by` bytes without reading them.
    pub fn skip(&mut self, by: usize) {
        match &mut self.0 {
            Place::User { segments, at, offset, .. } => {
                Place::<()>::advance(segments, at, offset, by);
            }
            Place::Kernel { bytes, at } => *at = (*at + by).min(bytes.len()),
        }
    }
    /// Fetches up to `dst.len()` bytes; the count.
    ///
    /// # Errors
    /// EFAULT if not one byte could be fetched and some should have been.
    pub fn take(&mut self, dst: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < dst.len() {
            let n = match &mut self.0 {
                Place::Kernel { bytes, at } => {
                    let n = (bytes.len() - *at).min(dst.len() - done);
                    dst[done..done + n].copy_from_slice(&bytes[*at..*at + n]);
                    n
                }
                Place::User { mm, segments, at, offset } => {
                    match Place::<()>::piece(segments, *at, *offset, dst.len() - done) {
                        None => 0,
                        Some((addr, n)) => match mm.read_partial(addr, &mut dst[done..done + n]) {
                            0 if done == 0 => return Err(Errno::EFAULT),
                            n => n,
                        },
                    }
                }
            };
            if n == 0 {
                break;
            }
            self.skip(n);
            done += n;
        }
        Ok(done)
    }
}
