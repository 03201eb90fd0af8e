//! /proc in its minimal form (proc(5)): processes with their descriptors, a few figures of the
//! system. Inodes are made on lookup and hold no state, so a process that ends takes its own with
//! it. Numbers: an inode's is made from the process id and what it shows.

use std::{any::Any, fmt::Write as _, sync::Arc};

use super::{
    buf::Sink,
    dentry::Dentry,
    dirfile::{DirFile, kind_of},
    file::{FileOps, OpenFile},
    flags::OpenFlags,
    inode::{Actor, Attr, Common, DirEntry, FileSystem, Inode, Magic, StatFs, mode},
};
use crate::{
    error::Errno,
    kernel::Kernel,
    num::Word,
    task::{Task, Tid},
};

const MAGIC: u64 = 0x9fa0;

struct ProcFs {
    dev: u64,
}

impl FileSystem for ProcFs {
    fn name(&self) -> &'static str {
        "proc"
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        Ok(StatFs { magic: MAGIC, block_size: 4096, name_max: 255, ..StatFs::default() })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Root,
    Myself,
    Global(&'static str),
    Process(Tid),
    Text(Tid, &'static str),
    Link(Tid, &'static str),
    Fds(Tid),
    Fd(Tid, i32),
}

const GLOBALS: [&str; 7] =
    ["meminfo", "uptime", "loadavg", "version", "filesystems", "cpuinfo", "stat"];
const TEXTS: [&str; 5] = ["stat", "status", "comm", "cmdline", "mounts"];
const LINKS: [&str; 2] = ["cwd", "root"];

struct Node {
    fs: Arc<ProcFs>,
    common: Common,
    what: What,
    time: std::time::Duration,
}

/// The tree for /proc.
#[must_use]
pub fn create(kernel: &Arc<Kernel>) -> Arc<Dentry> {
    let fs = Arc::new(ProcFs { dev: kernel.fs.new_dev() });
    let time = kernel.host.realtime();
    Dentry::root(Arc::new(Node { fs, common: Common::default(), what: What::Root, time }))
}

fn task(who: &Actor, pid: Tid) -> Result<Arc<Task>, Errno> {
    let process = who.kernel.tasks.process_of(pid).ok_or(Errno::ENOENT)?;
    process.any_thread().ok_or(Errno::ENOENT)
}
fn me(who: &Actor) -> Result<Tid, Errno> {
    who.task.as_ref().map(|t| t.process.pid).ok_or(Errno::ENOENT)
}
fn number(name: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(name).ok()?;
    let plain = text == "0" || (!text.starts_with('0') && !text.starts_with('+'));
    text.parse().ok().filter(|n| plain && *n >= 0)
}
fn known(names: &[&'static str], name: &[u8]) -> Option<&'static str> {
    names.iter().copied().find(|n| n.as_bytes() == name)
}

fn global(kernel: &Arc<Kernel>, name: &str) -> String {
    match name {
        "meminfo" => {
            let (total, free) = (kernel.frames.total() * 4, kernel.frames.free() * 4);
            format!(
                "MemTotal:       {total:>8} kB\nMemFree:        {free:>8} kB\n\
                 MemAvailable:   {free:>8} kB\nBuffers:               0 kB\n\
                 Cached:                0 kB\nSwapCached:            0 kB\n\
                 SwapTotal:             0 kB\nSwapFree:              0 kB\n"
            )
        }
        "uptime" => {
            let up = kernel.host.boottime().as_secs_f64();
            format!("{up:.2} {up:.2}\n")
        }
        "loadavg" => {
            let live = kernel.tasks.live();
            format!("0.00 0.00 0.00 1/{live} {}\n", kernel.tasks.last_id())
        }
        "version" => "Linux version 6.12.0 (trapgate) #1 SMP\n".to_owned(),
        "filesystems" => "nodev\ttmpfs\nnodev\tproc\nnodev\toverlay\n".to_owned(),
        "cpuinfo" => (0..kernel.config.cpus).fold(String::new(), |mut out, cpu| {
            let _ = write!(out, "processor\t: {cpu}\nvendor_id\t: unknown\n\n");
            out
        }),
        _ => {
            let mut out = "cpu  0 0 0 0 0 0 0 0 0 0\n".to_owned();
            for cpu in 0..kernel.config.cpus {
                let _ = writeln!(out, "cpu{cpu} 0 0 0 0 0 0 0 0 0 0");
            }
            let boot = kernel.host.realtime().saturating_sub(kernel.host.boottime()).as_secs();
            let _ = writeln!(out, "btime {boot}\nprocesses {}", kernel.tasks.ever_started());
            out
        }
    }
}

fn mounts(who: &Actor) -> String {
    let root = who.fs.root();
    let mut out = String::new();
    for mount in who.fs.namespace().list() {
        let at = mount.top().text(&root);
        let at = String::from_utf8_lossy(&at).into_owned();
        let access = if mount.writable().is_ok() { "rw" } else { "ro" };
        let (source, kind) = (&mount.source, mount.fs().name());
        let _ = writeln!(out, "{source} {at} {kind} {access},relatime 0 0");
    }
    out
}

fn about(who: &Actor, pid: Tid, name: &str) -> Result<String, Errno> {
    let task = task(who, pid)?;
    let process = &task.process;
    let comm = String::from_utf8_lossy(&task.name()).into_owned();
    let (parent, threads) =
        (who.kernel.tasks.parent(pid).map_or(0, |p| p.pid), who.kernel.tasks.threads(pid).len());
    let (pgid, sid) = (process.pgid(), process.sid());
    Ok(match name {
        "comm" => format!("{comm}\n"),
        "cmdline" => format!("{comm}\0"),
        "mounts" => mounts(who),
        "stat" => {
            let (user, system) = process.cpu_time();
            let ticks = |t: std::time::Duration| t.as_millis() / 10;
            let (user, system, start) = (ticks(user), ticks(system), ticks(task.started));
            format!(
                "{pid} ({comm}) S {parent} {pgid} {sid} 0 -1 0 0 0 0 0 {user} {system} 0 0 20 0 \
                 {threads} 0 {start} 0 0 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 \
                 0 0 0 0 0 0 0 0 0\n"
            )
        }
        _ => {
            let c = task.creds();
            format!(
                "Name:\t{comm}\nState:\tS (sleeping)\nTgid:\t{pid}\nPid:\t{pid}\nPPid:\t{parent}\n\
                 TracerPid:\t0\nUid:\t{}\t{}\t{}\t{}\nGid:\t{}\t{}\t{}\t{}\nThreads:\t{threads}\n",
                c.uid, c.euid, c.suid, c.fsuid, c.gid, c.egid, c.sgid, c.fsgid
            )
        }
    })
}

impl Node {
    fn make(&self, what: What) -> Arc<dyn Inode> {
        let (fs, time) = (self.fs.clone(), self.time);
        Arc::new(Node { fs, common: Common::default(), what, time })
    }
    fn ino(what: What) -> u64 {
        let of = |pid: Tid, n: u64| (u64::from(pid.cast_unsigned()) << 24) | n;
        let index =
            |names: &[&str], name: &str| names.iter().position(|n| *n == name).unwrap_or(0) as u64;
        match what {
            What::Root => 1,
            What::Myself => 2,
            What::Global(name) => 16 + index(&GLOBALS, name),
            What::Process(pid) => of(pid, 1),
            What::Text(pid, name) => of(pid, 16 + index(&TEXTS, name)),
            What::Link(pid, name) => of(pid, 64 + index(&LINKS, name)),
            What::Fds(pid) => of(pid, 2),
            What::Fd(pid, fd) => of(pid, 0x1_0000 + u64::from(fd.cast_unsigned())),
        }
    }
    fn mode(&self) -> u32 {
        match self.what {
            What::Root | What::Process(_) => mode::DIR | 0o555,
            What::Fds(_) => mode::DIR | 0o500,
            What::Myself | What::Link(..) => mode::LNK | 0o777,
            What::Fd(..) => mode::LNK | 0o700,
            What::Global(_) | What::Text(..) => mode::REG | 0o444,
        }
    }
    fn children(&self, who: &Actor) -> Result<Vec<(String, What)>, Errno> {
        let mut out = Vec::new();
        match self.what {
            What::Root => {
                out.extend(GLOBALS.map(|n| (n.to_owned(), What::Global(n))));
                out.push(("self".to_owned(), What::Myself));
                for process in who.kernel.tasks.processes() {
                    if process.any_thread().is_some() {
                        out.push((process.pid.to_string(), What::Process(process.pid)));
                    }
                }
            }
            What::Process(pid) => {
                task(who, pid)?;
                out.extend(TEXTS.map(|n| (n.to_owned(), What::Text(pid, n))));
                out.extend(LINKS.map(|n| (n.to_owned(), What::Link(pid, n))));
                out.push(("fd".to_owned(), What::Fds(pid)));
            }
            What::Fds(pid) => {
                for (fd, _) in task(who, pid)?.files().list() {
                    out.push((fd.to_string(), What::Fd(pid, fd)));
                }
            }
            _ => return Err(Errno::ENOTDIR),
        }
        Ok(out)
    }
}

impl Inode for Node {
    fn common(&self) -> &Common {
        &self.common
    }
    fn fs(&self) -> Arc<dyn FileSystem> {
        self.fs.clone()
    }
    fn attr(&self) -> Result<Attr, Errno> {
        let bits = self.mode();
        let dir = bits & mode::FMT == mode::DIR;
        Ok(Attr {
            dev: self.fs.dev,
            ino: Node::ino(self.what),
            mode: bits,
            nlink: if dir { 2 } else { 1 },
            blksize: 1024,
            atime: self.time,
            mtime: self.time,
            ctime: self.time,
            ..Attr::default()
        })
    }
    fn lookup(&self, who: &Actor, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let what = match self.what {
            What::Root if name == b"self" => Some(What::Myself),
            What::Root => known(&GLOBALS, name)
                .map(What::Global)
                .or_else(|| number(name).filter(|pid| task(who, *pid).is_ok()).map(What::Process)),
            What::Process(_) if name == b"fd" => match self.what {
                What::Process(pid) => Some(What::Fds(pid)),
                _ => None,
            },
            What::Process(pid) => known(&TEXTS, name)
                .map(|n| What::Text(pid, n))
                .or_else(|| known(&LINKS, name).map(|n| What::Link(pid, n))),
            What::Fds(pid) => match number(name) {
                Some(fd) if task(who, pid)?.files().get(fd).is_ok() => Some(What::Fd(pid, fd)),
                _ => None,
            },
            _ => return Err(Errno::ENOTDIR),
        };
        what.map(|w| self.make(w)).ok_or(Errno::ENOENT)
    }
    fn read_link(&self, who: &Actor) -> Result<Vec<u8>, Errno> {
        if self.what == What::Myself {
            return Ok(me(who)?.to_string().into_bytes());
        }
        match self.magic(who).ok_or(Errno::EINVAL)?? {
            Magic::Path(path) => Ok(path.text(&who.fs.root())),
            Magic::File(file) => Ok(file.ops.describe().into_bytes()),
        }
    }
    fn magic(&self, who: &Actor) -> Option<Result<Magic, Errno>> {
        match self.what {
            What::Link(pid, name) => Some(task(who, pid).map(|t| {
                let fs = t.fs();
                Magic::Path(if name == "cwd" { fs.cwd() } else { fs.root() })
            })),
            What::Fd(pid, fd) => Some(task(who, pid).and_then(|t| {
                let file = t.files().get(fd).map_err(|_| Errno::ENOENT)?;
                Ok(match &file.path {
                    Some(path) => Magic::Path(path.clone()),
                    None => Magic::File(file),
                })
            })),
            _ => None,
        }
    }
    fn read_dir(
        &self,
        who: &Actor,
        from: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        for (index, (name, what)) in self.children(who)?.into_iter().enumerate() {
            // A position that stays while processes and descriptors come and go.
            let next = match what {
                What::Process(pid) => 1000 + u64::from(pid.cast_unsigned()),
                What::Fd(_, fd) => 1 + u64::from(fd.cast_unsigned()),
                _ => 1 + index as u64,
            };
            if next <= from {
                continue;
            }
            let kind = kind_of(match what {
                What::Process(_) | What::Fds(_) | What::Root => mode::DIR,
                What::Myself | What::Link(..) | What::Fd(..) => mode::LNK,
                _ => mode::REG,
            });
            let entry = DirEntry { name: name.as_bytes(), ino: Node::ino(what), kind, next };
            if !emit(entry) {
                break;
            }
        }
        Ok(())
    }
    fn open(self: Arc<Self>, who: &Actor, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        let text = match self.what {
            What::Root | What::Process(_) | What::Fds(_) => return Ok(Arc::new(DirFile)),
            What::Global(name) => global(&who.kernel, name),
            What::Text(pid, name) => about(who, pid, name)?,
            _ => return Err(Errno::ELOOP),
        };
        if flags.intersects(OpenFlags::WRONLY | OpenFlags::RDWR) {
            return Err(Errno::EACCES);
        }
        Ok(Arc::new(Text(text.into_bytes())))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A text as it was when it was opened.
struct Text(Vec<u8>);

impl FileOps for Text {
    fn read(&self, file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        file.with_position(|position| {
            let read = self.read_at(file, dst, *position)?;
            *position += read as u64;
            Ok(read)
        })
    }
    fn read_at(&self, _file: &OpenFile, dst: &mut Sink<'_>, at: u64) -> Result<usize, Errno> {
        dst.put(self.0.get(at.size()..).unwrap_or_default())
    }
    fn seek(&self, file: &OpenFile, offset: i64, whence: u32) -> Result<u64, Errno> {
        let end = || Ok(self.0.len() as u64);
        super::file::seek_in(file, offset, whence, end, |_, _| Err(Errno::EINVAL))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
