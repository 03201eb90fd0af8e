//! POSIX timers (timer_create(2)): expiry queues a signal; while it is pending further expiries are
//! only counted, and the count is delivered with it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use super::{Base, Setting, Target, Timer};
use crate::{
    error::Errno,
    signal::{SigFields, SigInfo, Signal, queue::Source},
    task::{Task, process::Process},
};

/// Whom an expiry signals.
#[derive(Clone)]
pub enum Recipient {
    /// SIGEV_NONE.
    Nobody,
    /// SIGEV_SIGNAL.
    Process(Weak<Process>),
    /// SIGEV_THREAD_ID.
    Thread(Weak<Task>),
}

/// What an expiry does.
#[derive(Clone)]
pub struct Notify {
    /// Whom.
    pub to: Recipient,
    /// With which signal.
    pub signal: Signal,
    /// si_value.
    pub value: u64,
    /// Absolute settings are instants of `CLOCK_REALTIME`.
    pub realtime: bool,
}

/// The most timers a process may have; Linux's bound is RLIMIT_SIGPENDING.
const MOST: usize = 10_000;

#[derive(Default)]
struct Table {
    timers: BTreeMap<i32, Arc<PosixTimer>>,
    next: i32,
}

/// A process's POSIX timers.
#[derive(Default)]
pub struct PosixTimers {
    table: Mutex<Table>,
}

/// One timer.
pub struct PosixTimer {
    timer: Arc<Timer>,
    shared: Arc<Shared>,
}

/// What the timer and its queued signal share.
struct Shared {
    id: i32,
    notify: Notify,
    /// Overruns of the signal last delivered.
    overrun: AtomicI32,
}

/// A queued signal of a timer.
struct Queued {
    shared: Arc<Shared>,
    timer: Weak<Timer>,
    generation: u64,
}

impl Source for Queued {
    fn taken(&self, info: &mut SigInfo) -> bool {
        let Some(timer) = self.timer.upgrade() else { return false };
        if timer.generation() != self.generation {
            return false;
        }
        let missed = i32::try_from(timer.forward()).unwrap_or(i32::MAX);
        self.shared.overrun.store(missed, Ordering::Relaxed);
        if let SigFields::Timer { overrun, .. } = &mut info.fields {
            *overrun = missed;
        }
        true
    }
    fn lost(&self) {
        if let Some(timer) = self.timer.upgrade()
            && timer.generation() == self.generation
        {
            timer.forward();
        }
    }
}

struct Expiry(Arc<Shared>);

impl Target for Expiry {
    fn fire(&self, timer: &Arc<Timer>, generation: u64) -> bool {
        const SI_TIMER: i32 = -2;
        let shared = &self.0;
        let notify = &shared.notify;
        let fields = SigFields::Timer { id: shared.id, overrun: 0, value: notify.value };
        let info = SigInfo { signal: notify.signal, code: SI_TIMER, errno: 0, fields };
        let queued = Queued { shared: shared.clone(), timer: Arc::downgrade(timer), generation };
        let source: Option<Arc<dyn Source>> = Some(Arc::new(queued));
        let result = match &notify.to {
            Recipient::Nobody => return true,
            Recipient::Process(process) => process.upgrade().map(|p| p.queue_signal(info, source)),
            Recipient::Thread(task) => task.upgrade().map(|t| t.queue_signal(info, source)),
        };
        // An ignored or refused signal is not taken by anybody: the timer goes on by itself.
        !matches!(result, Some(Ok(true)))
    }
}

impl PosixTimer {
    /// Arms for `next` on the timer's clock; the old setting.
    pub fn set(&self, next: Option<Duration>, interval: Duration) -> Setting {
        self.shared.overrun.store(0, Ordering::Relaxed);
        self.timer.set(next, interval)
    }
    /// Its setting.
    #[must_use]
    pub fn get(&self) -> Setting {
        self.timer.get()
    }
    /// Absolute settings are instants of `CLOCK_REALTIME`.
    #[must_use]
    pub fn is_realtime(&self) -> bool {
        self.shared.notify.realtime
    }
    /// Its clock, now.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.timer.now()
    }
    /// Overruns of the signal last delivered.
    #[must_use]
    pub fn overrun(&self) -> i32 {
        self.shared.overrun.load(Ordering::Relaxed)
    }
}

impl PosixTimers {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The next timer's number.
    ///
    /// # Errors
    /// EAGAIN if there are too many.
    pub fn number(&self) -> Result<i32, Errno> {
        let mut table = self.table();
        if table.timers.len() >= MOST {
            return Err(Errno::EAGAIN);
        }
        let mut id = table.next;
        while table.timers.contains_key(&id) {
            id = id.checked_add(1).unwrap_or(0);
        }
        table.next = id.checked_add(1).unwrap_or(0);
        Ok(id)
    }
    /// Makes the disarmed timer `id`, a number of [`PosixTimers::number`], for `process`.
    pub fn create(&self, process: &Process, base: Base, id: i32, notify: Notify) {
        let shared = Arc::new(Shared { id, notify, overrun: AtomicI32::new(0) });
        let timer = Timer::new(&process.kernel, base, Box::new(Expiry(shared.clone())));
        self.table().timers.insert(id, Arc::new(PosixTimer { timer, shared }));
    }
    /// The timer `id`.
    ///
    /// # Errors
    /// EINVAL.
    pub fn get(&self, id: i32) -> Result<Arc<PosixTimer>, Errno> {
        self.table().timers.get(&id).cloned().ok_or(Errno::EINVAL)
    }
    /// Deletes it.
    ///
    /// # Errors
    /// EINVAL.
    pub fn delete(&self, id: i32) -> Result<(), Errno> {
        let removed = self.table().timers.remove(&id);
        removed.map(drop).ok_or(Errno::EINVAL)
    }
    /// Deletes all.
    pub fn clear(&self) {
        let all = std::mem::take(&mut self.table().timers);
        drop(all);
    }
}
