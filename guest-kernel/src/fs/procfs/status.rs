//! The readable texts: `status`, `limits`, names and identities, and the links.

use std::{fmt::Write as _, sync::atomic::Ordering};

use super::view::View;
use crate::{
    error::Errno,
    fs::{inode::Magic, textfile::Opener},
    signal::set::SigSet,
    task::process::rlimit,
};

/// `status`.
pub(super) fn status(view: &View) -> Result<Vec<u8>, Errno> {
    let process = &view.process;
    let creds = view.creds();
    let ids = process.ids();
    let (letter, word) = view.state();
    let mut out = b"Name:\t".to_vec();
    out.extend_from_slice(escaped(&view.comm()).as_bytes());
    out.push(b'\n');
    let mut text = String::new();
    let mut say = |key: &str, value: String| {
        let _ = writeln!(text, "{key}:\t{value}");
    };
    if let Some(task) = &view.task {
        say("Umask", format!("{:04o}", task.fs().umask()));
    }
    say("State", format!("{letter} ({word})"));
    say("Tgid", process.pid.to_string());
    say("Ngid", "0".to_owned());
    say("Pid", view.id.to_string());
    say("PPid", ids.ppid.to_string());
    say("TracerPid", "0".to_owned());
    say("Uid", format!("{}\t{}\t{}\t{}", creds.uid, creds.euid, creds.suid, creds.fsuid));
    say("Gid", format!("{}\t{}\t{}\t{}", creds.gid, creds.egid, creds.sgid, creds.fsgid));
    let room = view.task.as_ref().map_or(0, |t| t.files().capacity());
    say("FDSize", room.to_string());
    say("Groups", creds.groups.iter().map(|g| format!("{g} ")).collect());
    say("NStgid", process.pid.to_string());
    say("NSpid", view.id.to_string());
    say("NSpgid", ids.pgid.to_string());
    say("NSsid", ids.sid.to_string());
    say("Kthread", "0".to_owned());
    memory(view, &mut say);
    say("Threads", process.tasks().len().max(1).to_string());
    signals(view, &mut say);
    for (key, set) in [
        ("CapInh", creds.inheritable),
        ("CapPrm", creds.permitted),
        ("CapEff", creds.effective),
        ("CapBnd", creds.bounding),
        ("CapAmb", creds.ambient),
    ] {
        say(key, format!("{set:016x}"));
    }
    say("NoNewPrivs", u8::from(creds.no_new_privs).to_string());
    say("Seccomp", "0".to_owned());
    say("Seccomp_filters", "0".to_owned());
    say("Speculation_Store_Bypass", "thread vulnerable".to_owned());
    say("SpeculationIndirectBranch", "conditional enabled".to_owned());
    let (mask, list) = cpus(view);
    say("Cpus_allowed", mask);
    say("Cpus_allowed_list", list);
    say("Mems_allowed", "1".to_owned());
    say("Mems_allowed_list", "0".to_owned());
    let usage = view.task.as_ref().map_or_else(|| process.usage(), |t| t.usage());
    say("voluntary_ctxt_switches", usage.voluntary.to_string());
    say("nonvoluntary_ctxt_switches", "0".to_owned());
    out.extend_from_slice(text.as_bytes());
    Ok(out)
}

/// A name that stays on its line (`proc_task_name()`).
fn escaped(name: &[u8]) -> String {
    String::from_utf8_lossy(name).replace('\\', "\\\\").replace('\n', "\\n")
}

fn memory(view: &View, say: &mut impl FnMut(&str, String)) {
    let Some(mm) = view.mm() else { return };
    let sizes = mm.usage();
    let layout = mm.layout();
    let peak = view.process.usage().max_rss << 10;
    let code = layout.code.1.saturating_sub(layout.code.0);
    for (key, bytes) in [
        ("VmPeak", sizes.total),
        ("VmSize", sizes.total),
        ("VmLck", sizes.locked),
        ("VmPin", 0),
        ("VmHWM", peak.max(sizes.resident)),
        ("VmRSS", sizes.resident),
        ("RssAnon", sizes.anon),
        ("RssFile", sizes.resident.saturating_sub(sizes.anon)),
        ("RssShmem", 0),
        ("VmData", sizes.data),
        ("VmStk", sizes.stack),
        ("VmExe", code),
        ("VmLib", sizes.text.saturating_sub(code)),
        ("VmPTE", (sizes.resident >> 9).max(4096)),
        ("VmSwap", 0),
        ("HugetlbPages", 0),
    ] {
        say(key, format!("{:>8} kB", bytes >> 10));
    }
    say("CoreDumping", "0".to_owned());
    say("THP_enabled", "1".to_owned());
    say("untag_mask", "0xffffffffffffffff".to_owned());
}

fn signals(view: &View, say: &mut impl FnMut(&str, String)) {
    let queued = view.kernel.queued_signals.used(view.creds().uid);
    say("SigQ", format!("{queued}/{}", view.process.limit(rlimit::SIGPENDING)));
    let shared = view.process.signals.lock().pending.set();
    let (ignored, caught) = view.process.signals.actions().summary();
    let (own, blocked) = view.task.as_ref().map_or((SigSet::EMPTY, SigSet::EMPTY), |task| {
        let state = task.signals.lock();
        (state.pending.set(), state.mask)
    });
    for (key, set) in [
        ("SigPnd", own),
        ("ShdPnd", shared),
        ("SigBlk", blocked),
        ("SigIgn", ignored),
        ("SigCgt", caught),
    ] {
        say(key, format!("{:016x}", set.0));
    }
}

/// The CPUs a task may use, as a mask and as a list.
fn cpus(view: &View) -> (String, String) {
    let count = view.kernel.config.cpus.clamp(1, 1024);
    let mask = view.task.as_ref().and_then(|t| t.affinity());
    let may = |cpu: usize| match &mask {
        Some(mask) => mask.get(cpu / 8).is_some_and(|b| b & (1 << (cpu % 8)) != 0),
        None => true,
    };
    let allowed: Vec<bool> = (0..count).map(may).collect();
    (mask_text(&allowed), list_text(&allowed))
}

/// Bits as 32-bit hexadecimal words, the highest first.
pub(super) fn mask_text(bits: &[bool]) -> String {
    let words: Vec<u32> = bits
        .chunks(32)
        .map(|word| word.iter().enumerate().map(|(i, on)| u32::from(*on) << i).sum())
        .collect();
    let mut out = String::new();
    for (index, word) in words.iter().rev().enumerate() {
        let width = if index == 0 { bits.len() % 32 } else { 32 };
        let width = if width == 0 { 8 } else { width.div_ceil(4) };
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{word:0width$x}");
    }
    out
}

/// Set bits as ranges: `0-3,5`.
pub(super) fn list_text(bits: &[bool]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (bit, _) in bits.iter().enumerate().filter(|(_, on)| **on) {
        match ranges.last_mut() {
            Some(range) if range.1 + 1 == bit => range.1 = bit,
            _ => ranges.push((bit, bit)),
        }
    }
    let text = |(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

/// `limits`.
pub(super) fn limits(view: &View) -> Result<Vec<u8>, Errno> {
    const ROWS: [(&str, &str); 16] = [
        ("Max cpu time", "seconds"),
        ("Max file size", "bytes"),
        ("Max data size", "bytes"),
        ("Max stack size", "bytes"),
        ("Max core file size", "bytes"),
        ("Max resident set", "bytes"),
        ("Max processes", "processes"),
        ("Max open files", "files"),
        ("Max locked memory", "bytes"),
        ("Max address space", "bytes"),
        ("Max file locks", "locks"),
        ("Max pending signals", "signals"),
        ("Max msgqueue size", "bytes"),
        ("Max nice priority", ""),
        ("Max realtime priority", ""),
        ("Max realtime timeout", "us"),
    ];
    let show = |v: u64| if v == rlimit::INFINITY { "unlimited".to_owned() } else { v.to_string() };
    let mut out =
        format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for ((name, unit), (soft, hard)) in ROWS.iter().zip(view.process.limits()) {
        let (soft, hard) = (show(soft), show(hard));
        if unit.is_empty() {
            let _ = writeln!(out, "{name:<25} {soft:<20} {hard:<20} ");
        } else {
            let _ = writeln!(out, "{name:<25} {soft:<20} {hard:<20} {unit:<10}");
        }
    }
    Ok(out.into_bytes())
}

/// `comm`.
pub(super) fn comm(view: &View) -> Result<Vec<u8>, Errno> {
    let mut name = view.comm();
    name.push(b'\n');
    Ok(name)
}
/// Sets it, for a thread of the writer's own process.
pub(super) fn set_comm(view: &View, who: &Opener, text: &[u8]) -> Result<(), Errno> {
    if who.pid != view.process.pid {
        return Err(Errno::EINVAL);
    }
    view.live()?.set_name(text);
    Ok(())
}
/// `personality`.
pub(super) fn personality(view: &View) -> Result<Vec<u8>, Errno> {
    let value = view.process.personality.load(Ordering::Relaxed);
    Ok(format!("{value:08x}\n").into_bytes())
}
/// `cgroup`: there is one, version 2's root.
pub(super) fn cgroup(_view: &View) -> Result<Vec<u8>, Errno> {
    Ok(b"0::/\n".to_vec())
}
/// `cpuset`.
pub(super) fn cpuset(_view: &View) -> Result<Vec<u8>, Errno> {
    Ok(b"/\n".to_vec())
}
/// `loginuid`, `sessionid`: never set.
pub(super) fn unset_id(_view: &View) -> Result<Vec<u8>, Errno> {
    Ok(u32::MAX.to_string().into_bytes())
}
/// `uid_map`, `gid_map`: the one user namespace.
pub(super) fn id_map(_view: &View) -> Result<Vec<u8>, Errno> {
    Ok(format!("{:>10} {:>10} {:>10}\n", 0, 0, u32::MAX).into_bytes())
}
/// `setgroups`.
pub(super) fn setgroups(_view: &View) -> Result<Vec<u8>, Errno> {
    Ok(b"allow\n".to_vec())
}
/// For files that are only written.
pub(super) fn nothing(_view: &View) -> Result<Vec<u8>, Errno> {
    Err(Errno::EINVAL)
}
/// For what only another namespace's owner may write.
pub(super) fn refuse(_view: &View, _who: &Opener, _text: &[u8]) -> Result<(), Errno> {
    Err(Errno::EPERM)
}

/// `cwd`.
pub(super) fn cwd(view: &View) -> Result<Magic, Errno> {
    Ok(Magic::Path(view.task.as_ref().ok_or(Errno::ENOENT)?.fs().cwd()))
}
/// `root`.
pub(super) fn root(view: &View) -> Result<Magic, Errno> {
    Ok(Magic::Path(view.task.as_ref().ok_or(Errno::ENOENT)?.fs().root()))
}
/// `exe`.
pub(super) fn exe(view: &View) -> Result<Magic, Errno> {
    let file = view.mm().and_then(|mm| mm.layout().exe).ok_or(Errno::ENOENT)?;
    Ok(match &file.path {
        Some(path) => Magic::Path(path.clone()),
        None => Magic::File(file),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_cpus_read_as_linux_writes_them() {
        assert_eq!(list_text(&[true, true, false, true]), "0-1,3");
        assert_eq!(mask_text(&[true, true, false, true]), "b");
        assert_eq!(list_text(&[]), "");
        let mut many = vec![true; 40];
        many[0] = false;
        assert_eq!(mask_text(&many), "ff,fffffffe");
    }

    #[test]
    fn names_stay_on_their_line() {
        assert_eq!(escaped(b"a\nb\\"), "a\\nb\\\\");
    }
}
