//! Delivery: what happens to a thread's pending signals before it enters the guest again.

use std::sync::{Arc, atomic::Ordering};

use super::{
    SigInfo, Signal,
    action::{Action, ActionFlags, DefaultAction, Handler, default_action},
    number::{SIGKILL, SIGSEGV, SIGSTOP},
    send,
    set::SigSet,
    stop,
};
use crate::{
    error::{Errno, Restart},
    linux::sigframe,
    num::ret_i32,
    platform::{Cpu, Registers},
    task::Task,
};

/// What delivery came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivered {
    /// No handler runs. An interrupted call is retried in place, unless its rule is
    /// [`Restart::Never`]: its EINTR is then in RAX already.
    Nothing,
    /// The registers enter a handler; whether an interrupted call is restarted afterwards or fails
    /// with EINTR is settled in the frame.
    Handler,
    /// The process stops: call [`stop::wait`], then deliver again.
    Stopped,
    /// The signal ends the process; `core` if it would dump core.
    Exit {
        /// The signal.
        signal: Signal,
        /// Its default action is a core dump.
        core: bool,
    },
}

/// True if `deliver` would do something: a signal that is neither blocked nor ignored, a stop, the
/// end of the process. A wait that sees this ends.
#[must_use]
pub fn pending(task: &Task) -> bool {
    task.signals.attention() || task.process.is_exiting()
}

/// All of `task`'s pending signals have handlers, and nothing else wants its attention: delivering the first
/// waits for nobody and ends nothing.
pub(crate) fn only_handlers(task: &Task) -> bool {
    let shared = task.process.signals.lock();
    let own = task.signals.lock();
    if shared.stop.is_some() {
        return false;
    }
    let due = (own.pending.set() | shared.pending.set()) & !own.mask;
    drop(own);
    let actions = task.process.signals.actions();
    let handled = |signal| matches!(actions.get(signal).handler, Handler::Function(_));
    (1..=64).filter(|signal| due.has(*signal)).all(handled)
}

/// Deals with `task`'s pending signals; the run loop calls this before every entry into the guest.
///
/// `interrupted` is the rule and number of the call whose wait a signal ended. `regs` are as the
/// guest is to see them; for an interrupted call RAX is not yet set and RIP lies after the SYSCALL.
pub fn deliver(
    task: &Arc<Task>,
    regs: &mut Registers,
    cpu: &mut dyn Cpu,
    interrupted: Option<(Restart, u64)>,
) -> Delivered {
    if !task.signals.busy() && interrupted.is_none() {
        return Delivered::Nothing;
    }
    if interrupted.is_none() {
        // The call ended by itself: what only its temporary mask let in stays blocked.
        restore_mask(task);
    }
    while let Some((info, action)) = next(task) {
        if info.signal == SIGSTOP && action.is_none() {
            return Delivered::Stopped;
        }
        let signal = info.signal;
        let Some(action) = action else { continue };
        match action.handler {
            Handler::Ignore => {}
            Handler::Default => match default_action(signal) {
                DefaultAction::Ignore => {}
                DefaultAction::Stop => {
                    // Terminal stops are pointless when nobody could continue the process.
                    if signal != SIGSTOP && stop::is_orphaned(&task.process, task) {
                        continue;
                    }
                    let others = stop::begin(&mut task.process.signals.lock(), task, signal);
                    for other in others {
                        other.notify();
                    }
                    trace(task, &info, "stop");
                    return Delivered::Stopped;
                }
                ending => {
                    trace(task, &info, "kill");
                    return Delivered::Exit { signal, core: ending == DefaultAction::Core };
                }
            },
            Handler::Function(entry) => {
                trace(task, &info, "handler");
                let before = *regs;
                if let Some((rule, number)) = interrupted {
                    finish(regs, rule, number, action.flags);
                }
                let mask = {
                    let own = task.signals.lock();
                    own.saved.unwrap_or(own.mask)
                };
                let frame = sigframe::Frame { info: &info, action: &action, entry, mask };
                if sigframe::push(task, regs, cpu, &frame).is_err() {
                    *regs = before;
                    frame_failed(task, signal);
                    continue;
                }
                enter(task, signal, &action);
                task.kernel.stats.signals.fetch_add(1, Ordering::Relaxed);
                return Delivered::Handler;
            }
        }
    }
    match interrupted {
        Some((Restart::Never, _)) => {
            regs.rax = error(Errno::EINTR);
            restore_mask(task);
        }
        Some(_) => {}
        None => restore_mask(task),
    }
    Delivered::Nothing
}

fn error(errno: Errno) -> u64 {
    ret_i32(-i32::from(errno.raw()))
}

/// Settles an interrupted call whose signal has a handler: EINTR, or back to the SYSCALL.
fn finish(regs: &mut Registers, rule: Restart, number: u64, flags: ActionFlags) {
    if rule == Restart::IfSaRestart && flags.contains(ActionFlags::RESTART) {
        regs.rip = regs.rip.wrapping_sub(2);
        regs.rax = number;
    } else {
        regs.rax = error(Errno::EINTR);
    }
}

/// The next signal with its action. `(SIGSTOP, None)` stands for a stop in effect.
fn next(task: &Arc<Task>) -> Option<(SigInfo, Option<Action>)> {
    let signals = &task.process.signals;
    let mut shared = signals.lock();
    let mut own = task.signals.lock();
    let kill = SigSet::one(SIGKILL);
    let mut info = own.pending.take(kill).or_else(|| shared.pending.take(kill));
    if info.is_none() && shared.stop.is_some() {
        return Some((SigInfo::kernel(SIGSTOP), None));
    }
    let wanted = !own.mask;
    if info.is_none() {
        info = own.pending.take(wanted);
    }
    if info.is_none() {
        info = shared.pending.take(wanted);
    }
    drop(own);
    let Some(info) = info else {
        send::refresh(&shared, task);
        return None;
    };
    let actions = signals.actions();
    let action = actions.get(info.signal);
    if let (Handler::Function(_), true) =
        (action.handler, action.flags.contains(ActionFlags::RESETHAND))
    {
        actions.set(info.signal, Action { handler: Handler::Default, ..action });
    }
    Some((info, Some(action)))
}

/// Takes a pending signal of `wanted` without delivering it (sigwaitinfo(2), signalfd(2)).
#[must_use]
pub fn take(task: &Arc<Task>, wanted: SigSet) -> Option<SigInfo> {
    let mut shared = task.process.signals.lock();
    let own = task.signals.lock().pending.take(wanted);
    let info = own.or_else(|| shared.pending.take(wanted))?;
    send::refresh(&shared, task);
    Some(info)
}

/// After the frame is built: the handler's mask, and the temporary one is over.
fn enter(task: &Arc<Task>, signal: Signal, action: &Action) {
    let mut mask = task.signals.lock().mask | action.mask;
    if !action.flags.contains(ActionFlags::NODEFER) {
        mask.insert(signal);
    }
    {
        let mut own = task.signals.lock();
        own.saved = None;
        if own.altstack.autodisarm {
            own.altstack = super::state::AltStack::default();
        }
    }
    task.signals.set_temporary(false);
    set_mask(task, mask);
}

/// A frame could not be pushed: SIGSEGV, fatal if it was SIGSEGV's own frame.
fn frame_failed(task: &Arc<Task>, signal: Signal) {
    if signal == SIGSEGV {
        task.process.signals.actions().set(SIGSEGV, Action::default());
    }
    send::force(task, SigInfo::kernel(SIGSEGV));
}

/// Replaces the mask of blocked signals; the old one.
pub fn set_mask(task: &Arc<Task>, mask: SigSet) -> SigSet {
    let mask = mask.blockable();
    let (old, wake) = {
        let shared = task.process.signals.lock();
        let old = std::mem::replace(&mut task.signals.lock().mask, mask);
        send::refresh(&shared, task);
        (old, send::retarget(&shared, task, mask - old))
    };
    for other in wake {
        other.notify();
    }
    old
}

/// Blocks `mask` until the call ends: a handler that interrupts it runs under it and returns to the
/// old mask, and so does the call's own end (sigsuspend, ppoll, pselect6, epoll_pwait). May be called
/// again by a retry.
pub fn set_temporary_mask(task: &Arc<Task>, mask: SigSet) {
    {
        let mut own = task.signals.lock();
        let old = own.mask;
        own.saved.get_or_insert(old);
    }
    task.signals.set_temporary(true);
    set_mask(task, mask);
}

/// Ends a temporary mask.
pub fn restore_mask(task: &Arc<Task>) {
    let saved = task.signals.lock().saved.take();
    task.signals.set_temporary(false);
    if let Some(mask) = saved {
        set_mask(task, mask);
    }
}

fn trace(task: &Task, info: &SigInfo, what: &str) {
    if let Some(tracer) = task.kernel.tracer.get() {
        tracer
            .signal(task, &format!("{} ({what}) si_code={}", super::name(info.signal), info.code));
    }
}
