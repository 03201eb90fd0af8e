//! The ways a system call reaches the kernel on KVM: every one of them must look the same to guests.
//!
//! `--gate auto` is what all other suites run with.

use trapgate_tests::{Backend, Link, Run, same_with};

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

/// However many servers there are, all of them end with the VM.
#[test]
fn several_servers_end() {
    if !Backend::Kvm.usable("several_servers_end") {
        return;
    }
    for gate in ["auto", "ring"] {
        let options = ["--gate", gate, "--ring-servers", "3"];
        let got = Run::new(Backend::Kvm, "/bin/echo", ["done"]).monitor(options).go();
        assert_eq!((got.status, got.timed_out), (0, false), "--gate {gate}: {}", got.stderr);
        assert_eq!(got.stdout, "done\n");
    }
}

gates! {
    clone cred dirs efault epoll exec fcntl file_io fork futex gate memfd mmap mmap_file mprotect pipe poll
    pty shm signalfd signals splice tcp threads timerfd udp unix_pass unix_stream wait
    mmu_revoke mmu_supervisor
}
