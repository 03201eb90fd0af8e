//! `ns/*` (namespaces(7)): links whose texts tell whether two processes share a namespace.
//!
//! Only mount trees can differ; of the others there is one.

use std::{any::Any, sync::Arc};

use super::{
    entries::{Entry, Kind},
    view::View,
};
use crate::{
    error::Errno,
    fs::{
        file::{FileOps, OpenFile, OpenFlags},
        inode::{Attr, Magic, mode},
    },
};

/// Numbers of the first namespaces (`PROC_*_INIT_INO`).
const IPC: u64 = 0xefff_ffff;
const UTS: u64 = 0xefff_fffe;
const USER: u64 = 0xefff_fffd;
const PID: u64 = 0xefff_fffc;
const CGROUP: u64 = 0xefff_fffb;
const TIME: u64 = 0xefff_fffa;
const NET: u64 = 0xf000_0099;
const MOUNT: u64 = 0xf000_0000;

/// A namespace as a file.
struct Space {
    name: &'static str,
    number: u64,
}

impl FileOps for Space {
    fn moves(&self) -> (bool, bool) {
        (false, false)
    }
    fn positioned(&self) -> bool {
        false
    }
    fn attr(&self, _file: &OpenFile) -> Result<Attr, Errno> {
        let attr = Attr { dev: 4, ino: self.number, mode: mode::REG | 0o444, ..Attr::default() };
        Ok(Attr { nlink: 1, blksize: 4096, ..attr })
    }
    fn describe(&self) -> String {
        format!("{}:[{}]", self.name, self.number)
    }
    fn reopen(&self, _file: &OpenFile, _flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(Space { name: self.name, number: self.number }))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn leads(name: &'static str, number: u64) -> Result<Magic, Errno> {
    let space = Arc::new(Space { name, number });
    Ok(Magic::File(OpenFile::new(space, OpenFlags::empty())))
}
fn mount(view: &View) -> Result<Magic, Errno> {
    let fs = view.task.as_ref().ok_or(Errno::ENOENT)?.fs();
    leads("mnt", MOUNT + fs.namespace().id())
}

macro_rules! fixed {
    ($file:literal, $name:literal, $number:expr) => {
        Entry::namespace($file, |_| leads($name, $number))
    };
}

impl Entry {
    const fn namespace(name: &'static str, to: fn(&View) -> Result<Magic, Errno>) -> Entry {
        Entry { name, perm: 0o777, guarded: true, kind: Kind::Link(to) }
    }
}

/// The directory's rows.
pub(super) static ENTRIES: &[Entry] = &[
    fixed!("cgroup", "cgroup", CGROUP),
    fixed!("ipc", "ipc", IPC),
    Entry::namespace("mnt", mount),
    fixed!("net", "net", NET),
    fixed!("pid", "pid", PID),
    fixed!("pid_for_children", "pid", PID),
    fixed!("time", "time", TIME),
    fixed!("time_for_children", "time", TIME),
    fixed!("user", "user", USER),
    fixed!("uts", "uts", UTS),
];
