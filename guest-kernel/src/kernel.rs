//! The root of all kernel state: everything a VM is hangs off one [`Kernel`].
//!
//! Nothing lives in a static, so that several VMs share a process and a snapshot has one root to
//! walk. Lock order is written in `guest-kernel/README.md`.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    frames::Frames,
    fs::state::FsState,
    host::Host,
    linux::{stats::Stats, table::Table},
    platform::Platform,
    task::table::TaskTable,
    time::virtual_time::VirtualTime,
    timer::Timers,
};

/// What a VM is made of and with.
pub struct Parts {
    /// The backend.
    pub platform: Arc<dyn Platform>,
    /// The host.
    pub host: Arc<dyn Host>,
    /// Physical memory.
    pub frames: Arc<Frames>,
    /// Settings.
    pub config: Config,
}

/// Settings that do not change while a VM lives.
#[derive(Clone, Debug)]
pub struct Config {
    /// uname(2) nodename at start.
    pub hostname: String,
    /// CPUs guests see, at least 1.
    pub cpus: usize,
    /// Bytes of memory guests may use (`--mem`).
    pub memory: u64,
    /// Address spaces are checked when they end.
    pub audit: bool,
}

/// Names that sethostname(2) and setdomainname(2) change.
#[derive(Clone, Debug)]
pub struct Names {
    /// uname(2) nodename.
    pub node: Vec<u8>,
    /// uname(2) domainname.
    pub domain: Vec<u8>,
}

/// Host failures and bugs of ours, kept for the monitor.
#[derive(Default)]
pub struct Failures {
    notes: Mutex<Vec<String>>,
    fatal: OnceLock<String>,
}

impl Failures {
    /// Keeps at most this many notes; a guest that provokes one again and again must not fill the
    /// monitor's memory.
    const MOST: usize = 64;

    /// Adds a note.
    pub(crate) fn note(&self, text: &str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < Self::MOST {
            notes.push(text.to_owned());
        }
    }
    /// Records what ends the VM; the first stands.
    pub(crate) fn set_fatal(&self, text: &str) {
        let _ = self.fatal.set(text.to_owned());
    }
    /// What ended the VM, if our bug did.
    #[must_use]
    pub fn fatal(&self) -> Option<&str> {
        self.fatal.get().map(String::as_str)
    }
    /// What else went wrong; the VM went on.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Watches system calls (`--strace`).
pub trait Tracer: Send + Sync {
    /// A call ended; `result` is RAX as the program will see it, `None` if the call never returns
    /// or is about to be interrupted by a signal handler.
    fn call(&self, task: &crate::task::Task, call: &crate::call::Call, result: Option<u64>);
    /// A signal was delivered to a handler, or ended or stopped the task.
    fn signal(&self, task: &crate::task::Task, text: &str);
    /// A task ended.
    fn exit(&self, task: &crate::task::Task, text: &str);
}

/// One VM's kernel.
pub struct Kernel {
    /// The backend.
    pub platform: Arc<dyn Platform>,
    /// The host.
    pub host: Arc<dyn Host>,
    /// Physical memory.
    pub frames: Arc<Frames>,
    /// Settings.
    pub config: Config,
    /// All tasks.
    pub tasks: TaskTable,
    /// Kernel timers.
    pub timers: Arc<Timers>,
    /// System calls by number.
    pub table: Table,
    /// uname(2)'s changeable names.
    pub names: Mutex<Names>,
    /// What went wrong on the host's or our side, for the monitor to report.
    pub failures: Failures,
    /// What all file systems share: devices, caches, lock waits.
    pub fs: FsState,
    /// Counters for `--stats`.
    pub stats: Stats,
    /// The `--strace` sink.
    pub tracer: OnceLock<Box<dyn Tracer>>,
    /// Threads waiting on words of memory.
    pub futexes: Arc<crate::futex::Futexes>,
    /// Queued signals per user (RLIMIT_SIGPENDING).
    pub queued_signals: Arc<crate::signal::queue::Charges>,
    /// Socket names and ports.
    pub net: Arc<crate::net::Net>,
    /// Terminals.
    pub ttys: crate::tty::Ttys,
    /// Serialises epoll_ctl(2) on sets within sets.
    pub epoll_nesting: crate::epoll::NestingLock,
    /// Semaphores and message queues.
    pub ipc: crate::ipc::Ipc,
    /// What was written below /proc/sys.
    pub sysctls: crate::fs::procfs::sysctl::Settings,
    /// SysV shared memory segments.
    pub shm: crate::mm::shm::Segments,
    /// The vDSO's page, once a program has been loaded.
    pub vdso: Mutex<Option<Arc<crate::linux::vdso::Vdso>>>,
    /// The clock of a VM in virtual time.
    pub virtual_time: Option<Arc<VirtualTime>>,
    next_id: AtomicU64,
}

impl Kernel {
    /// Boots a kernel with no task.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Kernel> {
        let kernel = Arc::new(Kernel {
            timers: Timers::new(parts.host.clone()),
            virtual_time: parts.host.virtual_time(),
            platform: parts.platform,
            host: parts.host,
            frames: parts.frames,
            tasks: TaskTable::default(),
            table: Table::new(),
            names: Mutex::new(Names {
                node: parts.config.hostname.clone().into_bytes(),
                domain: b"(none)".to_vec(),
            }),
            failures: Failures::default(),
            fs: FsState::default(),
            stats: Stats::default(),
            tracer: OnceLock::new(),
            config: parts.config,
            futexes: Arc::default(),
            queued_signals: Arc::default(),
            net: Arc::default(),
            ttys: Default::default(),
            epoll_nesting: Default::default(),
            ipc: Default::default(),
            sysctls: Default::default(),
            shm: Default::default(),
            vdso: Mutex::default(),
            next_id: AtomicU64::new(1),
        });
        kernel.populate();
        crate::tty::pty::register(&kernel);
        let caches: std::sync::Weak<dyn crate::frames::Shrink> = {
            let caches: Arc<dyn crate::frames::Shrink> = kernel.fs.caches.clone();
            Arc::downgrade(&caches)
        };
        kernel.frames.add_shrinker(caches);
        kernel
    }
    /// A number no other kernel object has (device numbers, memory objects, address spaces).
    pub fn fresh_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
    /// `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.host.monotonic()
    }
    /// For what is measured of the monitor itself.
    #[must_use]
    pub(crate) fn stopwatch(&self) -> Duration {
        self.host.stopwatch()
    }
}
