//! The rings' protocol under loom.
//!
//! The monitor's steps are its own ([`protocol`]). What stands around them is written again here, each piece
//! naming what it mirrors: the gate, which is assembly (`firmware/src/main.rs`), and the loops of
//! `kvm/server.rs` and `kvm/cpu.rs` with their clocks taken out. Orderings are those the code asks for; the
//! gate's plain stores and loads are release and acquire, as on x86.
//!
//! One awake server's look is run in all interleavings there are; longer stories in all with up to two or three
//! preemptions, or they would take hours. Checked in each: a call is executed once; never by two threads at once, nor by one that
//! does not see what the other did; its answer arrives, and is its own; all threads end. The last tests leave one
//! step out each, and must find that something breaks.
#![allow(unsafe_code, reason = "loom's cell, which checks what the unsafe code relies on")]

use std::sync::atomic::{AtomicUsize as Tally, Ordering::Relaxed as Untracked};

use loom::{
    cell::UnsafeCell,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
};
use trapgate::platform::kvm::protocol::{self, Words};
use trapgate_firmware::layout::{STATE_DONE, STATE_IDLE, STATE_POSTED};
use trapgate_kernel::platform::Served;

/// Calls the guest thread makes, one after the other.
const CALLS: usize = 2;
/// Looks of a gate at its ring ([`trapgate_firmware::layout::SHARED_SPIN`]).
const SPIN: u32 = 2;
/// The ring's bit in `Servers::open`.
const BIT: u64 = 1;
/// Places of the gate where a kick is tried: all that [`Machine::gate`] can come by.
const STEPS: u32 = 5;

/// How a server finds call 0; the others it can answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Answered,
    /// Answered, but a signal is pending.
    Leaves,
    /// It would have to wait.
    Waits,
}

/// The step that is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    None,
    /// `protocol::close` does not take the lock.
    Close,
    /// `protocol::serve` does not look at the ring again under the lock.
    Look,
    /// It does not ask whether the ring is open.
    Open,
    /// A gate never gives up looking.
    Patience,
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    kind: Kind,
    /// At most [`CALLS`].
    calls: usize,
    /// A kick stops the vCPU in call 0 after this many instructions of the gate that matter.
    kick: Option<u32>,
    /// Servers know nothing of sleep: `SHARED_AWAKE` is always 1.
    awake: bool,
    flaw: Flaw,
}

const PLAIN: Setting =
    Setting { kind: Kind::Answered, calls: CALLS, kick: None, awake: true, flaw: Flaw::None };

/// What only one thread at a time may touch: the kernel's state of the guest thread.
#[derive(Default)]
struct Task {
    executed: [u32; CALLS],
    /// `Task::begun`.
    begun: Option<u64>,
}

/// What happened in all interleavings together; not part of the model.
#[derive(Default)]
struct Seen {
    by_server: Tally,
    by_own: Tally,
    taken_back: Tally,
    given_up: Tally,
    after_last_look: Tally,
}

struct Machine {
    setting: Setting,
    /// `Ring::server`, the ring's lock.
    lock: Mutex<()>,
    /// The ring page.
    state: AtomicU32,
    number: AtomicU64,
    value: AtomicU64,
    task: UnsafeCell<Task>,
    /// `Servers`: its fields of these names.
    open: AtomicU64,
    lookers: Mutex<usize>,
    awake: AtomicBool,
    stop: AtomicBool,
    called: Mutex<bool>,
    bell: Condvar,
    /// `layout::SHARED_AWAKE`.
    shared_awake: AtomicU32,
    seen: std::sync::Arc<Seen>,
}

// SAFETY: `task` is reached by `act` alone, and that nobody else is there then is what loom checks.
unsafe impl Sync for Machine {}
// SAFETY: as above; nothing in it belongs to one thread.
unsafe impl Send for Machine {}

impl Words for Machine {
    type Lock<'a> = MutexGuard<'a, ()>;
    fn lock(&self) -> Self::Lock<'_> {
        self.lock.lock().unwrap()
    }
    fn try_lock(&self) -> Option<Self::Lock<'_>> {
        self.lock.try_lock().ok()
    }
    fn state(&self) -> u32 {
        self.state.load(Ordering::Acquire)
    }
    fn set_state(&self, state: u32) {
        self.state.store(state, Ordering::Release);
    }
    fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
    fn set_value(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }
}

/// The answer of call `number`.
fn answer_of(number: u64) -> u64 {
    number + 100
}

/// How the vCPU came out of the gate.
enum Gate {
    /// It did not: back to the guest with this answer.
    Returned(u64),
    /// Out of the VM, its RIP from `posted` on or not, and from `answered` to `unposted` or not.
    Left { posted: bool, taken: bool },
}

impl Machine {
    fn new(setting: Setting, seen: &std::sync::Arc<Seen>) -> Arc<Machine> {
        Arc::new(Machine {
            setting,
            lock: Mutex::new(()),
            state: AtomicU32::new(STATE_IDLE),
            number: AtomicU64::new(u64::MAX),
            value: AtomicU64::new(0),
            task: UnsafeCell::new(Task::default()),
            open: AtomicU64::new(0),
            lookers: Mutex::new(0),
            awake: AtomicBool::new(setting.awake),
            stop: AtomicBool::new(false),
            called: Mutex::new(false),
            bell: Condvar::new(),
            shared_awake: AtomicU32::new(u32::from(setting.awake)),
            seen: seen.clone(),
        })
    }
    /// Acts for the guest thread.
    fn act<T>(&self, body: impl FnOnce(&mut Task) -> T) -> T {
        self.task.with_mut(|task| {
            // SAFETY: the pointer is the cell's own; that no other thread is here, loom has just checked.
            body(unsafe { &mut *task })
        })
    }

    /// The gate: `gate!` from the call's number on.
    fn gate(&self, number: u64) -> Gate {
        let mut left = self.setting.kick.filter(|_| number == 0);
        // An instruction has been executed: is this where the kick strikes?
        let mut kicked = || {
            let now = left == Some(0);
            left = left.and_then(|left| left.checked_sub(1));
            now
        };
        self.number.store(number, Ordering::Relaxed);
        if !self.setting.awake && self.shared_awake.load(Ordering::Relaxed) == 0 {
            return Gate::Left { posted: true, taken: false };
        }
        if kicked() {
            return Gate::Left { posted: false, taken: false };
        }
        self.state.store(STATE_POSTED, Ordering::Release);
        if kicked() {
            return Gate::Left { posted: true, taken: false };
        }
        let mut looks = SPIN;
        while self.state.load(Ordering::Acquire) == STATE_POSTED {
            if self.setting.flaw == Flaw::Patience {
                thread::yield_now();
                continue;
            }
            looks -= 1;
            if kicked() {
                return Gate::Left { posted: true, taken: false };
            }
            if looks == 0 {
                self.seen.given_up.fetch_add(1, Untracked);
                return Gate::Left { posted: true, taken: false };
            }
        }
        if kicked() || self.state.load(Ordering::Acquire) != STATE_DONE {
            return Gate::Left { posted: true, taken: false };
        }
        self.state.store(STATE_IDLE, Ordering::Release);
        if kicked() {
            return Gate::Left { posted: true, taken: true };
        }
        Gate::Returned(self.value.load(Ordering::Relaxed))
    }

    /// `Servers::open`.
    fn open_ring(&self) {
        self.open.fetch_or(BIT, Ordering::Release);
    }
    /// `Servers::close_ring`.
    fn close_ring(&self) {
        let shut = || {
            self.open.fetch_and(!BIT, Ordering::AcqRel);
        };
        if self.setting.flaw == Flaw::Close {
            return shut();
        }
        protocol::close(self, shut);
    }
    /// `KvmCpu::run`, `Ring::recover` and `dispatch::syscall`, until the guest thread has made its calls.
    fn cpu(&self) {
        self.open_ring();
        for number in (0u64..).take(self.setting.calls) {
            let value = match self.gate(number) {
                Gate::Returned(value) => value,
                Gate::Left { posted, taken } => {
                    self.close_ring();
                    let answer = if posted { protocol::take_back(self, taken) } else { None };
                    if answer.is_some() {
                        self.seen.taken_back.fetch_add(1, Untracked);
                    }
                    let value = answer.unwrap_or_else(|| self.syscall(number));
                    self.open_ring();
                    value
                }
            };
            assert_eq!(value, answer_of(number), "the answer of another call");
        }
        self.close_ring();
    }
    /// `dispatch::syscall`, on the CPU's own thread.
    fn syscall(&self, number: u64) -> u64 {
        self.note_call();
        self.seen.by_own.fetch_add(1, Untracked);
        self.act(|task| {
            let begun = task.begun.take();
            assert!(begun.is_none_or(|begun| begun == number), "another call was begun");
            task.executed[usize::try_from(number).unwrap()] += 1;
        });
        answer_of(number)
    }
    /// `Servers::note_call`, as if every call were the one that wakes a server.
    fn note_call(&self) {
        if !self.awake.load(Ordering::Relaxed) {
            *self.called.lock().unwrap() = true;
            self.bell.notify_one();
        }
    }

    /// `Serve::serve` by the kernel.
    fn answer(&self) -> Served {
        let number = self.number.load(Ordering::Relaxed);
        let kind = if number == 0 { self.setting.kind } else { Kind::Answered };
        self.act(|task| {
            if kind == Kind::Waits {
                task.begun = Some(number);
                return Served::Punt;
            }
            task.executed[usize::try_from(number).unwrap()] += 1;
            self.seen.by_server.fetch_add(1, Untracked);
            match kind {
                Kind::Leaves => Served::Leave(answer_of(number)),
                _ => Served::Value(answer_of(number)),
            }
        })
    }
    /// `Servers::look`.
    fn look(&self) -> bool {
        let open = || self.open.load(Ordering::Acquire) & BIT != 0;
        // `Ring::is_posted`.
        if !open() || self.state() != STATE_POSTED {
            return false;
        }
        match self.setting.flaw {
            Flaw::Open => protocol::serve(self, || true, |_, _| Some(self.answer())),
            Flaw::Look => {
                let Some(_lock) = self.try_lock() else { return false };
                let served = open().then(|| self.answer());
                if let Some(Served::Value(value)) = served {
                    self.set_value(value);
                    self.set_state(STATE_DONE);
                }
                served
            }
            _ => protocol::serve(self, open, |_, _| Some(self.answer())),
        }
        .is_some()
    }
    /// `Servers::looker`.
    fn looker(&self, comes: bool) {
        let mut lookers = self.lookers.lock().unwrap();
        *lookers = if comes { *lookers + 1 } else { *lookers - 1 };
        let awake = *lookers > 0;
        if self.awake.swap(awake, Ordering::Relaxed) != awake {
            self.shared_awake.store(u32::from(awake), Ordering::Release);
        }
    }
    /// `Servers::watch`: patience is a number of looks.
    fn watch(&self, looks: u32) {
        self.looker(true);
        for _ in 0..looks {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            self.look();
        }
        self.looker(false);
        if self.look() {
            self.seen.after_last_look.fetch_add(1, Untracked);
        }
    }
    /// `Servers::run`.
    fn run(&self, looks: u32) {
        while !self.stop.load(Ordering::Acquire) {
            {
                let mut called = self.called.lock().unwrap();
                while !std::mem::take(&mut *called) && !self.stop.load(Ordering::Acquire) {
                    called = self.bell.wait(called).unwrap();
                }
            }
            self.watch(looks);
        }
    }
    /// `Servers::close`, but for joining the threads.
    fn close(&self) {
        self.stop.store(true, Ordering::Release);
        *self.called.lock().unwrap() = true;
        self.bell.notify_all();
    }
    /// After all threads have ended.
    fn check(&self) {
        self.act(|task| {
            let made = &task.executed[..self.setting.calls];
            assert!(made.iter().all(|times| *times == 1), "not executed once: {made:?}");
            assert_eq!(task.begun, None, "begun and forgotten");
        });
    }
}

/// `bound`: most preemptions in one interleaving; with `None` it is all interleavings there are.
fn model(bound: Option<usize>, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = bound;
    builder.check(body);
}

/// A CPU and `servers` that are awake all the time and look `looks` times each.
fn awake(setting: Setting, servers: u32, looks: u32, bound: Option<usize>) -> std::sync::Arc<Seen> {
    let seen = std::sync::Arc::<Seen>::default();
    let all = seen.clone();
    model(bound, move || {
        let machine = Machine::new(setting, &all);
        let servers: Vec<_> = (0..servers)
            .map(|_| {
                let machine = machine.clone();
                thread::spawn(move || {
                    for _ in 0..looks {
                        machine.look();
                    }
                })
            })
            .collect();
        machine.cpu();
        servers.into_iter().for_each(|server| server.join().unwrap());
        machine.check();
    });
    seen
}

/// A CPU and a server that sleeps and is woken, or, with `sleepers`, threads that look before they sleep.
fn asleep(setting: Setting, sleepers: u32, bound: Option<usize>) -> std::sync::Arc<Seen> {
    let seen = std::sync::Arc::<Seen>::default();
    let all = seen.clone();
    model(bound, move || {
        let machine = Machine::new(Setting { awake: false, ..setting }, &all);
        let threads: Vec<_> = (0..sleepers.max(1))
            .map(|_| {
                let own = machine.clone();
                let run = move || if sleepers > 0 { own.watch(1) } else { own.run(1) };
                thread::spawn(run)
            })
            .collect();
        machine.cpu();
        if sleepers == 0 {
            machine.close();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        machine.check();
    });
    seen
}

fn some(count: &Tally) -> bool {
    count.load(Untracked) > 0
}

#[test]
fn one_server() {
    for kind in [Kind::Answered, Kind::Leaves, Kind::Waits] {
        awake(Setting { kind, ..PLAIN }, 1, 1, None);
        let seen = awake(Setting { kind, ..PLAIN }, 1, 2, Some(3));
        assert!(some(&seen.by_server) && some(&seen.by_own) && some(&seen.given_up), "{kind:?}");
    }
}

#[test]
fn a_kick_anywhere_in_the_gate() {
    let mut taken_back = false;
    for kind in [Kind::Answered, Kind::Leaves, Kind::Waits] {
        for kick in 0..STEPS {
            awake(Setting { kind, kick: Some(kick), ..PLAIN }, 1, 1, None);
            let seen = awake(Setting { kind, kick: Some(kick), ..PLAIN }, 1, 2, Some(2));
            taken_back |= some(&seen.taken_back);
        }
    }
    assert!(taken_back);
}

#[test]
fn two_servers() {
    let seen = awake(PLAIN, 2, 1, Some(2));
    assert!(some(&seen.by_server) && some(&seen.by_own));
}

#[test]
fn a_server_sleeps_and_is_woken() {
    let seen = asleep(PLAIN, 0, Some(3));
    assert!(some(&seen.by_server) && some(&seen.by_own) && some(&seen.after_last_look));
}

#[test]
fn threads_about_to_sleep_look_too() {
    let seen = asleep(Setting { calls: 1, ..PLAIN }, 2, Some(2));
    assert!(some(&seen.by_server) && some(&seen.by_own) && some(&seen.after_last_look));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn closing_must_take_the_lock() {
    awake(Setting { flaw: Flaw::Close, ..PLAIN }, 1, 2, None);
}

#[test]
#[should_panic(expected = "not executed once")]
fn the_second_look_is_needed() {
    awake(Setting { flaw: Flaw::Look, ..PLAIN }, 2, 1, Some(3));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn whether_it_is_open_must_be_asked() {
    awake(Setting { flaw: Flaw::Open, ..PLAIN }, 1, 2, None);
}

/// A call posted after the last look of a server that falls asleep would wait for ever.
#[test]
#[should_panic(expected = "maximum number of branches")]
fn a_gate_must_give_up() {
    asleep(Setting { flaw: Flaw::Patience, ..PLAIN }, 0, Some(2));
}
