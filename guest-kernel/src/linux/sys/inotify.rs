//! inotify_init(2), inotify_add_watch(2), inotify_rm_watch(2).

use super::path::{actor, file, text};
use crate::{
    call::Cx,
    error::{Errno, SysResult},
    fs::{
        file::{OpenFile, OpenFlags},
        inotify::{Events, Inotify, Limits},
        perm, vfs,
    },
    num::ret_i32,
};

/// inotify_init(2), the call without flags.
pub fn inotify_init(cx: &mut Cx<'_>) -> SysResult {
    inotify_init1(cx, 0)
}

/// inotify_init1(2).
pub fn inotify_init1(cx: &mut Cx<'_>, flags: u32) -> SysResult {
    let open = OpenFlags::from_bits_retain(flags);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(open) {
        return Err(Errno::EINVAL.into());
    }
    let kernel = cx.kernel();
    let limit = |name: &str, default| kernel.sysctls.number(name).unwrap_or(default);
    let limits = Limits {
        events: usize::try_from(limit("fs/inotify/max_queued_events", 16384)).unwrap_or(usize::MAX),
        instances: limit("fs/inotify/max_user_instances", 128),
        watches: limit("fs/inotify/max_user_watches", 65536),
    };
    let instance = Inotify::new(&kernel.fs.inotify, cx.task.creds().uid, limits)?;
    let file = OpenFile::new(instance, open);
    Ok(ret_i32(cx.install(file, open.contains(OpenFlags::CLOEXEC))?))
}

/// inotify_add_watch(2).
pub fn inotify_add_watch(cx: &mut Cx<'_>, fd: i32, path: u64, mask: u32) -> SysResult {
    let mask = Events::from_bits(mask).filter(|mask| !mask.is_empty()).ok_or(Errno::EINVAL)?;
    let open = file(cx, fd)?;
    if mask.contains(Events::MASK_ADD | Events::MASK_CREATE) {
        return Err(Errno::EINVAL.into());
    }
    let instance = inotify(&open)?;
    let who = actor(cx);
    let path = text(cx, path)?;
    let follow = !mask.contains(Events::DONT_FOLLOW);
    let place = vfs::find(&who, &who.fs.cwd(), &path, follow)?;
    let attr = place.attr()?;
    if mask.contains(Events::ONLYDIR) && !attr.is_dir() {
        return Err(Errno::ENOTDIR.into());
    }
    perm::check(&who.creds, &attr, perm::READ)?;
    Ok(ret_i32(instance.watch(place.inode(), mask)?))
}

/// inotify_rm_watch(2).
pub fn inotify_rm_watch(cx: &mut Cx<'_>, fd: i32, wd: i32) -> SysResult {
    let open = file(cx, fd)?;
    inotify(&open)?.unwatch(wd)?;
    Ok(0)
}

fn inotify(file: &OpenFile) -> Result<std::sync::Arc<Inotify>, Errno> {
    let any: std::sync::Arc<dyn std::any::Any + Send + Sync> = file.ops.clone();
    any.downcast::<Inotify>().map_err(|_| Errno::EINVAL)
}
