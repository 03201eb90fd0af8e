//! The line discipline.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trapgate_kernel::fuzz::terminal;

fuzz_target!(|bytes: &[u8]| terminal(bytes));
