//! Taking a CPU out of the guest from another thread: a flag, `immediate_exit` and a signal.
//!
//! Never lost: the kicker stores the flag, *then* sets `immediate_exit`; the runner clears
//! `immediate_exit`, *then* looks at the flag (all sequentially consistent). If the runner's look
//! came too early, its clearing did too, and KVM_RUN returns at once. The signal is for a vCPU that
//! is already in the guest.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering},
};

use trapgate_kernel::platform::Kick;

use super::KvmError;

/// The signal that interrupts KVM_RUN. The first two real-time signals are libc's own.
fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

extern "C" fn ignore(_: libc::c_int) {}

/// Gives the kick's signal a handler that does nothing, so that it interrupts system calls
/// (no SA_RESTART) and nothing else.
pub(super) fn install() -> Result<(), KvmError> {
    // SAFETY: an all-zero sigaction is a valid value: empty mask, no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as usize;
    // SAFETY: `action` is initialised, its handler is async-signal-safe (it does nothing), and the
    // old action is not asked for.
    if unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(KvmError::Call { op: "sigaction", source: std::io::Error::last_os_error() });
    }
    Ok(())
}

/// The calling thread's id.
pub(super) fn thread_id() -> libc::pid_t {
    // SAFETY: gettid(2) has no preconditions.
    unsafe { libc::gettid() }
}

/// Which vCPU on which thread a kick must reach.
#[derive(Clone, Copy)]
struct Target {
    /// `kvm_run::immediate_exit` of the leased vCPU.
    immediate_exit: *mut u8,
    thread: libc::pid_t,
}
// SAFETY: the pointer is only used while the vCPU's lease lasts, through an atomic.
unsafe impl Send for Target {}

/// One CPU's kick state.
#[derive(Default)]
pub(super) struct Kicker {
    pending: AtomicBool,
    /// The pool wants the vCPU back.
    yielding: AtomicBool,
    in_guest: AtomicBool,
    target: Mutex<Option<Target>>,
    /// The same pointer for the runner itself, which holds the lease.
    own: AtomicPtr<u8>,
}

impl Kicker {
    pub(super) fn new() -> Arc<Kicker> {
        Arc::default()
    }
    /// The CPU now runs on the vCPU whose `immediate_exit` this is, on the calling thread. The
    /// pointer must stay valid until [`Kicker::detach`].
    pub(super) fn attach(&self, immediate_exit: *mut u8) {
        let target = Target { immediate_exit, thread: thread_id() };
        self.own.store(immediate_exit, Ordering::SeqCst);
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }
    /// The CPU has no vCPU any more.
    pub(super) fn detach(&self) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.own.store(std::ptr::null_mut(), Ordering::SeqCst);
    }
    /// Consumes a pending kick.
    pub(super) fn take(&self) -> bool {
        self.pending.load(Ordering::SeqCst) && self.pending.swap(false, Ordering::SeqCst)
    }
    /// Consumes a pending wish of the pool.
    pub(super) fn take_yield(&self) -> bool {
        self.yielding.load(Ordering::SeqCst) && self.yielding.swap(false, Ordering::SeqCst)
    }
    /// About to enter the guest. `false`: a kick or a yield is pending, do not.
    pub(super) fn enter(&self) -> bool {
        let own = self.own.load(Ordering::SeqCst);
        self.in_guest.store(true, Ordering::SeqCst);
        if !own.is_null() {
            // SAFETY: `attach`'s caller keeps the pointer valid until `detach`, which only the
            // holder of the CPU's lock (the calling thread now) calls; all accesses are atomic.
            unsafe { AtomicU8::from_ptr(own) }.store(0, Ordering::SeqCst);
        }
        !self.pending.load(Ordering::SeqCst) && !self.yielding.load(Ordering::SeqCst)
    }
    /// Out of the guest again.
    pub(super) fn leave(&self) {
        self.in_guest.store(false, Ordering::SeqCst);
    }
    /// Asks the runner to give its vCPU up, if it is in the guest.
    pub(super) fn ask_yield(&self) -> bool {
        let running = self.in_guest.load(Ordering::SeqCst);
        if running {
            self.yielding.store(true, Ordering::SeqCst);
            self.poke();
        }
        running
    }
    fn poke(&self) {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(target) = *target else { return };
        // SAFETY: the target is set, so the lease lasts (`detach` needs the lock we hold) and the
        // pointer is valid; all accesses are atomic.
        unsafe { AtomicU8::from_ptr(target.immediate_exit) }.store(1, Ordering::SeqCst);
        if self.in_guest.load(Ordering::SeqCst) {
            // SAFETY: tgkill(2) takes plain integers. The thread exists: it detaches, needing the
            // lock we hold, before it ends.
            unsafe {
                libc::syscall(libc::SYS_tgkill, libc::getpid(), target.thread, signal());
            }
        }
    }
}

impl Kick for Kicker {
    fn kick(&self) {
        self.pending.store(true, Ordering::SeqCst);
        self.poke();
    }
}
