//! /proc/sys (sysctl(2)): one table. What is written is kept and shown; what the kernel obeys too has
//! its own row in [`add`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    error::Errno,
    fs::{
        synth::Builder,
        textfile::{Opener, number},
    },
    kernel::{Kernel, Names},
    linux::sys::system,
};

/// Values that were written, by path below /proc/sys.
#[derive(Default)]
pub struct Settings(Mutex<BTreeMap<&'static str, String>>);

impl Settings {
    fn get(&self, path: &str, default: &str) -> String {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.get(path).map_or_else(|| default.to_owned(), String::clone)
    }
    /// The number last written to `path`; `None` if it has its default.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<u64> {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.get(path)?.parse().ok()
    }
    fn set(&self, path: &'static str, value: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path, value);
    }
}

/// What a row holds.
#[derive(Clone, Copy)]
enum Kind {
    /// Not to be changed.
    Fixed(&'static str),
    /// A number with its bounds.
    Int(i64, i64, i64),
    /// Numbers.
    Ints(&'static str),
    /// A line of at most this many bytes.
    Line(&'static str, usize),
}
use Kind::{Fixed, Int, Ints, Line};

const MAX: i64 = i64::MAX;
const INT: i64 = i32::MAX as i64;

#[rustfmt::skip]
const ROWS: &[(&str, Kind)] = &[
    ("kernel/ostype", Fixed("Linux")),
    ("kernel/osrelease", Fixed(system::RELEASE)),
    ("kernel/version", Fixed(system::VERSION)),
    ("kernel/arch", Fixed("x86_64")),
    ("kernel/pid_max", Int(4_194_304, 301, 4_194_304)),
    ("kernel/threads-max", Int(62_000, 20, 536_870_911)),
    ("kernel/ngroups_max", Fixed("65536")),
    ("kernel/cap_last_cap", Fixed("40")),
    ("kernel/core_pattern", Line("core", 127)),
    ("kernel/core_uses_pid", Int(0, 0, INT)),
    ("kernel/core_pipe_limit", Int(0, 0, INT)),
    ("kernel/overflowuid", Int(65534, 0, 65535)),
    ("kernel/overflowgid", Int(65534, 0, 65535)),
    ("kernel/printk", Ints("4\t4\t1\t7")),
    ("kernel/tainted", Fixed("0")),
    ("kernel/panic", Int(0, -INT, INT)),
    ("kernel/panic_on_oops", Int(0, 0, INT)),
    ("kernel/sysrq", Int(176, 0, INT)),
    ("kernel/ctrl-alt-del", Int(0, 0, INT)),
    ("kernel/modules_disabled", Fixed("1")),
    ("kernel/modprobe", Line("/sbin/modprobe", 255)),
    ("kernel/hotplug", Line("", 255)),
    ("kernel/sem", Ints("32000\t1024000000\t500\t32000")),
    ("kernel/msgmax", Int(8192, 0, INT)),
    ("kernel/msgmnb", Int(16384, 0, INT)),
    ("kernel/msgmni", Int(32000, 0, 32768)),
    ("kernel/shm_rmid_forced", Int(0, 0, 1)),
    ("kernel/shmmni", Int(4096, 0, 32768)),
    ("kernel/auto_msgmni", Int(0, 0, 0)),
    ("kernel/sched_autogroup_enabled", Int(0, 0, 1)),
    ("kernel/sched_child_runs_first", Int(0, 0, 1)),
    ("kernel/sched_rr_timeslice_ms", Int(100, -INT, INT)),
    ("kernel/sched_rt_period_us", Int(1_000_000, 1, INT)),
    ("kernel/sched_rt_runtime_us", Int(950_000, -1, INT)),
    ("kernel/sched_cfs_bandwidth_slice_us", Int(5000, 1, INT)),
    ("kernel/sched_deadline_period_max_us", Int(4_194_304, 0, INT)),
    ("kernel/numa_balancing", Int(0, 0, 2)),
    ("kernel/nmi_watchdog", Int(0, 0, 1)),
    ("kernel/watchdog", Int(0, 0, 1)),
    ("kernel/yama/ptrace_scope", Int(0, 0, 3)),
    ("kernel/perf_event_paranoid", Int(2, -1, INT)),
    ("kernel/perf_event_max_sample_rate", Int(100_000, 1, INT)),
    ("kernel/perf_event_mlock_kb", Int(516, 0, INT)),
    ("kernel/kptr_restrict", Int(1, 0, 2)),
    ("kernel/dmesg_restrict", Int(1, 0, 1)),
    ("kernel/randomize_va_space", Int(2, 0, 2)),
    ("kernel/unprivileged_bpf_disabled", Int(2, 0, 2)),
    ("kernel/unprivileged_userns_clone", Int(0, 0, 1)),
    ("kernel/io_uring_disabled", Int(2, 0, 2)),
    ("kernel/timer_migration", Int(1, 0, 1)),
    ("kernel/keys/maxkeys", Int(200, 0, INT)),
    ("kernel/keys/maxbytes", Int(20_000, 0, INT)),
    ("kernel/pty/max", Int(4096, 0, INT)),
    ("kernel/pty/reserve", Int(1024, 0, INT)),
    ("kernel/seccomp/actions_avail", Fixed("kill_process kill_thread trap errno user_notif trace log allow")),
    ("kernel/seccomp/actions_logged", Line("kill_process kill_thread trap errno user_notif trace log", 127)),
    ("kernel/random/entropy_avail", Fixed("256")),
    ("kernel/random/poolsize", Fixed("256")),
    ("kernel/random/urandom_min_reseed_secs", Int(60, 0, INT)),
    ("kernel/random/write_wakeup_threshold", Int(256, 0, INT)),
    ("vm/overcommit_memory", Int(0, 0, 2)),
    ("vm/overcommit_ratio", Int(50, 0, INT)),
    ("vm/overcommit_kbytes", Int(0, 0, MAX)),
    ("vm/max_map_count", Int(65530, 0, INT)),
    ("vm/mmap_min_addr", Int(65536, 0, MAX)),
    ("vm/mmap_rnd_bits", Int(28, 28, 32)),
    ("vm/mmap_rnd_compat_bits", Int(8, 8, 16)),
    ("vm/swappiness", Int(60, 0, 200)),
    ("vm/nr_hugepages", Int(0, 0, MAX)),
    ("vm/nr_overcommit_hugepages", Int(0, 0, MAX)),
    ("vm/hugetlb_shm_group", Int(0, 0, INT)),
    ("vm/min_free_kbytes", Int(45_056, 0, INT)),
    ("vm/admin_reserve_kbytes", Int(8192, 0, MAX)),
    ("vm/user_reserve_kbytes", Int(131_072, 0, MAX)),
    ("vm/dirty_background_bytes", Int(0, 0, MAX)),
    ("vm/dirty_background_ratio", Int(10, 0, 100)),
    ("vm/dirty_bytes", Int(0, 0, MAX)),
    ("vm/dirty_expire_centisecs", Int(3000, 0, INT)),
    ("vm/dirty_ratio", Int(20, 0, 100)),
    ("vm/dirty_writeback_centisecs", Int(500, 0, INT)),
    ("vm/laptop_mode", Int(0, 0, INT)),
    ("vm/legacy_va_layout", Int(0, 0, 1)),
    ("vm/oom_dump_tasks", Int(1, 0, 1)),
    ("vm/oom_kill_allocating_task", Int(0, 0, 1)),
    ("vm/page-cluster", Int(3, 0, 31)),
    ("vm/panic_on_oom", Int(0, 0, 2)),
    ("vm/stat_interval", Int(1, 0, INT)),
    ("vm/unprivileged_userfaultfd", Int(0, 0, 1)),
    ("vm/vfs_cache_pressure", Int(100, 0, INT)),
    ("vm/watermark_scale_factor", Int(10, 1, 3000)),
    ("vm/zone_reclaim_mode", Int(0, 0, INT)),
    ("vm/memfd_noexec", Int(0, 0, 2)),
    ("fs/file-max", Int(MAX, 0, MAX)),
    ("fs/nr_open", Int(1_048_576, 64, 1_073_741_816)),
    ("fs/pipe-max-size", Int(1_048_576, 4096, INT)),
    ("fs/pipe-user-pages-hard", Int(0, 0, MAX)),
    ("fs/pipe-user-pages-soft", Int(16384, 0, MAX)),
    ("fs/protected_fifos", Int(1, 0, 2)),
    ("fs/protected_hardlinks", Int(1, 0, 1)),
    ("fs/protected_regular", Int(2, 0, 2)),
    ("fs/protected_symlinks", Int(1, 0, 1)),
    ("fs/suid_dumpable", Int(0, 0, 2)),
    ("fs/lease-break-time", Int(45, 0, INT)),
    ("fs/leases-enable", Int(1, 0, 1)),
    ("fs/dir-notify-enable", Int(1, 0, 1)),
    ("fs/aio-max-nr", Int(65536, 0, MAX)),
    ("fs/aio-nr", Fixed("0")),
    ("fs/mount-max", Fixed("10000")),
    ("fs/overflowuid", Int(65534, 0, 65535)),
    ("fs/overflowgid", Int(65534, 0, 65535)),
    ("fs/dentry-state", Fixed("0\t0\t45\t0\t0\t0")),
    ("fs/inode-nr", Fixed("0\t0")),
    ("fs/inode-state", Fixed("0\t0\t0\t0\t0\t0\t0")),
    ("fs/inotify/max_queued_events", Int(16384, 0, INT)),
    ("fs/inotify/max_user_instances", Int(128, 0, INT)),
    ("fs/inotify/max_user_watches", Int(65536, 0, INT)),
    ("fs/epoll/max_user_watches", Int(1_000_000, 0, MAX)),
    ("fs/mqueue/msg_default", Int(10, 1, 65536)),
    ("fs/mqueue/msg_max", Int(10, 1, 65536)),
    ("fs/mqueue/msgsize_default", Int(8192, 128, 16_777_216)),
    ("fs/mqueue/msgsize_max", Int(8192, 128, 16_777_216)),
    ("fs/mqueue/queues_max", Int(256, 0, 65536)),
    ("net/core/somaxconn", Int(4096, 0, INT)),
    ("net/core/rmem_default", Int(212_992, 2304, INT)),
    ("net/core/rmem_max", Int(212_992, 2304, INT)),
    ("net/core/wmem_default", Int(212_992, 4608, INT)),
    ("net/core/wmem_max", Int(212_992, 4608, INT)),
    ("net/core/optmem_max", Int(131_072, 0, INT)),
    ("net/core/netdev_max_backlog", Int(1000, 0, INT)),
    ("net/core/default_qdisc", Line("pfifo_fast", 15)),
    ("net/core/bpf_jit_enable", Int(1, 0, 2)),
    ("net/ipv4/ip_local_port_range", Ints("32768\t60999")),
    ("net/ipv4/ip_local_reserved_ports", Line("", 255)),
    ("net/ipv4/ip_unprivileged_port_start", Int(1024, 0, 65535)),
    ("net/ipv4/ip_forward", Int(0, 0, 1)),
    ("net/ipv4/ip_default_ttl", Int(64, 1, 255)),
    ("net/ipv4/ip_nonlocal_bind", Int(0, 0, 1)),
    ("net/ipv4/ping_group_range", Ints("1\t0")),
    ("net/ipv4/tcp_rmem", Ints("4096\t131072\t6291456")),
    ("net/ipv4/tcp_wmem", Ints("4096\t16384\t4194304")),
    ("net/ipv4/tcp_mem", Ints("92352\t123136\t184704")),
    ("net/ipv4/udp_mem", Ints("184704\t246272\t369408")),
    ("net/ipv4/tcp_syncookies", Int(1, 0, 2)),
    ("net/ipv4/tcp_max_syn_backlog", Int(1024, 0, INT)),
    ("net/ipv4/tcp_fin_timeout", Int(60, 0, INT)),
    ("net/ipv4/tcp_keepalive_time", Int(7200, 0, INT)),
    ("net/ipv4/tcp_keepalive_intvl", Int(75, 0, INT)),
    ("net/ipv4/tcp_keepalive_probes", Int(9, 0, 255)),
    ("net/ipv4/tcp_syn_retries", Int(6, 1, 127)),
    ("net/ipv4/tcp_synack_retries", Int(5, 0, 255)),
    ("net/ipv4/tcp_retries1", Int(3, 0, 255)),
    ("net/ipv4/tcp_retries2", Int(15, 0, 255)),
    ("net/ipv4/tcp_tw_reuse", Int(2, 0, 2)),
    ("net/ipv4/tcp_timestamps", Int(1, 0, 2)),
    ("net/ipv4/tcp_sack", Int(1, 0, 1)),
    ("net/ipv4/tcp_window_scaling", Int(1, 0, 1)),
    ("net/ipv4/tcp_fastopen", Int(1, 0, INT)),
    ("net/ipv4/tcp_congestion_control", Line("cubic", 15)),
    ("net/ipv4/tcp_available_congestion_control", Fixed("reno cubic")),
    ("net/ipv4/tcp_allowed_congestion_control", Line("reno cubic", 127)),
    ("net/ipv4/conf/all/forwarding", Int(0, 0, 1)),
    ("net/ipv4/conf/all/rp_filter", Int(0, 0, 2)),
    ("net/ipv4/conf/lo/forwarding", Int(0, 0, 1)),
    ("net/ipv6/bindv6only", Int(0, 0, 1)),
    ("net/ipv6/conf/all/disable_ipv6", Int(0, 0, 1)),
    ("net/ipv6/conf/all/forwarding", Int(0, 0, 1)),
    ("net/ipv6/conf/default/disable_ipv6", Int(0, 0, 1)),
    ("net/ipv6/conf/lo/disable_ipv6", Int(0, 0, 1)),
    ("net/unix/max_dgram_qlen", Int(512, 0, INT)),
    ("user/max_cgroup_namespaces", Int(0, 0, INT)),
    ("user/max_ipc_namespaces", Int(0, 0, INT)),
    ("user/max_mnt_namespaces", Int(31_000, 0, INT)),
    ("user/max_net_namespaces", Int(0, 0, INT)),
    ("user/max_pid_namespaces", Int(0, 0, INT)),
    ("user/max_time_namespaces", Int(0, 0, INT)),
    ("user/max_user_namespaces", Int(0, 0, INT)),
    ("user/max_uts_namespaces", Int(0, 0, INT)),
    ("user/max_inotify_instances", Int(128, 0, INT)),
    ("user/max_inotify_watches", Int(65536, 0, INT)),
    ("debug/exception-trace", Int(1, 0, 1)),
];

/// A value as a write gives it.
fn parsed(kind: Kind, old: &str, bytes: &[u8]) -> Result<String, Errno> {
    match kind {
        Fixed(_) => Err(Errno::EACCES),
        Int(_, low, high) => {
            let value = number(bytes)?;
            if value < low || value > high { Err(Errno::EINVAL) } else { Ok(value.to_string()) }
        }
        Ints(_) => {
            // Fewer numbers than there are leave the rest.
            let mut values: Vec<String> = old.split('\t').map(str::to_owned).collect();
            let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
            for (slot, word) in values.iter_mut().zip(text.split_ascii_whitespace()) {
                *slot = number(word.as_bytes())?.to_string();
            }
            Ok(values.join("\t"))
        }
        Line(_, most) => Ok(line(bytes, most)),
    }
}

/// The first line, cut.
fn line(bytes: &[u8], most: usize) -> String {
    let end = bytes.iter().position(|b| matches!(b, b'\n' | 0)).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end.min(most)]).into_owned()
}

fn table(tree: &mut Builder) {
    for &(path, kind) in ROWS {
        let at = format!("sys/{path}");
        let default = match kind {
            Fixed(text) => {
                tree.fixed(&at, format!("{text}\n"));
                continue;
            }
            Int(value, ..) => value.to_string(),
            Ints(text) | Line(text, _) => text.to_owned(),
        };
        let shown = default.clone();
        tree.setting(
            &at,
            0o644,
            move |kernel| kernel.sysctls.get(path, &shown) + "\n",
            move |kernel, _, bytes| {
                let old = kernel.sysctls.get(path, &default);
                kernel.sysctls.set(path, parsed(kind, &old, bytes)?);
                Ok(())
            },
        );
    }
}

fn name(tree: &mut Builder, path: &str, slot: fn(&mut Names) -> &mut Vec<u8>) {
    /// `__NEW_UTS_LEN`.
    const MOST: usize = 64;
    let read = move |kernel: &Arc<Kernel>| {
        let mut names = kernel.names.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(slot(&mut names)).into_owned() + "\n"
    };
    let write = move |kernel: &Arc<Kernel>, _: &Opener, bytes: &[u8]| {
        let mut names = kernel.names.lock().unwrap_or_else(PoisonError::into_inner);
        *slot(&mut names) = line(bytes, MOST).into_bytes();
        Ok(())
    };
    tree.setting(path, 0o644, read, write);
}

/// A random UUID, version 4.
fn uuid(kernel: &Kernel) -> String {
    let mut bytes = [0; 16];
    kernel.host.random(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let word = u128::from_be_bytes(bytes);
    let part = |shift: u32, digits: usize| {
        let mask = (1u128 << (digits * 4)) - 1;
        format!("{:0digits$x}", (word >> shift) & mask)
    };
    format!("{}-{}-{}-{}-{}\n", part(96, 8), part(80, 4), part(64, 4), part(48, 4), part(0, 12))
}

/// Adds `sys`.
pub(super) fn add(tree: &mut Builder, kernel: &Arc<Kernel>) {
    name(tree, "sys/kernel/hostname", |names| &mut names.node);
    name(tree, "sys/kernel/domainname", |names| &mut names.domain);
    tree.fixed("sys/kernel/random/boot_id", uuid(kernel));
    tree.text("sys/kernel/random/uuid", 0o444, |kernel| uuid(kernel));
    tree.fixed("sys/kernel/shmmax", format!("{}\n", crate::mm::shm::MAX_SIZE));
    tree.fixed("sys/kernel/shmall", format!("{}\n", crate::mm::shm::MAX_SIZE));
    tree.text("sys/kernel/ns_last_pid", 0o644, |kernel| format!("{}\n", kernel.tasks.last_id()));
    tree.text("sys/fs/file-nr", 0o444, |kernel| {
        let tasks = kernel.tasks.processes();
        let open = |p: &Arc<crate::task::process::Process>| {
            p.any_thread().map_or(0, |t| t.files().list().len())
        };
        format!("{}\t0\t{}\n", tasks.iter().map(open).sum::<usize>(), i64::MAX)
    });
    let drop_caches = |kernel: &Arc<Kernel>, _: &Opener, bytes: &[u8]| {
        if !(1..=4).contains(&number(bytes)?) {
            return Err(Errno::EINVAL);
        }
        kernel.fs.caches.shrink(usize::MAX);
        Ok(())
    };
    tree.setting("sys/vm/drop_caches", 0o200, |_| "0\n".to_owned(), drop_caches);
    let compact = |_: &Arc<Kernel>, _: &Opener, bytes: &[u8]| number(bytes).map(|_| ());
    tree.setting("sys/vm/compact_memory", 0o200, |_| String::new(), compact);
    tree.dir("sys/fs/binfmt_misc");
    tree.dir("sys/dev");
    table(tree);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_bounds() {
        let kind = Int(0, 0, 2);
        assert_eq!(parsed(kind, "0", b"2\n"), Ok("2".to_owned()));
        assert_eq!(parsed(kind, "0", b"3\n"), Err(Errno::EINVAL));
        assert_eq!(parsed(kind, "0", b""), Err(Errno::EINVAL));
    }

    #[test]
    fn vectors_keep_what_is_not_given() {
        let kind = Ints("1\t2\t3");
        assert_eq!(parsed(kind, "1\t2\t3", b"7 8"), Ok("7\t8\t3".to_owned()));
        assert_eq!(parsed(kind, "1\t2\t3", b"7 x"), Err(Errno::EINVAL));
    }

    #[test]
    fn lines_are_cut() {
        assert_eq!(line(b"abc\ndef", 10), "abc");
        assert_eq!(line(b"abc", 2), "ab");
    }

    #[test]
    fn defaults_are_within_their_bounds() {
        for (path, kind) in ROWS {
            if let Int(value, low, high) = kind {
                assert!((low..=high).contains(&value), "{path}");
            }
        }
    }
}
