//! What a process's and a thread's directory hold: one row per name.

use std::sync::Arc;

use super::{maps, memory, mounts, namespaces, scores, stat, status, view::View};
use crate::{
    error::Errno,
    fs::{
        file::FileOps,
        inode::{Magic, mode},
        textfile::Opener,
    },
};

/// Makes a text.
pub(super) type Text = fn(&View) -> Result<Vec<u8>, Errno>;
/// Takes what is written.
pub(super) type Set = fn(&View, &Opener, &[u8]) -> Result<(), Errno>;

/// What a row is.
pub(super) enum Kind {
    Text(Text),
    Setting(Text, Set),
    Link(fn(&View) -> Result<Magic, Errno>),
    Open(fn(&View) -> Result<Arc<dyn FileOps>, Errno>),
    Dir(&'static [Entry]),
    Tasks,
    Fds,
    FdInfos,
    Net,
}

impl Kind {
    pub(super) fn is_tasks(&self) -> bool {
        matches!(self, Kind::Tasks)
    }
}

/// A row.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) perm: u32,
    /// Only whoever may trace the process may open it.
    pub(super) guarded: bool,
    pub(super) kind: Kind,
}

impl Entry {
    /// Type and permission.
    pub(super) fn mode(&self) -> u32 {
        let kind = match self.kind {
            Kind::Text(_) | Kind::Setting(..) | Kind::Open(_) => mode::REG,
            Kind::Link(_) => mode::LNK,
            Kind::Dir(_) | Kind::Tasks | Kind::Fds | Kind::FdInfos | Kind::Net => mode::DIR,
        };
        kind | self.perm
    }
}

const fn text(name: &'static str, perm: u32, make: Text) -> Entry {
    Entry { name, perm, guarded: false, kind: Kind::Text(make) }
}
const fn guarded(name: &'static str, perm: u32, make: Text) -> Entry {
    Entry { name, perm, guarded: true, kind: Kind::Text(make) }
}
const fn setting(name: &'static str, perm: u32, make: Text, set: Set) -> Entry {
    Entry { name, perm, guarded: false, kind: Kind::Setting(make, set) }
}
const fn link(name: &'static str, leads: fn(&View) -> Result<Magic, Errno>) -> Entry {
    Entry { name, perm: 0o777, guarded: false, kind: Kind::Link(leads) }
}
const fn dir(name: &'static str, perm: u32, kind: Kind) -> Entry {
    Entry { name, perm, guarded: false, kind }
}
const fn open(
    name: &'static str,
    perm: u32,
    open: fn(&View) -> Result<Arc<dyn FileOps>, Errno>,
) -> Entry {
    Entry { name, perm, guarded: true, kind: Kind::Open(open) }
}

/// `/proc/PID`.
#[rustfmt::skip]
pub(super) static PROCESS: &[Entry] = &[
    dir("task", 0o555, Kind::Tasks),
    dir("fd", 0o500, Kind::Fds),
    dir("fdinfo", 0o555, Kind::FdInfos),
    dir("ns", 0o511, Kind::Dir(namespaces::ENTRIES)),
    dir("net", 0o555, Kind::Net),
    guarded("environ", 0o400, memory::environ),
    guarded("auxv", 0o400, memory::auxv),
    text("status", 0o444, status::status),
    guarded("personality", 0o400, status::personality),
    text("limits", 0o444, status::limits),
    text("sched", 0o644, stat::sched),
    setting("comm", 0o644, status::comm, status::set_comm),
    guarded("syscall", 0o400, stat::syscall),
    text("cmdline", 0o444, memory::cmdline),
    text("stat", 0o444, stat::stat),
    text("statm", 0o444, stat::statm),
    guarded("maps", 0o444, maps::maps),
    open("mem", 0o600, memory::open_mem),
    link("cwd", status::cwd),
    link("root", status::root),
    link("exe", status::exe),
    text("mounts", 0o444, mounts::mounts),
    text("mountinfo", 0o444, mounts::mountinfo),
    text("mountstats", 0o400, mounts::mountstats),
    setting("clear_refs", 0o200, status::nothing, scores::clear_refs),
    guarded("smaps", 0o444, maps::smaps),
    guarded("smaps_rollup", 0o444, maps::smaps_rollup),
    open("pagemap", 0o400, memory::open_pagemap),
    text("wchan", 0o444, stat::wchan),
    text("schedstat", 0o444, stat::schedstat),
    text("cpuset", 0o444, status::cpuset),
    text("cgroup", 0o444, status::cgroup),
    text("oom_score", 0o444, scores::oom_score),
    setting("oom_adj", 0o644, scores::oom_adj, scores::set_oom_adj),
    setting("oom_score_adj", 0o644, scores::oom_score_adj, scores::set_oom_score_adj),
    setting("loginuid", 0o644, status::unset_id, status::refuse),
    text("sessionid", 0o444, status::unset_id),
    setting("coredump_filter", 0o644, scores::coredump_filter, scores::set_coredump_filter),
    guarded("io", 0o400, stat::io),
    setting("uid_map", 0o644, status::id_map, status::refuse),
    setting("gid_map", 0o644, status::id_map, status::refuse),
    setting("projid_map", 0o644, status::id_map, status::refuse),
    setting("setgroups", 0o644, status::setgroups, status::refuse),
    setting("timerslack_ns", 0o666, scores::timer_slack, scores::set_timer_slack),
];

/// `/proc/PID/task/TID`.
#[rustfmt::skip]
pub(super) static THREAD: &[Entry] = &[
    dir("fd", 0o500, Kind::Fds),
    dir("fdinfo", 0o555, Kind::FdInfos),
    dir("ns", 0o511, Kind::Dir(namespaces::ENTRIES)),
    dir("net", 0o555, Kind::Net),
    guarded("environ", 0o400, memory::environ),
    guarded("auxv", 0o400, memory::auxv),
    text("status", 0o444, status::status),
    guarded("personality", 0o400, status::personality),
    text("limits", 0o444, status::limits),
    text("sched", 0o644, stat::sched),
    setting("comm", 0o644, status::comm, status::set_comm),
    guarded("syscall", 0o400, stat::syscall),
    text("cmdline", 0o444, memory::cmdline),
    text("stat", 0o444, stat::stat),
    text("statm", 0o444, stat::statm),
    guarded("maps", 0o444, maps::maps),
    text("children", 0o444, stat::children),
    open("mem", 0o600, memory::open_mem),
    link("cwd", status::cwd),
    link("root", status::root),
    link("exe", status::exe),
    text("mounts", 0o444, mounts::mounts),
    text("mountinfo", 0o444, mounts::mountinfo),
    setting("clear_refs", 0o200, status::nothing, scores::clear_refs),
    guarded("smaps", 0o444, maps::smaps),
    guarded("smaps_rollup", 0o444, maps::smaps_rollup),
    open("pagemap", 0o400, memory::open_pagemap),
    text("wchan", 0o444, stat::wchan),
    text("schedstat", 0o444, stat::schedstat),
    text("cpuset", 0o444, status::cpuset),
    text("cgroup", 0o444, status::cgroup),
    text("oom_score", 0o444, scores::oom_score),
    setting("oom_adj", 0o644, scores::oom_adj, scores::set_oom_adj),
    setting("oom_score_adj", 0o644, scores::oom_score_adj, scores::set_oom_score_adj),
    setting("loginuid", 0o644, status::unset_id, status::refuse),
    text("sessionid", 0o444, status::unset_id),
    guarded("io", 0o400, stat::io),
    setting("uid_map", 0o644, status::id_map, status::refuse),
    setting("gid_map", 0o644, status::id_map, status::refuse),
    setting("setgroups", 0o644, status::setgroups, status::refuse),
];
