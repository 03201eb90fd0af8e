//! Handlers: decode, ask a mechanism, copy out. One file per man-page family.

pub mod clone;
pub mod epoll;
pub mod eventfd;
pub mod pipe;
pub mod poll;
pub mod process;
pub mod resource;
pub mod wait;
