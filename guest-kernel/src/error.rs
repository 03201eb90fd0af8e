//! What a handler may answer besides a value.
//!
//! Three things are never mixed: an errno the program sees, a wait after which the handler is
//! retried, and a host failure. A bug of ours is a panic, caught at the dispatch edge.

use std::{sync::Arc, time::Duration};

use crate::wait::WaitQueue;

macro_rules! errnos {
    ($($name:ident = $value:literal),* $(,)?) => {
        /// An error number of Linux x86-64 (errno(3)) that a program may see.
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct Errno(u16);
        #[expect(missing_docs, reason = "errno(3) names them")]
        impl Errno {
            $(pub const $name: Errno = Errno($value);)*
            /// The symbolic name, as strace prints it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self.0 { $($value => stringify!($name),)* _ => "E???" }
            }
            /// The errno with this number, if Linux has it.
            #[must_use]
            pub fn from_raw(raw: i32) -> Option<Errno> {
                match raw { $($value => Some(Errno($value)),)* _ => None }
            }
        }
    };
}
errnos! {
    EPERM = 1, ENOENT = 2, ESRCH = 3, EINTR = 4, EIO = 5, ENXIO = 6, E2BIG = 7, ENOEXEC = 8,
    EBADF = 9, ECHILD = 10, EAGAIN = 11, ENOMEM = 12, EACCES = 13, EFAULT = 14, ENOTBLK = 15,
    EBUSY = 16, EEXIST = 17, EXDEV = 18, ENODEV = 19, ENOTDIR = 20, EISDIR = 21, EINVAL = 22,
    ENFILE = 23, EMFILE = 24, ENOTTY = 25, ETXTBSY = 26, EFBIG = 27, ENOSPC = 28, ESPIPE = 29,
    EROFS = 30, EMLINK = 31, EPIPE = 32, EDOM = 33, ERANGE = 34, EDEADLK = 35, ENAMETOOLONG = 36,
    ENOLCK = 37, ENOSYS = 38, ENOTEMPTY = 39, ELOOP = 40, ENOMSG = 42, EIDRM = 43, ENODATA = 61,
    ETIME = 62, ENOPKG = 65, ENOLINK = 67, EPROTO = 71, EBADMSG = 74, EOVERFLOW = 75, EBADFD = 77, ELIBBAD = 80,
    EILSEQ = 84,
    EUSERS = 87, ENOTSOCK = 88, EDESTADDRREQ = 89, EMSGSIZE = 90, EPROTOTYPE = 91,
    ENOPROTOOPT = 92, EPROTONOSUPPORT = 93, ESOCKTNOSUPPORT = 94, EOPNOTSUPP = 95,
    EPFNOSUPPORT = 96, EAFNOSUPPORT = 97, EADDRINUSE = 98, EADDRNOTAVAIL = 99, ENETDOWN = 100,
    ENETUNREACH = 101, ECONNABORTED = 103, ECONNRESET = 104, ENOBUFS = 105, EISCONN = 106,
    ENOTCONN = 107, ESHUTDOWN = 108, ETIMEDOUT = 110, ECONNREFUSED = 111, EHOSTDOWN = 112,
    EHOSTUNREACH = 113, EALREADY = 114, EINPROGRESS = 115, ESTALE = 116, EDQUOT = 122,
    ECANCELED = 125, ENOKEY = 126, EOWNERDEAD = 130, ENOTRECOVERABLE = 131,
}

impl Errno {
    /// The positive number.
    #[must_use]
    pub fn raw(self) -> u16 {
        self.0
    }
}

impl std::fmt::Debug for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
impl std::error::Error for Errno {}

/// What an interrupted wait becomes once a signal has been dealt with (the kernel-internal
/// ERESTART* codes of Linux, signal(7) "Interruption of system calls and library functions").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restart {
    /// EINTR if a handler runs, whatever SA_RESTART says; also when the signal is ignored or only
    /// stops the task, the call is restarted (ERESTARTNOHAND: poll, select, pause, sigsuspend,
    /// epoll_wait).
    NoHandler,
    /// Restarted if no handler runs or the handler has SA_RESTART, else EINTR (ERESTARTSYS: read,
    /// write, wait4, connect, accept, flock, F_SETLKW, futex).
    IfSaRestart,
    /// As `NoHandler`, and the retry keeps the call's deadline and progress (nanosleep,
    /// clock_nanosleep: `ERESTART_RESTARTBLOCK`).
    KeepDeadline,
    /// Always EINTR, even when no handler runs.
    Never,
    /// Signals and stops leave the wait alone; only the task's end breaks it (vfork's parent,
    /// execve waiting for the other threads to go).
    Killable,
}

/// Wait for any of `queues` or the deadline, then retry the handler from the top.
///
/// The dispatcher registers on the queues and tries once more before it sleeps, so a handler need
/// not fear a wake-up between its check and its sleep.
#[derive(Clone)]
pub struct Wait {
    /// Wake-up sources.
    pub queues: Vec<Arc<WaitQueue>>,
    /// `CLOCK_MONOTONIC` instant at which the handler is retried all the same; it must notice that
    /// time is up by itself.
    pub deadline: Option<Duration>,
    /// What a signal does to the wait.
    pub restart: Restart,
}

impl Wait {
    /// Waits on `queue` without a deadline, restarted under SA_RESTART.
    #[must_use]
    pub fn on(queue: Arc<WaitQueue>) -> Wait {
        Wait { queues: vec![queue], deadline: None, restart: Restart::IfSaRestart }
    }
    /// Sets the deadline.
    #[must_use]
    pub fn until(mut self, deadline: Option<Duration>) -> Wait {
        self.deadline = deadline;
        self
    }
    /// Sets the restart rule.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Wait {
        self.restart = restart;
        self
    }
}

/// How a handler ends without a value.
pub enum Stop {
    /// The program sees `-errno`.
    Errno(Errno),
    /// Block, then retry.
    Wait(Wait),
    /// The registers were replaced as a whole (rt_sigreturn, execve): leave them alone.
    Replaced,
    /// The task ends here (exit, exit_group): never return to the guest.
    Exit,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Errno(errno)
    }
}
impl From<Wait> for Stop {
    fn from(wait: Wait) -> Stop {
        Stop::Wait(wait)
    }
}

/// A handler's answer: the value for RAX, or why there is none.
pub type SysResult = Result<u64, Stop>;
