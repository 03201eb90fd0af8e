//! The ways a system call reaches the kernel on KVM: every one of them must look the same to guests.
//!
//! `--gate auto` is what all other suites run with.

use trapgate_tests::{Backend, Link, same_with};

macro_rules! gates {
    ($($name:ident)*) => {
        $(mod $name {
            use super::*;
            #[test]
            fn ring() {
                same_with(stringify!($name), Link::Static, Backend::Kvm, &["--gate", "ring"]);
            }
            #[test]
            fn exit() {
                same_with(stringify!($name), Link::Static, Backend::Kvm, &["--gate", "exit"]);
            }
        })*
    };
}

gates! {
    clone cred dirs efault epoll exec fcntl file_io fork futex gate memfd mmap mmap_file mprotect pipe poll
    pty shm signalfd signals splice tcp threads timerfd udp unix_pass unix_stream wait
    mmu_revoke mmu_supervisor
}
