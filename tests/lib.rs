//! Harness of the suites: guest programs run natively and on every backend, and compared.
//!
//! * A guest program ([`mod@guest`]) is a C file in `guests/`, compiled once into `target/guests/`. It
//!   prints only what must be equal everywhere and exits non-zero when something is not as the
//!   man page says; so each program tests Linux itself first.
//! * A run ([`mod@run`]) has a time limit, leaves no process behind, and yields status and output.
//! * [`compare`] is what a test calls: native result against a backend's, with a readable diff.
//! * Nothing is skipped silently ([`backend`]): a missing `/dev/kvm` is one loud line per test, and
//!   the last suite fails if `/dev/kvm` exists but nothing ran on it.
#![deny(unsafe_code)]

pub mod backend;
pub mod browser;
pub mod compare;
pub mod guest;
pub mod run;

pub use backend::Backend;
pub use compare::{same_as_native, same_script, same_with, unless_gap};
pub use guest::{Link, guest};
pub use run::{Outcome, Run};
