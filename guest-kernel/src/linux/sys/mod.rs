//! Handlers: decode, ask a mechanism, copy out. One file per man-page family.

pub mod clone;
pub mod epoll;
pub mod eventfd;
pub mod exec;
pub mod fd;
pub mod futex;
pub mod io;
pub mod mempolicy;
pub mod message;
pub mod mm;
pub mod mm_lock;
pub mod netdev;
pub mod pipe;
pub mod poll;
pub mod process;
pub mod process_vm;
pub mod resource;
pub mod shm;
pub mod signal;
pub mod signalfd;
pub mod socket;
pub mod sockopt;
pub mod time;
pub mod timer;
pub mod wait;
