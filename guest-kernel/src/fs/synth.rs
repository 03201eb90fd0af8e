//! Directory trees made of tables: all of sysfs, and the part of proc that is not about processes.
//!
//! A tree is built once, path by path; directories come to be as paths name them. Nothing in it can
//! be created, removed or renamed.

use std::{any::Any, collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    dirfile::{DirFile, kind_of},
    file::FileOps,
    flags::OpenFlags,
    inode::{Actor, Attr, Common, DirEntry, FileSystem, Inode, SetAttr, StatFs, mode},
    textfile::{Opener, TextFile},
};
use crate::{error::Errno, kernel::Kernel};

/// A file system of such trees.
pub struct SynthFs {
    /// Its type.
    pub name: &'static str,
    /// Its device number.
    pub dev: u64,
    /// `statfs(2)`'s magic number.
    pub magic: u64,
}

impl FileSystem for SynthFs {
    fn name(&self) -> &'static str {
        self.name
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        Ok(StatFs { magic: self.magic, block_size: 4096, name_max: 255, ..StatFs::default() })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Makes a file's text.
pub type Read = Arc<dyn Fn(&Arc<Kernel>) -> String + Send + Sync>;
/// Takes what is written to a file.
pub type Write = Arc<dyn Fn(&Arc<Kernel>, &Opener, &[u8]) -> Result<(), Errno> + Send + Sync>;

enum Content {
    Dir(BTreeMap<Vec<u8>, Arc<Node>>),
    Text(Read, Option<Write>),
    Link(Vec<u8>),
}

/// A file of such a tree.
pub struct Node {
    fs: Arc<SynthFs>,
    common: Common,
    ino: u64,
    mode: u32,
    time: Duration,
    content: Content,
}

enum Draft {
    Dir(BTreeMap<Vec<u8>, Draft>),
    File(u32, Content),
}

/// A tree in the making.
pub struct Builder {
    root: BTreeMap<Vec<u8>, Draft>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Builder {
        Builder { root: BTreeMap::new() }
    }
    fn put(&mut self, path: &str, draft: Draft) -> &mut Self {
        let mut at = &mut self.root;
        let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
        for dir in dirs.split('/').filter(|d| !d.is_empty()) {
            let next = at.entry(dir.into()).or_insert_with(|| Draft::Dir(BTreeMap::new()));
            match next {
                Draft::Dir(inner) => at = inner,
                // A table that puts a file below a file: the file is dropped.
                Draft::File(..) => return self,
            }
        }
        at.entry(name.into()).or_insert(draft);
        self
    }
    /// A directory, perhaps to stay empty.
    pub fn dir(&mut self, path: &str) -> &mut Self {
        self.put(path, Draft::Dir(BTreeMap::new()))
    }
    /// A file to be read.
    pub fn text(
        &mut self,
        path: &str,
        perm: u32,
        read: impl Fn(&Arc<Kernel>) -> String + Send + Sync + 'static,
    ) -> &mut Self {
        self.put(path, Draft::File(mode::REG | perm, Content::Text(Arc::new(read), None)))
    }
    /// A file that always says the same.
    pub fn fixed(&mut self, path: &str, text: impl Into<String>) -> &mut Self {
        let text = text.into();
        self.text(path, 0o444, move |_| text.clone())
    }
    /// A file to be read and written.
    pub fn setting(
        &mut self,
        path: &str,
        perm: u32,
        read: impl Fn(&Arc<Kernel>) -> String + Send + Sync + 'static,
        write: impl Fn(&Arc<Kernel>, &Opener, &[u8]) -> Result<(), Errno> + Send + Sync + 'static,
    ) -> &mut Self {
        let content = Content::Text(Arc::new(read), Some(Arc::new(write)));
        self.put(path, Draft::File(mode::REG | perm, content))
    }
    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.put(path, Draft::File(mode::LNK | 0o777, Content::Link(target.into())))
    }
    /// The tree; inode numbers start above `first`.
    #[must_use]
    pub fn finish(self, fs: &Arc<SynthFs>, first: u64, time: Duration) -> Arc<Node> {
        let mut ino = first;
        settle(fs, Draft::Dir(self.root), &mut ino, time)
    }
}

fn settle(fs: &Arc<SynthFs>, draft: Draft, ino: &mut u64, time: Duration) -> Arc<Node> {
    *ino += 1;
    let own = *ino;
    let (mode, content) = match draft {
        Draft::File(mode, content) => (mode, content),
        Draft::Dir(inner) => {
            let settled =
                inner.into_iter().map(|(name, d)| (name, settle(fs, d, ino, time))).collect();
            (mode::DIR | 0o555, Content::Dir(settled))
        }
    };
    Arc::new(Node { fs: fs.clone(), common: Common::default(), ino: own, mode, time, content })
}

impl Node {
    /// The entry `name`.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Option<&Arc<Node>> {
        match &self.content {
            Content::Dir(children) => children.get(name),
            _ => None,
        }
    }
    /// All entries by name.
    #[must_use]
    pub fn children(&self) -> Vec<(&[u8], &Arc<Node>)> {
        match &self.content {
            Content::Dir(children) => children.iter().map(|(n, c)| (n.as_slice(), c)).collect(),
            _ => Vec::new(),
        }
    }
    /// Its inode number.
    #[must_use]
    pub fn ino(&self) -> u64 {
        self.ino
    }
    /// Type and permission.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.mode
    }
}

/// What every synthetic inode answers to a change of attributes: a length is ignored (`>` truncates),
/// owner and mode cannot be changed.
///
/// # Errors
/// EPERM.
pub fn set_attr(change: &SetAttr) -> Result<(), Errno> {
    let fixed = change.mode.is_some() || change.uid.is_some() || change.gid.is_some();
    if fixed { Err(Errno::EPERM) } else { Ok(()) }
}

/// Entries as `read_dir` passes them on: position `n + 1` follows the entry with index `n`.
pub fn emit_all<'a>(
    entries: impl IntoIterator<Item = (&'a [u8], u64, u32)>,
    from: u64,
    emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
) -> bool {
    for (index, (name, ino, bits)) in entries.into_iter().enumerate() {
        let next = index as u64 + 1;
        if next > from && !emit(DirEntry { name, ino, kind: kind_of(bits), next }) {
            return false;
        }
    }
    true
}

impl Inode for Node {
    fn common(&self) -> &Common {
        &self.common
    }
    fn fs(&self) -> Arc<dyn FileSystem> {
        self.fs.clone()
    }
    fn attr(&self) -> Result<Attr, Errno> {
        let dirs = |c: &BTreeMap<Vec<u8>, Arc<Node>>| {
            c.values().filter(|n| matches!(n.content, Content::Dir(_))).count() as u64
        };
        let (nlink, size) = match &self.content {
            Content::Dir(children) => (2 + dirs(children), 0),
            Content::Text(..) if self.fs.name == "sysfs" => (1, 4096),
            Content::Text(..) | Content::Link(_) => (1, 0),
        };
        Ok(Attr {
            dev: self.fs.dev,
            ino: self.ino,
            mode: self.mode,
            nlink,
            size,
            blksize: if self.fs.name == "sysfs" { 4096 } else { 1024 },
            atime: self.time,
            mtime: self.time,
            ctime: self.time,
            ..Attr::default()
        })
    }
    fn set_attr(&self, change: &SetAttr) -> Result<(), Errno> {
        set_attr(change)
    }
    fn lookup(&self, _who: &Actor, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let Content::Dir(children) = &self.content else { return Err(Errno::ENOTDIR) };
        let child = children.get(name).ok_or(Errno::ENOENT)?.clone();
        Ok(child)
    }
    fn create(
        &self,
        _who: &Actor,
        _name: &[u8],
        new: &super::inode::NewNode,
    ) -> Result<Arc<dyn Inode>, Errno> {
        Err(refuse_create(self.fs.name, new))
    }
    fn read_link(&self, _who: &Actor) -> Result<Vec<u8>, Errno> {
        match &self.content {
            Content::Link(text) => Ok(text.clone()),
            _ => Err(Errno::EINVAL),
        }
    }
    fn read_dir(
        &self,
        _who: &Actor,
        from: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        let Content::Dir(children) = &self.content else { return Err(Errno::ENOTDIR) };
        emit_all(children.iter().map(|(n, c)| (n.as_slice(), c.ino, c.mode)), from, emit);
        Ok(())
    }
    fn open(self: Arc<Self>, who: &Actor, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        let (read, write) = match &self.content {
            Content::Dir(_) => return Ok(Arc::new(DirFile)),
            Content::Link(_) => return Err(Errno::ELOOP),
            Content::Text(read, write) => (read.clone(), write.clone()),
        };
        let kernel = who.kernel.clone();
        let make: super::textfile::Make = {
            let kernel = kernel.clone();
            Box::new(move || Ok(read(&kernel).into_bytes()))
        };
        let writes = flags.intersects(OpenFlags::WRONLY | OpenFlags::RDWR);
        Ok(Arc::new(match write {
            Some(write) if writes => {
                let opener = Opener::of(who);
                TextFile::writable(make, Box::new(move |bytes| write(&kernel, &opener, bytes)))
            }
            None if writes && self.fs.name == "sysfs" => return Err(Errno::EACCES),
            _ => TextFile::new(make, Errno::EIO),
        }))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What making a file says: proc's look-up comes first and finds nothing; sysfs knows the name is
/// free and refuses.
#[must_use]
pub fn refuse_create(fs: &str, new: &super::inode::NewNode) -> Errno {
    match (fs, new.mode & mode::FMT) {
        ("proc", _) => Errno::ENOENT,
        (_, mode::REG) => Errno::EACCES,
        _ => Errno::EPERM,
    }
}
