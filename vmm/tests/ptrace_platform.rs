//! The ptrace platform alone, driven with hand-assembled guest code.
//!
//! Nothing of the kernel is involved: the tests map frames, run code and look at exits.

#[path = "ptrace_platform/calls.rs"]
mod calls;
#[path = "ptrace_platform/costs.rs"]
mod costs;
#[path = "ptrace_platform/cpus.rs"]
mod cpus;
#[path = "ptrace_platform/ends.rs"]
mod ends;
#[path = "ptrace_platform/harness.rs"]
mod harness;
#[path = "ptrace_platform/memory.rs"]
mod memory;
#[path = "ptrace_platform/stubs.rs"]
mod stubs;
