//! Descriptors: `fd/N` and `fdinfo/N`.

use std::{fmt::Write as _, sync::Arc};

use super::view::View;
use crate::{
    error::Errno,
    fs::{
        fdtable::Entry,
        file::{OpenFile, OpenFlags},
    },
};

fn entry(view: &View, fd: i32) -> Result<Entry, Errno> {
    let task = view.task.as_ref().ok_or(Errno::ENOENT)?;
    task.files().entry(fd).map_err(|_| Errno::ENOENT)
}
/// The file behind a descriptor.
///
/// # Errors
/// ENOENT.
pub(super) fn open(view: &View, fd: i32) -> Result<Arc<OpenFile>, Errno> {
    entry(view, fd).map(|e| e.file)
}

/// `fdinfo/N`.
///
/// # Errors
/// ENOENT.
pub(super) fn info(view: &View, fd: i32) -> Result<Vec<u8>, Errno> {
    let Entry { file, cloexec } = entry(view, fd)?;
    let mut flags = file.flags();
    if file.path.is_some() {
        // open(2) sets it for every 64-bit program.
        flags |= OpenFlags::LARGEFILE;
    }
    if cloexec {
        flags |= OpenFlags::CLOEXEC;
    }
    let position = file.with_position(|p| *p);
    // What has no mount lies on the kernel's own, whose id no namespace shows.
    let mount = file.path.as_ref().map_or(1, |p| p.mount.id);
    let ino = file.attr()?.ino;
    let mut out =
        format!("pos:\t{position}\nflags:\t0{:o}\nmnt_id:\t{mount}\nino:\t{ino}\n", flags.bits());
    let _ = write!(out, "{}", file.ops.fdinfo(&file));
    Ok(out.into_bytes())
}
