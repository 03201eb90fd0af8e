//! Control messages.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trapgate_kernel::fuzz::control;

fuzz_target!(|bytes: &[u8]| control(bytes));
