//! Messages in a program's memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trapgate_kernel::fuzz::Sendmsg;

thread_local!(static TARGET: Sendmsg = Sendmsg::default());

fuzz_target!(|bytes: &[u8]| TARGET.with(|target| target.one(bytes)));
