//! The vCPU pool: vCPUs are never destroyed (KVM could not take them back), they are leased again.
//!
//! A CPU sits on a [`Seat`]; the vCPU under it may be taken while the CPU is not in the guest, with
//! its FPU state left behind in the seat. So any number of guest threads live on a limited number of
//! vCPUs, and a thread blocked in the kernel costs none when they are short.
//!
//! Locks: a seat, then the pool, then *try* another seat. A runner holds its seat while in the guest.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use trapgate_kernel::platform::PlatformError;

use super::{
    Machine, bump,
    fpu::initial,
    kick::Kicker,
    vcpu::{Vcpu, create},
};

/// How long a thread waits for a vCPU before it makes another one give its up.
const SLICE: Duration = Duration::from_millis(10);

/// What lies under a CPU.
pub(super) struct Seated {
    pub(super) vcpu: Option<Box<Vcpu>>,
    /// The FPU state while there is no vCPU.
    pub(super) fpu: Vec<u8>,
}

pub(super) struct Seat {
    pub(super) seated: Mutex<Seated>,
    pub(super) kicker: Arc<Kicker>,
}

impl Seat {
    pub(super) fn lock(&self) -> MutexGuard<'_, Seated> {
        self.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct State {
    #[expect(clippy::vec_box, reason = "a vCPU moves between seats and this list as a pointer")]
    free: Vec<Box<Vcpu>>,
    seats: Vec<Weak<Seat>>,
    /// Where the search for a victim goes on.
    next: usize,
    created: usize,
}

pub(super) struct Pool {
    machine: Arc<Machine>,
    limit: usize,
    state: Mutex<State>,
    freed: Condvar,
    waiters: AtomicUsize,
    leases: AtomicU64,
}

impl Pool {
    pub(super) fn new(machine: Arc<Machine>, limit: usize) -> Pool {
        Pool {
            machine,
            limit,
            state: Mutex::default(),
            freed: Condvar::new(),
            waiters: AtomicUsize::new(0),
            leases: AtomicU64::new(0),
        }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(super) fn created(&self) -> u64 {
        self.state().created as u64
    }
    pub(super) fn limit(&self) -> usize {
        self.limit
    }
    pub(super) fn leases(&self) -> u64 {
        self.leases.load(Ordering::Relaxed)
    }

    /// A seat for a new CPU, no vCPU under it yet.
    pub(super) fn seat(&self) -> Arc<Seat> {
        let seated = Seated { vcpu: None, fpu: initial(self.machine.xsave) };
        let seat = Arc::new(Seat { seated: Mutex::new(seated), kicker: Kicker::new() });
        self.state().seats.push(Arc::downgrade(&seat));
        seat
    }
    /// The seat's CPU is gone.
    pub(super) fn unseat(&self, seat: &Arc<Seat>) {
        self.leave(seat, &mut seat.lock(), false);
        let mut state = self.state();
        state.seats.retain(|other| other.as_ptr() != Arc::as_ptr(seat));
    }

    /// Gives the seat's vCPU back.
    pub(super) fn leave(&self, seat: &Seat, seated: &mut Seated, keep_fpu: bool) {
        let Some(vcpu) = seated.vcpu.take() else { return };
        seat.kicker.detach();
        if keep_fpu && let Ok(area) = vcpu.fpu() {
            seated.fpu = area;
        }
        self.leases.fetch_sub(1, Ordering::Relaxed);
        self.state().free.push(vcpu);
        self.offer();
    }
    /// Wakes a thread that waits for a vCPU, if one does.
    pub(super) fn offer(&self) {
        if self.waiters.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    /// Puts a vCPU under `seat`, whose contents the caller holds. `false`: a kick came first.
    pub(super) fn sit(&self, seat: &Arc<Seat>, seated: &mut Seated) -> Result<bool, PlatformError> {
        let mut vcpu = loop {
            if let Some(vcpu) = self.find(seat)? {
                break vcpu;
            }
            if seat.kicker.take() {
                return Ok(false);
            }
            self.wait(seat);
        };
        if let Err(e) = vcpu.set_fpu(&seated.fpu) {
            self.leases.fetch_sub(1, Ordering::Relaxed);
            self.state().free.push(vcpu);
            return Err(e);
        }
        seat.kicker.attach(vcpu.immediate_exit());
        seated.vcpu = Some(vcpu);
        Ok(true)
    }

    /// A free vCPU, a new one, or an idle thread's.
    fn find(&self, seat: &Arc<Seat>) -> Result<Option<Box<Vcpu>>, PlatformError> {
        let mut state = self.state();
        if let Some(vcpu) = state.free.pop() {
            self.leases.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(vcpu));
        }
        if state.created < self.limit {
            state.created += 1;
            // vCPU 0 is the maintenance vCPU.
            let id = state.created as u64;
            drop(state);
            match create(&self.machine, id) {
                Ok(vcpu) => {
                    self.leases.fetch_add(1, Ordering::Relaxed);
                    return Ok(Some(vcpu));
                }
                // The id is spent; go on with the vCPUs there are, if any.
                Err(e) if id == 1 => return Err(e),
                Err(_) => return Ok(None),
            }
        }
        let seats = state.seats.len();
        for i in 0..seats {
            let index = (state.next + i) % seats;
            let Some(other) = state.seats[index].upgrade() else { continue };
            if Arc::ptr_eq(&other, seat) {
                continue;
            }
            let Ok(mut seated) = other.seated.try_lock() else { continue };
            let Some(vcpu) = seated.vcpu.take() else { continue };
            match vcpu.fpu() {
                Ok(area) => seated.fpu = area,
                Err(e) => {
                    seated.vcpu = Some(vcpu);
                    return Err(e);
                }
            }
            other.kicker.detach();
            state.next = index + 1;
            bump(&self.machine.counters.steals);
            return Ok(Some(vcpu));
        }
        Ok(None)
    }

    /// Waits for a vCPU to come free; after a while makes a running one stop.
    fn wait(&self, seat: &Arc<Seat>) {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let state = self.state();
        let (mut state, timeout) =
            self.freed.wait_timeout(state, SLICE).unwrap_or_else(PoisonError::into_inner);
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        let seats = state.seats.len();
        if !timeout.timed_out() || seats == 0 {
            return;
        }
        for i in 0..seats {
            let index = (state.next + i) % seats;
            let Some(other) = state.seats[index].upgrade() else { continue };
            if !Arc::ptr_eq(&other, seat) && other.kicker.ask_yield() {
                state.next = index + 1;
                bump(&self.machine.counters.preempts);
                return;
            }
        }
    }
}
