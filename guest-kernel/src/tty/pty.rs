//! The master's side as a file (pty(7)), and the devices that open terminals.

use std::{
    any::Any,
    sync::{Arc, Weak},
};

use super::Tty;
use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, Stop, SysResult},
    fs::{
        buf::{Sink, Source},
        dentry::Path,
        device::{Device, minor},
        file::{FileOps, OpenFile, OpenFlags, Ready},
        inode::{Actor, Attr, mode},
        vfs,
    },
    kernel::Kernel,
    wait::WaitQueue,
};

/// A master, opened by `/dev/ptmx`.
pub struct Master {
    /// The terminal.
    pub tty: Arc<Tty>,
}

impl Master {
    /// posix_openpt(3): a new terminal, locked.
    ///
    /// # Errors
    /// ENOSPC.
    pub fn open(kernel: &Arc<Kernel>, uid: u32) -> Result<Arc<Master>, Errno> {
        let tty = Tty::new(kernel, uid)?;
        tty.set_locked(true);
        Ok(Arc::new(Master { tty }))
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.tty.hang_up();
    }
}

impl FileOps for Master {
    fn positioned(&self) -> bool {
        false
    }
    fn read(&self, _file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        let bytes = {
            let mut state = self.tty.state();
            let gone = state.opened && state.opens == 0;
            let bytes = state.line.take_output(dst.left());
            if bytes.is_empty() && dst.left() > 0 {
                return Err(if gone { Errno::EIO } else { Errno::EAGAIN });
            }
            bytes
        };
        self.tty.queue.wake_for(Ready::OUT | Ready::WRNORM);
        dst.put(&bytes)
    }
    fn write(&self, _file: &OpenFile, src: &mut Source<'_>) -> Result<usize, Errno> {
        let mut done = 0;
        while src.left() > 0 {
            let mut chunk = [0; 1024];
            let got = match src.take(&mut chunk) {
                Ok(n) => n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            };
            if got == 0 {
                break;
            }
            self.tty.type_in(&chunk[..got]);
            done += got;
        }
        Ok(done)
    }
    fn poll(&self, _file: &OpenFile) -> Ready {
        let state = self.tty.state();
        let mut ready = Ready::OUT | Ready::WRNORM;
        if state.line.output_len() > 0 {
            ready |= Ready::IN | Ready::RDNORM;
        }
        if state.opened && state.opens == 0 {
            ready |= Ready::HUP;
        }
        ready
    }
    fn queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.tty.master.clone())
    }
    fn attr(&self, _file: &OpenFile) -> Result<Attr, Errno> {
        let rdev = crate::fs::device::makedev(5, 2);
        Ok(Attr { mode: mode::CHR | 0o666, rdev, nlink: 1, blksize: 1024, ..Attr::default() })
    }
    fn describe(&self) -> String {
        "/dev/ptmx".to_owned()
    }
    fn ioctl(&self, cx: &mut Cx<'_>, _file: &OpenFile, command: u32, arg: u64) -> SysResult {
        crate::linux::sys::tty::ioctl(cx, &self.tty, true, command, arg)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `/dev/pts/N`.
pub struct SlaveDevice;

impl Device for SlaveDevice {
    fn open(
        &self,
        who: &Actor,
        _path: &Path,
        rdev: u64,
        flags: OpenFlags,
    ) -> Result<Arc<dyn FileOps>, Stop> {
        let tty = who.kernel.ttys.get(minor(rdev)).ok_or(Errno::EIO)?;
        let slave = tty.open_slave(who.creds.capable(cap::SYS_ADMIN))?;
        if let Some(task) = &who.task
            && !flags.contains(OpenFlags::NOCTTY)
        {
            // A leader without a terminal gets this one; anybody else just opens it.
            let _ = tty.control(task, false);
        }
        Ok(slave)
    }
}

/// `/dev/ptmx`.
struct MasterDevice;

impl Device for MasterDevice {
    fn open(
        &self,
        who: &Actor,
        _path: &Path,
        _rdev: u64,
        _flags: OpenFlags,
    ) -> Result<Arc<dyn FileOps>, Stop> {
        Ok(Master::open(&who.kernel, who.creds.fsuid)?)
    }
}

/// `/dev/tty`: the caller's controlling terminal.
struct OwnDevice;

impl Device for OwnDevice {
    fn open(
        &self,
        who: &Actor,
        _path: &Path,
        _rdev: u64,
        _flags: OpenFlags,
    ) -> Result<Arc<dyn FileOps>, Stop> {
        let task = who.task.as_ref().ok_or(Errno::ENXIO)?;
        let terminal = who.kernel.tasks.terminal(task.process.sid()).ok_or(Errno::ENXIO)?;
        Ok(terminal.file())
    }
}

/// Opens the program's side of `tty` by its node, or without one where no /dev/pts is mounted.
///
/// # Errors
/// EIO if it is locked or hung up, EBUSY if it is exclusive.
pub fn open_peer(who: &Actor, tty: &Arc<Tty>, flags: OpenFlags) -> Result<Arc<OpenFile>, Errno> {
    let name = format!("/dev/pts/{}", tty.index);
    let place = vfs::find(who, &who.fs.root(), name.as_bytes(), true);
    let place = place.ok().filter(|p| p.attr().is_ok_and(|a| a.rdev == tty.number()));
    let slave = tty.open_slave(true)?;
    Ok(match place {
        Some(place) => OpenFile::at(slave, place, flags),
        None => OpenFile::new(slave, flags),
    })
}

/// `/dev/console`, where the monitor has one.
pub(super) struct ConsoleDevice(pub(super) Weak<Tty>);

impl Device for ConsoleDevice {
    fn open(
        &self,
        who: &Actor,
        _path: &Path,
        _rdev: u64,
        flags: OpenFlags,
    ) -> Result<Arc<dyn FileOps>, Stop> {
        let tty = self.0.upgrade().ok_or(Errno::EIO)?;
        let slave = tty.open_slave(true)?;
        if let Some(task) = &who.task
            && !flags.contains(OpenFlags::NOCTTY)
        {
            // As for /dev/pts/N.
            let _ = tty.control(task, false);
        }
        Ok(slave)
    }
}

/// Registers `/dev/tty` (5:0) and `/dev/ptmx` (5:2).
pub fn register(kernel: &Arc<Kernel>) {
    kernel.fs.devices.register(5, 0, Arc::new(OwnDevice));
    kernel.fs.devices.register(5, 2, Arc::new(MasterDevice));
}
