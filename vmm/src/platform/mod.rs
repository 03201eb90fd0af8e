//! The backends: one module each, the same kernel above.

mod affinity;
pub mod kvm;
pub mod ptrace;
