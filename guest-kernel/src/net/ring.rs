//! A byte ring that grows to a limit: the store behind every stream and datagram queue.

use crate::{
    error::Errno,
    fs::buf::{Sink, Source},
};

/// First allocation.
const FIRST: usize = 4096;

/// Bytes in order. The capacity is a power of two and grows on demand.
#[derive(Default)]
pub struct Ring {
    bytes: Box<[u8]>,
    head: usize,
    len: usize,
}

impl Ring {
    /// Bytes stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }
    /// Nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    fn mask(&self) -> usize {
        self.bytes.len().wrapping_sub(1)
    }
    fn reserve(&mut self, more: usize) {
        let need = self.len + more;
        if need <= self.bytes.len() {
            return;
        }
        let mut grown = vec![0; need.next_power_of_two().max(FIRST)].into_boxed_slice();
        let (a, b) = self.stored(0, self.len);
        grown[..a.len()].copy_from_slice(a);
        grown[a.len()..a.len() + b.len()].copy_from_slice(b);
        self.bytes = grown;
        self.head = 0;
    }
    /// The `len` bytes from the `from`th on, as at most two pieces.
    fn stored(&self, from: usize, len: usize) -> (&[u8], &[u8]) {
        if self.bytes.is_empty() || len == 0 {
            return (&[], &[]);
        }
        let start = (self.head + from) & self.mask();
        let first = len.min(self.bytes.len() - start);
        (&self.bytes[start..start + first], &self.bytes[..len - first])
    }
    /// Appends up to `max` bytes of `src`; the count.
    ///
    /// # Errors
    /// EFAULT if nothing could be read.
    pub fn fill(&mut self, src: &mut Source<'_>, max: usize) -> Result<usize, Errno> {
        let want = src.left().min(max);
        self.reserve(want);
        let mut done = 0;
        while done < want {
            let start = (self.head + self.len) & self.mask();
            let piece = (want - done).min(self.bytes.len() - start);
            match src.take(&mut self.bytes[start..start + piece]) {
                Ok(0) => break,
                Ok(n) => {
                    self.len += n;
                    done += n;
                    if n < piece {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }
    /// Copies up to `max` of the stored bytes from the `from`th on to `dst`; the count.
    ///
    /// # Errors
    /// EFAULT if nothing could be written.
    pub fn copy(&self, dst: &mut Sink<'_>, from: usize, max: usize) -> Result<usize, Errno> {
        let (a, b) = self.stored(from, max.min(self.len - from.min(self.len)));
        let first = dst.put(a)?;
        if first < a.len() || b.is_empty() {
            return Ok(first);
        }
        Ok(first + dst.put(b).unwrap_or(0))
    }
    /// Drops the first `count` bytes; an emptied ring that had grown gives its memory back.
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.len);
        self.len -= count;
        if self.len == 0 {
            self.head = 0;
            if self.bytes.len() > 1 << 17 {
                self.bytes = Box::default();
            }
        } else {
            self.head = (self.head + count) & self.mask();
        }
    }
    /// Drops the last `count` bytes (a datagram whose copy failed half-way).
    pub fn retract(&mut self, count: usize) {
        self.len -= count.min(self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_and_grows() {
        let mut ring = Ring::default();
        let mut expect = std::collections::VecDeque::new();
        let mut next = 0u8;
        for round in 0..200usize {
            let chunk: Vec<u8> = (0..round * 37 % 5000)
                .map(|_| {
                    next = next.wrapping_add(1);
                    next
                })
                .collect();
            expect.extend(&chunk);
            assert_eq!(ring.fill(&mut Source::kernel(&chunk), usize::MAX), Ok(chunk.len()));
            let take = round * 53 % 4000;
            let mut out = vec![0; take];
            let n = ring.copy(&mut Sink::kernel(&mut out), 0, take).expect("kernel memory");
            ring.consume(n);
            assert_eq!(out[..n].to_vec(), expect.drain(..n).collect::<Vec<_>>());
            assert_eq!(ring.len(), expect.len());
        }
    }
}
