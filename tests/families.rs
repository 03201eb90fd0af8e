//! One guest program per man-page family, each natively and on every backend.
//!
//! A test's name is its family and its backend: `pipe::kvm`.

use trapgate_tests::{Backend, Link, same_as_native};

macro_rules! family {
    ($name:ident, $program:expr, $link:expr) => {
        mod $name {
            use super::*;
            #[test]
            fn native() {
                same_as_native($program, $link, Backend::Native);
            }
            #[test]
            fn kvm() {
                same_as_native($program, $link, Backend::Kvm);
            }
            #[test]
            fn ptrace() {
                same_as_native($program, $link, Backend::Ptrace);
            }
        }
    };
}

macro_rules! families {
    ($($name:ident)*) => {
        $(family!($name, stringify!($name), Link::Static);)*

        /// Programs that no test names would never run.
        #[test]
        fn every_program_is_listed() {
            let listed = [$(stringify!($name)),*];
            for entry in std::fs::read_dir(trapgate_tests::guest::sources()).unwrap() {
                let path = entry.unwrap().path();
                let stem = path.file_stem().unwrap().to_str().unwrap();
                let elsewhere = ["mmu_", "end_", "det_"].iter().any(|kind| stem.starts_with(kind));
                if path.extension().is_some_and(|e| e == "c") && !elsewhere {
                    assert!(listed.contains(&stem), "guests/{stem}.c is in no list");
                }
            }
        }
    };
}

families! {
    clocks clone counts cred dirs efault epoll eventfd exec fcntl file_io file_open file_seek flock fork gate
    futex inotify memfd mmap mmap_file mount mprotect mq mremap netlink path pipe poll proc pty rename
    resource rewrite shm signalfd signals splice stat tcp threads timerfd traps udp unix_dgram unix_pass unix_stream
    wait
    xattr
}
