//! The monitor's console: a terminal whose master is the user's own.

use std::sync::Arc;

use super::{Tty, WinSize};
use crate::{
    error::Errno,
    fs::{
        file::{OpenFile, OpenFlags},
        inode::{Actor, SetAttr},
    },
    kernel::Kernel,
    task::Task,
    wait::WaitQueue,
};

/// See the module. Dropping it hangs the terminal up.
pub struct Console {
    tty: Arc<Tty>,
}

impl Console {
    /// A console, `/dev/pts/0` if it is the first terminal.
    ///
    /// # Errors
    /// ENOSPC if there are too many terminals.
    pub fn new(kernel: &Arc<Kernel>) -> Result<Console, Errno> {
        let tty = Tty::new(kernel, 0)?;
        let device = Arc::new(super::pty::ConsoleDevice(Arc::downgrade(&tty)));
        kernel.fs.devices.register(5, 1, device);
        Ok(Console { tty })
    }
    /// What the user typed.
    pub fn input(&self, bytes: &[u8]) {
        self.tty.type_in(bytes);
    }
    /// What the user is to see, taken.
    #[must_use]
    pub fn take_output(&self) -> Vec<u8> {
        let bytes = self.tty.state().line.take_output(usize::MAX);
        if !bytes.is_empty() {
            self.tty.queue.wake();
        }
        bytes
    }
    /// Woken when there is output to take.
    #[must_use]
    pub fn output_queue(&self) -> Arc<WaitQueue> {
        self.tty.master.clone()
    }
    /// The user's window changed.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size: WinSize = [rows, columns, 0, 0];
        self.tty.resize(size);
    }
    /// A description for the first program's standard streams; the program, `who`, owns the
    /// terminal from now on.
    ///
    /// # Errors
    /// EIO once hung up.
    pub fn file(&self, who: &Actor) -> Result<Arc<OpenFile>, Errno> {
        let owner = SetAttr { uid: Some(who.creds.fsuid), ..SetAttr::default() };
        self.tty.set_attr(&owner)?;
        super::pty::open_peer(who, &self.tty, OpenFlags::RDWR)
    }
    /// Makes it the controlling terminal of `task`, which leads a session.
    ///
    /// # Errors
    /// EPERM if the task leads none or has a terminal.
    pub fn control(&self, task: &Arc<Task>) -> Result<(), Errno> {
        self.tty.control(task, true)
    }
    /// The user's terminal is gone.
    pub fn hang_up(&self) {
        self.tty.hang_up();
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.tty.hang_up();
    }
}
