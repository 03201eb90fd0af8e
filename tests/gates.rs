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
    pty rewrite shm signalfd signals splice tcp threads timerfd udp unix_pass unix_stream wait
    mmu_revoke mmu_supervisor
}

/// Hot call sites are rewritten where SYSCALL is slow, and only if they may be.
#[test]
fn hot_sites_are_rewritten() {
    if !Backend::Kvm.usable("hot_sites_are_rewritten") {
        return;
    }
    let deprivileged = deprivileged();
    for (options, rewrites) in
        [(&["--stats=json"][..], deprivileged), (&["--stats=json", "--no-rewrite"], false)]
    {
        let program = trapgate_tests::guest("rewrite", Link::Static);
        let got = Run::new(Backend::Kvm, program, ["answers_stay_the_same"])
            .monitor(options.iter().copied())
            .go();
        let stats = got.stderr.lines().find(|line| line.starts_with('{')).expect("statistics");
        let (_, rest) = stats.split_once("\"sites_rewritten\":").expect("a count of sites");
        let sites: u32 =
            rest.split(',').next().and_then(|n| n.trim().parse().ok()).expect("a number");
        assert_eq!(sites > 2, rewrites, "{options:?}: {stats}");
    }
}

/// SYSCALL leaves ring 3 alone on this host.
fn deprivileged() -> bool {
    let got = std::process::Command::new(trapgate_tests::backend::trapgate())
        .args(["doctor", "--json"])
        .output();
    String::from_utf8_lossy(&got.expect("doctor").stdout).contains("deprivileged")
}
