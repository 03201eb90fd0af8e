//! The one table of system calls: number, name, arguments, handler, support and caveat.
//!
//! Everything that speaks of a call derives from its [`Row`]: dispatch, `trapgate syscalls`, strace
//! decoding, the fuzzer's descriptions. Rows stand in one file per man-page family under `rows/`.

use crate::{call::Cx, creds::Creds, error::SysResult, num::Word, task::Task};

/// How much of Linux's behaviour a call has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Support {
    /// What the man page says.
    Full,
    /// Works, with the caveat named.
    Partial,
    /// Accepted and without effect, or always refused as Linux may refuse it.
    Stub,
    /// ENOSYS.
    Absent,
}

/// What an argument is, for decoding and generation. `usize` fields are argument indices.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Signed decimal.
    Int,
    /// Unsigned decimal.
    Uint,
    /// Hexadecimal.
    Hex,
    /// Octal mode.
    Mode,
    /// File descriptor.
    Fd,
    /// Directory descriptor or AT_FDCWD.
    DirFd,
    /// NUL-terminated path.
    Path,
    /// NUL-terminated string.
    Str,
    /// NULL-terminated array of strings.
    StrArray,
    /// Bytes the call reads; its length is argument `.0`.
    In(usize),
    /// Bytes the call writes; at most argument `.0`, in fact the result.
    Out(usize),
    /// iovec array of argument `.0` entries that the call reads / writes.
    IovIn(usize),
    /// See `IovIn`.
    IovOut(usize),
    /// Length in bytes.
    Size,
    /// Guest address.
    Addr,
    /// Signal number.
    Signal,
    /// Process or thread id.
    Pid,
    /// Another number the kernel gave out: `"timer"`, `"watch"`, `"shm"`, `"msg"`, `"sem"`.
    Id(&'static str),
    /// Flags, by the name of their set in `linux::flags` (`"open"`, `"mmap_prot"`, …).
    Flags(&'static str),
    /// A value with names, by the name of their set (`"ioctl"`, `"fcntl"`, `"seek"`, …).
    Enum(&'static str),
    /// Structure the call reads, by its name in `linux::layouts` (`"timespec"`, `"sockaddr"`, …).
    StructIn(&'static str),
    /// Structure the call writes.
    StructOut(&'static str),
}

/// An argument's name and kind.
pub type Arg = (&'static str, Kind);

/// Decodes and runs a call.
pub type Handler = fn(&mut Cx<'_>, &[u64; 6]) -> SysResult;

/// One system call.
#[derive(Clone, Copy)]
pub struct Row {
    /// The x86-64 number.
    pub number: u64,
    /// Its name.
    pub name: &'static str,
    /// Its arguments, at most six.
    pub args: &'static [Arg],
    /// Its handler.
    pub handler: Handler,
    /// How much of it there is.
    pub support: Support,
    /// What differs from Linux; empty when Full.
    pub caveat: &'static str,
}

/// A typed argument, decoded from a register as Linux decodes it (an `int` is the low half).
pub trait FromWord {
    /// Decodes.
    fn from_word(word: u64) -> Self;
}
impl FromWord for u64 {
    fn from_word(word: u64) -> u64 {
        word
    }
}
impl FromWord for i64 {
    fn from_word(word: u64) -> i64 {
        word.cast_signed()
    }
}
impl FromWord for usize {
    fn from_word(word: u64) -> usize {
        word.size()
    }
}
impl FromWord for u32 {
    fn from_word(word: u64) -> u32 {
        word.low_u32()
    }
}
impl FromWord for i32 {
    fn from_word(word: u64) -> i32 {
        word.low_i32()
    }
}

/// A handler function of zero to six typed arguments after the context.
pub trait Typed<A> {
    /// Decodes the words and calls.
    fn invoke(self, cx: &mut Cx<'_>, words: &[u64; 6]) -> SysResult;
}
macro_rules! typed {
    ($($arg:ident = $index:literal),*) => {
        impl<F, $($arg: FromWord),*> Typed<($($arg,)*)> for F
        where F: Fn(&mut Cx<'_>, $($arg),*) -> SysResult {
            fn invoke(self, cx: &mut Cx<'_>, _words: &[u64; 6]) -> SysResult {
                self(cx, $($arg::from_word(_words[$index])),*)
            }
        }
    };
}
typed!();
typed!(A = 0);
typed!(A = 0, B = 1);
typed!(A = 0, B = 1, C = 2);
typed!(A = 0, B = 1, C = 2, D = 3);
typed!(A = 0, B = 1, C = 2, D = 3, E = 4);
typed!(A = 0, B = 1, C = 2, D = 3, E = 4, G = 5);

/// Builds one [`Row`]: `row!(0, read(fd: Fd, buf: Out(2), count: Size) => file::read, Full)`, with a
/// caveat string after the support level unless Full.
#[macro_export]
macro_rules! row {
    ($number:literal, $name:ident ( $($arg:ident : $kind:expr),* $(,)? ) => $handler:path, $support:ident) => {
        $crate::row!($number, $name($($arg: $kind),*) => $handler, $support, "")
    };
    ($number:literal, $name:ident ( $($arg:ident : $kind:expr),* $(,)? ) => $handler:path, $support:ident, $caveat:literal) => {
        $crate::linux::table::Row {
            number: $number,
            name: stringify!($name),
            args: {
                #[allow(unused_imports, reason = "rows without arguments")]
                use $crate::linux::table::Kind::*;
                &[$((stringify!($arg), $kind)),*]
            },
            handler: |cx, words| $crate::linux::table::Typed::invoke($handler, cx, words),
            support: $crate::linux::table::Support::$support,
            caveat: $caveat,
        }
    };
}

/// Calls that only the caller's own host thread can answer: they need its registers or CPU, its CPU time
/// or its host thread itself, or they mean to leave the guest anyway (signals to itself, waits that
/// rarely end at once). All others may be served in a ring.
const OWN_THREAD: &[u64] = &[
    15, 56, 57, 58, 59, 60, 131, 158, 231, 322, 435, // rt_sigreturn, clone .. clone3
    36, 38, 98, 100, 222, 223, 224, // getitimer, setitimer, getrusage, times, timer_*
    24,  // sched_yield
    34, 128, 130, 219, // pause, rt_sigtimedwait, rt_sigsuspend, restart_syscall
    62, 129, 200, 234, 297,
    424, // kill, rt_sigqueueinfo, tkill, tgkill, ..., pidfd_send_signal
];
/// Of those, the ones that need no more than its registers and FPU state: a ring may have them too. kill, tkill,
/// tgkill, rt_sigreturn.
const WHOLE: &[u64] = &[15, 62, 200, 234];
/// clock_gettime and clock_nanosleep: in a ring only for clocks that are not CPU time.
const CLOCK_CALLS: &[u64] = &[228, 230];

/// A call's answer from what the kernel knows of its caller.
type Answer = fn(&Task, &Creds) -> u64;

/// Calls whose answers depend on nothing but what the kernel knows now.
const KNOWN: [(u64, Answer); 6] = [
    (39, |task, _| id(task.process.pid)),
    (186, |task, _| id(task.tid)),
    (102, |_, creds| creds.uid.into()),
    (104, |_, creds| creds.gid.into()),
    (107, |_, creds| creds.euid.into()),
    (108, |_, creds| creds.egid.into()),
];
/// One more, whose answer changes when a parent ends ([`Task::publish_parent`]).
pub(crate) const GETPPID: u64 = 110;

fn id(id: i32) -> u64 {
    u64::from(id.cast_unsigned())
}

/// The answers of `task`'s calls of [`KNOWN`]: number, RAX.
pub(crate) fn known(task: &Task) -> [(u64, u64); KNOWN.len()] {
    let creds = task.creds();
    KNOWN.map(|(number, answer)| (number, answer(task, &creds)))
}

/// One past the highest number the index holds.
pub const NUMBERS: usize = 512;

/// The rows by number.
pub struct Table {
    rows: [Option<&'static Row>; NUMBERS],
    own_thread: [bool; NUMBERS],
}

impl Table {
    /// Collects every family's rows.
    #[must_use]
    pub fn new() -> Table {
        let mut rows = [None; NUMBERS];
        for row in super::rows::FAMILIES.iter().copied().flatten() {
            let slot = &mut rows[row.number.size()];
            debug_assert!(slot.is_none(), "two rows for call {}", row.number);
            *slot = Some(row);
        }
        for row in super::rows::ABSENT {
            rows[row.number.size()].get_or_insert(row);
        }
        let mut own_thread = [false; NUMBERS];
        OWN_THREAD.iter().for_each(|number| own_thread[number.size()] = true);
        Table { rows, own_thread }
    }
    /// The row of `number`, if the call exists here.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&'static Row> {
        self.rows.get(number.size()).copied().flatten()
    }
    /// Call `number` with `args` may be tried away from its caller's host thread.
    #[must_use]
    pub fn in_ring(&self, number: u64, args: &[u64; 6]) -> bool {
        if CLOCK_CALLS.contains(&number) {
            // CLOCK_PROCESS_CPUTIME_ID and CLOCK_THREAD_CPUTIME_ID are 2 and 3, other processes' negative.
            return matches!(args[0].low_i32(), 0 | 1 | 4..=11);
        }
        !self.own_thread.get(number.size()).copied().unwrap_or(true)
    }
    /// Call `number` may be tried away from its caller's host thread by who has the whole register file.
    #[must_use]
    pub fn in_ring_whole(&self, number: u64) -> bool {
        WHOLE.contains(&number)
    }
    /// The guest may know the answer to call `number`.
    #[must_use]
    pub fn has_known_answer(&self, number: u64) -> bool {
        number == GETPPID || KNOWN.iter().any(|(known, _)| *known == number)
    }
    /// All rows in order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &'static Row> {
        self.rows.iter().copied().flatten()
    }
}

impl Default for Table {
    fn default() -> Table {
        Table::new()
    }
}
