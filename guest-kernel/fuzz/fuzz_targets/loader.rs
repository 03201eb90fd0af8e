//! The program loader.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trapgate_kernel::fuzz::Loader;

thread_local!(static TARGET: Loader = Loader::default());

fuzz_target!(|bytes: &[u8]| TARGET.with(|target| target.one(bytes)));
