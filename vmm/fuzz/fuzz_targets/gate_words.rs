//! The words a gate is known by.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trapgate::decoders::gate_words;

fuzz_target!(|bytes: &[u8]| gate_words(bytes));
