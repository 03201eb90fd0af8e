//! The monitor's standard streams as guest files.
//!
//! A host pipe or socket must never block the kernel and its flags are shared with whoever started
//! us, so O_NONBLOCK is not an option: readiness is asked first (poll with no time-out), and one
//! watcher thread (epoll, one-shot) wakes the queue once a stream that was not ready becomes so.

use std::{
    any::Any,
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, epoll, poll},
    fs,
};
use trapgate_kernel::{
    error::Errno,
    fs::{
        buf::{Sink, Source},
        file::{FileOps, OpenFile, OpenFlags, Ready},
        inode::Attr,
    },
    host::HostStat,
    wait::WaitQueue,
};

use super::errno;

/// Bytes of one transfer; a pipe that polls writable takes this much without blocking
/// (PIPE_BUF, pipe(7)).
const CHUNK: usize = 4096;
/// Device number of /dev/null.
const NULL: u64 = 0x103;

/// What guests are told of the streams, where not what the host says.
#[derive(Clone, Copy, Default, Debug)]
pub struct Shown {
    /// Their inode numbers are their own, not those of whatever the host has there this time.
    pub numbered: bool,
    /// All their times.
    pub times: Option<Duration>,
}

/// The watcher behind all streams of a VM.
pub struct Streams {
    shown: Shown,
    epoll: OwnedFd,
    queues: Mutex<HashMap<u64, Arc<WaitQueue>>>,
}

impl Streams {
    /// Starts the watcher thread; it lives as long as the process.
    ///
    /// # Errors
    /// The host's error.
    pub fn new(shown: Shown) -> io::Result<Arc<Streams>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let streams = Arc::new(Streams { shown, epoll, queues: Mutex::default() });
        let watcher = streams.clone();
        std::thread::Builder::new().name("streams".into()).spawn(move || watcher.watch())?;
        Ok(streams)
    }

    /// Standard stream `number` (0 to 2) as a guest file; `None` if it is closed.
    #[must_use]
    pub fn open(self: &Arc<Self>, number: u8) -> Option<Arc<OpenFile>> {
        if super::closed::at_start(number) {
            return None;
        }
        let fd = match number {
            0 => io::stdin().as_fd().try_clone_to_owned(),
            1 => io::stdout().as_fd().try_clone_to_owned(),
            _ => io::stderr().as_fd().try_clone_to_owned(),
        }
        .ok()?;
        let status = fs::fcntl_getfl(&fd).ok()?;
        let bits = status.bits() & 0o2_000_003;
        let flags = OpenFlags::from_bits_truncate(bits | (status.bits() & 0o2000));
        let regular =
            fs::fstat(&fd).is_ok_and(|raw| fs::FileType::from_raw_mode(raw.st_mode).is_file());
        let queue = WaitQueue::new();
        let key = u64::from(number);
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).insert(key, queue.clone());
        let watched = !regular && {
            let flags = epoll::EventFlags::ONESHOT;
            epoll::add(&self.epoll, &fd, epoll::EventData::new_u64(key), flags).is_ok()
        };
        let stream = Stream { fd, key, queue, regular, watched, streams: self.clone() };
        Some(OpenFile::new(Arc::new(stream), flags))
    }

    fn watch(&self) {
        let mut events = Vec::with_capacity(8);
        loop {
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            if epoll::wait(&self.epoll, spare, None).is_err() {
                continue;
            }
            for event in &events {
                let key = event.data.u64();
                let queue = {
                    let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
                    queues.get(&key).cloned()
                };
                if let Some(queue) = queue {
                    queue.wake();
                }
            }
        }
    }
}

struct Stream {
    fd: OwnedFd,
    key: u64,
    queue: Arc<WaitQueue>,
    regular: bool,
    watched: bool,
    streams: Arc<Streams>,
}

impl Stream {
    fn now(&self, flags: PollFlags) -> PollFlags {
        let mut fds = [PollFd::new(&self.fd, flags)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(_) => fds[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }
    fn is_ready(&self, flags: PollFlags) -> bool {
        // POLLERR and POLLHUP count: the call will then say what is wrong.
        self.regular || !self.now(flags).is_empty() || !self.watched
    }
    /// What the host knows of it, as guests are told.
    fn stat(&self) -> Result<HostStat, Errno> {
        let mut stat = super::stat(&fs::fstat(&self.fd).map_err(errno)?);
        let shown = self.streams.shown;
        if shown.numbered {
            stat.ino = self.key + 1;
        }
        if let Some(time) = shown.times {
            (stat.atime, stat.mtime, stat.ctime) = (time, time, time);
        }
        Ok(stat)
    }
    /// Asks to be woken once `flags` holds.
    fn arm(&self, flags: epoll::EventFlags) {
        let flags = flags | epoll::EventFlags::ONESHOT;
        let data = epoll::EventData::new_u64(self.key);
        // The descriptor was added when the stream was opened; this cannot fail.
        let _ = epoll::modify(&self.streams.epoll, &self.fd, data, flags);
    }
}

impl FileOps for Stream {
    fn read(&self, _file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        if dst.left() == 0 {
            return Ok(0);
        }
        if !self.is_ready(PollFlags::IN) {
            self.arm(epoll::EventFlags::IN);
            if !self.is_ready(PollFlags::IN) {
                return Err(Errno::EAGAIN);
            }
        }
        let mut buffer = vec![0; dst.left().min(64 << 10)];
        let n = rustix::io::read(&self.fd, &mut buffer).map_err(errno)?;
        dst.put(&buffer[..n])
    }
    fn write(&self, _file: &OpenFile, src: &mut Source<'_>) -> Result<usize, Errno> {
        let mut done = 0;
        let mut buffer = [0; CHUNK];
        while src.left() > 0 {
            if !self.is_ready(PollFlags::OUT) {
                self.arm(epoll::EventFlags::OUT);
                if !self.is_ready(PollFlags::OUT) {
                    break;
                }
            }
            let n = src.take(&mut buffer)?;
            let mut sent = 0;
            while sent < n {
                match rustix::io::write(&self.fd, &buffer[sent..n]) {
                    Ok(more) => sent += more,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) if done + sent > 0 => return Ok(done + sent),
                    Err(error) => return Err(errno(error)),
                }
            }
            done += n;
        }
        if done == 0 && src.left() > 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }
    fn read_at(&self, _file: &OpenFile, dst: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        let mut buffer = vec![0; dst.left().min(64 << 10)];
        let n = rustix::io::pread(&self.fd, &mut buffer, offset).map_err(errno)?;
        dst.put(&buffer[..n])
    }
    fn write_at(
        &self,
        _file: &OpenFile,
        src: &mut Source<'_>,
        offset: u64,
    ) -> Result<usize, Errno> {
        let mut buffer = vec![0; src.left().min(64 << 10)];
        let n = src.take(&mut buffer)?;
        rustix::io::pwrite(&self.fd, &buffer[..n], offset).map_err(errno)
    }
    fn seek(&self, _file: &OpenFile, offset: i64, whence: u32) -> Result<u64, Errno> {
        let to = match whence {
            0 => fs::SeekFrom::Start(u64::try_from(offset).map_err(|_| Errno::EINVAL)?),
            1 => fs::SeekFrom::Current(offset),
            2 => fs::SeekFrom::End(offset),
            _ => return Err(Errno::EINVAL),
        };
        fs::seek(&self.fd, to).map_err(errno)
    }
    fn poll(&self, _file: &OpenFile) -> Ready {
        if self.regular || !self.watched {
            return Ready::IN | Ready::OUT | Ready::RDNORM | Ready::WRNORM;
        }
        let now = self.now(PollFlags::IN | PollFlags::OUT);
        let mut missing = epoll::EventFlags::empty();
        missing.set(epoll::EventFlags::IN, !now.contains(PollFlags::IN));
        missing.set(epoll::EventFlags::OUT, !now.contains(PollFlags::OUT));
        if !missing.is_empty() && !now.intersects(PollFlags::HUP | PollFlags::ERR) {
            self.arm(missing);
        }
        let mut ready = Ready::empty();
        ready.set(Ready::IN | Ready::RDNORM, now.contains(PollFlags::IN));
        ready.set(Ready::OUT | Ready::WRNORM, now.contains(PollFlags::OUT));
        ready.set(Ready::HUP, now.contains(PollFlags::HUP));
        ready.set(Ready::ERR, now.contains(PollFlags::ERR));
        ready
    }
    fn queue(&self) -> Option<Arc<WaitQueue>> {
        (!self.regular).then(|| self.queue.clone())
    }
    fn attr(&self, _file: &OpenFile) -> Result<Attr, Errno> {
        let raw = self.stat()?;
        Ok(Attr {
            dev: raw.dev,
            ino: raw.ino,
            mode: raw.mode,
            nlink: raw.nlink,
            uid: raw.uid,
            gid: raw.gid,
            rdev: raw.rdev,
            size: raw.size,
            blocks: raw.blocks,
            blksize: 4096,
            atime: raw.atime,
            mtime: raw.mtime,
            ctime: raw.ctime,
            ..Attr::default()
        })
    }
    fn describe(&self) -> String {
        let stat = self.stat().ok();
        let kind = stat.map(|s| fs::FileType::from_raw_mode(s.mode));
        let number = stat.map_or(self.key, |s| s.ino);
        match kind {
            Some(fs::FileType::Fifo) => format!("pipe:[{number}]"),
            Some(fs::FileType::Socket) => format!("socket:[{number}]"),
            Some(fs::FileType::CharacterDevice) if stat.is_some_and(|s| s.rdev == NULL) => {
                "/dev/null".to_owned()
            }
            // A file of the host's has no name the guest could use.
            _ => format!("host:[{}]", self.key),
        }
    }
    /// The same stream once more: its position is the host's and stays shared, and a file is not
    /// truncated.
    fn reopen(&self, file: &OpenFile, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        let reads = !flags.contains(OpenFlags::WRONLY);
        let writes = flags.intersects(OpenFlags::WRONLY | OpenFlags::RDWR);
        if (reads && !file.readable()) || (writes && !file.writable()) {
            return Err(Errno::EACCES);
        }
        Ok(file.ops.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
