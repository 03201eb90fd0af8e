//! Ring servers: threads that answer calls in rings while it pays.
//!
//! Spinning is a loan of a core. A server spins while calls come in and a host CPU is idle, then sleeps;
//! while no server looks, [`layout::SHARED_AWAKE`] is 0 and every gate leaves the VM at once. A call that
//! is posted just then is not lost: its gate gives up after [`layout::SHARED_SPIN`] looks and leaves, and
//! the monitor finds the call still in the ring. Nothing but speed depends on servers.
//!
//! Who wakes them: CPUs that leave the guest for system calls in quick succession. A CPU's thread that is
//! about to sleep in the kernel looks at the rings for a moment itself: in a conversation between two
//! guest threads each one's call is then answered by the other's thread, and none is ever woken.

use std::{
    cell::Cell,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use trapgate_firmware::layout;
use trapgate_kernel::platform::{Gpa, Served, Traffic};
use vm_memory::Bytes;

use super::{
    super::affinity,
    Machine,
    cores::Placement,
    image::at,
    protocol,
    ring::{Ring, Rings},
};

/// How long a server looks at empty rings before it sleeps. Several exits' worth on deprivileged hosts.
const PATIENCE: Duration = Duration::from_micros(150);
/// The same for a thread that is about to sleep.
const IDLE_PATIENCE: Duration = Duration::from_micros(80);
/// While the guest could use every core, a server must be worth its own: how long until that is looked at again.
const CROWDED: Duration = Duration::from_micros(200);
/// After this long a waking that did not pay is forgotten.
const FORGET: Duration = Duration::from_millis(20);
/// Calls that leave the VM at most this far apart count towards waking a server.
const QUICK: Duration = Duration::from_micros(250);
/// Quick calls in a row after which a server is woken, as long as waking it has paid.
const STREAK: u32 = 3;
/// The same after it has not paid again and again.
const STREAK_MAX: u32 = 192;
/// Calls a server must have answered for its waking to have paid.
const PAYS: u64 = 4;
/// Looks of a gate at its ring before it gives up: some 20 us.
const SPIN: u32 = 1200;
/// Looks at empty rings between two looks at the clock and at who else wants the core.
const LOOKS: u32 = 32;
/// Rings that may be open at once.
const WORDS: usize = 16;

/// What CPUs and servers share.
pub(super) struct Servers {
    pub(super) rings: Rings,
    /// Bit by ring id: its vCPU is in the guest.
    open: [AtomicU64; WORDS],
    /// CPUs whose threads do not sleep in the kernel.
    active: AtomicUsize,
    /// Sleepers that look at rings first.
    idlers: AtomicUsize,
    /// Servers that are awake.
    on_duty: AtomicUsize,
    /// Host CPUs.
    cpus: usize,
    /// What a call by an exit costs more than one in a ring.
    pub(super) exit_cost: Duration,
    /// Servers there are; without any, no thread ever looks at a ring.
    count: AtomicUsize,
    /// Servers never sleep, whether it pays or not.
    always: AtomicBool,
    /// The page of [`layout::SHARED`].
    shared: Gpa,
    /// Threads looking at rings.
    lookers: Mutex<usize>,
    awake: AtomicBool,
    stop: AtomicBool,
    called: Mutex<bool>,
    bell: Condvar,
    /// The core of the CPU that called last.
    caller: AtomicUsize,
    pub(super) placement: Placement,
    streak: Mutex<Streak>,
    /// Quick calls in a row that it takes to wake a server.
    price: AtomicU32,
    /// Calls answered in rings.
    served: AtomicU64,
    /// Of those, by threads about to sleep.
    served_idle: AtomicU64,
    /// Calls that servers could not answer.
    punted: AtomicU64,
    /// When servers were awake.
    shifts: Mutex<Shifts>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Servers {
    pub(super) fn new(shared: Gpa) -> Servers {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Servers {
            rings: Rings::default(),
            open: [const { AtomicU64::new(0) }; WORDS],
            active: AtomicUsize::new(0),
            idlers: AtomicUsize::new(0),
            on_duty: AtomicUsize::new(0),
            cpus,
            exit_cost: Duration::ZERO,
            count: AtomicUsize::new(0),
            always: AtomicBool::new(false),
            shared,
            lookers: Mutex::new(0),
            awake: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            called: Mutex::new(false),
            bell: Condvar::new(),
            caller: AtomicUsize::new(usize::MAX),
            placement: Placement::default(),
            streak: Mutex::default(),
            price: AtomicU32::new(STREAK),
            served: AtomicU64::new(0),
            served_idle: AtomicU64::new(0),
            punted: AtomicU64::new(0),
            shifts: Mutex::default(),
            threads: Mutex::default(),
        }
    }
    /// Starts `count` servers: asleep, or, with `always`, never to sleep.
    pub(super) fn start(machine: &Arc<Machine>, count: usize, always: bool) -> std::io::Result<()> {
        let servers = &machine.servers;
        servers.always.store(always, Ordering::Relaxed);
        let shared = machine.ram.frames.slice(servers.shared, 4096);
        let _ = shared.store(SPIN, at(layout::SHARED_SPIN), Ordering::Relaxed);
        let _ =
            shared.store(machine.whole_features(), at(layout::SHARED_FEATURES), Ordering::Relaxed);
        servers.count.store(count, Ordering::Relaxed);
        for n in 0..count {
            let own = machine.clone();
            let thread = std::thread::Builder::new()
                .name(format!("ring-{n}"))
                .spawn(move || own.servers.run(&own))?;
            servers.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(())
    }
    /// Ends the servers.
    pub(super) fn close(&self) {
        self.stop.store(true, Ordering::Release);
        *self.called.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A server that panicked has said so.
            let _ = thread.join();
        }
    }

    fn shifts(&self) -> MutexGuard<'_, Shifts> {
        self.shifts.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Adds what servers did to `traffic`.
    pub(super) fn report(&self, traffic: Traffic) -> Traffic {
        let mut shifts = self.shifts();
        shifts.advance();
        // The two counters of answers are not read at one instant.
        let by_sleepers = self.served_idle.load(Ordering::Relaxed);
        Traffic {
            by_servers: self.served.load(Ordering::Relaxed).saturating_sub(by_sleepers),
            by_sleepers,
            passed_on: self.punted.load(Ordering::Relaxed),
            servers: self.count.load(Ordering::Relaxed) as u64,
            wakes: shifts.wakes,
            sleeps: shifts.sleeps,
            awake: shifts.spent,
            ..traffic
        }
    }

    /// A CPU came to be, or its thread sleeps no more.
    pub(super) fn busy(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }
    /// A CPU is gone, or its thread sleeps.
    pub(super) fn quiet(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }
    fn bit(&self, ring: &Ring) -> Option<(&AtomicU64, u64)> {
        Some((self.open.get(ring.id / 64)?, 1 << (ring.id % 64)))
    }
    /// The ring's vCPU is about to enter the guest.
    pub(super) fn open(&self, ring: &Ring) {
        if let Some((word, bit)) = self.bit(ring) {
            word.fetch_or(bit, Ordering::Release);
        }
    }
    /// It has left; on return no server acts for it.
    pub(super) fn close_ring(&self, ring: &Ring) {
        if let Some((word, bit)) = self.bit(ring) {
            protocol::close(ring, || {
                word.fetch_and(!bit, Ordering::AcqRel);
            });
        }
    }
    /// A core is left for one more thread that looks at rings.
    fn room(&self) -> bool {
        self.room_beside(0)
    }
    /// The same, with `others` counted as using cores too.
    fn room_beside(&self, others: usize) -> bool {
        let using = self.active.load(Ordering::Relaxed) + self.idlers.load(Ordering::Relaxed);
        using + others < self.cpus
    }
    /// Answering `calls` in rings saves more than a core can do in `time`.
    fn worth_a_core(&self, calls: u64, time: Duration) -> bool {
        let saved = self.exit_cost.checked_mul(u32::try_from(calls).unwrap_or(u32::MAX));
        self.cpus > 1 && saved.is_none_or(|saved| saved > time)
    }
    /// A CPU left the guest for a system call. All CPUs' calls count together: short-lived processes make
    /// as many as one that lives on.
    pub(super) fn note_call(&self) {
        if self.count.load(Ordering::Relaxed) == 0 || self.awake.load(Ordering::Relaxed) {
            return;
        }
        let called = {
            let Ok(mut streak) = self.streak.try_lock() else { return };
            let now = Instant::now();
            let quick = now.duration_since(streak.last) < QUICK;
            streak.last = now;
            if now.duration_since(streak.judged) > FORGET {
                streak.judged = now;
                self.price.store(STREAK, Ordering::Relaxed);
            }
            streak.calls = if quick { streak.calls + 1 } else { 0 };
            let price = self.price.load(Ordering::Relaxed);
            let busy = streak.tempo(self.served.load(Ordering::Relaxed), now);
            // How much of the time was handlers' will be seen.
            let worth = || busy.is_some_and(|(calls, time)| self.worth_a_core(2 * calls, time));
            let called = streak.calls >= price && (self.room() || worth());
            if called {
                streak.calls = 0;
            }
            called
        };
        if called {
            self.caller.store(affinity::current(), Ordering::Relaxed);
            *self.called.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.bell.notify_one();
        }
    }

    /// One thread more or less looks at rings: tells the gates whether any does.
    fn looker(&self, machine: &Machine, comes: bool) {
        let mut lookers = self.lookers.lock().unwrap_or_else(PoisonError::into_inner);
        *lookers = if comes { *lookers + 1 } else { lookers.saturating_sub(1) };
        let awake = *lookers > 0;
        if self.awake.swap(awake, Ordering::Relaxed) != awake {
            let page = machine.ram.frames.slice(self.shared, 4096);
            let _ = page.store(u32::from(awake), at(layout::SHARED_AWAKE), Ordering::Release);
        }
    }
    /// A server's life.
    fn run(&self, machine: &Machine) {
        let mut view = View::default();
        while !self.stop.load(Ordering::Acquire) {
            {
                let mut called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
                let stays =
                    || !self.always.load(Ordering::Relaxed) && !self.stop.load(Ordering::Acquire);
                // The end wakes every server, a call only the one that takes it.
                while !std::mem::take(&mut *called) && stays() {
                    called = self.bell.wait(called).unwrap_or_else(PoisonError::into_inner);
                }
            }
            let always = self.always.load(Ordering::Relaxed);
            let crowd = Crowd::default();
            let done = |hits, view: &mut View| {
                self.stop.load(Ordering::Relaxed)
                    || !always && self.is_wanted_elsewhere(&crowd, hits, view)
            };
            let patience = if always { Duration::MAX } else { PATIENCE };
            self.placement.avoid(self.caller.load(Ordering::Relaxed));
            self.shifts().change(true);
            self.on_duty.fetch_add(1, Ordering::Relaxed);
            let hits = self.watch(machine, &mut view, patience, &done);
            if crowd.own.get() {
                self.placement.release();
            }
            self.on_duty.fetch_sub(1, Ordering::Relaxed);
            self.shifts().change(false);
            let price = self.price.load(Ordering::Relaxed);
            let paid = hits >= PAYS && (self.room() || crowd.paid.get());
            let price = if paid { STREAK } else { STREAK_MAX.min(price * 2) };
            self.price.store(price, Ordering::Relaxed);
        }
    }
    /// Should a server that has answered `hits` calls leave its core to the guest?
    fn is_wanted_elsewhere(&self, crowd: &Crowd, hits: u64, view: &mut View) -> bool {
        view.timed = !self.room();
        if !view.timed {
            crowd.since.set(None);
            return false;
        }
        let start = || (Instant::now(), hits, view.handling);
        let (since, before, handling) = crowd.since.get().unwrap_or_else(start);
        crowd.since.set(Some((since, before, handling)));
        let time = since.elapsed();
        if time < CROWDED {
            return false;
        }
        crowd.since.set(None);
        // What handlers take they would take anywhere.
        let spinning = time.saturating_sub(view.handling - handling);
        let worth = self.worth_a_core(hits - before, spinning);
        crowd.paid.set(worth);
        if worth && !crowd.own.get() {
            crowd.own.set(self.placement.reserve());
        }
        !worth
    }
    /// A CPU's thread is about to sleep until `woken`: it answers other CPUs' calls for a moment. Whoever
    /// wakes it then need not wake a host thread, and may well be served by it.
    pub(super) fn idle(&self, machine: &Machine, idler: &mut Idler, woken: &dyn Fn() -> bool) {
        if self.count.load(Ordering::Relaxed) == 0 || woken() {
            return;
        }
        if idler.skip > 0 {
            idler.skip -= 1;
            return;
        }
        // Somebody must be there to make calls.
        let nobody = self.active.load(Ordering::Relaxed) == 0;
        if nobody || !self.room_beside(self.on_duty.load(Ordering::Relaxed)) {
            return;
        }
        self.idlers.fetch_add(1, Ordering::Relaxed);
        let hits = self.watch(machine, &mut idler.view, IDLE_PATIENCE, &|_, _| woken());
        self.idlers.fetch_sub(1, Ordering::Relaxed);
        self.served_idle.fetch_add(hits, Ordering::Relaxed);
        if hits > 0 || woken() {
            idler.vain = 0;
        } else {
            idler.vain = (idler.vain + 1).min(6);
            idler.skip = (1 << idler.vain) - 1;
        }
    }
    /// Answers calls until none has come for `patience`, or `done`, told how many it were so far; how many.
    fn watch(
        &self,
        machine: &Machine,
        view: &mut View,
        patience: Duration,
        done: &dyn Fn(u64, &mut View) -> bool,
    ) -> u64 {
        self.looker(machine, true);
        view.refresh(&self.rings);
        let mut hits = 0;
        let mut last = Instant::now();
        let mut looks = 0u32;
        loop {
            // Between these a look at what else may have changed would be most of the work.
            let found = self.look(machine, view);
            hits += found;
            looks = if found > 0 { 0 } else { looks.wrapping_add(1) };
            if looks == 1 {
                last = Instant::now();
            }
            if looks.is_multiple_of(LOOKS) {
                if done(hits, view) || looks > 0 && last.elapsed() > patience {
                    break;
                }
                view.refresh(&self.rings);
            }
            std::hint::spin_loop();
        }
        self.looker(machine, false);
        // A call posted before its gate saw that nobody looks any more.
        hits + self.look(machine, view)
    }
    /// One look at every open ring; calls answered.
    fn look(&self, machine: &Machine, view: &mut View) -> u64 {
        let mut found = 0;
        for (w, word) in self.open.iter().enumerate().take(view.rings.len().div_ceil(64)) {
            let mut bits = word.load(Ordering::Acquire);
            while bits != 0 {
                let id = w * 64 + bits.trailing_zeros() as usize;
                let bit = bits & bits.wrapping_neg();
                bits &= bits - 1;
                let Some(Some(ring)) = view.rings.get(id) else { continue };
                if !ring.is_posted() {
                    continue;
                }
                let began = view.timed.then(Instant::now);
                let served =
                    ring.serve(machine.whole(), || word.load(Ordering::Acquire) & bit != 0);
                if let Some(began) = began {
                    view.handling += began.elapsed();
                }
                match served {
                    Some(Served::Punt) => {
                        self.punted.fetch_add(1, Ordering::Relaxed);
                    }
                    // To be continued.
                    Some(Served::Save) => found += 1,
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

/// When servers were awake. Changes as seldom as they wake.
struct Shifts {
    wakes: u64,
    sleeps: u64,
    awake: u32,
    /// All their waking time up to `last`.
    spent: Duration,
    last: Instant,
}

impl Default for Shifts {
    fn default() -> Shifts {
        Shifts { wakes: 0, sleeps: 0, awake: 0, spent: Duration::ZERO, last: Instant::now() }
    }
}

impl Shifts {
    fn advance(&mut self) {
        let now = Instant::now();
        self.spent += now.duration_since(self.last) * self.awake;
        self.last = now;
    }
    /// One server wakes, or goes to sleep.
    fn change(&mut self, wakes: bool) {
        self.advance();
        if wakes {
            self.wakes += 1;
            self.awake += 1;
        } else {
            self.sleeps += 1;
            self.awake -= 1;
        }
    }
}

/// The rings as a thread last saw them.
#[derive(Default)]
struct View {
    rings: Vec<Option<Arc<Ring>>>,
    version: u64,
    /// Take the time of calls, in `handling`.
    timed: bool,
    handling: Duration,
}

/// What a server knows of a time in which the guest could use every core.
#[derive(Default)]
struct Crowd {
    /// Since when it has not been looked at, and the calls and their handlers' time at that moment.
    since: Cell<Option<(Instant, u64, Duration)>>,
    /// When last looked at, the server was worth its core.
    paid: Cell<bool>,
    /// It has a core to itself.
    own: Cell<bool>,
}

impl View {
    fn refresh(&mut self, rings: &Rings) {
        let now = rings.version.load(Ordering::Acquire);
        if now != self.version {
            self.version = now;
            self.rings = rings.list();
        }
    }
}

/// What a CPU's thread has learnt of looking at rings before it sleeps.
#[derive(Default)]
pub(super) struct Idler {
    view: View,
    /// Times in a row that it was in vain.
    vain: u32,
    /// Sleeps without a look that are still to come.
    skip: u32,
}

/// Recent calls that left the VM.
struct Streak {
    last: Instant,
    /// When the price was last looked at.
    judged: Instant,
    calls: u32,
    /// All there ever were.
    exits: u64,
    /// Since when, and from which number of calls by whatever way, the tempo is taken.
    since: (Instant, u64),
}

impl Streak {
    /// One more of them, `served` having been answered in rings: now and then, how many calls were made in which
    /// time.
    fn tempo(&mut self, served: u64, now: Instant) -> Option<(u64, Duration)> {
        self.exits += 1;
        let all = self.exits + served;
        let (since, before) = self.since;
        let time = now - since;
        if time < CROWDED {
            return None;
        }
        self.since = (now, all);
        Some((all - before, time))
    }
}

impl Default for Streak {
    fn default() -> Streak {
        let now = Instant::now();
        Streak { last: now, judged: now, calls: 0, exits: 0, since: (now, 0) }
    }
}
