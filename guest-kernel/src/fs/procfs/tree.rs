//! Inodes of processes: their directories, threads, descriptors and the rows of `entries`.
//!
//! A file has one inode while it is in use, found again by its number, which is made of its path.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::Ordering},
    time::Duration,
};

use super::{
    access,
    entries::{self, Entry, Kind},
    fd,
    view::{Subject, View},
};
use crate::{
    error::Errno,
    fs::{
        dirfile::{DirFile, kind_of},
        file::{FileOps, OpenFile},
        flags::OpenFlags,
        inode::{Actor, Attr, Common, DirEntry, FileSystem, Inode, Magic, NewNode, SetAttr, mode},
        synth::{self, SynthFs},
        textfile::{Make, Opener, TextFile},
    },
    task::Tid,
};

/// Positions of processes in the root directory start here, above those of its tables.
const PROCESSES: u64 = 1000;

#[derive(Clone)]
enum What {
    Root,
    Myself,
    ThreadSelf,
    /// A row of a table.
    Row(Subject, &'static Entry),
    /// `/proc/PID`, `/proc/PID/task/TID`.
    Of(Subject),
    Fd(Subject, i32),
    FdInfo(Subject, i32),
}

struct Shared {
    fs: Arc<SynthFs>,
    tables: Arc<synth::Node>,
    net: Arc<synth::Node>,
    time: Duration,
    nodes: Mutex<HashMap<u64, Weak<Node>>>,
}

struct Node {
    shared: Arc<Shared>,
    common: Common,
    what: What,
    ino: u64,
    /// The process's user and group where the files are theirs.
    kernel: Weak<crate::kernel::Kernel>,
}

/// The root directory.
pub(super) fn root(
    fs: Arc<SynthFs>,
    tables: Arc<synth::Node>,
    net: Arc<synth::Node>,
    time: Duration,
) -> Arc<dyn Inode> {
    let shared = Arc::new(Shared { fs, tables, net, time, nodes: Mutex::default() });
    Arc::new(Node {
        shared,
        common: Common::default(),
        what: What::Root,
        ino: 1,
        kernel: Weak::new(),
    })
}

/// The process whose directory an inode is (pidfd_send_signal(2) takes one for a pidfd).
#[must_use]
pub fn pid_of(inode: &dyn Inode) -> Option<i32> {
    match &inode.as_any().downcast_ref::<Node>()?.what {
        What::Of(subject) if !subject.thread => Some(subject.id),
        _ => None,
    }
}

impl What {
    fn same(&self, other: &What) -> bool {
        match (self, other) {
            (What::Root, What::Root)
            | (What::Myself, What::Myself)
            | (What::ThreadSelf, What::ThreadSelf) => true,
            (What::Row(a, r), What::Row(b, s)) => a.same(b) && std::ptr::eq(*r, *s),
            (What::Of(a), What::Of(b)) => a.same(b),
            (What::Fd(a, m), What::Fd(b, n)) | (What::FdInfo(a, m), What::FdInfo(b, n)) => {
                a.same(b) && m == n
            }
            _ => false,
        }
    }
    fn subject(&self) -> Option<&Subject> {
        match self {
            What::Row(s, _) | What::Of(s) | What::Fd(s, _) | What::FdInfo(s, _) => Some(s),
            _ => None,
        }
    }
    /// Type and permission, but for a descriptor's own.
    fn mode(&self) -> u32 {
        match self {
            What::Root | What::Of(_) => mode::DIR | 0o555,
            What::Myself | What::ThreadSelf => mode::LNK | 0o777,
            What::Row(_, row) => row.mode(),
            What::Fd(..) => mode::LNK | 0o700,
            What::FdInfo(..) => mode::REG | 0o400,
        }
    }
}

/// An inode number from the directory's and the name (FNV-1a).
fn ino_of(dir: u64, name: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in dir.to_le_bytes().iter().chain(name) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash >> 13) | 1 << 51
}

fn number(name: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(name).ok()?;
    let plain = text == "0" || (!text.starts_with('0') && !text.starts_with('+'));
    text.parse().ok().filter(|n| plain && *n >= 0)
}

impl Node {
    /// The inode of `what` under `name` here.
    fn child(&self, who: &Actor, name: &[u8], what: What) -> Arc<Node> {
        let ino = ino_of(self.ino, name);
        let mut nodes = self.shared.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = nodes.get(&ino).and_then(Weak::upgrade)
            && known.what.same(&what)
        {
            return known;
        }
        if nodes.len() >= 256 && nodes.len().is_power_of_two() {
            nodes.retain(|_, node| node.strong_count() > 0);
        }
        let new = Arc::new(Node {
            shared: self.shared.clone(),
            common: Common::default(),
            what,
            ino,
            kernel: Arc::downgrade(&who.kernel),
        });
        nodes.insert(ino, Arc::downgrade(&new));
        new
    }
    fn view(&self, who: &Actor) -> Result<View, Errno> {
        let mut view = self.what.subject().ok_or(Errno::ENOENT)?.view(&who.kernel)?;
        view.trusted = access::may_trace(who, &view);
        Ok(view)
    }
    fn row(&self) -> Option<&'static Entry> {
        match &self.what {
            What::Row(_, row) => Some(row),
            _ => None,
        }
    }
    /// The rows of this directory, if it is one of rows.
    fn rows(&self) -> Option<&'static [Entry]> {
        match &self.what {
            What::Of(subject) if subject.thread => Some(entries::THREAD),
            What::Of(_) => Some(entries::PROCESS),
            What::Row(_, Entry { kind: Kind::Dir(rows), .. }) => Some(rows),
            _ => None,
        }
    }
    fn find(&self, who: &Actor, name: &[u8]) -> Result<What, Errno> {
        if matches!(self.what, What::Root) {
            return match name {
                b"self" => Ok(What::Myself),
                b"thread-self" => Ok(What::ThreadSelf),
                _ => number(name).and_then(|id| of_id(who, id)).ok_or(Errno::ENOENT),
            };
        }
        let subject = self.what.subject().ok_or(Errno::ENOTDIR)?;
        if let Some(rows) = self.rows() {
            subject.view(&who.kernel).map_err(|_| Errno::ENOENT)?;
            let hidden = |row: &Entry| subject.thread && row.kind.is_tasks();
            let row = rows.iter().find(|r| r.name.as_bytes() == name && !hidden(r));
            return row.map(|row| What::Row(subject.clone(), row)).ok_or(Errno::ENOENT);
        }
        let row = self.row().ok_or(Errno::ENOTDIR)?;
        let id = number(name);
        match row.kind {
            Kind::Tasks => {
                let view = subject.view(&who.kernel).map_err(|_| Errno::ENOENT)?;
                let id = id.filter(|id| view.process.tasks().iter().any(|t| t.tid == *id));
                let thread = Subject::new(&view.process, id.ok_or(Errno::ENOENT)?, true);
                Ok(What::Of(thread))
            }
            Kind::Fds | Kind::FdInfos => {
                let view = self.view(who).map_err(|_| Errno::ENOENT)?;
                if !view.trusted {
                    return Err(Errno::EACCES);
                }
                let id = id.ok_or(Errno::ENOENT)?;
                fd::open(&view, id)?;
                Ok(match row.kind {
                    Kind::Fds => What::Fd(subject.clone(), id),
                    _ => What::FdInfo(subject.clone(), id),
                })
            }
            _ => Err(Errno::ENOTDIR),
        }
    }
    /// Entries with positions after which they stand.
    fn list(&self, who: &Actor) -> Result<Vec<(String, What, u64)>, Errno> {
        if let Some(rows) = self.rows() {
            let subject = self.what.subject().ok_or(Errno::ENOTDIR)?;
            subject.view(&who.kernel).map_err(|_| Errno::ENOENT)?;
            let rows = rows.iter().filter(|r| !(subject.thread && r.kind.is_tasks()));
            let entry = |(index, row): (usize, &'static Entry)| {
                (row.name.to_owned(), What::Row(subject.clone(), row), index as u64 + 1)
            };
            return Ok(rows.enumerate().map(entry).collect());
        }
        let row = self.row().ok_or(Errno::ENOTDIR)?;
        let subject = self.what.subject().ok_or(Errno::ENOTDIR)?;
        let view = self.view(who).map_err(|_| Errno::ENOENT)?;
        let place = |id: i32| u64::from(id.cast_unsigned()) + 1;
        match row.kind {
            Kind::Tasks => {
                let mut ids: Vec<Tid> = view.process.tasks().iter().map(|t| t.tid).collect();
                ids.sort_unstable();
                let entry = |id: Tid| {
                    (id.to_string(), What::Of(Subject::new(&view.process, id, true)), place(id))
                };
                Ok(ids.into_iter().map(entry).collect())
            }
            Kind::Fds | Kind::FdInfos => {
                if !view.trusted {
                    return Err(Errno::EACCES);
                }
                let fds = matches!(row.kind, Kind::Fds);
                let open = view.task.map(|t| t.files().list()).unwrap_or_default();
                let entry = |(fd, _)| {
                    let what = if fds {
                        What::Fd(subject.clone(), fd)
                    } else {
                        What::FdInfo(subject.clone(), fd)
                    };
                    (fd.to_string(), what, place(fd))
                };
                Ok(open.into_iter().map(entry).collect())
            }
            _ => Err(Errno::ENOTDIR),
        }
    }
    fn list_root(
        &self,
        who: &Actor,
        from: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        let links = [b"self".as_slice(), b"thread-self"];
        let links = links.map(|name| (name, ino_of(self.ino, name), mode::LNK));
        let tables = self.shared.tables.children();
        let tables = tables.iter().map(|(name, node)| (*name, node.ino(), node.mode()));
        if !synth::emit_all(links.into_iter().chain(tables), from, emit) {
            return Ok(());
        }
        let kind = kind_of(mode::DIR);
        for process in who.kernel.tasks.everyone() {
            let next = PROCESSES + u64::from(process.pid.cast_unsigned());
            let name = process.pid.to_string();
            let ino = ino_of(self.ino, name.as_bytes());
            if next > from && !emit(DirEntry { name: name.as_bytes(), ino, kind, next }) {
                break;
            }
        }
        Ok(())
    }
    fn open_row(
        &self,
        who: &Actor,
        view: View,
        row: &'static Entry,
        flags: OpenFlags,
    ) -> Result<Arc<dyn FileOps>, Errno> {
        if row.guarded && !view.trusted {
            return Err(Errno::EACCES);
        }
        if let Some(own) = who.task.as_ref().filter(|t| Arc::ptr_eq(&t.process, &view.process)) {
            own.update_usage();
        }
        let subject = self.what.subject().ok_or(Errno::ENOENT)?.clone();
        let (kernel, trusted) = (who.kernel.clone(), view.trusted);
        let look = move || -> Result<View, Errno> {
            let mut view = subject.view(&kernel)?;
            view.trusted = trusted;
            Ok(view)
        };
        let writes = flags.intersects(OpenFlags::WRONLY | OpenFlags::RDWR);
        Ok(match row.kind {
            Kind::Text(text) => {
                let make: Make = Box::new(move || text(&look()?));
                Arc::new(TextFile::new(make, Errno::EINVAL))
            }
            Kind::Setting(text, set) => {
                let look = Arc::new(look);
                let make: Make = {
                    let look = look.clone();
                    Box::new(move || text(&look()?))
                };
                if !writes {
                    return Ok(Arc::new(TextFile::new(make, Errno::EINVAL)));
                }
                let opener = Opener::of(who);
                let put = Box::new(move |bytes: &[u8]| set(&look()?, &opener, bytes));
                Arc::new(TextFile::writable(make, put))
            }
            Kind::Open(open) => open(&view)?,
            Kind::Link(_) => return Err(Errno::ELOOP),
            Kind::Dir(_) | Kind::Tasks | Kind::Fds | Kind::FdInfos | Kind::Net => Arc::new(DirFile),
        })
    }
}

/// The process `id`, or the one of the thread `id`.
fn of_id(who: &Actor, id: Tid) -> Option<What> {
    let process = who.kernel.tasks.process_of(id)?;
    Some(What::Of(Subject::new(&process, id, false)))
}

impl Inode for Node {
    fn common(&self) -> &Common {
        &self.common
    }
    fn fs(&self) -> Arc<dyn FileSystem> {
        self.shared.fs.clone()
    }
    fn attr(&self) -> Result<Attr, Errno> {
        let mut bits = self.what.mode();
        let (mut uid, mut gid, mut nlink, mut size) = (0, 0, 1, 0);
        if let Some(subject) = self.what.subject()
            && let Some(kernel) = self.kernel.upgrade()
        {
            let view = subject.view(&kernel).map_err(|_| Errno::ENOENT)?;
            let theirs = view.process.dumpable.load(Ordering::Relaxed) == 1
                || matches!(self.what, What::Of(_));
            if theirs {
                let creds = view.creds();
                (uid, gid) = (creds.euid, creds.egid);
            }
            match &self.what {
                What::Fd(_, id) => {
                    let file = fd::open(&view, *id)?;
                    bits = mode::LNK
                        | if file.readable() { 0o500 } else { 0 }
                        | if file.writable() { 0o300 } else { 0 };
                    size = 64;
                }
                What::Row(_, Entry { kind: Kind::Fds, .. }) => {
                    size = view.task.map_or(0, |t| t.files().list().len() as u64);
                }
                What::Row(_, Entry { kind: Kind::Tasks, .. }) => {
                    nlink = 1 + view.process.tasks().len() as u64;
                }
                _ => {}
            }
        }
        if bits & mode::FMT == mode::DIR {
            nlink += 1;
        }
        let time = self.shared.time;
        Ok(Attr {
            dev: self.shared.fs.dev,
            ino: self.ino,
            mode: bits,
            nlink,
            uid,
            gid,
            size,
            blksize: 1024,
            atime: time,
            mtime: time,
            ctime: time,
            ..Attr::default()
        })
    }
    fn set_attr(&self, change: &SetAttr) -> Result<(), Errno> {
        synth::set_attr(change)
    }
    fn lookup(&self, who: &Actor, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        if matches!(self.what, What::Root)
            && let Some(table) = self.shared.tables.child(name)
        {
            return Ok(table.clone());
        }
        if self.row().is_some_and(|row| matches!(row.kind, Kind::Net)) {
            return Ok(self.shared.net.child(name).ok_or(Errno::ENOENT)?.clone());
        }
        let what = self.find(who, name)?;
        Ok(self.child(who, name, what))
    }
    fn create(&self, _who: &Actor, _name: &[u8], _new: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        Err(Errno::ENOENT)
    }
    fn read_link(&self, who: &Actor) -> Result<Vec<u8>, Errno> {
        let me = || who.task.as_ref().ok_or(Errno::ENOENT);
        match self.what {
            What::Myself => return Ok(me()?.process.pid.to_string().into_bytes()),
            What::ThreadSelf => {
                let task = me()?;
                return Ok(format!("{}/task/{}", task.process.pid, task.tid).into_bytes());
            }
            _ => {}
        }
        match self.magic(who).ok_or(Errno::EINVAL)?? {
            Magic::Path(path) => Ok(path.text(&who.fs.root())),
            Magic::File(file) => Ok(file.ops.describe().into_bytes()),
        }
    }
    fn magic(&self, who: &Actor) -> Option<Result<Magic, Errno>> {
        let to = |file: Arc<OpenFile>| match &file.path {
            Some(path) => Magic::Path(path.clone()),
            None => Magic::File(file),
        };
        let trusted = || {
            let view = self.view(who).map_err(|_| Errno::ENOENT)?;
            if view.trusted { Ok(view) } else { Err(Errno::EACCES) }
        };
        match &self.what {
            What::Row(_, Entry { kind: Kind::Link(leads), .. }) => {
                Some(trusted().and_then(|view| leads(&view)))
            }
            What::Fd(_, id) => Some(trusted().and_then(|view| fd::open(&view, *id)).map(to)),
            _ => None,
        }
    }
    fn read_dir(
        &self,
        who: &Actor,
        from: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        if matches!(self.what, What::Root) {
            return self.list_root(who, from, emit);
        }
        if self.row().is_some_and(|row| matches!(row.kind, Kind::Net)) {
            return self.shared.net.read_dir(who, from, emit);
        }
        for (name, what, next) in self.list(who)? {
            let ino = ino_of(self.ino, name.as_bytes());
            let kind = kind_of(what.mode());
            if next > from && !emit(DirEntry { name: name.as_bytes(), ino, kind, next }) {
                break;
            }
        }
        Ok(())
    }
    fn open(self: Arc<Self>, who: &Actor, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        match &self.what {
            What::Root | What::Of(_) => Ok(Arc::new(DirFile)),
            What::Myself | What::ThreadSelf | What::Fd(..) => Err(Errno::ELOOP),
            What::Row(_, row) => {
                let view = self.view(who)?;
                self.open_row(who, view, row, flags)
            }
            What::FdInfo(subject, id) => {
                if !self.view(who)?.trusted {
                    return Err(Errno::EACCES);
                }
                let (subject, id, kernel) = (subject.clone(), *id, who.kernel.clone());
                let make: Make = Box::new(move || fd::info(&subject.view(&kernel)?, id));
                Ok(Arc::new(TextFile::new(make, Errno::EINVAL)))
            }
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_spelling() {
        assert_eq!(number(b"0"), Some(0));
        assert_eq!(number(b"17"), Some(17));
        for bad in [&b"007"[..], b"+1", b"-1", b"", b"99999999999", b"1x"] {
            assert_eq!(number(bad), None);
        }
    }

    #[test]
    fn inode_numbers_depend_on_place_and_name() {
        assert_ne!(ino_of(1, b"12"), ino_of(2, b"12"));
        assert_ne!(ino_of(1, b"12"), ino_of(1, b"21"));
        assert!(ino_of(1, b"x") >= 1 << 51);
    }
}
