//! The monitor: platforms under the usermode kernel, guest RAM, console, CLI.
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "maps guest RAM")]
pub mod memory;
#[allow(unsafe_code, reason = "talks to KVM and ptrace")]
pub mod platform;
