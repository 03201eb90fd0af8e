//! Ring pages.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trapgate::decoders::RingEntries;

thread_local!(static TARGET: RingEntries = RingEntries::default());

fuzz_target!(|bytes: &[u8]| TARGET.with(|target| target.one(bytes)));
