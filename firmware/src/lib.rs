//! The ABI between the ring-0 image and the monitor that loads it.
//!
//! `main.rs` beside this file is the image itself: the gate a guest's SYSCALL lands on, the exception
//! stubs and the interrupt table. It is compiled by `vmm/build.rs` and shares these two modules by
//! `mod`, so both sides are built from one text; [`abi::Header`] catches an image that is not.
#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
pub mod layout;
