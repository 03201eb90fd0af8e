//! `mounts`, `mountinfo` and `mountstats`: the mount tree as the process sees it.

use super::view::View;
use crate::{
    error::Errno,
    fs::{
        dentry::Path,
        device::{major, minor},
        mount::{Mount, MountFlags},
    },
};
use std::sync::Arc;

/// Escapes what would end a field (fstab(5)).
fn escape(text: &[u8]) -> String {
    let mut out = String::new();
    for byte in String::from_utf8_lossy(text).chars() {
        match byte {
            ' ' => out.push_str("\\040"),
            '\t' => out.push_str("\\011"),
            '\n' => out.push_str("\\012"),
            '\\' => out.push_str("\\134"),
            '#' => out.push_str("\\043"),
            other => out.push(other),
        }
    }
    out
}

fn options(mount: &Mount) -> String {
    let flags = mount.flags();
    let mut out = String::from(if flags.contains(MountFlags::RDONLY) { "ro" } else { "rw" });
    for (flag, word) in [
        (MountFlags::NOSUID, "nosuid"),
        (MountFlags::NODEV, "nodev"),
        (MountFlags::NOEXEC, "noexec"),
        (MountFlags::NOATIME, "noatime"),
        (MountFlags::NODIRATIME, "nodiratime"),
        (MountFlags::RELATIME, "relatime"),
    ] {
        if flags.contains(flag) {
            out.push(',');
            out.push_str(word);
        }
    }
    out
}

fn own_options(mount: &Mount) -> String {
    match mount.fs().options() {
        text if text.is_empty() => text,
        text => format!(",{text}"),
    }
}

/// A mount and its mount point.
type Seen = (Arc<Mount>, Vec<u8>);

/// Mounts below the process's root with their mount points; none of a process that has ended.
fn visible(view: &View) -> Result<Vec<Seen>, Errno> {
    let task = view.task.as_ref().ok_or(Errno::EINVAL)?;
    let fs = task.fs();
    let root = fs.root();
    let inside = |path: &Path| {
        let mut at = path.clone();
        loop {
            if at.same(&root) {
                return true;
            }
            let Some(up) = at.up() else { return false };
            at = up;
        }
    };
    let mounts = fs.namespace().list().into_iter().map(|mount| (mount.top(), mount));
    Ok(mounts.filter(|(top, _)| inside(top)).map(|(top, m)| (m, top.text(&root))).collect())
}

/// `mounts`.
pub(super) fn mounts(view: &View) -> Result<Vec<u8>, Errno> {
    let mut out = String::new();
    for (mount, at) in visible(view)? {
        let (source, kind) = (escape(mount.source.as_bytes()), mount.fs().name());
        let (at, options, own) = (escape(&at), options(&mount), own_options(&mount));
        out.push_str(&format!("{source} {at} {kind} {options}{own} 0 0\n"));
    }
    Ok(out.into_bytes())
}

/// `mountinfo`.
pub(super) fn mountinfo(view: &View) -> Result<Vec<u8>, Errno> {
    let mut out = String::new();
    for (mount, at) in visible(view)? {
        let parent = mount.mountpoint().map_or(1, |on| on.mount.id);
        let (id, dev) = (mount.id, mount.fs().dev());
        let (major, minor) = (major(dev), minor(dev));
        let root = escape(&root_of(&mount));
        let (at, options, own) = (escape(&at), options(&mount), own_options(&mount));
        let (source, kind) = (escape(mount.source.as_bytes()), mount.fs().name());
        let access = if mount.writable().is_ok() { "rw" } else { "ro" };
        out.push_str(&format!(
            "{id} {parent} {major}:{minor} {root} {at} {options} - {kind} {source} {access}{own}\n"
        ));
    }
    Ok(out.into_bytes())
}

/// The place in its file system that is the mount's root.
fn root_of(mount: &Mount) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = mount.root().clone();
    while let Some(parent) = at.parent() {
        names.push(at.name());
        at = parent;
    }
    if names.is_empty() {
        return b"/".to_vec();
    }
    names.iter().rev().flat_map(|name| [b"/".as_slice(), name].concat()).collect()
}

/// `mountstats`.
pub(super) fn mountstats(view: &View) -> Result<Vec<u8>, Errno> {
    let mut out = String::new();
    for (mount, at) in visible(view)? {
        let (source, at, kind) = (escape(mount.source.as_bytes()), escape(&at), mount.fs().name());
        out.push_str(&format!("device {source} mounted on {at} with fstype {kind}\n"));
    }
    Ok(out.into_bytes())
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_stay_fields() {
        assert_eq!(super::escape(b"/a b\tc\\d"), "/a\\040b\\011c\\134d");
    }
}
