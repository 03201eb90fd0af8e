//! Ring servers: threads that answer calls in rings while it pays.
//!
//! Spinning is a loan of a core. A server spins while calls come in and a host CPU is idle, then sleeps;
//! while no server looks, [`layout::SHARED_AWAKE`] is 0 and every gate leaves the VM at once. A call that
//! is posted just then is not lost: its gate gives up after [`layout::SHARED_SPIN`] looks and leaves, and
//! the monitor finds the call still in the ring. Nothing but speed depends on servers.
//!
//! Who wakes them: CPUs that leave the guest for system calls in quick succession.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use trapgate_firmware::layout;
use trapgate_kernel::platform::{Gpa, Served};
use vm_memory::Bytes;

use super::{
    Machine,
    ring::{Ring, Rings},
};

/// How long a server looks at empty rings before it sleeps. Several exits' worth on deprivileged hosts.
const PATIENCE: Duration = Duration::from_micros(150);
/// Calls that leave the VM at most this far apart count towards waking a server.
const QUICK: Duration = Duration::from_micros(250);
/// Quick calls in a row after which a server is woken, as long as waking it has paid.
const STREAK: u32 = 3;
/// The same after it has not paid again and again.
const STREAK_MAX: u32 = 192;
/// Calls a server must have answered for its waking to have paid.
const PAYS: u64 = 12;
/// Looks of a gate at its ring before it gives up: some 20 us.
const SPIN: u32 = 1200;
/// Rings that may be open at once.
const WORDS: usize = 16;

/// What CPUs and servers share.
pub(super) struct Servers {
    pub(super) rings: Rings,
    /// Bit by ring id: its vCPU is in the guest.
    open: [AtomicU64; WORDS],
    /// CPUs in the guest now.
    running: AtomicUsize,
    /// Host CPUs.
    cpus: usize,
    /// The page of [`layout::SHARED`].
    shared: Gpa,
    awake: AtomicBool,
    stop: AtomicBool,
    called: Mutex<bool>,
    bell: Condvar,
    /// Quick calls in a row that it takes to wake a server.
    price: AtomicU64,
    /// Calls answered in rings.
    pub(super) served: AtomicU64,
    /// Calls that servers could not answer.
    pub(super) punted: AtomicU64,
    /// Times that servers went to sleep.
    pub(super) sleeps: AtomicU64,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Servers {
    pub(super) fn new(shared: Gpa) -> Servers {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Servers {
            rings: Rings::default(),
            open: [const { AtomicU64::new(0) }; WORDS],
            running: AtomicUsize::new(0),
            cpus,
            shared,
            awake: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            called: Mutex::new(false),
            bell: Condvar::new(),
            price: AtomicU64::new(u64::from(STREAK)),
            served: AtomicU64::new(0),
            punted: AtomicU64::new(0),
            sleeps: AtomicU64::new(0),
            threads: Mutex::default(),
        }
    }
    /// Starts `count` servers, asleep.
    pub(super) fn start(machine: &Arc<Machine>, count: usize) -> std::io::Result<()> {
        let shared = machine.ram.frames.slice(machine.servers.shared, 4096);
        let _ = shared.store(
            SPIN,
            usize::try_from(layout::SHARED_SPIN).unwrap_or(0),
            Ordering::Relaxed,
        );
        for n in 0..count {
            let own = machine.clone();
            let thread = std::thread::Builder::new()
                .name(format!("ring-{n}"))
                .spawn(move || own.servers.run(&own))?;
            let servers = &machine.servers;
            servers.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(())
    }
    /// Ends the servers.
    pub(super) fn close(&self) {
        self.stop.store(true, Ordering::Release);
        self.call();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A server that panicked has said so.
            let _ = thread.join();
        }
    }

    fn bit(&self, ring: &Ring) -> Option<(&AtomicU64, u64)> {
        Some((self.open.get(ring.id / 64)?, 1 << (ring.id % 64)))
    }
    /// The ring's vCPU is about to enter the guest.
    pub(super) fn open(&self, ring: &Ring) {
        self.running.fetch_add(1, Ordering::Relaxed);
        if let Some((word, bit)) = self.bit(ring) {
            word.fetch_or(bit, Ordering::Release);
        }
    }
    /// It has left; on return no server acts for it.
    pub(super) fn close_ring(&self, ring: &Ring) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        if let Some((word, bit)) = self.bit(ring) {
            word.fetch_and(!bit, Ordering::AcqRel);
            ring.settle();
        }
    }
    /// A core is left for a server.
    fn room(&self) -> bool {
        self.running.load(Ordering::Relaxed) < self.cpus
    }
    /// A CPU left the guest for a system call. `streak` is its own.
    pub(super) fn note_call(&self, streak: &mut Streak) {
        if self.awake.load(Ordering::Relaxed) {
            return;
        }
        let now = Instant::now();
        let quick = now.duration_since(streak.last) < QUICK;
        streak.last = now;
        streak.calls = if quick { streak.calls + 1 } else { 0 };
        if u64::from(streak.calls) >= self.price.load(Ordering::Relaxed) && self.room() {
            streak.calls = 0;
            self.call();
        }
    }
    fn call(&self) {
        *self.called.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_one();
    }

    fn set_awake(&self, machine: &Machine, awake: bool) {
        self.awake.store(awake, Ordering::Relaxed);
        let page = machine.ram.frames.slice(self.shared, 4096);
        let offset = usize::try_from(layout::SHARED_AWAKE).unwrap_or(0);
        let _ = page.store(u32::from(awake), offset, Ordering::Release);
    }
    fn run(&self, machine: &Machine) {
        let mut rings = Vec::new();
        let mut version = u64::MAX;
        while !self.stop.load(Ordering::Acquire) {
            {
                let mut called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
                while !std::mem::take(&mut *called) {
                    called = self.bell.wait(called).unwrap_or_else(PoisonError::into_inner);
                }
            }
            self.set_awake(machine, true);
            let hits = self.watch(&mut rings, &mut version);
            self.set_awake(machine, false);
            // Calls posted before that was seen.
            fence(Ordering::SeqCst);
            self.look(&rings);
            self.sleeps.fetch_add(1, Ordering::Relaxed);
            let price = self.price.load(Ordering::Relaxed);
            let price = if hits >= PAYS {
                STREAK
            } else {
                STREAK_MAX.min(u32::try_from(price * 2).unwrap_or(STREAK_MAX))
            };
            self.price.store(u64::from(price), Ordering::Relaxed);
        }
    }
    /// Serves until nothing has come for a while or the core is wanted; calls answered.
    fn watch(&self, rings: &mut Vec<Option<Arc<Ring>>>, version: &mut u64) -> u64 {
        let mut hits = 0;
        let mut last = Instant::now();
        let mut looks = 0u32;
        loop {
            let now = self.rings.version.load(Ordering::Acquire);
            if now != *version {
                *version = now;
                *rings = self.rings.list();
            }
            let found = self.look(rings);
            hits += found;
            looks = looks.wrapping_add(1);
            if found > 0 {
                looks = 0;
            } else if looks == 1 {
                last = Instant::now();
            } else if looks.is_multiple_of(64)
                && (last.elapsed() > PATIENCE || !self.room() || self.stop.load(Ordering::Relaxed))
            {
                return hits;
            }
            std::hint::spin_loop();
        }
    }
    /// One look at every open ring; calls answered.
    fn look(&self, rings: &[Option<Arc<Ring>>]) -> u64 {
        let mut found = 0;
        for (w, word) in self.open.iter().enumerate() {
            let mut bits = word.load(Ordering::Acquire);
            if w * 64 >= rings.len() {
                break;
            }
            while bits != 0 {
                let id = w * 64 + bits.trailing_zeros() as usize;
                let bit = bits & bits.wrapping_neg();
                bits &= bits - 1;
                let Some(Some(ring)) = rings.get(id) else { continue };
                if !ring.is_posted() {
                    continue;
                }
                match ring.serve(|| word.load(Ordering::Acquire) & bit != 0) {
                    Some(Served::Punt) => {
                        self.punted.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(_) => {
                        self.served.fetch_add(1, Ordering::Relaxed);
                        found += 1;
                    }
                    None => {}
                }
            }
        }
        found
    }
}

/// A CPU's recent calls that left the VM.
pub(super) struct Streak {
    last: Instant,
    calls: u32,
}

impl Default for Streak {
    fn default() -> Streak {
        Streak { last: Instant::now(), calls: 0 }
    }
}
