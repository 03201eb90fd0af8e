//! What an executor says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trapgate::decoders::executor_records;

fuzz_target!(|bytes: &[u8]| executor_records(bytes));
