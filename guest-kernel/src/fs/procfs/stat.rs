//! The terse texts: `stat`, `statm`, and what tells of scheduling.

use std::{sync::atomic::Ordering, time::Duration};

use super::view::View;
use crate::{
    error::Errno,
    platform::PAGE_SHIFT,
    signal::{number::SIGCHLD, set::SigSet},
    task::{RunState, status::Usage},
};

/// Clock ticks (`USER_HZ` is 100).
pub(super) fn ticks(time: Duration) -> u128 {
    time.as_millis() / 10
}

/// What the thread, or the process as a whole, has used.
fn used(view: &View) -> Usage {
    match &view.task {
        Some(task) if view.thread => task.usage(),
        _ => view.process.usage(),
    }
}

/// Pending, blocked, ignored and caught signals, as words of 31 signals.
fn signals(view: &View) -> [u64; 4] {
    let low = |set: SigSet| set.0 & 0x7fff_ffff;
    let (ignored, caught) = view.process.signals.actions().summary();
    let (pending, blocked) = view.task.as_ref().map_or((SigSet::EMPTY, SigSet::EMPTY), |task| {
        let state = task.signals.lock();
        (state.pending.set(), state.mask)
    });
    [low(pending), low(blocked), low(ignored), low(caught)]
}

/// `stat`. Addresses are shown to who may trace the process, others see 0 (or 1).
pub(super) fn stat(view: &View) -> Result<Vec<u8>, Errno> {
    let process = &view.process;
    let ids = process.ids();
    let terminal = view.kernel.tasks.terminal(ids.sid);
    let tty = terminal.as_ref().map_or(0, |t| t.device());
    let foreground = terminal.and_then(|t| t.foreground()).unwrap_or(-1);
    let usage = used(view);
    let children = process.children_usage();
    let threads = process.tasks().len().max(usize::from(view.task.is_none()));
    let (nice, policy, priority) = view.task.as_ref().map_or((0, 0, 0), |t| {
        let read = |a: &std::sync::atomic::AtomicI32| a.load(Ordering::Relaxed);
        (read(&t.nice), t.policy.load(Ordering::Relaxed) & 0xff, read(&t.priority))
    });
    let shown = if priority > 0 { -1 - priority } else { 20 + nice };
    let started = view.task.as_ref().filter(|_| view.thread).map_or(process.started, |t| t.started);
    let memory = view.mm();
    let sizes = memory.as_ref().map(|mm| mm.usage()).unwrap_or_default();
    let layout = memory.as_ref().map(|mm| mm.layout()).unwrap_or_default();
    let rss_limit = process.limit(crate::task::process::rlimit::RSS);
    let seen = |addr: u64| if view.trusted { addr } else { 0 };
    let [pending, blocked, ignored, caught] = signals(view);
    let code = if view.trusted { process.exit_status().map_or(0, |s| s.wait_word()) } else { 0 };
    let flags = if view.task.is_none() { 0x0040_000c } else { 0x0040_0000 };
    let id = view.id;
    let mut out = format!("{id} (").into_bytes();
    out.extend_from_slice(&view.comm());
    let fields: [i128; 50] = [
        0,
        ids.ppid.into(),
        ids.pgid.into(),
        ids.sid.into(),
        tty.into(),
        foreground.into(),
        flags,
        usage.minor_faults.into(),
        children.minor_faults.into(),
        0,
        0,
        number(ticks(usage.user)),
        number(ticks(usage.system)),
        number(ticks(children.user)),
        number(ticks(children.system)),
        shown.into(),
        nice.into(),
        threads as i128,
        0,
        number(ticks(started)),
        sizes.total.into(),
        (sizes.resident >> PAGE_SHIFT).into(),
        rss_limit.into(),
        seen(layout.code.0).into(),
        seen(layout.code.1).into(),
        seen(layout.stack).into(),
        0,
        0,
        pending.into(),
        blocked.into(),
        ignored.into(),
        caught.into(),
        i128::from(view.state().0 != 'R'),
        0,
        0,
        SIGCHLD.into(),
        0,
        priority.into(),
        policy.into(),
        0,
        0,
        0,
        seen(layout.data.0).into(),
        seen(layout.data.1).into(),
        seen(layout.brk_start).into(),
        seen(layout.args.0).into(),
        seen(layout.args.1).into(),
        seen(layout.env.0).into(),
        seen(layout.env.1).into(),
        code.into(),
    ];
    out.extend_from_slice(format!(") {}", view.state().0).as_bytes());
    for field in &fields[1..] {
        out.extend_from_slice(format!(" {field}").as_bytes());
    }
    out.push(b'\n');
    Ok(out)
}

fn number(value: u128) -> i128 {
    i128::try_from(value).unwrap_or(i128::MAX)
}

/// `statm`.
pub(super) fn statm(view: &View) -> Result<Vec<u8>, Errno> {
    let sizes = view.mm().map(|mm| mm.usage()).unwrap_or_default();
    let pages = |bytes: u64| bytes >> PAGE_SHIFT;
    let shared = pages(sizes.resident.saturating_sub(sizes.anon));
    let (total, resident) = (pages(sizes.total), pages(sizes.resident));
    let (text, data) = (pages(sizes.text), pages(sizes.data + sizes.stack));
    Ok(format!("{total} {resident} {shared} {text} 0 {data} 0\n").into_bytes())
}
/// `io`: bytes moved are not counted.
pub(super) fn io(_view: &View) -> Result<Vec<u8>, Errno> {
    let keys =
        ["rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes"];
    Ok(keys.iter().map(|key| format!("{key}: 0\n")).collect::<String>().into_bytes())
}
/// `wchan`: 0, as for anybody but a host's administrator.
pub(super) fn wchan(_view: &View) -> Result<Vec<u8>, Errno> {
    Ok(b"0".to_vec())
}
/// `syscall`: which call a sleeping task is in is not told.
pub(super) fn syscall(view: &View) -> Result<Vec<u8>, Errno> {
    let running = view.live()?.run_state() == RunState::Running;
    Ok(if running { b"running\n".to_vec() } else { b"-1 0x0 0x0\n".to_vec() })
}
/// `schedstat`: time on a CPU, time waiting for one, turns.
pub(super) fn schedstat(view: &View) -> Result<Vec<u8>, Errno> {
    let usage = used(view);
    let time = (usage.user + usage.system).as_nanos();
    Ok(format!("{time} 0 {}\n", usage.voluntary).into_bytes())
}
/// `sched`: its figures that exist.
pub(super) fn sched(view: &View) -> Result<Vec<u8>, Errno> {
    let usage = used(view);
    let task = view.live()?;
    let name = String::from_utf8_lossy(&view.comm()).into_owned();
    let threads = view.process.tasks().len();
    let time = (usage.user + usage.system).as_secs_f64() * 1000.0;
    let (policy, nice) =
        (task.policy.load(Ordering::Relaxed) & 0xff, task.nice.load(Ordering::Relaxed));
    let line = |key: &str, value: String| format!("{key:<45}:{value:>21}\n");
    let mut out = format!("{name} ({}, #threads: {threads})\n{:-<67}\n", view.id, "");
    out += &line("se.sum_exec_runtime", format!("{time:.6}"));
    out += &line("nr_switches", usage.voluntary.to_string());
    out += &line("nr_voluntary_switches", usage.voluntary.to_string());
    out += &line("nr_involuntary_switches", "0".to_owned());
    out += &line("policy", policy.to_string());
    out += &line("prio", (120 + nice).to_string());
    Ok(out.into_bytes())
}
/// `children` of a thread: the process's, which do not remember which thread made them.
pub(super) fn children(view: &View) -> Result<Vec<u8>, Errno> {
    let own = if view.id == view.process.pid {
        view.kernel.tasks.children(view.process.pid)
    } else {
        Vec::new()
    };
    Ok(own.iter().map(|pid| format!("{pid} ")).collect::<String>().into_bytes())
}
