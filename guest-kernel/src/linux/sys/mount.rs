//! mount(2), umount2(2), pivot_root(2).

use std::{str::FromStr, sync::Arc};

use bitflags::bitflags;

use super::path::{actor, find, text};
use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    fs::{
        dentry::{Dentry, Path},
        devfs, devpts,
        inode::{Actor, SetAttr},
        mount::{Mount, MountFlags},
        procfs, sysfs,
        tmpfs::TmpFs,
        vfs,
    },
    kernel::Kernel,
};

bitflags! {
    /// mount(2)'s flags; the rest are ignored as by file systems that do not know them.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Ms: u64 {
        const RDONLY = 1;
        const NOSUID = 2;
        const NODEV = 4;
        const NOEXEC = 8;
        const REMOUNT = 32;
        const NOATIME = 1024;
        const NODIRATIME = 2048;
        const BIND = 4096;
        const MOVE = 8192;
        const REC = 16384;
        const UNBINDABLE = 1 << 17;
        const PRIVATE = 1 << 18;
        const SLAVE = 1 << 19;
        const SHARED = 1 << 20;
        const RELATIME = 1 << 21;
        const STRICTATIME = 1 << 24;
    }
}

/// The mount flags among them.
fn per_mount(ms: Ms) -> MountFlags {
    let bits = u32::try_from(ms.bits() & 0xffff_ffff).unwrap_or(0);
    let mut flags = MountFlags::from_bits_truncate(bits);
    if ms.contains(Ms::STRICTATIME) {
        flags -= MountFlags::RELATIME | MountFlags::NOATIME;
    } else if !flags.contains(MountFlags::NOATIME) {
        flags |= MountFlags::RELATIME;
    }
    flags
}

fn may_mount(who: &Actor) -> Result<(), Errno> {
    if who.creds.capable(cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}
fn is_top(path: &Path) -> bool {
    Arc::ptr_eq(&path.dentry, path.mount.root())
}
/// The mount whose root `path` is, in the caller's tree.
fn mounted(who: &Actor, path: &Path) -> Result<Arc<Mount>, Errno> {
    if is_top(path) && who.fs.namespace().holds(&path.mount) {
        Ok(path.mount.clone())
    } else {
        Err(Errno::EINVAL)
    }
}

/// A string argument that may be absent.
fn optional(cx: &Cx<'_>, addr: u64) -> Result<Option<Vec<u8>>, Errno> {
    if addr == 0 { Ok(None) } else { text(cx, addr).map(Some) }
}

/// mount(2): nothing propagates, so the propagation types are accepted and mean nothing.
pub fn mount(
    cx: &mut Cx<'_>,
    source: u64,
    target: u64,
    kind: u64,
    flags: u64,
    data: u64,
) -> SysResult {
    /// `MS_MGC_VAL` and its mask: what old programs put in the upper half.
    const MAGIC: u64 = 0xc0ed_0000;
    const MAGIC_MASK: u64 = 0xffff_0000;
    let flags = if flags & MAGIC_MASK == MAGIC { flags & !MAGIC_MASK } else { flags };
    let ms = Ms::from_bits_truncate(flags);
    let kind = optional(cx, kind)?;
    let source = optional(cx, source)?;
    let data = if data == 0 { Vec::new() } else { options(cx, data)? };
    let who = actor(cx);
    let target = find(cx, &who, target, true)?;
    may_mount(&who)?;
    if ms.contains(Ms::REMOUNT) {
        return remount(&who, &target, ms, &data);
    }
    if ms.contains(Ms::BIND) {
        return bind(&who, &from(&who, source)?, target, ms);
    }
    let changes = ms & (Ms::SHARED | Ms::PRIVATE | Ms::SLAVE | Ms::UNBINDABLE);
    if !changes.is_empty() {
        if changes.bits().count_ones() != 1 {
            return Err(Errno::EINVAL.into());
        }
        return mounted(&who, &target).map(|_| 0).map_err(Into::into);
    }
    if ms.contains(Ms::MOVE) {
        let from = from(&who, source)?;
        let moving = mounted(&who, &from)?;
        if !who.fs.namespace().holds(&target.mount) || is_dir(&from)? != is_dir(&target)? {
            return Err(Errno::EINVAL.into());
        }
        who.fs.namespace().move_to(&moving, target)?;
        return Ok(0);
    }
    let kind = kind.ok_or(Errno::EINVAL)?;
    fresh(&who, &kind, source, target, ms, &data)
}

/// The options: a page at most, up to a NUL or to where memory ends.
fn options(cx: &Cx<'_>, addr: u64) -> Result<Vec<u8>, Errno> {
    let mut page = vec![0; 4095];
    let got = cx.mm().read_partial(addr, &mut page);
    if got == 0 {
        return Err(Errno::EFAULT);
    }
    page.truncate(page[..got].iter().position(|b| *b == 0).unwrap_or(got));
    Ok(page)
}
fn is_dir(path: &Path) -> Result<bool, Errno> {
    Ok(path.attr()?.is_dir())
}
/// The place a bind or move takes.
fn from(who: &Actor, source: Option<Vec<u8>>) -> Result<Path, Errno> {
    let source = source.filter(|s| !s.is_empty()).ok_or(Errno::EINVAL)?;
    vfs::find(who, &who.fs.cwd(), &source, true)
}

fn bind(who: &Actor, from: &Path, target: Path, ms: Ms) -> SysResult {
    let tree = who.fs.namespace();
    if !tree.holds(&from.mount) || !tree.holds(&target.mount) {
        return Err(Errno::EINVAL.into());
    }
    if is_dir(from)? != is_dir(&target)? {
        return Err(Errno::ENOTDIR.into());
    }
    let inner = if ms.contains(Ms::REC) { tree.below(from) } else { Vec::new() };
    tree.admit(1 + inner.len())?;
    // A bind has its source's flags; others come with a later remount.
    let copy = |old: &Arc<Mount>, root: &Arc<Dentry>| {
        Mount::new(who.kernel.fs.new_mount(), &old.source, root.clone(), old.flags())
    };
    let top = copy(&from.mount, &from.dentry);
    tree.attach(top.clone(), target);
    let mut twins = vec![(from.mount.clone(), top)];
    for old in inner {
        let Some(on) = old.mountpoint() else { continue };
        let Some((_, mount)) = twins.iter().find(|(m, _)| Arc::ptr_eq(m, &on.mount)) else {
            continue;
        };
        let at = Path { mount: mount.clone(), dentry: on.dentry };
        let new = copy(&old, old.root());
        tree.attach(new.clone(), at);
        twins.push((old, new));
    }
    Ok(0)
}

/// Flags of one mount, or with them the file system's own options.
fn remount(who: &Actor, target: &Path, ms: Ms, data: &[u8]) -> SysResult {
    let mount = mounted(who, target)?;
    let mut flags = per_mount(ms);
    if !ms.intersects(Ms::NOATIME | Ms::NODIRATIME | Ms::RELATIME | Ms::STRICTATIME) {
        let kept = MountFlags::NOATIME | MountFlags::NODIRATIME | MountFlags::RELATIME;
        flags = (flags - kept) | (mount.flags() & kept);
    }
    if !ms.contains(Ms::BIND)
        && let Some(fs) = mount.fs().as_any().downcast_ref::<TmpFs>()
        && let Some(size) = Options::parse(&who.kernel, data)?.size
    {
        if size.div_ceil(4096) < fs.used_pages() {
            return Err(Errno::EINVAL.into());
        }
        fs.set_size(size);
    }
    mount.set_flags(flags);
    Ok(0)
}

/// Options of tmpfs(5).
#[derive(Default)]
struct Options {
    size: Option<u64>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Options {
    fn parse(kernel: &Kernel, data: &[u8]) -> Result<Options, Errno> {
        let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        let mut out = Options::default();
        for option in text.split(',').filter(|o| !o.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match key {
                "size" => out.size = Some(size(value, kernel.config.memory)?),
                "nr_blocks" => {
                    let blocks = size(value, 0)?;
                    out.size = Some(blocks.checked_mul(4096).ok_or(Errno::EINVAL)?);
                }
                "mode" => {
                    let bits = u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL)?;
                    out.mode = Some(bits & 0o7777);
                }
                "uid" => out.uid = Some(number(value)?),
                "gid" => out.gid = Some(number(value)?),
                "nr_inodes" | "huge" | "mpol" | "inode32" | "inode64" | "noswap" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(out)
    }
}
fn number<T: FromStr>(text: &str) -> Result<T, Errno> {
    text.parse().map_err(|_| Errno::EINVAL)
}
/// A number with a suffix, or a percentage of `whole`.
fn size(text: &str, whole: u64) -> Result<u64, Errno> {
    if let Some(percent) = text.strip_suffix('%') {
        return Ok(whole / 100 * number::<u64>(percent)?.min(100));
    }
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_lowercase) {
        Some(b'k') => (&text[..text.len() - 1], 10),
        Some(b'm') => (&text[..text.len() - 1], 20),
        Some(b'g') => (&text[..text.len() - 1], 30),
        Some(b't') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    number::<u64>(digits)?.checked_mul(1 << shift).ok_or(Errno::EINVAL)
}

/// A new file system of type `kind`.
fn fresh(
    who: &Actor,
    kind: &[u8],
    source: Option<Vec<u8>>,
    target: Path,
    ms: Ms,
    data: &[u8],
) -> SysResult {
    let kernel = &who.kernel;
    let root = match kind {
        b"tmpfs" | b"ramfs" => {
            let options = Options::parse(kernel, data)?;
            let size = options.size.filter(|s| *s > 0).unwrap_or(kernel.config.memory / 2);
            let name = if kind == b"ramfs" { "ramfs" } else { "tmpfs" };
            let root = TmpFs::create(kernel, name, size, options.mode.unwrap_or(0o1777));
            let (uid, gid) = (options.uid, options.gid);
            root.inode().set_attr(&SetAttr { uid, gid, ..SetAttr::default() })?;
            root
        }
        b"proc" => procfs::create(kernel),
        b"sysfs" => sysfs::create(kernel),
        b"devpts" => devpts::create(kernel),
        b"devtmpfs" => devfs::create(kernel, who)?,
        b"mqueue" => TmpFs::create(kernel, "mqueue", 1 << 20, 0o1777),
        _ => return Err(Errno::ENODEV.into()),
    };
    if !is_dir(&target)? {
        return Err(Errno::ENOTDIR.into());
    }
    let tree = who.fs.namespace();
    if !tree.holds(&target.mount) {
        return Err(Errno::EINVAL.into());
    }
    tree.admit(1)?;
    let source = source.filter(|s| !s.is_empty()).unwrap_or_else(|| b"none".to_vec());
    let source = String::from_utf8_lossy(&source).into_owned();
    let mount = Mount::new(kernel.fs.new_mount(), &source, root, per_mount(ms));
    tree.attach(mount, target);
    Ok(0)
}

/// umount2(2): a mount is busy while anything refers to a place in it.
pub fn umount2(cx: &mut Cx<'_>, addr: u64, flags: u32) -> SysResult {
    const FORCE: u32 = 1;
    const DETACH: u32 = 2;
    const EXPIRE: u32 = 4;
    const NOFOLLOW: u32 = 8;
    if flags & !(FORCE | DETACH | EXPIRE | NOFOLLOW) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let who = actor(cx);
    let found = find(cx, &who, addr, flags & NOFOLLOW == 0)?;
    // `.` names what has been mounted on it since.
    let found = who.fs.namespace().cover(found);
    may_mount(&who)?;
    let mount = mounted(&who, &found)?;
    drop(found);
    if flags & EXPIRE != 0 {
        let clash = flags & (FORCE | DETACH) != 0;
        return Err(if clash { Errno::EINVAL } else { Errno::EAGAIN }.into());
    }
    let lazy = flags & DETACH != 0;
    // Ours and the tree's.
    const IDLE: usize = 2;
    if !lazy && Arc::strong_count(&mount) > IDLE {
        return Err(Errno::EBUSY.into());
    }
    who.fs.namespace().detach(&mount, lazy)?;
    Ok(0)
}

/// `path` is `top` or below it.
fn lies_in(path: &Path, top: &Path) -> bool {
    let mut at = Some(path.clone());
    while let Some(here) = at {
        if here.same(top) {
            return true;
        }
        at = here.up();
    }
    false
}

/// pivot_root(2): whoever has the old root or works in it is moved, in this mount tree.
pub fn pivot_root(cx: &mut Cx<'_>, new_root: u64, put_old: u64) -> SysResult {
    let who = actor(cx);
    may_mount(&who)?;
    let new = find(cx, &who, new_root, true)?;
    let old = find(cx, &who, put_old, true)?;
    if !is_dir(&new)? || !is_dir(&old)? {
        return Err(Errno::ENOTDIR.into());
    }
    let root = who.fs.root();
    let same = |a: &Path, b: &Path| Arc::ptr_eq(&a.mount, &b.mount);
    if same(&new, &root) || same(&old, &root) {
        return Err(Errno::EBUSY.into());
    }
    if !is_top(&root) || !is_top(&new) || !who.fs.namespace().holds(&new.mount) {
        return Err(Errno::EINVAL.into());
    }
    if !lies_in(&new, &root) || !lies_in(&old, &new) {
        return Err(Errno::EINVAL.into());
    }
    who.fs.namespace().pivot(&root.mount, &new.mount, old)?;
    for process in cx.kernel().tasks.processes() {
        for task in process.tasks() {
            let fs = task.fs();
            if Arc::ptr_eq(fs.namespace(), who.fs.namespace()) {
                fs.pivot(&root, &new);
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(size("10", 0), Ok(10));
        assert_eq!(size("4k", 0), Ok(4096));
        assert_eq!(size("50%", 1000), Ok(500));
        for bad in ["", "k", "-1", "99999999999g", "x%"] {
            assert_eq!(size(bad, 1000), Err(Errno::EINVAL), "{bad}");
        }
    }

    #[test]
    fn access_times_are_relative_unless_asked() {
        assert!(per_mount(Ms::RDONLY).contains(MountFlags::RELATIME));
        assert!(!per_mount(Ms::NOATIME).contains(MountFlags::RELATIME));
        assert!(!per_mount(Ms::STRICTATIME | Ms::RELATIME).contains(MountFlags::RELATIME));
    }
}
