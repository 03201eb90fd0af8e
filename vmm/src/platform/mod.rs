//! The backends: one module each, the same kernel above.

pub mod kvm;
pub mod ptrace;
