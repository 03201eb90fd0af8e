//! Handlers: decode, ask a mechanism, copy out. One file per man-page family.

pub mod epoll;
pub mod eventfd;
pub mod pipe;
pub mod poll;
