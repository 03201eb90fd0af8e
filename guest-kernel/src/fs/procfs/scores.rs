//! What a process lets others set: OOM scores, the dump filter, timer slack.

use std::sync::atomic::Ordering;

use super::view::View;
use crate::{
    creds::cap,
    error::Errno,
    fs::textfile::{Opener, number},
};

/// Bounds of `oom_score_adj` (`OOM_SCORE_ADJ_MAX`).
const MAX: i32 = 1000;
/// `OOM_DISABLE` and `OOM_ADJUST_MAX` of the older scale.
const OLD_MIN: i32 = -17;
const OLD_MAX: i32 = 15;

/// `oom_score`: by how much of memory it uses, moved by what was set.
pub(super) fn oom_score(view: &View) -> Result<Vec<u8>, Errno> {
    let total = (view.kernel.frames.total() as u64).max(1);
    let used = view.mm().map_or(0, |mm| mm.usage().resident >> 12);
    let adjusted = i64::from(view.process.oom_score_adj.load(Ordering::Relaxed));
    let used = i64::try_from(used.saturating_mul(1000) / total).unwrap_or(1000);
    // The scale of Linux: 0 to 2000, 666 for a process that uses nothing.
    let score = (1000 + used + adjusted).clamp(0, 2000) * 2 / 3;
    Ok(format!("{score}\n").into_bytes())
}
/// `oom_score_adj`.
pub(super) fn oom_score_adj(view: &View) -> Result<Vec<u8>, Errno> {
    let value = view.process.oom_score_adj.load(Ordering::Relaxed);
    Ok(format!("{value}\n").into_bytes())
}
/// Sets it; below the privileged's last setting only with CAP_SYS_RESOURCE.
pub(super) fn set_oom_score_adj(view: &View, who: &Opener, text: &[u8]) -> Result<(), Errno> {
    let value = i32::try_from(number(text)?).map_err(|_| Errno::EINVAL)?;
    if !(-MAX..=MAX).contains(&value) {
        return Err(Errno::EINVAL);
    }
    let privileged = who.capable(cap::SYS_RESOURCE);
    let least = &view.process.oom_score_adj_min;
    if value < least.load(Ordering::Relaxed) && !privileged {
        return Err(Errno::EACCES);
    }
    view.process.oom_score_adj.store(value, Ordering::Relaxed);
    if privileged {
        least.store(value, Ordering::Relaxed);
    }
    Ok(())
}
/// `oom_adj`.
pub(super) fn oom_adj(view: &View) -> Result<Vec<u8>, Errno> {
    let value = view.process.oom_score_adj.load(Ordering::Relaxed);
    let old = if value == MAX { OLD_MAX } else { value * -OLD_MIN / MAX };
    Ok(format!("{old}\n").into_bytes())
}
/// Sets it on the older scale.
pub(super) fn set_oom_adj(view: &View, who: &Opener, text: &[u8]) -> Result<(), Errno> {
    let old = i32::try_from(number(text)?).map_err(|_| Errno::EINVAL)?;
    if !(OLD_MIN..=OLD_MAX).contains(&old) {
        return Err(Errno::EINVAL);
    }
    let value = if old == OLD_MAX { MAX } else { old * MAX / -OLD_MIN };
    let slot = &view.process.oom_score_adj;
    if value < slot.load(Ordering::Relaxed) && !who.capable(cap::SYS_RESOURCE) {
        return Err(Errno::EACCES);
    }
    slot.store(value, Ordering::Relaxed);
    Ok(())
}
/// `coredump_filter`.
pub(super) fn coredump_filter(view: &View) -> Result<Vec<u8>, Errno> {
    let filter = view.process.coredump_filter.load(Ordering::Relaxed);
    Ok(format!("{filter:08x}\n").into_bytes())
}
/// Sets it: kept and shown, as no core is ever written.
pub(super) fn set_coredump_filter(view: &View, _who: &Opener, text: &[u8]) -> Result<(), Errno> {
    const BITS: u32 = 0x1ff;
    let value = u32::try_from(number(text)?).map_err(|_| Errno::EINVAL)?;
    view.process.coredump_filter.store(value & BITS, Ordering::Relaxed);
    Ok(())
}
/// `clear_refs`: there are no reference bits to clear.
pub(super) fn clear_refs(_view: &View, _who: &Opener, text: &[u8]) -> Result<(), Errno> {
    if (1..=5).contains(&number(text)?) { Ok(()) } else { Err(Errno::EINVAL) }
}
/// `timerslack_ns`.
pub(super) fn timer_slack(view: &View) -> Result<Vec<u8>, Errno> {
    let slack = view.live()?.timer_slack.load(Ordering::Relaxed);
    Ok(format!("{slack}\n").into_bytes())
}
/// Sets it; another process's only with CAP_SYS_NICE.
pub(super) fn set_timer_slack(view: &View, who: &Opener, text: &[u8]) -> Result<(), Errno> {
    let value = u64::try_from(number(text)?).map_err(|_| Errno::EINVAL)?;
    if who.pid != view.process.pid && !who.capable(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let value = if value == 0 { 50_000 } else { value };
    view.live()?.timer_slack.store(value, Ordering::Relaxed);
    Ok(())
}
