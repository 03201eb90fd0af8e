//! `maps`, `smaps` and `smaps_rollup`.

use std::fmt::Write as _;

use super::view::View;
use crate::{
    error::Errno,
    fs::device::{major, minor},
    mm::vma::{Source, Vma, VmaFlags},
    platform::{PAGE_SHIFT, Prot},
};

/// Column in which names start (`show_map_vma()` in fs/proc/task_mmu.c).
const NAME_COLUMN: usize = 73;

fn head(start: u64, end: u64, access: &str, offset: u64, dev: u64, ino: u64) -> String {
    let (major, minor) = (major(dev), minor(dev));
    format!("{start:08x}-{end:08x} {access} {offset:08x} {major:02x}:{minor:02x} {ino} ")
}

fn line(out: &mut Vec<u8>, vma: &Vma, view: &View) {
    let has = |prot, yes| if vma.prot.contains(prot) { yes } else { '-' };
    let shared = if vma.is_shared() { 's' } else { 'p' };
    let access = [has(Prot::READ, 'r'), has(Prot::WRITE, 'w'), has(Prot::EXEC, 'x'), shared];
    let access = String::from_iter(access);
    let (mut name, mut dev, mut ino) = (Vec::new(), 0, 0);
    let mut offset = 0;
    if let Source::Object(object, first) = &vma.source {
        offset = first << PAGE_SHIFT;
        if let Some(file) = &vma.file {
            if let Ok(attr) = file.attr() {
                (dev, ino) = (attr.dev, attr.ino);
            }
            name = match (&file.path, &view.task) {
                (Some(path), Some(task)) => path.text(&task.fs().root()),
                (Some(path), None) => path.text(path),
                (None, _) => file.ops.describe().into_bytes(),
            };
        } else if let Some(attached) = &vma.shm {
            (dev, ino) = (1, u64::from(attached.id.cast_unsigned()));
            let key = view.kernel.shm.get(attached.id).map_or(0, |s| s.key);
            name = format!("/SYSV{key:08x} (deleted)").into_bytes();
        } else if vma.is_shared() {
            // Shared anonymous memory, whose name is its mapping's own.
            (dev, ino) = (1, object.id());
        } else if vma.name.is_some() {
            offset = 0;
        }
    }
    if let Some(own) = &vma.name
        && vma.file.is_none()
    {
        name = own.as_bytes().to_vec();
    }
    let head = head(vma.start, vma.end, &access, offset, dev, ino);
    if name.is_empty() {
        out.extend_from_slice(head.as_bytes());
    } else {
        out.extend_from_slice(format!("{head:<NAME_COLUMN$}").as_bytes());
        // A name never ends the line.
        for byte in name {
            match byte {
                b'\n' => out.extend_from_slice(b"\\012"),
                byte => out.push(byte),
            }
        }
    }
    out.push(b'\n');
}

/// `maps`.
pub(super) fn maps(view: &View) -> Result<Vec<u8>, Errno> {
    let mut out = Vec::new();
    if let Some(mm) = view.mm() {
        mm.each_mapping(|vma, _| line(&mut out, vma, view));
    }
    Ok(out)
}

#[derive(Default)]
struct Sizes {
    rss: u64,
    shared: u64,
    private: u64,
    anon: u64,
    locked: u64,
}

impl Sizes {
    fn of(vma: &Vma, resident: u64) -> Sizes {
        let shared = vma.is_shared();
        Sizes {
            rss: resident,
            shared: if shared { resident } else { 0 },
            private: if shared { 0 } else { resident },
            anon: if vma.is_private_anon() { resident } else { 0 },
            locked: if vma.flags.contains(VmaFlags::LOCKED) { resident } else { 0 },
        }
    }
    fn add(&mut self, other: &Sizes) {
        self.rss += other.rss;
        self.shared += other.shared;
        self.private += other.private;
        self.anon += other.anon;
        self.locked += other.locked;
    }
    /// Who else maps a page is not counted, so each counts wholly as this process's.
    fn rows(&self, rollup: bool) -> Vec<(&'static str, u64)> {
        let dirty = self.private;
        let mut rows = vec![("Rss", self.rss), ("Pss", self.rss), ("Pss_Dirty", dirty)];
        if rollup {
            let shmem = self.shared;
            rows.extend([("Pss_Anon", self.anon), ("Pss_File", self.private - self.anon)]);
            rows.push(("Pss_Shmem", shmem));
        }
        rows.extend([
            ("Shared_Clean", 0),
            ("Shared_Dirty", self.shared),
            ("Private_Clean", self.private - self.anon),
            ("Private_Dirty", self.anon),
            ("Referenced", self.rss),
            ("Anonymous", self.anon),
            ("KSM", 0),
            ("LazyFree", 0),
            ("AnonHugePages", 0),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", 0),
            ("Private_Hugetlb", 0),
            ("Swap", 0),
            ("SwapPss", 0),
            ("Locked", self.locked),
        ]);
        rows
    }
}

fn table(out: &mut Vec<u8>, rows: &[(&str, u64)]) {
    for (key, bytes) in rows {
        let key = format!("{key}:");
        out.extend_from_slice(format!("{key:<16} {:>8} kB\n", bytes >> 10).as_bytes());
    }
}

fn flags(vma: &Vma) -> String {
    let mut out = String::from("VmFlags:");
    let granted = [(Prot::READ, "rd"), (Prot::WRITE, "wr"), (Prot::EXEC, "ex")];
    let may = [(Prot::READ, "mr"), (Prot::WRITE, "mw"), (Prot::EXEC, "me")];
    let mut say = |yes: bool, word: &str| {
        if yes {
            let _ = write!(out, " {word}");
        }
    };
    for (prot, word) in granted {
        say(vma.prot.contains(prot), word);
    }
    say(vma.is_shared(), "sh");
    for (prot, word) in may {
        say(vma.max_prot.contains(prot), word);
    }
    say(vma.is_shared(), "ms");
    for (flag, word) in [
        (VmaFlags::GROWSDOWN, "gd"),
        (VmaFlags::LOCKED, "lo"),
        (VmaFlags::SEQUENTIAL, "sr"),
        (VmaFlags::RANDOM, "rr"),
        (VmaFlags::DONTFORK, "dc"),
        (VmaFlags::DONTEXPAND, "de"),
        (VmaFlags::NORESERVE, "nr"),
        (VmaFlags::WIPEONFORK, "wf"),
        (VmaFlags::DONTDUMP, "dd"),
        (VmaFlags::HUGEPAGE, "hg"),
        (VmaFlags::NOHUGEPAGE, "nh"),
    ] {
        say(vma.flags.contains(flag), word);
    }
    out.push_str(" \n");
    out
}

/// `smaps`.
pub(super) fn smaps(view: &View) -> Result<Vec<u8>, Errno> {
    let mut out = Vec::new();
    if let Some(mm) = view.mm() {
        mm.each_mapping(|vma, resident| {
            line(&mut out, vma, view);
            table(
                &mut out,
                &[("Size", vma.len()), ("KernelPageSize", 4096), ("MMUPageSize", 4096)],
            );
            table(&mut out, &Sizes::of(vma, resident).rows(false));
            out.extend_from_slice(b"THPeligible:           0\n");
            out.extend_from_slice(flags(vma).as_bytes());
        });
    }
    Ok(out)
}
/// `smaps_rollup`.
pub(super) fn smaps_rollup(view: &View) -> Result<Vec<u8>, Errno> {
    let mm = view.mm().ok_or(Errno::ESRCH)?;
    let (mut sum, mut range) = (Sizes::default(), None);
    mm.each_mapping(|vma, resident| {
        sum.add(&Sizes::of(vma, resident));
        range = Some((range.map_or(vma.start, |r: (u64, u64)| r.0), vma.end));
    });
    let (start, end) = range.unwrap_or_default();
    let head = head(start, end, "---p", 0, 0, 0);
    let mut out = format!("{head:<NAME_COLUMN$}[rollup]\n").into_bytes();
    table(&mut out, &sum.rows(true));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_linux_columns() {
        let head = head(0x55c0_81e0_d000, 0x55c0_81e0_f000, "r--p", 0, 0xfe00, 247_030);
        let line = format!("{head:<NAME_COLUMN$}/usr/bin/cat");
        assert_eq!(
            line,
            "55c081e0d000-55c081e0f000 r--p 00000000 fe:00 247030                     /usr/bin/cat"
        );
    }
}
