//! An address space: its table, its stub process, and when edits reach the latter.
//!
//! While no thread of the space runs guest code, edits only queue: the next thread to enter guest
//! code makes them first, many per stop. While some thread does, `apply` makes them at once, with
//! the caller's own tracee if it has one in the space, else with the process's *leader*, a thread
//! that never runs guest code and that anyone may seize. Either way, when `apply` has returned no
//! guest instruction can use what an edit took away. One lock per space orders all of this.
//!
//! The host limits the mappings of a process (vm.max_map_count). Where a guest's scattered pages
//! would exceed it, all are dropped and the space turns *lazy*: the table stays the truth, and a
//! fault on what it holds installs that again, unseen by the kernel.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use trapgate_kernel::platform::{Access, AddressSpace, Edit, PlatformError, Prot};

use super::{
    layout::{Call, RESERVED, SLOT, SLOT_SIZE},
    table::{Table, number},
    tracee::{self, Tracee, host},
    zygote::{Birth, PidFd},
};
use crate::platform::ptrace::Shared;

/// One guest address space.
pub struct Space {
    shared: Arc<Shared>,
    /// Unique among spaces, also past ones.
    pub id: u64,
    state: Mutex<State>,
}

struct State {
    table: Table,
    /// Calls the stub process has not made yet, in order.
    queue: Vec<Call>,
    /// Made when the first CPU comes.
    process: Option<Process>,
    /// Threads that run guest code, or are about to.
    in_guest: usize,
    /// Translations may be missing from the stub process, to be installed when a fault shows it.
    lazy: bool,
    /// Changes with every edit.
    epoch: u64,
    /// The host side failed; nothing may run here any more.
    broken: bool,
}

struct Process {
    birth: Birth,
    handle: PidFd,
    /// Workers nobody uses, and whether guest code has run in them.
    idle: Vec<(i32, bool)>,
}

/// Makes the slot read-only.
const SEAL: Call = Call {
    number: MPROTECT,
    prot: libc::PROT_READ.cast_unsigned(),
    va: SLOT,
    len: SLOT_SIZE as u64,
    offset: 0,
};
const MPROTECT: u32 = 10;
const _: () = assert!(libc::SYS_mprotect == 10);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Space {
    /// An empty space; it costs the host nothing until it gets a CPU.
    pub fn new(shared: &Arc<Shared>) -> Space {
        let state = State {
            table: Table::default(),
            // The first call of all seals the slot, before any guest code runs.
            queue: vec![SEAL],
            process: None,
            in_guest: 0,
            lazy: false,
            epoch: 0,
            broken: false,
        };
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Space { shared: shared.clone(), id, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker for the calling host thread, stopped, and whether its FPU state is a guest's.
    pub fn take_worker(&self) -> Result<(Tracee, bool), PlatformError> {
        let entries = self.shared.entries;
        let mut state = self.state();
        let process = match &mut state.process {
            Some(process) => process,
            empty => {
                let birth = self.shared.zygote.take()?;
                let handle = PidFd::open(birth.pid).map_err(host("pidfd_open"))?;
                self.shared.processes.fetch_add(1, Ordering::Relaxed);
                empty.insert(Process { birth, handle, idle: vec![(birth.worker, false)] })
            }
        };
        let (tid, used) = match process.idle.pop() {
            Some(worker) => worker,
            None => {
                let leader = Tracee::seize(process.birth.pid, entries)?;
                let tid = leader.clone_thread()?;
                leader.release();
                (tid, false)
            }
        };
        drop(state);
        let tracee = Tracee::seize(tid, entries)?;
        self.shared.threads.fetch_add(1, Ordering::Relaxed);
        Ok((tracee, used))
    }

    /// Parks a worker of this space.
    pub fn return_worker(&self, tracee: &Tracee) {
        self.shared.threads.fetch_sub(1, Ordering::Relaxed);
        let alive = tracee.release();
        if let Some(process) = &mut self.state().process
            && alive
        {
            process.idle.push((tracee.tid, true));
        }
    }

    /// Before `tracee` runs guest code: all edits are made, and later ones know of it. The space's
    /// epoch, for [`Space::judge`].
    pub fn enter(&self, tracee: &Tracee) -> Result<u64, PlatformError> {
        let mut state = self.state();
        if state.broken {
            return Err(PlatformError::Gone);
        }
        if !state.queue.is_empty() {
            self.flush(&mut state, tracee)?;
        }
        state.in_guest += 1;
        Ok(state.epoch)
    }

    /// After it has stopped.
    pub fn leave(&self) {
        self.state().in_guest -= 1;
    }

    fn flush(&self, state: &mut State, tracee: &Tracee) -> Result<(), PlatformError> {
        let State { process, queue, lazy, .. } = &mut *state;
        let Some(Process { birth, .. }) = process else { return Ok(()) };
        let slots = &self.shared.slots;
        if *lazy {
            // What is not installed cannot be protected; it comes back as the table has it.
            for call in queue.iter_mut().filter(|c| c.number == MPROTECT && **c != SEAL) {
                (call.number, call.prot) = (number(libc::SYS_munmap), 0);
            }
        }
        self.shared.batches.fetch_add(1, Ordering::Relaxed);
        self.shared.calls.fetch_add(queue.len() as u64, Ordering::Relaxed);
        let mut done = tracee.batch(slots, birth.slot, queue);
        if matches!(done, Err(PlatformError::OutOfMemory(_))) {
            self.shared.evictions.fetch_add(1, Ordering::Relaxed);
            *lazy = true;
            let (number, len) = (number(libc::SYS_munmap), RESERVED.start);
            let all = Call { number, prot: 0, va: 0, len, offset: 0 };
            done = tracee.batch(slots, birth.slot, &[SEAL, all]);
        }
        queue.clear();
        state.broken |= done.is_err();
        done
    }

    /// What to make of a page fault of `tracee` at `addr` by the instruction at `rip`.
    ///
    /// The host does not say what the access wanted, but the table says what it could not have been.
    /// That holds only if the table was the same at the time, so a fault that met an edit
    /// (`epoch` is older) is tried again. `again` if the last fault was the same.
    pub fn judge(
        &self,
        tracee: &Tracee,
        (rip, addr): (u64, u64),
        epoch: &mut u64,
        again: bool,
    ) -> Result<Verdict, PlatformError> {
        let mut state = self.state();
        let current = std::mem::replace(epoch, state.epoch) == state.epoch;
        // A fetch faults at RIP, or at the page boundary inside the instruction.
        let fetch = addr.wrapping_sub(rip) < 15;
        let Some(granted) = state.table.access(addr) else {
            let access = if fetch && addr == rip { Access::Exec } else { Access::Unknown };
            return Ok(Verdict::Report(access));
        };
        if state.lazy && !again {
            self.reinstall(&mut state, tracee, addr)?;
            return Ok(Verdict::RetryFresh);
        }
        if !current {
            return Ok(Verdict::Retry);
        }
        let (write, exec) = (granted.contains(Prot::WRITE), granted.contains(Prot::EXEC));
        Ok(match (write, exec) {
            (_, false) if fetch && (write || addr == rip) => Verdict::Report(Access::Exec),
            (false, false) if fetch => Verdict::Report(Access::Unknown),
            (false, _) => Verdict::Report(Access::Write),
            // Nothing that is granted here faults. Not ours to explain a second time.
            (true, _) if again => Verdict::Report(Access::Unknown),
            (true, _) => Verdict::Retry,
        })
    }

    /// Installs what the table has at `va`.
    fn reinstall(&self, state: &mut State, tracee: &Tracee, va: u64) -> Result<(), PlatformError> {
        let Some(call) = state.table.reinstall(va) else { return Ok(()) };
        let before = self.shared.evictions.load(Ordering::Relaxed);
        state.queue.push(call);
        self.flush(state, tracee)?;
        if self.shared.evictions.load(Ordering::Relaxed) != before {
            // The limit was reached again, and all dropped again; now there is room.
            state.queue.push(call);
            self.flush(state, tracee)?;
        }
        Ok(())
    }

    /// Marks the space unusable: its process was seen to be gone.
    pub fn set_broken(&self) {
        self.state().broken = true;
    }
    /// The stub process, if there is one.
    pub fn pid(&self) -> Option<i32> {
        self.state().process.as_ref().map(|p| p.birth.pid)
    }
}

/// What to do about a page fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Run on: it may have been resolved meanwhile.
    Retry,
    /// The same, but the tracee's registers were used for something else.
    RetryFresh,
    /// It is for the kernel; what the access wanted.
    Report(Access),
}

impl AddressSpace for Space {
    fn apply(&self, edits: &[Edit]) -> Result<(), PlatformError> {
        let mut state = self.state();
        let State { table, queue, epoch, .. } = &mut *state;
        *epoch = epoch.wrapping_add(1);
        for edit in edits {
            table.edit(edit, queue).ok_or_else(|| PlatformError::Host {
                op: "an edit outside guest memory",
                source: std::io::ErrorKind::InvalidInput.into(),
            })?;
        }
        if state.broken {
            return Err(PlatformError::Gone);
        }
        if state.in_guest == 0 || state.queue.is_empty() {
            return Ok(());
        }
        if let Some(own) = tracee::owned(self.id) {
            return self.flush(&mut state, &own);
        }
        let Some(process) = &state.process else { return Ok(()) };
        let leader = Tracee::seize(process.birth.pid, self.shared.entries)?;
        let done = self.flush(&mut state, &leader);
        leader.release();
        done
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = state.process.take() {
            process.handle.kill();
            self.shared.slots.give_back(process.birth.slot);
            self.shared.processes.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
