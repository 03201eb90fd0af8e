//! What /proc tells of the machine.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use super::stat::ticks;
use crate::{
    fs::{cpuinfo, synth::Builder},
    kernel::Kernel,
    linux::sys::system,
    mm::shm,
    task::RunState,
};

/// Adds the files.
pub(super) fn add(tree: &mut Builder, kernel: &Arc<Kernel>) {
    let version = format!(
        "Linux version {} (trapgate@trapgate) (rustc) {}\n",
        system::RELEASE,
        system::VERSION
    );
    tree.link("mounts", "self/mounts")
        .link("net", "self/net")
        .text("meminfo", 0o444, meminfo)
        .text("stat", 0o444, stat)
        .text("uptime", 0o444, uptime)
        .text("loadavg", 0o444, loadavg)
        .text("vmstat", 0o444, vmstat)
        .text("zoneinfo", 0o444, zoneinfo)
        .fixed("cpuinfo", cpuinfo::text(kernel.config.cpus))
        .fixed("version", version)
        .fixed("cmdline", "quiet\n")
        .fixed("modules", "")
        .fixed("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")
        .fixed("partitions", "major minor  #blocks  name\n\n")
        .fixed("diskstats", "")
        .fixed("devices", DEVICES)
        .fixed("misc", "")
        .fixed("locks", "")
        .fixed("consoles", "")
        .fixed("crypto", "")
        .fixed("iomem", "")
        .fixed("ioports", "")
        .fixed("filesystems", FILESYSTEMS)
        .fixed("interrupts", interrupts(kernel.config.cpus))
        .fixed("softirqs", interrupts(kernel.config.cpus))
        .fixed("buddyinfo", "")
        .text("sysvipc/shm", 0o444, segments)
        .fixed("sysvipc/sem", "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n")
        .fixed("sysvipc/msg", "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n")
        .dir("fs")
        .dir("driver")
        .dir("bus")
        .dir("irq")
        .fixed("tty/drivers", "/dev/tty             /dev/tty        5       0 system:/dev/tty\n/dev/ptmx            /dev/ptmx       5       2 system\npty_slave            /dev/pts      136 0-1048575 pty:slave\n")
        .fixed("tty/ldiscs", "n_tty       0\n");
}

const FILESYSTEMS: &str = "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tdevtmpfs\nnodev\tdevpts\n\
                           nodev\tmqueue\nnodev\tramfs\n";
const DEVICES: &str = "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n\
                       136 pts\n\nBlock devices:\n";

fn interrupts(cpus: usize) -> String {
    let mut out = "    ".to_owned();
    for cpu in 0..cpus {
        let _ = write!(out, "       CPU{cpu:<4}");
    }
    out.push('\n');
    out
}

fn meminfo(kernel: &Arc<Kernel>) -> String {
    let total = kernel.frames.total() as u64 * 4;
    let free = kernel.frames.free() as u64 * 4;
    let used = total.saturating_sub(free);
    let rows: &[(&str, u64)] = &[
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", used),
        ("Inactive", 0),
        ("Active(anon)", used),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Zswap", 0),
        ("Zswapped", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", used),
        ("Mapped", 0),
        ("Shmem", 0),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("SecPageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", total / 2),
        ("Committed_AS", used),
        ("VmallocTotal", 34_359_738_367),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("Percpu", 0),
        ("AnonHugePages", 0),
        ("ShmemHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FileHugePages", 0),
        ("FilePmdMapped", 0),
    ];
    let mut out = String::new();
    for (key, kib) in rows {
        let key = format!("{key}:");
        let _ = writeln!(out, "{key:<15} {kib:>8} kB");
    }
    out + "HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\n\
           HugePages_Surp:        0\nHugepagesize:       2048 kB\nHugetlb:               0 kB\n\
           DirectMap4k:           0 kB\n"
}

/// CPU time used by guests so far: user and system, children that were waited for included.
fn busy(kernel: &Kernel) -> (Duration, Duration) {
    let mut sum = (Duration::ZERO, Duration::ZERO);
    for process in kernel.tasks.processes() {
        for usage in [process.usage(), process.children_usage()] {
            sum.0 += usage.user;
            sum.1 += usage.system;
        }
    }
    sum
}
fn idle(kernel: &Kernel, (user, system): (Duration, Duration)) -> Duration {
    let cpus = u32::try_from(kernel.config.cpus).unwrap_or(1);
    (kernel.host.boottime() * cpus).saturating_sub(user + system)
}

fn uptime(kernel: &Arc<Kernel>) -> String {
    let up = kernel.host.boottime().as_secs_f64();
    format!("{up:.2} {:.2}\n", idle(kernel, busy(kernel)).as_secs_f64())
}
fn running(kernel: &Kernel) -> usize {
    let tasks = kernel.tasks.processes().into_iter().flat_map(|p| p.tasks());
    tasks.filter(|t| t.run_state() == RunState::Running).count().max(1)
}
fn loadavg(kernel: &Arc<Kernel>) -> String {
    let (live, running) = (kernel.tasks.live(), running(kernel));
    format!("0.00 0.00 0.00 {running}/{live} {}\n", kernel.tasks.last_id())
}
fn stat(kernel: &Arc<Kernel>) -> String {
    let busy = busy(kernel);
    let idle = ticks(idle(kernel, busy));
    let (user, system) = (ticks(busy.0), ticks(busy.1));
    let cpus = kernel.config.cpus.max(1) as u128;
    let mut out = format!("cpu  {user} 0 {system} {idle} 0 0 0 0 0 0\n");
    for cpu in 0..kernel.config.cpus {
        let (user, system, idle) = (user / cpus, system / cpus, idle / cpus);
        let _ = writeln!(out, "cpu{cpu} {user} 0 {system} {idle} 0 0 0 0 0 0");
    }
    let boot = kernel.host.realtime().saturating_sub(kernel.host.boottime()).as_secs();
    let _ = writeln!(
        out,
        "intr 0\nctxt 0\nbtime {boot}\nprocesses {}\nprocs_running {}\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0",
        kernel.tasks.ever_started(),
        running(kernel)
    );
    out
}
fn vmstat(kernel: &Arc<Kernel>) -> String {
    let (total, free) = (kernel.frames.total(), kernel.frames.free());
    let used = total - free;
    let mut out = format!("nr_free_pages {free}\nnr_inactive_anon 0\nnr_active_anon {used}\n");
    for key in [
        "nr_inactive_file",
        "nr_active_file",
        "nr_unevictable",
        "nr_mlock",
        "nr_anon_pages",
        "nr_mapped",
        "nr_file_pages",
        "nr_dirty",
        "nr_writeback",
        "nr_shmem",
        "pgpgin",
        "pgpgout",
        "pswpin",
        "pswpout",
        "pgfault",
        "pgmajfault",
        "oom_kill",
    ] {
        let _ = writeln!(out, "{key} 0");
    }
    out
}
fn zoneinfo(kernel: &Arc<Kernel>) -> String {
    let (total, free) = (kernel.frames.total(), kernel.frames.free());
    format!(
        "Node 0, zone   Normal\n  pages free     {free}\n        min      0\n        low      0\n\
         \x20       high     0\n        spanned  {total}\n        present  {total}\n        managed  {total}\n"
    )
}
fn segments(kernel: &Arc<Kernel>) -> String {
    let mut out = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n".to_owned();
    for s in kernel.shm.list() {
        // The list itself holds one.
        let attached = shm::attached(&s).saturating_sub(1);
        let perm = s.mode | if s.removed { 0o1000 } else { 0 };
        let _ = writeln!(
            out,
            "{:>10} {:>10}  {perm:>4o} {:>21} {:>5} {:>5}  {attached:>5} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10} {:>10} {:>21} {:>21}",
            s.key,
            s.id,
            s.size,
            s.cpid,
            s.lpid,
            s.uid,
            s.gid,
            s.cuid,
            s.cgid,
            s.atime.as_secs(),
            s.dtime.as_secs(),
            s.ctime.as_secs(),
            0,
            0
        );
    }
    out
}
