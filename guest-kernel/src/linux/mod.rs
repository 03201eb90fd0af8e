//! The Linux x86-64 personality: numbers, layouts, handlers, signal frames, ELF.
//!
//! The only place that knows a system-call number or a Linux struct layout; the mechanisms beside it
//! (`task`, `mm`, `fs`, …) know neither.

pub mod auxv;
pub mod cmsg;
pub mod elf;
pub mod exec_image;
#[cfg(test)]
mod exec_tests;
pub mod flags;
pub mod layout_fs;
pub mod layouts;
pub mod rows;
pub mod sigframe;
pub mod siginfo;
pub mod sockaddr;
pub mod stats;
pub mod strace;
pub mod sys;
pub mod table;
pub mod vdso;
mod vdso_code;
