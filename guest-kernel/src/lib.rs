//! Trapgate's usermode kernel: processes, memory, files, signals and sockets for guests that run on
//! a platform (KVM or ptrace) the kernel knows only by its traits.
//!
//! Principles:
//! * A handler validates, resolves, tries, or *waits on queues* and is retried. None blocks in place
//!   or keeps state across a block.
//! * Guest memory is an allegation: `usermem` is its single door, and everything is copied once.
//! * Mechanisms know no system-call number and no Linux layout; those live in `linux`.
//! * Everything hangs off one [`kernel::Kernel`]; no statics.
#![deny(unsafe_code)]

pub mod call;
pub mod creds;
pub mod epoll;
pub mod error;
pub mod eventfd;
pub mod frames;
pub mod fs;
pub mod futex;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod host;
pub mod ipc;
pub mod kernel;
pub mod linux;
pub mod mm;
pub mod net;
pub mod num;
pub mod pipe;
pub mod platform;
pub mod signal;
pub mod task;
#[cfg(any(test, feature = "fuzzing"))]
pub mod testing;
pub mod time;
pub mod timer;
pub mod tty;
pub mod usermem;
pub mod wait;
