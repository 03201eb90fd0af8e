//! /sys: the little of it that programs read to size themselves (CPUs, nodes, huge pages, `lo`).

use std::sync::Arc;

use super::{
    dentry::Dentry,
    inode::Inode,
    synth::{Builder, SynthFs},
};
use crate::kernel::Kernel;

/// `SYSFS_MAGIC`.
const MAGIC: u64 = 0x6265_6572;

/// The tree for /sys.
#[must_use]
pub fn create(kernel: &Arc<Kernel>) -> Arc<Dentry> {
    let fs = Arc::new(SynthFs { name: "sysfs", dev: kernel.fs.new_dev(), magic: MAGIC });
    let mut tree = Builder::new();
    let cpus = kernel.config.cpus.max(1);
    processors(&mut tree, cpus);
    node(&mut tree, cpus);
    memory(&mut tree);
    network(&mut tree);
    for dir in [
        "block",
        "bus",
        "class/block",
        "class/tty",
        "dev/block",
        "dev/char",
        "firmware",
        "fs/cgroup",
        "fs/fuse",
        "hypervisor",
        "module",
        "power",
        "devices/virtual/tty",
        "kernel/debug",
        "kernel/tracing",
        "kernel/security",
        "kernel/mm/hugepages",
    ] {
        tree.dir(dir);
    }
    tree.fixed("kernel/notes", "")
        .fixed("kernel/uevent_seqnum", "0\n")
        .fixed("kernel/profiling", "0\n")
        .fixed("kernel/rcu_expedited", "0\n")
        .fixed("kernel/cgroup/delegate", "")
        .fixed("kernel/cgroup/features", "nsdelegate\nmemory_localevents\n")
        .fixed("module/apparmor/parameters/enabled", "N\n")
        .fixed("power/state", "");
    let time = kernel.host.realtime();
    let root: Arc<dyn Inode> = tree.finish(&fs, 0, time);
    Dentry::root(root)
}

/// `0-3`, or `0`.
fn range(count: usize) -> String {
    if count == 1 { "0\n".to_owned() } else { format!("0-{}\n", count - 1) }
}
/// A mask with one bit, in words of 32 bits.
fn bit(cpu: usize, cpus: usize) -> String {
    let words = cpus.div_ceil(32);
    let word = |i: usize| if i == cpu / 32 { 1u32 << (cpu % 32) } else { 0 };
    (0..words).rev().map(|i| format!("{:08x}", word(i))).collect::<Vec<_>>().join(",") + "\n"
}
fn all(cpus: usize) -> String {
    let word = |i: usize| {
        let left = cpus - i * 32;
        if left >= 32 { u32::MAX } else { (1u32 << left) - 1 }
    };
    let words = cpus.div_ceil(32);
    (0..words).rev().map(|i| format!("{:08x}", word(i))).collect::<Vec<_>>().join(",") + "\n"
}

fn processors(tree: &mut Builder, cpus: usize) {
    const BASE: &str = "devices/system/cpu";
    let everyone = range(cpus);
    for name in ["online", "possible", "present"] {
        tree.fixed(&format!("{BASE}/{name}"), everyone.clone());
    }
    tree.fixed(&format!("{BASE}/offline"), "\n")
        .fixed(&format!("{BASE}/isolated"), "\n")
        .fixed(&format!("{BASE}/nohz_full"), "\n")
        .fixed(&format!("{BASE}/kernel_max"), "8191\n")
        .fixed(&format!("{BASE}/smt/active"), "0\n")
        .fixed(&format!("{BASE}/smt/control"), "notsupported\n");
    for cpu in 0..cpus {
        let at = format!("{BASE}/cpu{cpu}");
        let own = format!("{cpu}\n");
        let topology = [
            ("core_id", own.clone()),
            ("physical_package_id", "0\n".to_owned()),
            ("die_id", "0\n".to_owned()),
            ("cluster_id", "0\n".to_owned()),
            ("core_cpus", bit(cpu, cpus)),
            ("core_cpus_list", own.clone()),
            ("thread_siblings", bit(cpu, cpus)),
            ("thread_siblings_list", own.clone()),
            ("core_siblings", all(cpus)),
            ("core_siblings_list", everyone.clone()),
            ("package_cpus", all(cpus)),
            ("package_cpus_list", everyone.clone()),
            ("die_cpus", all(cpus)),
            ("die_cpus_list", everyone.clone()),
        ];
        for (name, text) in topology {
            tree.fixed(&format!("{at}/topology/{name}"), text);
        }
        if cpu > 0 {
            tree.fixed(&format!("{at}/online"), "1\n");
        }
        caches(tree, &at, cpu, cpus);
    }
}

/// A plausible hierarchy: sizes of the real one would need CPUID leaves that differ by maker.
fn caches(tree: &mut Builder, at: &str, cpu: usize, cpus: usize) {
    let levels = [
        (1, "Data", "32K", false),
        (1, "Instruction", "32K", false),
        (2, "Unified", "1024K", false),
        (3, "Unified", "32768K", true),
    ];
    for (index, (level, kind, size, shared)) in levels.into_iter().enumerate() {
        let at = format!("{at}/cache/index{index}");
        let list = if shared { range(cpus) } else { format!("{cpu}\n") };
        let map = if shared { all(cpus) } else { bit(cpu, cpus) };
        tree.fixed(&format!("{at}/level"), format!("{level}\n"))
            .fixed(&format!("{at}/type"), format!("{kind}\n"))
            .fixed(&format!("{at}/size"), format!("{size}\n"))
            .fixed(&format!("{at}/coherency_line_size"), "64\n")
            .fixed(&format!("{at}/shared_cpu_list"), list)
            .fixed(&format!("{at}/shared_cpu_map"), map);
    }
}

fn node(tree: &mut Builder, cpus: usize) {
    const BASE: &str = "devices/system/node";
    for name in ["online", "possible", "has_cpu", "has_memory", "has_normal_memory"] {
        tree.fixed(&format!("{BASE}/{name}"), "0\n");
    }
    tree.fixed(&format!("{BASE}/node0/cpulist"), range(cpus))
        .fixed(&format!("{BASE}/node0/cpumap"), all(cpus))
        .fixed(&format!("{BASE}/node0/distance"), "10\n")
        .fixed(
            &format!("{BASE}/node0/numastat"),
            "numa_hit 0\nnuma_miss 0\nnuma_foreign 0\ninterleave_hit 0\nlocal_node 0\nother_node 0\n",
        )
        .text(&format!("{BASE}/node0/meminfo"), 0o444, |kernel| {
            let (total, free) = (kernel.frames.total() * 4, kernel.frames.free() * 4);
            let used = total - free;
            format!(
                "Node 0 MemTotal:       {total} kB\nNode 0 MemFree:        {free} kB\n\
                 Node 0 MemUsed:        {used} kB\n"
            )
        });
    for cpu in 0..cpus {
        tree.link(&format!("{BASE}/node0/cpu{cpu}"), &format!("../../cpu/cpu{cpu}"));
    }
}

fn memory(tree: &mut Builder) {
    const BASE: &str = "kernel/mm/transparent_hugepage";
    tree.fixed(&format!("{BASE}/enabled"), "always [madvise] never\n")
        .fixed(&format!("{BASE}/defrag"), "always defer defer+madvise [madvise] never\n")
        .fixed(&format!("{BASE}/shmem_enabled"), "always within_size advise [never] deny force\n")
        .fixed(&format!("{BASE}/hpage_pmd_size"), "2097152\n")
        .fixed(&format!("{BASE}/use_zero_page"), "1\n");
}

fn network(tree: &mut Builder) {
    const LO: &str = "devices/virtual/net/lo";
    for (name, text) in [
        ("address", "00:00:00:00:00:00"),
        ("broadcast", "00:00:00:00:00:00"),
        ("addr_len", "6"),
        ("dev_id", "0x0"),
        ("flags", "0x9"),
        ("ifindex", "1"),
        ("iflink", "1"),
        ("mtu", "65536"),
        ("operstate", "unknown"),
        ("carrier", "1"),
        ("tx_queue_len", "1000"),
        ("type", "772"),
        ("uevent", "INTERFACE=lo\nIFINDEX=1"),
    ] {
        tree.fixed(&format!("{LO}/{name}"), format!("{text}\n"));
    }
    for name in ["bytes", "packets", "errors", "dropped"] {
        tree.fixed(&format!("{LO}/statistics/rx_{name}"), "0\n");
        tree.fixed(&format!("{LO}/statistics/tx_{name}"), "0\n");
    }
    tree.link("class/net/lo", "../../devices/virtual/net/lo");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_ranges() {
        assert_eq!(range(1), "0\n");
        assert_eq!(range(4), "0-3\n");
        assert_eq!(bit(33, 40), "00000002,00000000\n");
        assert_eq!(all(33), "00000001,ffffffff\n");
        assert_eq!(all(2), "00000003\n");
    }
}
