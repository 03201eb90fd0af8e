//! The monitor: platforms under the usermode kernel, guest RAM, console, CLI.
#![deny(unsafe_code)]

pub mod backend;
pub mod bench;
pub mod cli;
pub mod console;
#[cfg(any(test, feature = "fuzzing"))]
pub mod decoders;
pub mod doctor;
pub mod events;
pub mod exit;
pub mod fuzz;
#[allow(unsafe_code, reason = "makes the kernel's host calls")]
pub mod host;
mod html;
#[allow(unsafe_code, reason = "maps guest RAM")]
pub mod memory;
#[allow(unsafe_code, reason = "talks to KVM and ptrace")]
pub mod platform;
pub mod run;
pub mod stats;
pub mod syscalls;
pub mod terminal;
pub mod units;
