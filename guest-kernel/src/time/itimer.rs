//! A process's own timers: ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF (setitimer(2)), POSIX timers and
//! the watch over RLIMIT_CPU.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use super::{Base, CpuKind, Setting, Target, Timer, posix::PosixTimers, process_cpu};
use crate::{
    signal::{
        SigInfo, Signal,
        number::{SIGALRM, SIGKILL, SIGPROF, SIGVTALRM, SIGXCPU},
    },
    task::process::{Process, rlimit},
};

/// The three interval timers of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// Real time, SIGALRM.
    Real,
    /// User CPU time, SIGVTALRM.
    Virtual,
    /// CPU time, SIGPROF.
    Prof,
}

/// Timers of a process.
#[derive(Default)]
pub struct ProcessTimers {
    intervals: Mutex<[Option<Arc<Timer>>; 3]>,
    limit: Mutex<Option<Arc<Timer>>>,
    /// timer_create(2).
    pub posix: PosixTimers,
}

struct SendTo {
    process: Weak<Process>,
    signal: Signal,
}

impl Target for SendTo {
    fn fire(&self, _timer: &Arc<Timer>, _generation: u64) -> bool {
        if let Some(process) = self.process.upgrade() {
            process.send(SigInfo::kernel(self.signal));
        }
        true
    }
}

struct Watch(Weak<Process>);

impl Target for Watch {
    fn fire(&self, timer: &Arc<Timer>, _generation: u64) -> bool {
        if let Some(process) = self.0.upgrade() {
            let used = process_cpu(&process, CpuKind::Total, None);
            let (soft, hard) = process.limits()[rlimit::CPU];
            if hard != rlimit::INFINITY && used >= Duration::from_secs(hard) {
                process.send(SigInfo::kernel(SIGKILL));
            } else {
                if soft != rlimit::INFINITY && used >= Duration::from_secs(soft) {
                    // SIGXCPU comes again every second, as in Linux.
                    process.send(SigInfo::kernel(SIGXCPU));
                }
                let next =
                    Duration::from_secs(used.as_secs().saturating_add(1).max(soft.min(hard)));
                timer.set(Some(next), Duration::ZERO);
            }
        }
        false
    }
}

impl ProcessTimers {
    fn intervals(&self) -> MutexGuard<'_, [Option<Arc<Timer>>; 3]> {
        self.intervals.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn slot(which: Which) -> usize {
        match which {
            Which::Real => 0,
            Which::Virtual => 1,
            Which::Prof => 2,
        }
    }
    /// Sets one of `process`'s interval timers; the old setting.
    pub fn set_interval(&self, process: &Arc<Process>, which: Which, new: Setting) -> Setting {
        let timer = {
            let mut all = self.intervals();
            let slot = &mut all[Self::slot(which)];
            if slot.is_none() && new.value.is_zero() {
                return Setting::default();
            }
            slot.get_or_insert_with(|| {
                let weak = Arc::downgrade(process);
                let (signal, base) = match which {
                    Which::Real => (SIGALRM, Base::Monotonic),
                    Which::Virtual => (SIGVTALRM, Base::Process(weak.clone(), CpuKind::User)),
                    Which::Prof => (SIGPROF, Base::Process(weak.clone(), CpuKind::Total)),
                };
                let target = Box::new(SendTo { process: weak, signal });
                Timer::new(&process.kernel, base, target)
            })
            .clone()
        };
        let next = (!new.value.is_zero()).then(|| timer.now().saturating_add(new.value));
        timer.set(next, new.interval)
    }
    /// One of the interval timers.
    #[must_use]
    pub fn interval(&self, which: Which) -> Setting {
        let timer = self.intervals()[Self::slot(which)].clone();
        timer.map_or(Setting::default(), |timer| timer.get())
    }
    /// RLIMIT_CPU changed, or a process was born with one.
    pub fn watch_limit(&self, process: &Arc<Process>) {
        let (soft, hard) = process.limits()[rlimit::CPU];
        let mut slot = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        let first = soft.min(hard);
        if first == rlimit::INFINITY {
            *slot = None;
            return;
        }
        let timer = slot.get_or_insert_with(|| {
            let weak = Arc::downgrade(process);
            let base = Base::Process(weak.clone(), CpuKind::Total);
            Timer::new(&process.kernel, base, Box::new(Watch(weak)))
        });
        timer.set(Some(Duration::from_secs(first)), Duration::ZERO);
    }
    /// execve(2): POSIX timers go, interval timers stay.
    pub fn exec(&self) {
        self.posix.clear();
    }
    /// The process has ended.
    pub fn clear(&self) {
        *self.intervals() = [const { None }; 3];
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.posix.clear();
    }
}
