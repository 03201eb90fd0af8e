//! Structures of the system-call table's arguments, member by member, by the names that its rows use.
//!
//! For the fuzzer: what programs may put there, and what of it two kernels must agree on. A structure
//! that is missing here counts as bytes, so a new row never has to wait for it. From the kernel's
//! x86-64 uapi headers.

use super::table::Kind;

/// What stands at a place of a structure.
#[derive(Clone, Copy, Debug)]
pub enum Member {
    /// A number of so many bytes.
    Number(usize, Kind),
    /// A number of so many bytes that has only this value (a family, a version).
    Fixed(usize, u64),
    /// Bytes in which two machines, or two moments, may differ: times, inode numbers, addresses.
    Opaque(usize),
    /// Bytes without a meaning.
    Pad(usize),
    /// Bytes of data.
    Bytes(usize),
    /// A file name with its NUL, in so many bytes.
    Name(usize),
    /// A pointer; lengths are the numbers of sibling members.
    Pointer(Kind),
    /// A structure.
    Of(&'static str),
}

/// How a name is laid out.
#[derive(Clone, Copy, Debug)]
pub enum Layout {
    /// Members, one after the other, nothing between them.
    Struct(&'static [Member]),
    /// As many of these as the caller says, a few.
    Array(&'static str),
    /// One of these, by name.
    Union(&'static [(&'static str, &'static str)]),
}

use Kind::{Enum, Fd, Flags, Hex, Id, In, Int, IovIn, Out, Pid, Signal, Size, StructIn, Uint};
use Member::{Bytes, Fixed, Name, Number, Of, Opaque, Pad, Pointer};

const I32: Member = Number(4, Int);
const U32: Member = Number(4, Uint);
const X32: Member = Number(4, Hex);
const I64: Member = Number(8, Int);
const X64: Member = Number(8, Hex);

/// The layout with this name.
#[must_use]
#[rustfmt::skip]
pub fn layout(name: &str) -> Option<Layout> {
    use Layout::{Array, Struct, Union};
    Some(match name {
        "int" => Struct(&[I32]),
        "opaque_int" => Struct(&[Opaque(4)]),
        "offset" => Struct(&[I64]),
        "size" => Struct(&[Number(8, Size)]),
        "address" | "time" => Struct(&[Opaque(8)]),
        "timer" => Struct(&[Number(4, Id("timer"))]),
        "fds" => Struct(&[Number(4, Fd), Number(4, Fd)]),
        "bytes" => Struct(&[Bytes(64)]),
        "mincore" => Struct(&[Opaque(16)]),
        "fd_set" => Struct(&[Bytes(32)]),
        "sigset" => Struct(&[X64]),
        "sigset_argpack" => Struct(&[Pointer(StructIn("sigset")), Number(8, Size)]),
        "sigaction" => Struct(&[X64, X64, X64, X64]),
        "stack" => Struct(&[X64, X32, Pad(4), Number(8, Size)]),
        "siginfo" => Struct(&[Number(4, Signal), I32, I32, Pad(4), Number(4, Pid), U32, X64, Bytes(96)]),
        "sigevent" => Struct(&[X64, Number(4, Signal), I32, Number(4, Pid), Bytes(44)]),
        "timespec" | "timeval" => Struct(&[I64, I64]),
        "timespecs" | "timevals" | "itimerspec" | "itimerval" => Struct(&[Of("timespec"), Of("timespec")]),
        "timezone" => Struct(&[I32, I32]),
        "utimbuf" => Struct(&[I64, I64]),
        "timex" => Struct(&[X32, Pad(4), Bytes(200)]),
        "tms" => Struct(&[Opaque(32)]),
        "rlimit" => Struct(&[X64, X64]),
        "rusage" => Struct(&[Opaque(144)]),
        "sysinfo" => Struct(&[Opaque(112)]),
        // nodename is the machine's, and the release says what it is.
        "utsname" => Struct(&[Bytes(65), Opaque(65 * 5)]),
        "open_how" => Struct(&[Number(8, Flags("open")), Number(8, Kind::Mode), X64]),
        // dev, ino | nlink, mode, uid, gid | rdev, size, blksize | blocks (the file system's own business), times.
        "stat" => Struct(&[Opaque(16), X64, Number(4, Kind::Mode), U32, U32, Pad(4), Opaque(8), I64, I64,
            Opaque(8), Opaque(48), Pad(24)]),
        // mask, blksize, attributes | nlink, uid, gid, mode | ino | size | blocks, attributes_mask, times, devices.
        "statx" => Struct(&[Opaque(4), U32, Opaque(8), U32, U32, U32, Number(2, Kind::Mode), Pad(2), Opaque(8), I64,
            Opaque(16), Opaque(64), Opaque(16), Opaque(16), Pad(96)]),
        "statfs" => Struct(&[X64, I64, Opaque(40), Opaque(8), I64, I64, Opaque(8), Pad(32)]),
        "pollfd" => Array("pollfd_one"),
        "pollfd_one" => Struct(&[Number(4, Fd), Number(2, Hex), Number(2, Hex)]),
        "epoll_event" => Struct(&[X32, X64]),
        "epoll_events" => Array("epoll_event"),
        "iovec_in" => Array("iovec_in_one"),
        "iovec_in_one" => Struct(&[Pointer(In(1)), Number(8, Size)]),
        "iovec_out" => Array("iovec_out_one"),
        "iovec_out_one" => Struct(&[Pointer(Out(1)), Number(8, Size)]),
        "sockaddr" => Union(&[("un", "sockaddr_un"), ("in", "sockaddr_in"), ("in6", "sockaddr_in6"),
            ("unspec", "sockaddr_unspec")]),
        "sockaddr_un" => Struct(&[Fixed(2, 1), Name(108)]),
        // Port 0x204e is 20000 in network order.
        "sockaddr_in" => Struct(&[Fixed(2, 2), Number(2, Enum("port")), Number(4, Enum("in_addr")), Pad(8)]),
        "sockaddr_in6" => Struct(&[Fixed(2, 10), Number(2, Enum("port")), U32, Number(8, Enum("in6_high")),
            Number(8, Enum("in6_low")), U32]),
        "sockaddr_unspec" => Struct(&[Fixed(2, 0), Bytes(14)]),
        "msghdr" => Struct(&[Pointer(StructIn("sockaddr")), U32, Pad(4), Pointer(IovIn(4)), Number(8, Size),
            Pointer(StructIn("cmsg")), Number(8, Size), Number(4, Flags("msg")), Pad(4)]),
        "mmsghdr" => Array("mmsghdr_one"),
        "mmsghdr_one" => Struct(&[Of("msghdr"), U32, Pad(4)]),
        // SCM_RIGHTS with one descriptor.
        "cmsg" => Struct(&[Fixed(8, 20), Fixed(4, 1), Fixed(4, 1), Number(4, Fd), Pad(4)]),
        "robust_list_head" => Struct(&[X64, X64, X64]),
        "futex_waitv" => Array("futex_waitv_one"),
        "futex_waitv_one" => Struct(&[X64, Pointer(StructIn("int")), X32, Pad(4)]),
        "sembuf" => Array("sembuf_one"),
        "sembuf_one" => Struct(&[Number(2, Uint), Number(2, Int), Number(2, Hex)]),
        "msgbuf" => Struct(&[I64, Bytes(32)]),
        "msqid_ds" => Struct(&[Bytes(120)]),
        "shmid_ds" => Struct(&[Bytes(112)]),
        "mq_attr" => Struct(&[I64, I64, I64, I64, Pad(32)]),
        "gids" => Array("int"),
        "flock" => Struct(&[Number(2, Enum("lock")), Number(2, Enum("seek")), Pad(4), I64, I64, Opaque(4), Pad(4)]),
        "comm" => Struct(&[Bytes(16)]),
        "sem_values" => Struct(&[Bytes(32)]),
        "cap_header" => Struct(&[Number(4, Enum("capability")), Number(4, Pid)]),
        "cap_data" => Struct(&[X32, X32, X32, X32, X32, X32]),
        "sched_attr" => Struct(&[Fixed(4, 48), U32, X64, I32, U32, X64, X64, X64]),
        "clone_args" => Struct(&[Number(8, Flags("clone")), X64, X64, X64, Number(8, Signal), X64, X64, X64]),
        _ => return None,
    })
}

/// Bytes of the layout with this name; an array's is one element's. 0 where there is none.
#[must_use]
pub fn size(name: &str) -> usize {
    match layout(name) {
        Some(Layout::Struct(members)) => members.iter().map(member_size).sum(),
        Some(Layout::Array(of)) => size(of),
        Some(Layout::Union(variants)) => variants.iter().map(|(_, of)| size(of)).max().unwrap_or(0),
        None => 0,
    }
}

/// Bytes of a member.
#[must_use]
pub fn member_size(member: &Member) -> usize {
    match member {
        Number(size, _) | Fixed(size, _) | Opaque(size) | Pad(size) | Bytes(size) | Name(size) => {
            *size
        }
        Pointer(_) => 8,
        Of(name) => size(name),
    }
}

/// What a successful call's return value is: `"fd"`, `"pid"`, `"address"`, or a [`Kind::Id`]'s name.
#[must_use]
pub fn returns(call: &str) -> Option<&'static str> {
    Some(match call {
        "open" | "openat" | "openat2" | "creat" | "dup" | "dup2" | "dup3" | "socket" | "accept"
        | "accept4" | "eventfd" | "eventfd2" | "epoll_create" | "epoll_create1"
        | "inotify_init" | "inotify_init1" | "signalfd" | "signalfd4" | "timerfd_create"
        | "memfd_create" | "mq_open" | "pidfd_open" | "pidfd_getfd" => "fd",
        "getpid" | "gettid" | "getppid" | "clone" | "clone3" | "fork" | "vfork" | "wait4"
        | "getpgid" | "getpgrp" | "getsid" | "setsid" | "set_tid_address" => "pid",
        "mmap" | "mremap" | "shmat" | "brk" => "address",
        "inotify_add_watch" => "watch",
        "shmget" => "shm",
        "msgget" => "msg",
        "semget" => "sem",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::table::Table;

    #[test]
    fn sizes_are_those_of_the_headers() {
        let expected = [
            ("stat", 144),
            ("statx", 256),
            ("statfs", 120),
            ("siginfo", 128),
            ("sigevent", 64),
            ("msghdr", 56),
            ("mmsghdr", 64),
            ("rusage", 144),
            ("timex", 208),
            ("sysinfo", 112),
            ("utsname", 390),
            ("epoll_event", 12),
            ("sockaddr", 110),
            ("sockaddr_in", 16),
            ("sockaddr_in6", 28),
            ("clone_args", 64),
            ("sched_attr", 48),
            ("mq_attr", 64),
            ("stack", 24),
            ("cmsg", 24),
        ];
        for (name, bytes) in expected {
            assert_eq!(size(name), bytes, "{name}");
        }
    }

    #[test]
    fn every_structure_of_the_table_is_known() {
        for row in Table::new().iter() {
            for (arg, kind) in row.args {
                if let Kind::StructIn(name) | Kind::StructOut(name) = kind {
                    assert!(size(name) > 0, "{}: {arg}: {name}", row.name);
                }
            }
        }
    }
}
