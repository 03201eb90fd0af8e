//! The zygote: a small stub process, forked once from the monitor, that forks all the others.
//!
//! Its parent is a thread of ours that does nothing else: PR_SET_PDEATHSIG is per thread, so the
//! zygote dies with that thread, every stub with the zygote. The zygote ignores SIGCHLD, so its dead
//! children leave no zombies. A few children are made ahead (`SPARES`).

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use trapgate_kernel::platform::{PlatformError, USER_END};

use super::{
    layout::{
        BIRTH_PID, BIRTH_READY, BIRTH_WORKER, CODE, RAM_FD, SLOT, SLOT_FD, SLOT_SIZE, STUB_BASE,
        STUB_END, ZYGOTE_RING, ZYGOTE_RING_LEN, ZYGOTE_WANT, slot_offset,
    },
    seccomp,
    slots::Slots,
    sys::{self, Tid},
};

/// Processes kept ready.
const SPARES: usize = 2;
/// How long a birth may take on a host that is badly overloaded.
const BIRTH_TIMEOUT: Duration = Duration::from_secs(10);

/// A newborn stub process: two parked threads, nothing mapped but the stub's own pages.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// Its slot.
    pub slot: usize,
    /// Its process id, and its leader's thread id.
    pub pid: Tid,
    /// The first worker's thread id.
    pub worker: Tid,
}

/// Handle to the zygote; dropping it kills the zygote and so every stub.
pub struct Zygote {
    slots: Arc<Slots>,
    asked: Mutex<VecDeque<(u32, usize)>>,
    /// The zygote, until it is known to have died.
    pid: Arc<Mutex<Option<Tid>>>,
    dead: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

impl Zygote {
    /// Forks the zygote. `ram` is guest RAM's descriptor.
    pub fn start(slots: &Arc<Slots>, ram: RawFd, entry: u64) -> io::Result<Zygote> {
        let (pid, dead) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let (tell, told) = mpsc::channel();
        let plan = Plan::new(slots.fd(), ram, entry);
        let (keeper_pid, keeper_dead) = (pid.clone(), dead.clone());
        let keeper = std::thread::Builder::new().name("stub-zygote".into()).spawn(move || {
            match plan.fork() {
                Ok(child) => {
                    *keeper_pid.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
                    let _ = tell.send(Ok(()));
                    wait_for_death(child);
                    keeper_dead.store(true, Ordering::Release);
                    // Once reaped the number may be anyone's.
                    *keeper_pid.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    sys::reap(child);
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                }
            }
        })?;
        told.recv().map_err(io::Error::other)??;
        let zygote = Zygote {
            slots: slots.clone(),
            asked: Mutex::new(VecDeque::new()),
            pid,
            dead,
            keeper: Some(keeper),
        };
        zygote.ask(&mut zygote.asked.lock().unwrap_or_else(PoisonError::into_inner), 1);
        Ok(zygote)
    }

    /// Asks for processes until `count` are being made or ready.
    fn ask(&self, asked: &mut VecDeque<(u32, usize)>, count: usize) {
        let want = self.slots.word(0, ZYGOTE_WANT);
        let mut told = false;
        while asked.len() < count {
            let Some(slot) = self.slots.take() else { break };
            let number = want.load(Ordering::Relaxed);
            let ring = ZYGOTE_RING + (number % ZYGOTE_RING_LEN) as usize * 8;
            self.slots.quad(0, ring).store(slot_offset(slot) as u64, Ordering::Relaxed);
            want.store(number.wrapping_add(1), Ordering::Release);
            asked.push_back((number, slot));
            told = true;
        }
        if told {
            sys::futex_wake(want);
        }
    }

    /// A process nobody uses yet.
    pub fn take(&self) -> Result<Birth, PlatformError> {
        let (number, slot) = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.is_empty() {
                self.ask(&mut asked, 1);
            }
            let first = asked.pop_front().ok_or(PlatformError::OutOfMemory("stub processes"))?;
            self.ask(&mut asked, SPARES);
            first
        };
        let ready = self.slots.word(slot, BIRTH_READY);
        let ring = ZYGOTE_RING + (number % ZYGOTE_RING_LEN) as usize * 8;
        let begun = Instant::now();
        while ready.load(Ordering::Acquire) == 0 {
            if self.slots.quad(0, ring).load(Ordering::Relaxed) == u64::MAX {
                self.slots.give_back(slot);
                return Err(PlatformError::OutOfMemory("a stub process (pid limits?)"));
            }
            if self.dead.load(Ordering::Acquire) || begun.elapsed() > BIRTH_TIMEOUT {
                return Err(PlatformError::Gone);
            }
            sys::futex_wait(ready, 0, Duration::from_millis(20));
        }
        let id = |offset| self.slots.word(slot, offset).load(Ordering::Relaxed).cast_signed();
        Ok(Birth { slot, pid: id(BIRTH_PID), worker: id(BIRTH_WORKER) })
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        if let Some(pid) = *self.pid.lock().unwrap_or_else(PoisonError::into_inner) {
            sys::kill(pid, libc::SIGKILL);
        }
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Blocks until `child` has died, without reaping it.
fn wait_for_death(child: Tid) {
    loop {
        // SAFETY: an all-zero siginfo_t is valid; waitid(2) writes one.
        let rc = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOWAIT | libc::__WALL;
            libc::waitid(libc::P_PID, child.cast_unsigned(), &raw mut info, flags)
        };
        if rc == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return;
        }
    }
}

/// Everything the child needs, made before the fork: it must not allocate.
struct Plan {
    slot_fd: RawFd,
    ram_fd: RawFd,
    entry: u64,
    filter: Vec<libc::sock_filter>,
    monitor: Tid,
}

/// An XSAVE area that puts every component in its initial state. As large as any (AMX included):
/// the processor may touch all of it.
#[repr(C, align(64))]
struct InitialFpu([u8; 16384]);

impl Plan {
    fn new(slot_fd: RawFd, ram_fd: RawFd, entry: u64) -> Plan {
        let monitor = std::process::id().cast_signed();
        Plan { slot_fd, ram_fd, entry, filter: seccomp::floor(), monitor }
    }

    fn fork(&self) -> io::Result<Tid> {
        // SAFETY: fork(2) by its bare system call; the child of a process with threads may only make
        // async-signal-safe calls, and `become_zygote` makes only system calls.
        match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
            -1 => Err(io::Error::last_os_error()),
            0 => self.become_zygote(),
            pid => Tid::try_from(pid).map_err(io::Error::other),
        }
    }

    /// The child: sheds all that it inherited and jumps to the stub code.
    fn become_zygote(&self) -> ! {
        // SAFETY: every call below is a plain system call on this child's own state. Its memory is a
        // copy that the stub code unmaps at once, and nothing returns from here.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != self.monitor {
                libc::_exit(1);
            }
            libc::prctl(libc::PR_SET_NAME, c"trapgate-stub".as_ptr());
            libc::setsid();
            forget_rseq();
            forget_signals();
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            let ram = libc::fcntl(self.ram_fd, libc::F_DUPFD, 16);
            let slots = libc::fcntl(self.slot_fd, libc::F_DUPFD, 16);
            let ok = libc::dup2(ram, RAM_FD) == RAM_FD
                && libc::dup2(slots, SLOT_FD) == SLOT_FD
                && libc::syscall(libc::SYS_close_range, 2, u32::MAX, 0) == 0
                && map_own(CODE, 0x1000, libc::PROT_READ | libc::PROT_EXEC, 0)
                && map_own(SLOT, SLOT_SIZE, libc::PROT_READ | libc::PROT_WRITE, slot_offset(0))
                && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && self.install_filter();
            if !ok {
                // With the filter half-way this may be a killing call, which serves as well.
                libc::_exit(1);
            }
            let mut fpu = InitialFpu([0; 16384]);
            // MXCSR is taken from here even where XSTATE_BV is clear (SDM vol. 1, 13.8.1).
            fpu.0[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
            std::arch::asm!(
                "xrstor64 [rdi]",
                "mov rbp, r8",
                "xor ebx, ebx",
                "xor esp, esp",
                "jmp rsi",
                in("rdi") &raw const fpu,
                in("rsi") self.entry,
                in("r8") USER_END,
                in("r12") SLOT,
                in("r14") STUB_BASE,
                in("r15") STUB_END,
                in("eax") u32::MAX,
                in("edx") u32::MAX,
                options(noreturn)
            )
        }
    }

    fn install_filter(&self) -> bool {
        let program = libc::sock_fprog {
            len: u16::try_from(self.filter.len()).unwrap_or(0),
            filter: self.filter.as_ptr().cast_mut(),
        };
        // Guests' speculation is their own business; without the flag older hosts slow them down.
        let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        // SAFETY: seccomp(2) copies the program, which lives through the call.
        unsafe {
            let mode = libc::SECCOMP_SET_MODE_FILTER;
            libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) == 0
        }
    }
}

/// Maps a piece of the slot file in the child.
///
/// # Safety
/// Only in the child, which no longer cares about what lay at `at`.
unsafe fn map_own(at: u64, len: usize, prot: i32, offset: usize) -> bool {
    let address = std::ptr::without_provenance_mut(usize::try_from(at).unwrap_or(0));
    let offset = i64::try_from(offset).unwrap_or(-1);
    // SAFETY: the caller's promise.
    let got = unsafe { libc::mmap(address, len, prot, super::stub::MAP_FLAGS, SLOT_FD, offset) };
    got == address
}

/// No signal blocked; those the processor raises at their defaults, all others ignored: a tracer sees
/// them all the same, a parked thread is not bothered, and dead children leave no zombies.
///
/// # Safety
/// Only in the child.
unsafe fn forget_signals() {
    // The kernel's struct sigaction: handler, flags, restorer, mask.
    let (default, ignore) = ([0u64; 4], [libc::SIG_IGN as u64, 0, 0, 0]);
    for signal in 1..=64 {
        let action = if super::tracee::is_fault(signal) { &default } else { &ignore };
        // SAFETY: rt_sigaction(2) reads one action of 32 bytes; refusals (SIGKILL) do not matter.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), 0, 8) };
    }
    // SAFETY: rt_sigprocmask(2) reads eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, default.as_ptr(), 0, 8) };
}

/// Unregisters the C library's rseq(2) area, to which the host would otherwise go on writing after
/// it is unmapped.
///
/// # Safety
/// Only in the child.
unsafe fn forget_rseq() {
    const SIGNATURE: u32 = 0x5305_3053;
    const UNREGISTER: u32 = 1;
    let (offset, thread): (*const isize, usize);
    // SAFETY: reads the address of a weak symbol (null where the C library has none), and the
    // thread pointer, which the ABI keeps at %fs:0.
    unsafe {
        std::arch::asm!(
            ".weak __rseq_offset",
            "mov {offset}, qword ptr [rip + __rseq_offset@GOTPCREL]",
            "mov {thread}, qword ptr fs:[0]",
            offset = out(reg) offset,
            thread = out(reg) thread,
            options(nostack, readonly)
        );
    }
    if offset.is_null() {
        return;
    }
    // SAFETY: not null, so it is the C library's variable.
    let area = thread.wrapping_add_signed(unsafe { *offset });
    for len in (20..=512).step_by(4) {
        // SAFETY: unregistering touches no memory; a wrong length is refused.
        if unsafe { libc::syscall(libc::SYS_rseq, area, len, UNREGISTER, SIGNATURE) } == 0 {
            return;
        }
    }
}

/// A file descriptor that names a process for certain, so that it can be signalled safely.
pub struct PidFd(std::os::fd::OwnedFd);

impl PidFd {
    /// Names the live process `pid`.
    pub fn open(pid: Tid) -> io::Result<PidFd> {
        // SAFETY: pidfd_open(2) touches no memory.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = RawFd::try_from(fd).unwrap_or(-1);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and ours.
        Ok(PidFd(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }))
    }
    /// Kills it.
    pub fn kill(&self) {
        let fd = self.0.as_raw_fd();
        // SAFETY: pidfd_send_signal(2) with a null siginfo touches no memory.
        unsafe {
            let none = std::ptr::null::<libc::siginfo_t>();
            libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, none, 0)
        };
    }
}
