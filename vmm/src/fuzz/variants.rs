//! Calls whose arguments mean different things by the value of one of them, a variant for each.

use trapgate_kernel::linux::table::Kind::{
    self, Enum, Fd, Flags, Hex, In, Int, Pid, Signal, StructIn, StructOut, Uint,
};

/// One meaning of a call.
pub struct Variant {
    /// The call.
    pub call: &'static str,
    /// What follows `$` in its name.
    pub suffix: &'static str,
    /// Arguments with one value.
    pub fixed: &'static [(usize, u64)],
    /// Arguments of another kind than the table's.
    pub kinds: &'static [(usize, Kind)],
    /// How many arguments it has, if fewer.
    pub args: Option<usize>,
    /// What it returns, if something else.
    pub returns: Option<&'static str>,
}

const fn of(
    call: &'static str,
    suffix: &'static str,
    fixed: &'static [(usize, u64)],
    kinds: &'static [(usize, Kind)],
) -> Variant {
    Variant { call, suffix, fixed, kinds, args: None, returns: None }
}
const fn giving(variant: Variant, returns: &'static str) -> Variant {
    Variant { returns: Some(returns), ..variant }
}
const fn short(variant: Variant, args: usize) -> Variant {
    Variant { args: Some(args), ..variant }
}

const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;

/// All of them; values from the uapi headers.
#[rustfmt::skip]
pub static VARIANTS: &[Variant] = &[
    giving(of("fcntl", "F_DUPFD", &[(1, 0)], &[(2, Fd)]), "fd"),
    giving(of("fcntl", "F_DUPFD_CLOEXEC", &[(1, 1030)], &[(2, Fd)]), "fd"),
    short(of("fcntl", "F_GETFD", &[(1, 1)], &[]), 2),
    of("fcntl", "F_SETFD", &[(1, 2)], &[(2, Enum("bool"))]),
    short(of("fcntl", "F_GETFL", &[(1, 3)], &[]), 2),
    of("fcntl", "F_SETFL", &[(1, 4)], &[(2, Flags("open"))]),
    of("fcntl", "F_GETLK", &[(1, 5)], &[(2, StructOut("flock"))]),
    of("fcntl", "F_SETLK", &[(1, 6)], &[(2, StructIn("flock"))]),
    of("fcntl", "F_SETLKW", &[(1, 7)], &[(2, StructIn("flock"))]),
    of("fcntl", "F_OFD_SETLK", &[(1, 37)], &[(2, StructIn("flock"))]),
    of("fcntl", "F_OFD_GETLK", &[(1, 36)], &[(2, StructOut("flock"))]),
    of("fcntl", "F_SETOWN", &[(1, 8)], &[(2, Pid)]),
    of("fcntl", "F_SETSIG", &[(1, 10)], &[(2, Signal)]),
    short(of("fcntl", "F_GETSIG", &[(1, 11)], &[]), 2),
    of("fcntl", "F_SETPIPE_SZ", &[(1, 1031)], &[(2, Uint)]),
    short(of("fcntl", "F_GETPIPE_SZ", &[(1, 1032)], &[]), 2),
    of("fcntl", "F_ADD_SEALS", &[(1, 1033)], &[(2, Flags("seals"))]),
    short(of("fcntl", "F_GET_SEALS", &[(1, 1034)], &[]), 2),
    of("ioctl", "FIONREAD", &[(1, 0x541b)], &[(2, StructOut("int"))]),
    of("ioctl", "FIONBIO", &[(1, 0x5421)], &[(2, StructIn("int"))]),
    short(of("ioctl", "FIOCLEX", &[(1, 0x5451)], &[]), 2),
    short(of("ioctl", "FIONCLEX", &[(1, 0x5450)], &[]), 2),
    of("socket", "unix", &[(0, AF_UNIX)], &[(2, Enum("zero"))]),
    of("socket", "tcp", &[(0, AF_INET), (1, 1)], &[(2, Enum("zero"))]),
    of("socket", "udp", &[(0, AF_INET), (1, 2)], &[(2, Enum("zero"))]),
    of("socket", "tcp6", &[(0, AF_INET6), (1, 1)], &[(2, Enum("zero"))]),
    of("socket", "tcp_nonblock", &[(0, AF_INET), (1, 0o4001)], &[(2, Enum("zero"))]),
    of("socketpair", "unix", &[(0, AF_UNIX)], &[(2, Enum("zero"))]),
    of("setsockopt", "int", &[(1, 1)], &[(2, Enum("so_option")), (3, StructIn("int")), (4, Enum("four"))]),
    of("setsockopt", "timeval", &[(1, 1)], &[(2, Enum("so_timeout")), (3, StructIn("timeval")), (4, Enum("sixteen"))]),
    of("setsockopt", "tcp", &[(1, 6)], &[(2, Enum("tcp_option")), (3, StructIn("int")), (4, Enum("four"))]),
    of("getsockopt", "int", &[(1, 1)], &[(2, Enum("so_option")), (3, StructOut("int"))]),
    of("getsockopt", "tcp", &[(1, 6)], &[(2, Enum("tcp_option")), (3, StructOut("int"))]),
    short(of("futex", "FUTEX_WAKE", &[(1, 1)], &[]), 3),
    short(of("futex", "FUTEX_WAIT", &[(1, 0)], &[]), 4),
    of("futex", "FUTEX_REQUEUE", &[(1, 3)], &[(3, Uint)]),
    of("futex", "FUTEX_CMP_REQUEUE", &[(1, 4)], &[(3, Uint)]),
    of("futex", "FUTEX_WAKE_OP", &[(1, 5)], &[(3, Uint), (5, Hex)]),
    of("futex", "FUTEX_WAIT_BITSET", &[(1, 9)], &[]),
    of("futex", "FUTEX_WAKE_BITSET", &[(1, 10)], &[]),
    of("prctl", "PR_SET_NAME", &[(0, 15)], &[(1, Kind::Str)]),
    of("prctl", "PR_GET_NAME", &[(0, 16)], &[(1, StructOut("comm"))]),
    of("prctl", "PR_SET_DUMPABLE", &[(0, 4)], &[(1, Enum("bool"))]),
    short(of("prctl", "PR_GET_DUMPABLE", &[(0, 3)], &[]), 1),
    of("prctl", "PR_SET_PDEATHSIG", &[(0, 1)], &[(1, Signal)]),
    of("prctl", "PR_GET_PDEATHSIG", &[(0, 2)], &[(1, StructOut("int"))]),
    of("prctl", "PR_SET_KEEPCAPS", &[(0, 8)], &[(1, Enum("bool"))]),
    of("prctl", "PR_SET_NO_NEW_PRIVS", &[(0, 38)], &[(1, Enum("bool"))]),
    of("prctl", "PR_SET_TIMERSLACK", &[(0, 29)], &[(1, Uint)]),
    of("mmap", "anon", &[(5, 0)], &[(3, Enum("map_anon")), (4, Enum("minus_one"))]),
    of("mmap", "file", &[], &[(3, Enum("map_file")), (5, Enum("page_offset"))]),
    giving(of("clone", "fork", &[(0, 17), (1, 0), (2, 0), (3, 0), (4, 0)], &[]), "pid"),
    of("shmctl", "IPC_RMID", &[(1, 0), (2, 0)], &[]),
    of("msgctl", "IPC_RMID", &[(1, 0), (2, 0)], &[]),
    of("semctl", "IPC_RMID", &[(2, 0), (3, 0)], &[]),
    of("semctl", "SETVAL", &[(2, 16)], &[(3, Int)]),
    of("semctl", "GETVAL", &[(2, 12), (3, 0)], &[]),
    of("semctl", "GETPID", &[(2, 11), (3, 0)], &[]),
    of("semctl", "GETNCNT", &[(2, 14), (3, 0)], &[]),
    of("semctl", "SETALL", &[(2, 17)], &[(3, StructIn("sem_values"))]),
    of("semctl", "GETALL", &[(2, 13)], &[(3, StructOut("sem_values"))]),
    of("shmget", "private", &[(0, 0)], &[(2, Enum("ipc_creat"))]),
    of("msgget", "private", &[(0, 0)], &[(1, Enum("ipc_creat"))]),
    of("semget", "private", &[(0, 0)], &[(1, Enum("few")), (2, Enum("ipc_creat"))]),
    of("lseek", "SEEK_DATA", &[(2, 3)], &[]),
    of("lseek", "SEEK_HOLE", &[(2, 4)], &[]),
    of("write", "eventfd", &[(2, 8)], &[(1, StructIn("offset"))]),
    of("read", "eventfd", &[(2, 8)], &[(1, StructOut("offset"))]),
    of("fallocate", "keep", &[(1, 1)], &[]),
    of("fallocate", "punch", &[(1, 3)], &[]),
    of("sendto", "unaddressed", &[(4, 0), (5, 0)], &[(1, In(2))]),
    of("recvfrom", "unaddressed", &[(4, 0), (5, 0)], &[]),
    of("memfd_create", "sealing", &[(1, 2)], &[]),
];
