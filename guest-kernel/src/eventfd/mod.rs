//! Event counters (eventfd(2)).

use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    error::Errno,
    fs::{
        buf::{Sink, Source},
        file::{FileOps, OpenFile, Ready},
    },
    wait::WaitQueue,
};

/// A counter that reads and writes as a file.
pub struct EventFd {
    count: Mutex<u64>,
    semaphore: bool,
    queue: Arc<WaitQueue>,
}

/// The largest count a write may reach.
const MAX: u64 = u64::MAX - 1;

impl EventFd {
    /// A counter at `initial`; with `semaphore`, reads take one at a time.
    #[must_use]
    pub fn new(initial: u64, semaphore: bool) -> Arc<EventFd> {
        Arc::new(EventFd { count: Mutex::new(initial), semaphore, queue: WaitQueue::new() })
    }
    /// The count (for `/proc/PID/fdinfo`).
    pub fn count(&self) -> u64 {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileOps for EventFd {
    fn read(&self, _file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        if dst.left() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if *count == 0 {
            return Err(Errno::EAGAIN);
        }
        let value = if self.semaphore { 1 } else { *count };
        *count -= value;
        drop(count);
        self.queue.wake_for(Ready::OUT);
        dst.put(&value.to_ne_bytes())
    }
    fn write(&self, _file: &OpenFile, src: &mut Source<'_>) -> Result<usize, Errno> {
        if src.left() != 8 {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; 8];
        let before = src.left();
        if src.take(&mut bytes)? < 8 {
            return Err(Errno::EFAULT);
        }
        let value = u64::from_ne_bytes(bytes);
        if value == u64::MAX {
            return Err(Errno::EINVAL);
        }
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if MAX - *count < value {
            return Err(Errno::EAGAIN);
        }
        *count += value;
        drop(count);
        self.queue.wake_for(Ready::IN);
        Ok(before - src.left())
    }
    fn poll(&self, _file: &OpenFile) -> Ready {
        let count = self.count();
        let mut ready = Ready::empty();
        if count > 0 {
            ready |= Ready::IN;
        }
        if count < MAX {
            ready |= Ready::OUT;
        }
        if count == u64::MAX {
            ready |= Ready::ERR;
        }
        ready
    }
    fn queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.queue.clone())
    }
    fn seek(&self, _file: &OpenFile, _offset: i64, _whence: u32) -> Result<u64, Errno> {
        // `noop_llseek()`.
        Ok(0)
    }
    fn positioned(&self) -> bool {
        false
    }
    fn describe(&self) -> String {
        "anon_inode:[eventfd]".to_owned()
    }
    fn fdinfo(&self, _file: &OpenFile) -> String {
        format!(
            "eventfd-count: {:16x}\neventfd-semaphore: {}\n",
            self.count(),
            u8::from(self.semaphore)
        )
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::file::OpenFlags;

    #[test]
    fn counts_saturate_and_semaphores_take_one() {
        let file = OpenFile::new(EventFd::new(2, true), OpenFlags::RDWR);
        let mut buf = [0; 8];
        assert_eq!(file.ops.read(&file, &mut Sink::kernel(&mut buf)), Ok(8));
        assert_eq!(u64::from_ne_bytes(buf), 1);
        let near = (MAX - 1).to_ne_bytes();
        assert_eq!(file.ops.write(&file, &mut Source::kernel(&near)), Ok(8));
        assert_eq!(file.ops.poll(&file), Ready::IN);
        let one = 1u64.to_ne_bytes();
        assert_eq!(file.ops.write(&file, &mut Source::kernel(&one)), Err(Errno::EAGAIN));
        let bad = u64::MAX.to_ne_bytes();
        assert_eq!(file.ops.write(&file, &mut Source::kernel(&bad)), Err(Errno::EINVAL));
        assert_eq!(file.ops.write(&file, &mut Source::kernel(&[1; 4])), Err(Errno::EINVAL));
        assert_eq!(file.ops.read(&file, &mut Sink::kernel(&mut [0; 4])), Err(Errno::EINVAL));
    }
}
