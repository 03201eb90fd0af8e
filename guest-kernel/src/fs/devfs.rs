//! /dev: a tmpfs with the usual nodes, and the memory devices behind them (null(4), full(4),
//! random(4)). Terminals register their own numbers.

use std::{
    any::Any,
    sync::{Arc, Weak},
};

use super::{
    buf::{Sink, Source},
    dentry::{Dentry, Path},
    device::{Device, makedev},
    file::{FileOps, OpenFile},
    flags::OpenFlags,
    inode::{Actor, NewNode, mode},
    tmpfs::TmpFs,
};
use crate::{
    error::{Errno, Stop},
    host::Host,
    kernel::Kernel,
    mm::{object::MemObject, store::PageStore},
    platform::PAGE_SIZE,
};

const MEM: u32 = 1;

/// One of the memory devices, major 1.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Zero,
    Full,
    Random,
}

struct Memory {
    kind: Kind,
    host: Arc<dyn Host>,
    kernel: Weak<Kernel>,
}

impl Device for Memory {
    fn open(
        &self,
        _who: &Actor,
        _path: &Path,
        _rdev: u64,
        _flags: OpenFlags,
    ) -> Result<Arc<dyn FileOps>, Stop> {
        let (host, kernel) = (self.host.clone(), self.kernel.clone());
        Ok(Arc::new(Memory { kind: self.kind, host, kernel }))
    }
}

impl FileOps for Memory {
    fn read(&self, _file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        if self.kind == Kind::Null {
            return Ok(0);
        }
        const ZERO: &[u8; 4096] = &[0; 4096];
        let mut done = 0;
        while dst.left() > 0 {
            let want = dst.left().min(ZERO.len());
            let put = if self.kind == Kind::Random {
                let mut chunk = [0; 4096];
                self.host.random(&mut chunk[..want]);
                dst.put(&chunk[..want])
            } else {
                dst.put(&ZERO[..want])
            };
            match put {
                Ok(n) => {
                    done += n;
                    if n < want {
                        break;
                    }
                }
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }
    fn write(&self, _file: &OpenFile, src: &mut Source<'_>) -> Result<usize, Errno> {
        if self.kind == Kind::Full {
            return Err(Errno::ENOSPC);
        }
        let all = src.left();
        src.skip(all);
        Ok(all)
    }
    fn read_at(&self, file: &OpenFile, dst: &mut Sink<'_>, _at: u64) -> Result<usize, Errno> {
        self.read(file, dst)
    }
    fn write_at(&self, file: &OpenFile, src: &mut Source<'_>, _at: u64) -> Result<usize, Errno> {
        self.write(file, src)
    }
    /// A mapping of `/dev/zero` is memory of its own: each gets a fresh object.
    fn object(&self) -> Result<Arc<dyn MemObject>, Errno> {
        if self.kind != Kind::Zero {
            return Err(Errno::ENODEV);
        }
        let kernel = self.kernel.upgrade().ok_or(Errno::ENODEV)?;
        let len = i64::MAX.cast_unsigned() & !(PAGE_SIZE - 1);
        Ok(PageStore::new(kernel.fresh_id(), &kernel.frames, len, None))
    }
    fn seek(&self, _file: &OpenFile, _offset: i64, _whence: u32) -> Result<u64, Errno> {
        Ok(0)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Registers the memory devices and makes the tree for /dev.
///
/// # Errors
/// ENOSPC.
pub fn create(kernel: &Arc<Kernel>, who: &Actor) -> Result<Arc<Dentry>, Errno> {
    const NODES: [(&[u8], u32, u32, u32); 8] = [
        (b"null", MEM, 3, 0o666),
        (b"zero", MEM, 5, 0o666),
        (b"full", MEM, 7, 0o666),
        (b"random", MEM, 8, 0o666),
        (b"urandom", MEM, 9, 0o666),
        (b"tty", 5, 0, 0o666),
        (b"console", 5, 1, 0o600),
        (b"ptmx", 5, 2, 0o666),
    ];
    const LINKS: [(&[u8], &[u8]); 4] = [
        (b"fd", b"/proc/self/fd"),
        (b"stdin", b"/proc/self/fd/0"),
        (b"stdout", b"/proc/self/fd/1"),
        (b"stderr", b"/proc/self/fd/2"),
    ];
    let kinds =
        [(3, Kind::Null), (5, Kind::Zero), (7, Kind::Full), (8, Kind::Random), (9, Kind::Random)];
    for (minor, kind) in kinds {
        let (host, kernel_ref) = (kernel.host.clone(), Arc::downgrade(kernel));
        let device = Arc::new(Memory { kind, host, kernel: kernel_ref });
        kernel.fs.devices.register(MEM, minor, device);
    }
    let root = TmpFs::create(kernel, "devtmpfs", 1 << 20, 0o755);
    let dir = root.inode();
    let node = |bits, rdev, target: &[u8]| NewNode {
        mode: bits,
        uid: 0,
        gid: 0,
        rdev,
        target: target.to_vec(),
    };
    for (name, major, minor, perm) in NODES {
        dir.create(who, name, &node(mode::CHR | perm, makedev(major, minor), b""))?;
    }
    for (name, target) in LINKS {
        dir.create(who, name, &node(mode::LNK | 0o777, 0, target))?;
    }
    for name in [b"shm".as_slice(), b"pts", b"mqueue"] {
        dir.create(who, name, &node(mode::DIR | 0o755, 0, b""))?;
    }
    Ok(root)
}
