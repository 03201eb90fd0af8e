//! The code around a SYSCALL.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trapgate_kernel::fuzz::sites;

fuzz_target!(|bytes: &[u8]| sites(bytes));
