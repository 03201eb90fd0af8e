//! The run loop and the dispatcher on a platform whose programs are lists of system calls.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{TaskParts, boot::Handle, comm_from, status::ExitStatus};
use crate::{
    creds::Creds,
    error::Errno,
    eventfd::EventFd,
    fs::{
        buf::Source,
        fdtable::FdTable,
        file::{OpenFile, OpenFlags},
        setup::{self, FsConfig},
    },
    host::{Host, HostTree},
    kernel::Kernel,
    mm::{
        Limits, Mm,
        map::{MapRequest, Place},
    },
    platform::{
        AddressSpace, Cpu, Exit, Kick, Platform, PlatformError, Prot, Registers, XsaveLayout,
    },
    signal::{SigInfo, TaskSignals, number::*},
    testing::{self, FakeSpace},
    wait::{Parker, Wake},
};

const READ: u64 = 0;
const PAUSE: u64 = 34;
const EXIT_GROUP: u64 = 231;
const BUFFER: u64 = 0x10_0000;

type Script = Arc<Mutex<VecDeque<[u64; 4]>>>;

/// Runs a list of calls; what they answered is kept.
#[derive(Default)]
struct Machine {
    script: Script,
    answers: Arc<Mutex<Vec<u64>>>,
}

struct ScriptedCpu {
    script: Script,
    answers: Arc<Mutex<Vec<u64>>>,
    called: bool,
    kick: Arc<ParkerKick>,
}

struct ParkerKick(Arc<Parker>);

impl Kick for ParkerKick {
    fn kick(&self) {
        self.0.wake();
    }
}

impl Cpu for ScriptedCpu {
    fn run(&mut self, regs: &mut Registers) -> Result<Exit, PlatformError> {
        if std::mem::take(&mut self.called) {
            self.answers.lock().unwrap().push(regs.rax);
        }
        let next = self.script.lock().unwrap().pop_front();
        let Some([number, a, b, c]) = next else {
            // The program spins: only a kick gets it out.
            self.kick.0.park(None);
            return Ok(Exit::Interrupted);
        };
        (regs.rax, regs.rdi, regs.rsi, regs.rdx) = (number, a, b, c);
        self.called = true;
        Ok(Exit::Syscall)
    }
    fn switch(&mut self, _: &Arc<dyn AddressSpace>) -> Result<(), PlatformError> {
        Ok(())
    }
    fn fpu(&mut self) -> Result<Vec<u8>, PlatformError> {
        Ok(vec![0; 832])
    }
    fn set_fpu(&mut self, _: &[u8]) -> Result<(), PlatformError> {
        Ok(())
    }
    fn reset_fpu(&mut self) -> Result<(), PlatformError> {
        Ok(())
    }
    fn kicker(&self) -> Arc<dyn Kick> {
        self.kick.clone()
    }
}

impl Platform for Machine {
    fn name(&self) -> &'static str {
        "scripted"
    }
    fn new_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(Arc::new(FakeSpace::default()))
    }
    fn new_cpu(&self, _: &Arc<dyn AddressSpace>) -> Result<Box<dyn Cpu>, PlatformError> {
        Ok(Box::new(ScriptedCpu {
            script: self.script.clone(),
            answers: self.answers.clone(),
            called: false,
            kick: Arc::new(ParkerKick(Parker::new())),
        }))
    }
    fn xsave_layout(&self) -> XsaveLayout {
        XsaveLayout { size: 832, features: 7 }
    }
}

struct RealHost(Instant);

impl Host for RealHost {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
    fn realtime(&self) -> Duration {
        self.0.elapsed()
    }
    fn thread_cpu_time(&self) -> (Duration, Duration) {
        Default::default()
    }
    fn random(&self, buf: &mut [u8]) {
        buf.fill(4);
    }
    fn spawn(&self, _: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        std::thread::Builder::new().spawn(body).map(drop)
    }
    fn cpus(&self) -> usize {
        2
    }
    fn total_memory(&self) -> u64 {
        1 << 30
    }
    fn open_tree(&self, _: &Path) -> Result<Arc<dyn HostTree>, Errno> {
        Err(Errno::ENOENT)
    }
}

struct Run {
    kernel: Arc<Kernel>,
    handle: Handle,
    answers: Arc<Mutex<Vec<u64>>>,
}

/// Starts a program that makes `calls`; descriptor 0 is `file`.
fn start(calls: &[[u64; 4]], file: Option<Arc<OpenFile>>) -> Run {
    let machine = Arc::new(Machine::default());
    machine.script.lock().unwrap().extend(calls);
    let answers = machine.answers.clone();
    let kernel = testing::kernel_on(machine, Arc::new(RealHost(Instant::now())), 16);
    let fs = setup::build(&kernel, &FsConfig::default()).unwrap();
    let files = Arc::new(FdTable::default());
    if let Some(file) = file {
        files.install(file, false, 0, 8).unwrap();
    }
    let mm = Mm::new(&kernel).unwrap();
    let request = MapRequest::anon(Place::FixedNoReplace(BUFFER), 4096, Prot::READ | Prot::WRITE);
    mm.map(request, Limits::NONE).unwrap();
    let parts = TaskParts {
        mm,
        files,
        fs,
        creds: Arc::new(Creds::user(0, 0)),
        signals: TaskSignals::default(),
        comm: comm_from(b"script"),
    };
    let handle = kernel.start_first(parts, Registers::default(), None).unwrap();
    Run { kernel, handle, answers }
}

impl Run {
    /// Waits for the end; afterwards nothing of the program is left.
    fn finish(self) -> (ExitStatus, Vec<u64>) {
        let status = self.handle.wait(Some(Duration::from_secs(20))).expect("it ends");
        assert!(self.kernel.shutdown(Duration::from_secs(20)), "every host thread ends");
        for (name, count) in self.kernel.in_use().counts {
            if name != "frames" {
                assert_eq!(count, 0, "{name} are left");
            }
        }
        assert_eq!(self.kernel.failures.fatal(), None);
        (status, std::mem::take(&mut *self.answers.lock().unwrap()))
    }
    fn settle() {
        std::thread::sleep(Duration::from_millis(30));
    }
}

#[test]
fn an_unknown_call_is_enosys_and_the_exit_code_is_told() {
    let (status, answers) = start(&[[500, 0, 0, 0], [EXIT_GROUP, 7, 0, 0]], None).finish();
    assert_eq!(status, ExitStatus::Exited(7));
    assert_eq!(answers, [super::dispatch::errno_word(Errno::ENOSYS)]);
}

#[test]
fn no_wake_up_is_lost() {
    const ROUNDS: usize = 3000;
    let file = OpenFile::new(EventFd::new(0, true), OpenFlags::RDWR);
    let mut calls = vec![[READ, 0, BUFFER, 8]; ROUNDS];
    calls.push([EXIT_GROUP, 0, 0, 0]);
    let run = start(&calls, Some(file.clone()));
    for _ in 0..ROUNDS {
        file.ops.write(&file, &mut Source::kernel(&1u64.to_le_bytes())).unwrap();
        std::thread::yield_now();
    }
    drop(file);
    let (status, answers) = run.finish();
    assert_eq!(status, ExitStatus::Exited(0));
    assert!(answers.len() == ROUNDS && answers.iter().all(|a| *a == 8));
}

#[test]
fn stops_and_ignored_signals_leave_a_wait_alone() {
    let run = start(&[[PAUSE, 0, 0, 0]], None);
    Run::settle();
    for signal in [SIGWINCH, SIGSTOP, SIGCONT, SIGCHLD] {
        run.handle.process.send(SigInfo::kernel(signal));
        Run::settle();
    }
    assert!(run.answers.lock().unwrap().is_empty(), "pause still waits");
    run.handle.process.send(SigInfo::kernel(SIGTERM));
    let (status, _) = run.finish();
    assert_eq!(status, ExitStatus::Signaled { signal: SIGTERM, core: false });
}

#[test]
fn a_kill_reaches_a_stopped_and_a_spinning_program() {
    for stop in [false, true] {
        let run = start(&[], None);
        Run::settle();
        if stop {
            run.handle.process.send(SigInfo::kernel(SIGSTOP));
            Run::settle();
        }
        run.handle.process.send(SigInfo::kernel(SIGKILL));
        let (status, _) = run.finish();
        assert_eq!(status, ExitStatus::Signaled { signal: SIGKILL, core: false });
    }
}

#[test]
fn the_vm_can_be_ended_from_outside() {
    let run = start(&[[PAUSE, 0, 0, 0]], None);
    Run::settle();
    assert!(run.kernel.shutdown(Duration::from_secs(20)));
    assert_eq!(run.kernel.tasks.host_threads(), 0);
}
