//! A host that is the same in every run: random bytes from a seed (`--seed`), clocks that the guest's own
//! doings move (`--virtual-time`). What it does not replace is the real host's.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use trapgate_kernel::{
    error::Errno,
    host::{ClockLine, Host, HostTree},
    time::virtual_time::VirtualTime,
};

use super::LinuxHost;

/// SplitMix64 (Steele, Lea and Flood, 2014): good enough to look random, and no secret to anybody who
/// knows the seed.
struct SplitMix64(AtomicU64);

impl SplitMix64 {
    fn next(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn fill(&self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The real host but for its randomness and its clocks, as asked for.
pub struct RepeatableHost {
    host: Arc<LinuxHost>,
    random: Option<SplitMix64>,
    time: Option<Arc<VirtualTime>>,
}

impl RepeatableHost {
    /// `host` with the bytes that follow from `seed`, and with virtual time.
    #[must_use]
    pub fn new(host: Arc<LinuxHost>, seed: Option<u64>, virtual_time: bool) -> RepeatableHost {
        RepeatableHost {
            host,
            random: seed.map(|seed| SplitMix64(AtomicU64::new(seed))),
            time: virtual_time.then(VirtualTime::new),
        }
    }
}

impl Host for RepeatableHost {
    fn monotonic(&self) -> Duration {
        self.time.as_ref().map_or_else(|| self.host.monotonic(), |time| time.monotonic())
    }
    fn realtime(&self) -> Duration {
        self.time.as_ref().map_or_else(|| self.host.realtime(), |time| time.realtime())
    }
    fn boottime(&self) -> Duration {
        self.time.as_ref().map_or_else(|| self.host.boottime(), |time| time.monotonic())
    }
    fn refresh_clock(&self) -> Option<ClockLine> {
        if self.time.is_some() { None } else { self.host.refresh_clock() }
    }
    fn virtual_time(&self) -> Option<Arc<VirtualTime>> {
        self.time.clone()
    }
    fn stopwatch(&self) -> Duration {
        self.host.stopwatch()
    }
    fn thread_cpu_time(&self) -> (Duration, Duration) {
        if self.time.is_some() { Default::default() } else { self.host.thread_cpu_time() }
    }
    fn random(&self, buf: &mut [u8]) {
        match &self.random {
            Some(random) => random.fill(buf),
            None => self.host.random(buf),
        }
    }
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.host.spawn(name, body)
    }
    fn cpus(&self) -> usize {
        self.host.cpus()
    }
    fn total_memory(&self) -> u64 {
        self.host.total_memory()
    }
    fn descriptors(&self) -> usize {
        self.host.descriptors()
    }
    fn open_tree(&self, path: &Path) -> Result<Arc<dyn HostTree>, Errno> {
        self.host.open_tree(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // The first outputs for seed 1234567, as published with the reference code.
        let random = SplitMix64(AtomicU64::new(1_234_567));
        let first: [u64; 3] = std::array::from_fn(|_| random.next());
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn a_seed_is_all_that_bytes_depend_on() {
        let bytes = |seed| {
            let host = RepeatableHost::new(Arc::new(LinuxHost::new()), Some(seed), false);
            let mut buf = [0; 13];
            host.random(&mut buf);
            buf
        };
        assert_eq!(bytes(7), bytes(7));
        assert_ne!(bytes(7), bytes(8));
    }

    #[test]
    fn only_what_is_asked_for_is_replaced() {
        let real = Arc::new(LinuxHost::new());
        let seeded = RepeatableHost::new(real.clone(), Some(1), false);
        assert!(seeded.virtual_time().is_none());
        assert!(seeded.monotonic() <= real.monotonic());
        let timeless = RepeatableHost::new(real, None, true);
        assert_eq!(timeless.monotonic(), timeless.boottime());
        assert_eq!(timeless.monotonic(), Duration::from_secs(1));
        assert_eq!(timeless.realtime(), Duration::from_secs(1_704_067_200));
        assert_eq!(timeless.refresh_clock(), None);
    }
}
