//! Signals: numbers, information, sending. Layouts (siginfo_t, frames) live in `linux`.
//!
//! A sender queues ([`send`]) and makes one thread look; that thread, before it enters the guest
//! again, takes what is deliverable ([`mod@deliver`]) or stops with its process ([`stop`]).

pub mod action;
pub mod deliver;
pub mod fd;
pub mod queue;
pub mod send;
pub mod set;
pub mod state;
pub mod stop;

pub(crate) use self::deliver::only_handlers;
pub use self::{
    deliver::{Delivered, deliver, pending, restore_mask, set_mask, set_temporary_mask, take},
    send::{child_info, discard, force, force_fault, send_group, task_gone},
    set::SigSet,
    state::{SharedSignals, StateChange, TaskSignals},
};

/// A signal number, 1 to 64.
pub type Signal = u8;

/// What a signal says of itself; the personality lays it out as siginfo_t.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SigInfo {
    /// The signal.
    pub signal: Signal,
    /// si_code.
    pub code: i32,
    /// si_errno.
    pub errno: i32,
    /// The rest, by kind.
    pub fields: SigFields,
}

/// The kind-specific part of a siginfo_t (sigaction(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "sigaction(2) names the fields")]
pub enum SigFields {
    None,
    Kill {
        pid: i32,
        uid: u32,
    },
    Queue {
        pid: i32,
        uid: u32,
        value: u64,
    },
    Timer {
        id: i32,
        overrun: i32,
        value: u64,
    },
    Child {
        pid: i32,
        uid: u32,
        status: i32,
        utime: u64,
        stime: u64,
    },
    Fault {
        addr: u64,
    },
    Poll {
        band: i64,
        fd: i32,
    },
    /// As given by rt_sigqueueinfo(2): the 116 bytes after si_code's word, verbatim up to 48.
    Raw([u8; 48]),
}

#[expect(missing_docs, reason = "signal(7) names them")]
pub mod number {
    pub const SIGHUP: u8 = 1;
    pub const SIGINT: u8 = 2;
    pub const SIGQUIT: u8 = 3;
    pub const SIGILL: u8 = 4;
    pub const SIGTRAP: u8 = 5;
    pub const SIGABRT: u8 = 6;
    pub const SIGBUS: u8 = 7;
    pub const SIGFPE: u8 = 8;
    pub const SIGKILL: u8 = 9;
    pub const SIGUSR1: u8 = 10;
    pub const SIGSEGV: u8 = 11;
    pub const SIGUSR2: u8 = 12;
    pub const SIGPIPE: u8 = 13;
    pub const SIGALRM: u8 = 14;
    pub const SIGTERM: u8 = 15;
    pub const SIGSTKFLT: u8 = 16;
    pub const SIGCHLD: u8 = 17;
    pub const SIGCONT: u8 = 18;
    pub const SIGSTOP: u8 = 19;
    pub const SIGTSTP: u8 = 20;
    pub const SIGTTIN: u8 = 21;
    pub const SIGTTOU: u8 = 22;
    pub const SIGURG: u8 = 23;
    pub const SIGXCPU: u8 = 24;
    pub const SIGXFSZ: u8 = 25;
    pub const SIGVTALRM: u8 = 26;
    pub const SIGPROF: u8 = 27;
    pub const SIGWINCH: u8 = 28;
    pub const SIGIO: u8 = 29;
    pub const SIGPWR: u8 = 30;
    pub const SIGSYS: u8 = 31;
}

impl SigInfo {
    /// A signal the kernel itself sends (SI_KERNEL = 0x80).
    #[must_use]
    pub fn kernel(signal: Signal) -> SigInfo {
        SigInfo { signal, code: 0x80, errno: 0, fields: SigFields::None }
    }
}

/// The name of `signal`, as strace prints it.
#[must_use]
pub fn name(signal: Signal) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    match usize::from(signal).checked_sub(1).and_then(|i| NAMES.get(i)) {
        Some(name) => format!("SIG{name}"),
        None => format!("SIGRT_{}", signal.saturating_sub(queue::SIGRTMIN)),
    }
}
