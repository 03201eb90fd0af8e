//! Signal frames.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trapgate_kernel::fuzz::SignalFrames;

thread_local!(static TARGET: SignalFrames = SignalFrames::default());

fuzz_target!(|bytes: &[u8]| TARGET.with(|target| target.one(bytes)));
