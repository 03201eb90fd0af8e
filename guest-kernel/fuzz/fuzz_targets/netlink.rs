//! Netlink requests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trapgate_kernel::fuzz::Netlink;

thread_local!(static TARGET: Netlink = Netlink::default());

fuzz_target!(|bytes: &[u8]| TARGET.with(|target| target.one(bytes)));
