//! Who may look into whom (ptrace(2), "Ptrace access mode checking", with file-system credentials).

use super::view::View;
use crate::{
    creds::{Creds, cap},
    fs::inode::Actor,
};
use std::sync::atomic::Ordering;

/// `who` may read what a tracer could (PTRACE_MODE_READ_FSCREDS).
pub(super) fn may_trace(who: &Actor, view: &View) -> bool {
    if who
        .task
        .as_ref()
        .is_some_and(|t| std::ptr::eq(&raw const *t.process, &raw const *view.process))
    {
        return true;
    }
    let target = view.creds();
    let privileged = who.creds.capable(cap::SYS_PTRACE);
    if !same_user(&who.creds, &target) && !privileged {
        return false;
    }
    let dumpable = view.process.dumpable.load(Ordering::Relaxed) == 1;
    let covers = target.permitted & !who.creds.effective == 0;
    privileged || (dumpable && covers)
}

fn same_user(who: &Creds, target: &Creds) -> bool {
    let user = [target.uid, target.euid, target.suid].iter().all(|u| *u == who.fsuid);
    let group = [target.gid, target.egid, target.sgid].iter().all(|g| *g == who.fsgid);
    user && group
}
