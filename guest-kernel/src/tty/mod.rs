//! Terminals (tty(4), pty(7)): a line discipline between a program's side and a master's side.
//!
//! Every terminal is a pseudo-terminal. The master is a file (`/dev/ptmx`) or the monitor's
//! [`Console`]. Neighbours: `line` edits, `task::table` knows which terminal a session has,
//! `linux::sys::tty` decodes ioctl(2).
//!
//! Locks: a terminal's state is not held while signals are sent or queues woken.

pub mod console;
pub mod line;
pub mod pty;
pub mod termios;

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

pub use self::console::Console;
use self::{
    line::{Event, Line},
    termios::Local,
};
use crate::{
    call::Cx,
    error::{Errno, Restart, Stop, SysResult, Wait},
    fs::{
        buf::{Sink, Source},
        device::makedev,
        devpts,
        file::{FileOps, OpenFile, Ready},
        inode::{Attr, SetAttr, mode},
    },
    kernel::Kernel,
    signal::{
        SigFields, SigInfo, Signal,
        number::{SIGCONT, SIGHUP, SIGTTIN, SIGTTOU, SIGWINCH},
        send::send_group,
    },
    task::{Task, Tid, table::Terminal},
    wait::WaitQueue,
};

/// Major number of pseudo-terminal slaves.
pub const PTS_MAJOR: u32 = 136;
/// Group of terminals (`tty`, whose number is 5 wherever it matters).
const TTY_GROUP: u32 = 5;
/// Most terminals at once (`kernel.pty.max`).
const MAX: u32 = 4096;

/// TIOCGWINSZ: rows, columns, and pixels.
pub type WinSize = [u16; 4];

struct State {
    line: Line,
    size: WinSize,
    session: Option<Tid>,
    foreground: Option<Tid>,
    /// The master is gone, or the session was hung up.
    hung_up: bool,
    /// TIOCSPTLCK.
    locked: bool,
    /// TIOCEXCL.
    exclusive: bool,
    /// Owner, mode and times of its node.
    node: Attr,
    /// Open descriptions of the program's side, and whether there ever was one.
    opens: u32,
    opened: bool,
}

/// A terminal.
pub struct Tty {
    me: Weak<Tty>,
    kernel: Weak<Kernel>,
    /// Its number under /dev/pts.
    pub index: u32,
    state: Mutex<State>,
    /// Woken for the program's side.
    queue: Arc<WaitQueue>,
    /// Woken for the master's.
    master: Arc<WaitQueue>,
}

/// All terminals of a VM by number.
#[derive(Default)]
pub struct Ttys {
    map: Mutex<BTreeMap<u32, Weak<Tty>>>,
}

impl Ttys {
    fn map(&self) -> MutexGuard<'_, BTreeMap<u32, Weak<Tty>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Numbers in use, for /dev/pts.
    #[must_use]
    pub fn list(&self) -> Vec<u32> {
        let all: Vec<_> = self.map().iter().map(|(n, t)| (*n, t.clone())).collect();
        // Outside the map's lock: what is dropped here may be a terminal's last reference.
        let listed = |t: Weak<Tty>| t.upgrade().is_some_and(|t| t.is_listed());
        all.into_iter().filter(|(_, t)| listed(t.clone())).map(|(n, _)| n).collect()
    }
    /// The terminal `/dev/pts/index`.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<Arc<Tty>> {
        self.map().get(&index).and_then(Weak::upgrade)
    }
}

impl Tty {
    /// A new terminal with the lowest free number, whose node belongs to `uid`.
    ///
    /// # Errors
    /// ENOSPC when there are too many.
    pub fn new(kernel: &Arc<Kernel>, uid: u32) -> Result<Arc<Tty>, Errno> {
        let now = kernel.host.realtime();
        let mut map = kernel.ttys.map();
        map.retain(|_, tty| tty.strong_count() > 0);
        let index = (0..MAX).find(|n| !map.contains_key(n)).ok_or(Errno::ENOSPC)?;
        let tty = Arc::new_cyclic(|me| Tty {
            me: me.clone(),
            kernel: Arc::downgrade(kernel),
            index,
            state: Mutex::new(State {
                line: Line::default(),
                size: [0; 4],
                session: None,
                foreground: None,
                hung_up: false,
                locked: false,
                exclusive: false,
                node: Attr {
                    ino: devpts::FIRST_INO + u64::from(index),
                    rdev: makedev(PTS_MAJOR, index),
                    mode: mode::CHR | 0o620,
                    nlink: 1,
                    blksize: 1024,
                    uid,
                    gid: TTY_GROUP,
                    atime: now,
                    mtime: now,
                    ctime: now,
                    ..Attr::default()
                },
                opens: 0,
                opened: false,
            }),
            queue: WaitQueue::new(),
            master: WaitQueue::new(),
        });
        map.insert(index, Arc::downgrade(&tty));
        drop(map);
        kernel.fs.devices.register(PTS_MAJOR, index, Arc::new(pty::SlaveDevice));
        Ok(tty)
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Runs `body` on the line discipline, then tells both sides.
    pub fn with_line<T>(&self, body: impl FnOnce(&mut Line) -> T) -> T {
        let result = body(&mut self.state().line);
        self.queue.wake();
        self.master.wake();
        result
    }
    /// Takes what was typed at the master's side.
    pub fn type_in(&self, bytes: &[u8]) {
        let (events, group) = {
            let mut state = self.state();
            (state.line.type_in(bytes), state.foreground)
        };
        for event in events {
            let Event::Signal(signal) = event;
            self.signal(group, signal);
        }
        self.queue.wake();
        self.master.wake();
    }
    fn signal(&self, group: Option<Tid>, signal: Signal) {
        if let (Some(kernel), Some(group)) = (self.kernel.upgrade(), group) {
            send_group(&kernel, group, SigInfo::kernel(signal));
        }
    }
    /// The window's size.
    #[must_use]
    pub fn size(&self) -> WinSize {
        self.state().size
    }
    /// Sets it; the foreground group hears of a change.
    pub fn resize(&self, size: WinSize) {
        let (changed, group) = {
            let mut state = self.state();
            (std::mem::replace(&mut state.size, size) != size, state.foreground)
        };
        if changed {
            self.signal(group, SIGWINCH);
        }
    }
    /// The session it controls.
    #[must_use]
    pub fn session(&self) -> Option<Tid> {
        self.state().session
    }
    /// Makes it the controlling terminal of `task`'s session. `steal` takes it from another.
    ///
    /// # Errors
    /// EPERM unless the task leads a session without a terminal, and the terminal has no session.
    pub fn control(&self, task: &Arc<Task>, steal: bool) -> Result<(), Errno> {
        let ids = task.process.ids();
        let tasks = &task.kernel.tasks;
        let mut state = self.state();
        if state.session == Some(ids.sid) {
            return Ok(());
        }
        if ids.sid != task.process.pid || tasks.terminal(ids.sid).is_some() {
            return Err(Errno::EPERM);
        }
        if let Some(old) = state.session {
            if !steal {
                return Err(Errno::EPERM);
            }
            tasks.set_terminal(old, None);
        }
        state.session = Some(ids.sid);
        state.foreground = Some(ids.pgid);
        drop(state);
        let me = self.me.upgrade().ok_or(Errno::EIO)?;
        tasks.set_terminal(ids.sid, Some(me));
        Ok(())
    }
    /// TIOCNOTTY by `task`: a leader takes the terminal from its whole session.
    ///
    /// # Errors
    /// ENOTTY if it is not the caller's controlling terminal.
    pub fn release_control(&self, task: &Arc<Task>) -> Result<(), Errno> {
        let ids = task.process.ids();
        let group = {
            let mut state = self.state();
            if state.session != Some(ids.sid) {
                return Err(Errno::ENOTTY);
            }
            if ids.sid != task.process.pid {
                return Ok(());
            }
            state.session = None;
            state.foreground.take()
        };
        task.kernel.tasks.set_terminal(ids.sid, None);
        self.signal(group, SIGHUP);
        self.signal(group, SIGCONT);
        Ok(())
    }
    /// tcsetpgrp(3).
    ///
    /// # Errors
    /// ENOTTY, EPERM, ESRCH as tcsetpgrp(3).
    pub fn set_foreground(&self, task: &Arc<Task>, group: Tid) -> Result<(), Errno> {
        let ids = task.process.ids();
        if group < 0 {
            return Err(Errno::EINVAL);
        }
        let members = task.kernel.tasks.group(group);
        let mut state = self.state();
        if state.session != Some(ids.sid) {
            return Err(Errno::ENOTTY);
        }
        let member = members.first().ok_or(Errno::ESRCH)?;
        if member.sid() != ids.sid {
            return Err(Errno::EPERM);
        }
        state.foreground = Some(group);
        Ok(())
    }
    /// The master is gone.
    pub(crate) fn hang_up(&self) {
        let (session, group) = {
            let mut state = self.state();
            if std::mem::replace(&mut state.hung_up, true) {
                return;
            }
            (state.session.take(), state.foreground.take())
        };
        if let (Some(kernel), Some(session)) = (self.kernel.upgrade(), session) {
            kernel.tasks.set_terminal(session, None);
            if let Some(leader) = kernel.tasks.process(session) {
                leader.send(SigInfo::kernel(SIGHUP));
                leader.send(SigInfo::kernel(SIGCONT));
            }
        }
        self.signal(group, SIGHUP);
        self.signal(group, SIGCONT);
        self.queue.wake();
        self.master.wake();
    }
    /// Stops a background process that reads from, writes to or changes its terminal
    /// (job control, POSIX.1-2017, 11.1.4).
    ///
    /// # Errors
    /// EIO for an orphaned group or one that cannot be stopped; the wait that the signal ends.
    pub fn admit(&self, task: &Arc<Task>, signal: Signal) -> Result<(), Stop> {
        let ids = task.process.ids();
        {
            let state = self.state();
            let background = state.session == Some(ids.sid)
                && state.foreground.is_some_and(|group| group != ids.pgid);
            if !background {
                return Ok(());
            }
        }
        let blocked = task.signals.lock().mask.has(signal);
        let ignored = task.process.signals.actions().get(signal).ignores(signal);
        if blocked || ignored {
            return if signal == SIGTTIN { Err(Errno::EIO.into()) } else { Ok(()) };
        }
        if task.kernel.tasks.is_orphaned(ids.pgid) {
            return Err(Errno::EIO.into());
        }
        let fields = SigFields::Kill { pid: task.process.pid, uid: task.creds().uid };
        send_group(&task.kernel, ids.pgid, SigInfo { signal, code: 0, errno: 0, fields });
        Err(Wait { queues: Vec::new(), deadline: None, restart: Restart::IfSaRestart }.into())
    }
    /// Locks or unlocks the program's side (unlockpt(3)).
    pub fn set_locked(&self, locked: bool) {
        self.state().locked = locked;
    }
    /// TIOCEXCL, TIOCNXCL.
    pub fn set_exclusive(&self, exclusive: bool) {
        self.state().exclusive = exclusive;
    }
    /// Its device number.
    #[must_use]
    pub fn number(&self) -> u64 {
        makedev(PTS_MAJOR, self.index)
    }
    /// stat(2) of its node.
    pub(crate) fn attr(&self) -> Attr {
        self.state().node
    }
    /// Changes its node.
    ///
    /// # Errors
    /// EINVAL for a length.
    pub(crate) fn set_attr(&self, change: &SetAttr) -> Result<(), Errno> {
        let now = self.kernel.upgrade().map(|k| k.host.realtime());
        let mut state = self.state();
        let node = &mut state.node;
        if change.size.is_some() {
            return Err(Errno::EINVAL);
        }
        if let Some(bits) = change.mode {
            node.mode = mode::CHR | (bits & mode::PERM);
        }
        node.uid = change.uid.unwrap_or(node.uid);
        node.gid = change.gid.unwrap_or(node.gid);
        node.atime = change.atime.unwrap_or(node.atime);
        node.mtime = change.mtime.unwrap_or(node.mtime);
        node.ctime = now.unwrap_or(node.ctime);
        Ok(())
    }
    /// /dev/pts shows it: its master is there.
    pub(crate) fn is_listed(&self) -> bool {
        !self.state().hung_up
    }
    /// Opens the program's side; wrap the result in an `OpenFile`.
    ///
    /// # Errors
    /// EIO if it is locked or hung up, EBUSY if it is exclusive.
    pub fn open_slave(self: &Arc<Self>, privileged: bool) -> Result<Arc<Slave>, Errno> {
        let mut state = self.state();
        if state.locked || state.hung_up {
            return Err(Errno::EIO);
        }
        if state.exclusive && state.opens > 0 && !privileged {
            return Err(Errno::EBUSY);
        }
        state.opens += 1;
        state.opened = true;
        drop(state);
        Ok(Arc::new(Slave { tty: self.clone() }))
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        if let Some(kernel) = self.kernel.upgrade() {
            let mut map = kernel.ttys.map();
            if map.get(&self.index).is_some_and(|t| t.strong_count() == 0) {
                map.remove(&self.index);
                kernel.fs.devices.unregister(PTS_MAJOR, self.index);
            }
        }
    }
}

impl Terminal for Tty {
    fn device(&self) -> u64 {
        self.number()
    }
    fn foreground(&self) -> Option<Tid> {
        self.state().foreground
    }
    fn disconnect(&self) {
        let mut state = self.state();
        state.session = None;
        state.foreground = None;
    }
    fn file(&self) -> Arc<dyn FileOps> {
        match self.me.upgrade() {
            Some(tty) => {
                tty.state().opens += 1;
                Arc::new(Slave { tty })
            }
            // Unreachable while somebody holds `&self` through an `Arc`.
            None => Arc::new(Gone),
        }
    }
}

/// A terminal that is no more.
struct Gone;
impl FileOps for Gone {
    fn positioned(&self) -> bool {
        false
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The program's side of a terminal, opened.
pub struct Slave {
    /// The terminal.
    pub tty: Arc<Tty>,
}

impl Drop for Slave {
    fn drop(&mut self) {
        let last = {
            let mut state = self.tty.state();
            state.opens -= 1;
            state.opens == 0
        };
        if last {
            self.tty.master.wake();
        }
    }
}

impl FileOps for Slave {
    fn positioned(&self) -> bool {
        false
    }
    fn admit(&self, task: &Arc<Task>, write: bool) -> Result<(), Stop> {
        if !write {
            return self.tty.admit(task, SIGTTIN);
        }
        let stops = self.tty.state().line.termios.local.contains(Local::TOSTOP);
        if stops { self.tty.admit(task, SIGTTOU) } else { Ok(()) }
    }
    fn read(&self, _file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        if dst.left() == 0 {
            return Ok(0);
        }
        let bytes = {
            let mut state = self.tty.state();
            match state.line.read(dst.left()) {
                Some(bytes) => bytes,
                None if state.hung_up => return Ok(0),
                None => return Err(Errno::EAGAIN),
            }
        };
        dst.put(&bytes)
    }
    fn write(&self, _file: &OpenFile, src: &mut Source<'_>) -> Result<usize, Errno> {
        let mut done = 0;
        while src.left() > 0 {
            let mut chunk = [0; 4096];
            let room = {
                let state = self.tty.state();
                if state.hung_up {
                    return Err(Errno::EIO);
                }
                state.line.room().min(chunk.len())
            };
            if room == 0 {
                break;
            }
            let got = match src.take(&mut chunk[..room]) {
                Ok(n) => n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            };
            if got == 0 {
                break;
            }
            // Another writer may have taken the room meanwhile; a few bytes over the limit do not
            // matter, losing them would.
            let mut rest = &chunk[..got];
            while !rest.is_empty() {
                let n = self.tty.state().line.print(rest);
                if n == 0 {
                    break;
                }
                rest = &rest[n..];
            }
            done += got;
        }
        if done == 0 {
            return Err(Errno::EAGAIN);
        }
        self.tty.master.wake();
        Ok(done)
    }
    fn poll(&self, _file: &OpenFile) -> Ready {
        let state = self.tty.state();
        let mut ready = Ready::empty();
        if state.line.readable() {
            ready |= Ready::IN | Ready::RDNORM;
        }
        if state.hung_up {
            ready |= Ready::IN | Ready::RDNORM | Ready::HUP | Ready::ERR;
        }
        if state.hung_up || state.line.room() > 0 {
            ready |= Ready::OUT | Ready::WRNORM;
        }
        ready
    }
    fn queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.tty.queue.clone())
    }
    fn attr(&self, _file: &OpenFile) -> Result<Attr, Errno> {
        Ok(self.tty.attr())
    }
    fn describe(&self) -> String {
        format!("/dev/pts/{}", self.tty.index)
    }
    fn ioctl(&self, cx: &mut Cx<'_>, _file: &OpenFile, command: u32, arg: u64) -> SysResult {
        crate::linux::sys::tty::ioctl(cx, &self.tty, false, command, arg)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
