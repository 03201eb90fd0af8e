//! What other threads may do to a CPU: kick it, and move its two threads about.
//!
//! A stop whose tracer and tracee share a host CPU costs a fraction of one across CPUs, so a stub
//! thread is bound to the CPU its tracer is found on. Two things need care. A guest that computes
//! makes no stops: bound, it could share a CPU with another while a third lies idle, so the
//! *balancer* unbinds a stub thread that has been in guest code for a whole tick. And the host's
//! scheduler likes to wake the tracer on an idle CPU: a tracer that hops again and again is bound
//! too, until it falls idle or its turn comes to be placed anew.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use trapgate_kernel::platform::Kick;

use super::sys::{self, Tid};
use crate::platform::affinity::{self, CpuSet};

/// The signal that takes a stub out of guest code. Guests never see the stubs' signals.
pub const KICK: i32 = libc::SIGUSR1;

const TICK: Duration = Duration::from_millis(20);
/// Ticks without a guest in sight after which the balancer sleeps until there is one.
const IDLE_TICKS: u32 = 10;
/// Ticks after which a bound tracer may go where the scheduler wants it.
const PLACE_TICKS: u32 = 5;
/// Runs over which hops are counted, and how many of them are too many.
const HOP_WINDOW: u32 = 64;
const MAX_HOPS: u32 = 4;

/// No CPU.
pub const NOWHERE: usize = usize::MAX;

/// One CPU as others see it.
pub struct Seat {
    tracer: Tid,
    wanted: AtomicBool,
    in_guest: AtomicBool,
    /// Counts entries to guest code.
    runs: AtomicU32,
    /// The host CPU the tracee is bound to, or [`NOWHERE`].
    bound: AtomicUsize,
    /// The tracer is bound as well.
    tracer_bound: AtomicBool,
    /// Process and thread to signal or move; none once the CPU has let go of them.
    target: Mutex<Option<(Tid, Tid)>>,
}

/// The hop counter of a tracer, its own.
#[derive(Default)]
pub struct Hops {
    runs: u32,
    hops: u32,
}

impl Hops {
    /// Notes one run, on another CPU than the one before if `hopped`; true if that is too often.
    fn note(&mut self, hopped: bool) -> bool {
        self.runs += 1;
        self.hops += u32::from(hopped);
        let too_many = self.hops > MAX_HOPS;
        if too_many || self.runs >= HOP_WINDOW {
            *self = Hops::default();
        }
        too_many
    }
}

impl Seat {
    /// The seat of a CPU of this thread.
    pub fn new() -> Seat {
        Seat {
            tracer: sys::gettid(),
            wanted: AtomicBool::new(false),
            in_guest: AtomicBool::new(false),
            runs: AtomicU32::new(0),
            bound: AtomicUsize::new(NOWHERE),
            tracer_bound: AtomicBool::new(false),
            target: Mutex::new(None),
        }
    }
    /// Sets the tracee that others may signal, and the CPU it is bound to.
    pub fn aim(&self, target: Option<(Tid, Tid)>, cpu: usize) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
        self.bound.store(cpu, Ordering::Relaxed);
    }
    /// Before a run: the tracee goes where its tracer is.
    pub fn place(&self, tracee: Tid, hops: &mut Hops) {
        let cpu = affinity::current();
        let before = self.bound.load(Ordering::Relaxed);
        if cpu != before {
            CpuSet::only(cpu).bind(tracee);
            self.bound.store(cpu, Ordering::Relaxed);
        }
        if hops.note(cpu != before && before != NOWHERE) {
            CpuSet::only(cpu).bind(0);
            self.tracer_bound.store(true, Ordering::Relaxed);
        }
    }
    /// The tracee is about to run guest code; false if a kick came first (which this consumes).
    pub fn enter(&self) -> bool {
        self.runs.store(self.runs.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.in_guest.store(true, Ordering::SeqCst);
        !self.take_kick()
    }
    /// It no longer does.
    pub fn leave(&self) {
        self.in_guest.store(false, Ordering::Release);
    }
    /// Whether a kick waits to be answered.
    pub fn is_kicked(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }
    /// Consumes the kick, if there is one.
    pub fn take_kick(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) && self.wanted.swap(false, Ordering::SeqCst)
    }
    fn unbind_tracer(&self, anywhere: &CpuSet) {
        if self.tracer_bound.swap(false, Ordering::Relaxed) {
            anywhere.bind(self.tracer);
        }
    }
}

impl Kick for Seat {
    fn kick(&self) {
        // Either the CPU sees `wanted` after setting `in_guest`, or we see `in_guest` here; a signal
        // that comes before the tracee is resumed stops it as soon as it is.
        self.wanted.store(true, Ordering::SeqCst);
        if self.in_guest.load(Ordering::SeqCst)
            && let Some((pid, tid)) = *self.target.lock().unwrap_or_else(PoisonError::into_inner)
        {
            sys::thread_kill(pid, tid, KICK);
        }
    }
}

/// The thread that watches over placement; it ends with the last handle.
pub struct Balancer {
    shared: Arc<Watch>,
}

struct Watch {
    /// CPUs the monitor may use.
    anywhere: CpuSet,
    /// Seats, each with the runs it had at the last tick.
    seats: Mutex<Seats>,
    wake: Condvar,
    asleep: AtomicBool,
}

#[derive(Default)]
struct Seats {
    list: Vec<(Weak<Seat>, u32)>,
    ended: bool,
}

impl Balancer {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Balancer> {
        let shared = Arc::new(Watch {
            anywhere: CpuSet::of(0),
            seats: Mutex::default(),
            wake: Condvar::new(),
            asleep: AtomicBool::new(false),
        });
        let watch = shared.clone();
        let thread = std::thread::Builder::new().name("stub-balancer".into());
        thread.stack_size(64 << 10).spawn(move || watch.run())?;
        Ok(Balancer { shared })
    }
    /// Watches over `seat` while it lives. Its thread may have inherited its parent's binding.
    pub fn add(&self, seat: &Arc<Seat>) {
        self.shared.anywhere.bind(0);
        self.shared.lock().list.push((Arc::downgrade(seat), 0));
    }
    /// A seat entered guest code: there is something to watch.
    pub fn note_entry(&self) {
        if self.shared.asleep.load(Ordering::SeqCst) {
            let _seats = self.shared.lock();
            self.shared.asleep.store(false, Ordering::SeqCst);
            self.shared.wake.notify_one();
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.wake.notify_one();
    }
}

impl Watch {
    fn lock(&self) -> std::sync::MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut seats = self.lock();
        let (mut idle, mut tick) = (0, 0u32);
        while !seats.ended {
            tick = tick.wrapping_add(1);
            idle = if self.look(&mut seats, tick) { 0 } else { idle + 1 };
            if idle < IDLE_TICKS {
                let waited = self.wake.wait_timeout(seats, TICK);
                seats = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            // As in `Seat::kick`: whoever enters from here on either sees `asleep` or is seen.
            self.asleep.store(true, Ordering::SeqCst);
            if self.look(&mut seats, tick) {
                self.asleep.store(false, Ordering::SeqCst);
            }
            while self.asleep.load(Ordering::SeqCst) && !seats.ended {
                seats = self.wake.wait(seats).unwrap_or_else(PoisonError::into_inner);
            }
            idle = 0;
        }
    }

    /// One round; whether any CPU was in guest code.
    fn look(&self, seats: &mut Seats, tick: u32) -> bool {
        let mut busy = false;
        seats.list.retain_mut(|(seat, runs_before)| {
            let Some(seat) = seat.upgrade() else { return false };
            let runs = seat.runs.load(Ordering::Relaxed);
            let stayed = std::mem::replace(runs_before, runs) == runs;
            let in_guest = seat.in_guest.load(Ordering::SeqCst);
            busy |= in_guest || !stayed;
            if stayed && in_guest && seat.bound.load(Ordering::Relaxed) != NOWHERE {
                let target = seat.target.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, tid)) = *target {
                    self.anywhere.bind(tid);
                    seat.bound.store(NOWHERE, Ordering::Relaxed);
                }
            }
            if stayed || tick.is_multiple_of(PLACE_TICKS) {
                seat.unbind_tracer(&self.anywhere);
            }
            true
        });
        busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_restless_tracer_is_bound() {
        let mut hops = Hops::default();
        assert!((0..1000).all(|i| !hops.note(i % 20 == 0)));
        let mut hops = Hops::default();
        assert!((0..10).any(|_| hops.note(true)));
        assert!(!hops.note(true), "counting starts again");
    }
}
