//! The KVM platform alone, driven with hand-written guest code: no kernel above it.
//!
//! Runs on both kinds of host; `ci/hardware-kvm` runs it on an emulated hardware kind. Without
//! /dev/kvm every test says so and passes.
#![allow(unsafe_code, reason = "guest code is assembled into this binary and copied out of it")]

#[path = "kvm_platform/faults.rs"]
mod faults;
#[path = "kvm_platform/harness.rs"]
mod harness;
#[path = "kvm_platform/memory.rs"]
mod memory;
#[path = "kvm_platform/registers.rs"]
mod registers;
#[path = "kvm_platform/threads.rs"]
mod threads;
