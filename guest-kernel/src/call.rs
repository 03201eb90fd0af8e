//! A system call in flight: its arguments and the little state that survives a retry.
//!
//! Neighbours: `linux::table` names handlers, `task::run` drives them. Everything a handler must
//! remember across a wait lies in [`Call`], never on a stack.

use std::{any::Any, sync::Arc, time::Duration};

use crate::{
    error::{Errno, Restart, Stop, Wait},
    fs::{fdtable::FdTable, file::OpenFile},
    kernel::Kernel,
    mm::Mm,
    num::Word,
    platform::{Cpu, Registers},
    task::{Task, process::rlimit},
    wait::WaitQueue,
};

/// One call, from its SYSCALL to its answer.
pub struct Call {
    /// The number, from the low half of RAX.
    pub number: u64,
    /// RDI, RSI, RDX, R10, R8, R9.
    pub args: [u64; 6],
    /// How often the handler has been tried before.
    pub tries: u32,
    /// Progress of a transfer that blocks half-way (a large write to a pipe), in bytes.
    pub done: usize,
    /// The absolute deadline a relative time-out became at the first try (`CLOCK_MONOTONIC`).
    pub deadline: Option<Duration>,
    /// A signal handler is about to run and this is the handler's last try: it may return partial
    /// progress or store what is left of a sleep. If it asks to wait again, `done` is the result
    /// when it is not 0, else EINTR or a restart by the wait's rule.
    pub interrupted: bool,
    /// A handler's own record (a futex waiter, say); dropped with the call.
    pub slot: Option<Box<dyn Any + Send>>,
    /// `CLOCK_MONOTONIC` when the handler first asked; most never do.
    started: Option<Duration>,
}

impl Call {
    /// The call that `regs` ask for.
    #[must_use]
    pub fn new(regs: &Registers) -> Call {
        let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
        Call::with(regs.rax, args)
    }
    /// The call that RAX names, with `args`. As Linux, it looks at the low half of RAX alone.
    #[must_use]
    pub fn with(rax: u64, args: [u64; 6]) -> Call {
        Call {
            number: u64::from(rax.low_u32()),
            args,
            tries: 0,
            done: 0,
            deadline: None,
            interrupted: false,
            slot: None,
            started: None,
        }
    }
}

/// What a handler gets: the task it works for and the call it answers. Only handlers that replace
/// the whole register file (clone, execve, rt_sigreturn) touch `regs` or `cpu`.
pub struct Cx<'a> {
    /// The calling thread.
    pub task: &'a Arc<Task>,
    /// The call.
    pub call: &'a mut Call,
    /// The thread's registers as at entry (RIP after the SYSCALL).
    pub regs: &'a mut Registers,
    /// The thread's CPU.
    pub cpu: &'a mut dyn Cpu,
}

impl Cx<'_> {
    /// The kernel.
    #[must_use]
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.task.kernel
    }
    /// The caller's memory.
    #[must_use]
    pub fn mm(&self) -> Arc<Mm> {
        self.task.mm()
    }
    /// The caller's descriptors.
    #[must_use]
    pub fn files(&self) -> Arc<FdTable> {
        self.task.files()
    }
    /// `CLOCK_MONOTONIC` when the call was first tried.
    pub fn started(&mut self) -> Duration {
        let kernel = &self.task.kernel;
        *self.call.started.get_or_insert_with(|| kernel.now())
    }
    /// The deadline for a wait of `timeout`, fixed at the first try; `None` waits forever.
    pub fn deadline_after(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        if self.call.deadline.is_none()
            && let Some(timeout) = timeout
        {
            self.call.deadline = self.started().checked_add(timeout);
        }
        self.call.deadline
    }
    /// `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.task.kernel.now()
    }
    /// Puts `file` at the caller's lowest free descriptor.
    ///
    /// # Errors
    /// EMFILE.
    pub fn install(&self, file: Arc<OpenFile>, cloexec: bool) -> Result<i32, Errno> {
        let limit = self.task.process.limit(rlimit::NOFILE);
        self.files().install(file, cloexec, 0, limit)
    }
    /// Turns a non-blocking attempt's EAGAIN into a wait on `queue`, unless `nonblock`.
    ///
    /// # Errors
    /// The attempt's errno, or the wait.
    pub fn block<T>(
        &self,
        attempt: Result<T, Errno>,
        nonblock: bool,
        queue: Option<Arc<WaitQueue>>,
    ) -> Result<T, Stop> {
        match (attempt, queue) {
            (Err(Errno::EAGAIN), Some(queue)) if !nonblock => {
                let wait =
                    Wait { queues: vec![queue], deadline: None, restart: Restart::IfSaRestart };
                Err(Stop::Wait(wait))
            }
            (result, _) => result.map_err(Stop::Errno),
        }
    }
}
