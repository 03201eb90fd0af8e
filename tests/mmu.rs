//! Isolation as an attacker would test it: probes with another thread hammering throughout.
//!
//! The programs are content natively too: there the same instructions meet Linux.

use trapgate_tests::{Backend, Link, same_as_native};

macro_rules! probe {
    ($($name:ident)*) => {
        $(mod $name {
            use super::*;
            #[test]
            fn kvm() {
                same_as_native(stringify!($name), Link::Static, Backend::Kvm);
            }
            #[test]
            fn ptrace() {
                same_as_native(stringify!($name), Link::Static, Backend::Ptrace);
            }
        })*
    };
}
probe! { mmu_supervisor mmu_revoke }
