//! Socket addresses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trapgate_kernel::fuzz::addresses;

fuzz_target!(|bytes: &[u8]| addresses(bytes));
