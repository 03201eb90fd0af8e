//! Which host CPUs our threads may run on. Everything here is for speed alone: failures change nothing else.

use libc::pid_t;

/// A set of host CPUs.
#[derive(Clone, Copy)]
pub(super) struct CpuSet(libc::cpu_set_t);

/// CPUs a set can name.
const LIMIT: usize = 8 * size_of::<libc::cpu_set_t>();

impl CpuSet {
    fn empty() -> CpuSet {
        // SAFETY: an all-zero cpu_set_t is valid (empty).
        CpuSet(unsafe { std::mem::zeroed() })
    }
    /// Those that a thread (0: this one) may use.
    pub(super) fn of(thread: pid_t) -> CpuSet {
        let mut set = CpuSet::empty();
        // SAFETY: sched_getaffinity(2) writes at most the given size.
        unsafe { libc::sched_getaffinity(thread, size_of::<libc::cpu_set_t>(), &raw mut set.0) };
        set
    }
    /// One alone; none if no set can name it.
    pub(super) fn only(cpu: usize) -> CpuSet {
        let mut set = CpuSet::empty();
        if cpu < LIMIT {
            // SAFETY: inside the set, as just checked.
            unsafe { libc::CPU_SET(cpu, &mut set.0) };
        }
        set
    }
    /// The others.
    pub(super) fn without(mut self, cpu: usize) -> CpuSet {
        if cpu < LIMIT {
            // SAFETY: inside the set, as just checked.
            unsafe { libc::CPU_CLR(cpu, &mut self.0) };
        }
        self
    }
    /// Binds a thread (0: this one) to the set, unless that is empty.
    pub(super) fn bind(&self, thread: pid_t) {
        // SAFETY: sched_setaffinity(2) reads the set.
        unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &raw const self.0) };
    }
    /// How many they are.
    #[cfg(test)]
    pub(super) fn count(&self) -> i32 {
        // SAFETY: reads the set.
        unsafe { libc::CPU_COUNT(&self.0) }
    }
    /// Is `cpu` one of them?
    #[cfg(test)]
    pub(super) fn has(&self, cpu: usize) -> bool {
        // SAFETY: inside the set.
        cpu < LIMIT && unsafe { libc::CPU_ISSET(cpu, &self.0) }
    }
}

/// The CPU the calling thread is on.
pub(super) fn current() -> usize {
    // SAFETY: sched_getcpu(3) touches no memory of ours.
    usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(usize::MAX)
}
