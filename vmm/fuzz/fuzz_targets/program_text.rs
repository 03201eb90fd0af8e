//! Texts of programs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trapgate::decoders::program_text;

fuzz_target!(|bytes: &[u8]| program_text(bytes));
