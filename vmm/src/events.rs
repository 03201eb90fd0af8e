//! The monitor's event loop: signals, the `--timeout` timer, the console's input and the guest's
//! end, each one subscriber.
//!
//! The loop runs on the main thread and ends when the guest has ended or must end. Signals are
//! blocked in every thread and read here, so no code of ours runs in a signal handler.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use vmm_sys_util::eventfd::EventFd;

/// Why the loop ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The guest's first program ended.
    Guest,
    /// `--timeout` expired.
    Timeout,
}

/// What the loop asks of the VM.
pub trait Target: Send {
    /// Sends a signal to the guest's first program, as docker's `--sig-proxy` does.
    fn signal(&self, number: i32);
    /// Bytes typed at the terminal.
    fn input(&self, bytes: &[u8]);
    /// The terminal changed its size.
    fn resize(&self);
}

/// Signals the loop takes.
const FORWARDED: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

fn taken() -> SigSet {
    FORWARDED.into_iter().chain([Signal::SIGWINCH]).collect()
}

/// Blocks the loop's signals in the calling thread and those it starts; SIGPIPE becomes EPIPE by
/// the runtime's own default. Call first thing.
///
/// # Errors
/// The host's error.
pub fn block_signals() -> io::Result<()> {
    Ok(taken().thread_block()?)
}

type Outcome = Arc<Mutex<Option<Ended>>>;
type Shared = Arc<dyn Target + Sync>;

struct Signals {
    fd: SignalFd,
    target: Shared,
}
impl MutEventSubscriber for Signals {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch(ops, self.fd.as_fd().as_raw_fd());
    }
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        while let Ok(Some(info)) = self.fd.read_signal() {
            match i32::try_from(info.ssi_signo) {
                Ok(n) if n == Signal::SIGWINCH as i32 => self.target.resize(),
                Ok(n) => self.target.signal(n),
                Err(_) => {}
            }
        }
    }
}

struct Deadline {
    fd: TimerFd,
    outcome: Outcome,
}
impl MutEventSubscriber for Deadline {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch(ops, self.fd.as_fd().as_raw_fd());
    }
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        end(&self.outcome, Ended::Timeout);
    }
}

struct Shutdown {
    fd: EventFd,
    outcome: Outcome,
}
impl MutEventSubscriber for Shutdown {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch(ops, self.fd.as_raw_fd());
    }
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        end(&self.outcome, Ended::Guest);
    }
}

struct Keyboard {
    target: Shared,
}
impl MutEventSubscriber for Keyboard {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch(ops, io::stdin().as_raw_fd());
    }
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let mut buffer = [0; 4096];
        match nix::unistd::read(io::stdin(), &mut buffer) {
            Ok(n) if n > 0 => self.target.input(&buffer[..n]),
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => {}
            // The terminal hung up: stop listening, or the loop would spin.
            _ => {
                let _ = ops.remove(Events::empty_raw(events.fd()));
                self.target.signal(Signal::SIGHUP as i32);
            }
        }
    }
}

fn watch(ops: &mut EventOps<'_>, fd: RawFd) {
    // A regular file as standard input cannot be polled; only terminals are watched, so this
    // fails only for want of kernel memory, and then the event never comes.
    let _ = ops.add(Events::new_raw(fd, EventSet::IN));
}

fn end(outcome: &Outcome, how: Ended) {
    outcome.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(how);
}

/// Runs until `guest_ended` is written or `timeout` has passed.
///
/// # Errors
/// The host's error when the loop cannot be set up.
pub fn run(
    target: Shared,
    guest_ended: EventFd,
    timeout: Option<Duration>,
    terminal: bool,
) -> io::Result<Ended> {
    let outcome: Outcome = Arc::default();
    let broken = |error: event_manager::Error| io::Error::other(error.to_string());
    let mut manager = EventManager::<Box<dyn MutEventSubscriber>>::new().map_err(broken)?;
    let fd = SignalFd::with_flags(&taken(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    manager.add_subscriber(Box::new(Signals { fd, target: target.clone() }));
    if let Some(timeout) = timeout {
        let fd = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        let once = Expiration::OneShot(TimeSpec::from_duration(timeout));
        fd.set(once, TimerSetTimeFlags::empty())?;
        manager.add_subscriber(Box::new(Deadline { fd, outcome: outcome.clone() }));
    }
    manager.add_subscriber(Box::new(Shutdown { fd: guest_ended, outcome: outcome.clone() }));
    if terminal {
        manager.add_subscriber(Box::new(Keyboard { target }));
    }
    loop {
        if let Some(how) = *outcome.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(how);
        }
        manager.run().map_err(broken)?;
    }
}
