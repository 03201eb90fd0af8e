//! Path resolution (path_resolution(7)): component by component, through mounts and links.

pub use super::flags::Resolve;
use super::{
    dentry::{Dentry, PATH_MAX, Path},
    inode::{Actor, Attr, Magic},
    perm,
};
use crate::error::Errno;

/// Symbolic links followed in one resolution (MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// What the last component of a path whose parent was wanted is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Last {
    /// A name, with a slash after it or not.
    Name(Vec<u8>, bool),
    /// `.`, or nothing at all (the path is `/`).
    Dot,
    /// `..`.
    DotDot,
}

/// A directory and the last component that was not looked up in it.
pub struct Parent {
    /// The directory.
    pub dir: Path,
    /// The component.
    pub last: Last,
}

/// Where a resolution came out.
pub enum Found {
    /// At a file, with its attributes if this resolution has been told them.
    Path(Path, Option<Attr>),
    /// At an open file without a place (a magic link to a pipe).
    File(std::sync::Arc<super::file::OpenFile>),
}

impl Found {
    /// The path; ENOENT-free only where a place was found.
    ///
    /// # Errors
    /// ENXIO for an open file without a place.
    pub fn path(self) -> Result<Path, Errno> {
        match self {
            Found::Path(path, _) => Ok(path),
            Found::File(file) => file.path.clone().ok_or(Errno::ENXIO),
        }
    }
}

/// One resolution: holds the budget of links.
pub struct Walk<'a> {
    who: &'a Actor,
    root: Path,
    /// The directory that BENEATH and IN_ROOT confine to.
    resolve: Resolve,
    links: u32,
}

enum Step {
    Done(Found),
    Parent(Parent),
}

impl<'a> Walk<'a> {
    /// A resolution for `who` that starts at `start` if the path is relative.
    #[must_use]
    pub fn new(who: &'a Actor, start: &Path, resolve: Resolve) -> Walk<'a> {
        let confined = resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT);
        let root = if confined { start.clone() } else { who.fs.root() };
        Walk { who, root, resolve, links: 0 }
    }

    /// Resolves `path` wholly; a final symbolic link is followed if `follow`.
    ///
    /// # Errors
    /// As path_resolution(7): ENOENT, ENOTDIR, EACCES, ELOOP, ENAMETOOLONG, EXDEV.
    pub fn find(&mut self, start: &Path, path: &[u8], follow: bool) -> Result<Found, Errno> {
        match self.run(start.clone(), path, false, follow)? {
            Step::Done(found) => Ok(found),
            Step::Parent(_) => Err(Errno::ENOENT),
        }
    }
    /// Resolves all of `path` but its last component.
    ///
    /// # Errors
    /// As [`Walk::find`].
    pub fn parent(&mut self, start: &Path, path: &[u8]) -> Result<Parent, Errno> {
        match self.run(start.clone(), path, true, false)? {
            Step::Parent(parent) => Ok(parent),
            Step::Done(Found::Path(dir, _)) => Ok(Parent { dir, last: Last::Dot }),
            Step::Done(Found::File(_)) => Err(Errno::ENOTDIR),
        }
    }
    /// Counts a link against the budget.
    ///
    /// # Errors
    /// ELOOP.
    fn spend_link(&mut self) -> Result<(), Errno> {
        self.links += 1;
        let refused = self.resolve.contains(Resolve::NO_SYMLINKS);
        if refused || self.links > MAX_LINKS { Err(Errno::ELOOP) } else { Ok(()) }
    }
    /// What lies under `name` in `dir`, mounts included; the caller may search `dir`.
    ///
    /// # Errors
    /// ENOENT, EXDEV.
    pub fn child(&self, dir: &Path, name: &[u8]) -> Result<Path, Errno> {
        Ok(self.child_attr(dir, name)?.0)
    }
    /// [`Walk::child`], with its attributes if looking it up has told them.
    ///
    /// # Errors
    /// As [`Walk::child`].
    pub fn child_attr(&self, dir: &Path, name: &[u8]) -> Result<(Path, Option<Attr>), Errno> {
        let (dentry, attr) = dir.dentry.lookup_attr(self.who, name)?;
        let to = self.crossed(dir, Path { mount: dir.mount.clone(), dentry })?;
        let crossed = !std::sync::Arc::ptr_eq(&dir.mount, &to.mount);
        Ok((to, attr.filter(|_| !crossed)))
    }
    fn crossed(&self, from: &Path, to: Path) -> Result<Path, Errno> {
        let to = self.who.fs.namespace().cover(to);
        let crossed = !std::sync::Arc::ptr_eq(&from.mount, &to.mount);
        if crossed && self.resolve.contains(Resolve::NO_XDEV) { Err(Errno::EXDEV) } else { Ok(to) }
    }
    fn up(&self, at: &Path) -> Result<Path, Errno> {
        if at.same(&self.root) {
            let beneath = self.resolve.contains(Resolve::BENEATH);
            return if beneath { Err(Errno::EXDEV) } else { Ok(at.clone()) };
        }
        let Some(up) = at.up() else { return Ok(at.clone()) };
        self.crossed(at, up)
    }
    /// Where the link at `link` leads, one step: a place to go on from and the text to resolve there.
    ///
    /// # Errors
    /// ELOOP, EXDEV, EACCES.
    pub fn follow(&mut self, dir: &Path, link: &Path) -> Result<Followed, Errno> {
        self.spend_link()?;
        if let Some(magic) = link.inode().magic(self.who) {
            let confined = Resolve::BENEATH | Resolve::IN_ROOT;
            if self.resolve.contains(Resolve::NO_MAGICLINKS) {
                return Err(Errno::ELOOP);
            }
            if self.resolve.intersects(confined) {
                return Err(Errno::EXDEV);
            }
            return magic.map(Followed::Magic);
        }
        let text = link.inode().read_link(self.who)?;
        if text.is_empty() {
            return Err(Errno::ENOENT);
        }
        let start = if text.starts_with(b"/") { self.absolute(dir)? } else { dir.clone() };
        Ok(Followed::Text(start, text))
    }
    fn absolute(&self, from: &Path) -> Result<Path, Errno> {
        if self.resolve.contains(Resolve::BENEATH) {
            return Err(Errno::EXDEV);
        }
        // What is mounted over a root is not seen by who has that root, as on Linux.
        let leaves = !std::sync::Arc::ptr_eq(&from.mount, &self.root.mount);
        if leaves && self.resolve.contains(Resolve::NO_XDEV) {
            return Err(Errno::EXDEV);
        }
        Ok(self.root.clone())
    }

    fn run(
        &mut self,
        start: Path,
        path: &[u8],
        want_parent: bool,
        follow: bool,
    ) -> Result<Step, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let absolute = path.starts_with(b"/");
        if absolute && self.resolve.contains(Resolve::BENEATH) {
            return Err(Errno::EXDEV);
        }
        // That the argument itself is absolute crosses no mount (`nd_jump_root()`).
        let mut at = if absolute { self.root.clone() } else { start };
        // Attributes of `at`, once told.
        let mut known: Option<Attr> = None;
        let mut rest = path.to_vec();
        let mut from = 0;
        loop {
            from += rest[from..].iter().take_while(|b| **b == b'/').count();
            if from == rest.len() {
                return Ok(Step::Done(Found::Path(at, known)));
            }
            let end = rest[from..].iter().position(|b| *b == b'/').map_or(rest.len(), |n| from + n);
            let last = rest[end..].iter().all(|b| *b == b'/');
            let slash = last && end < rest.len();
            let attr = known.map_or_else(|| at.attr(), Ok)?;
            self.searchable(&attr)?;
            let name = &rest[from..end];
            if last && want_parent {
                let last = match name {
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    name => Last::Name(name.to_vec(), slash),
                };
                return Ok(Step::Parent(Parent { dir: at, last }));
            }
            let (next, told) = match name {
                b"." => (at.clone(), Some(attr)),
                b".." => (self.up(&at)?, None),
                name => self.child_attr(&at, name)?,
            };
            let attr = told.map_or_else(|| next.attr(), Ok)?;
            known = None;
            if attr.is_symlink() && (!last || follow || slash) {
                match self.follow(&at, &next)? {
                    Followed::Magic(Magic::File(file)) if last && !slash => {
                        return Ok(Step::Done(Found::File(file)));
                    }
                    Followed::Magic(Magic::File(file)) => {
                        at = file.path.clone().ok_or(Errno::ENOTDIR)?;
                    }
                    Followed::Magic(Magic::Path(path)) => at = path,
                    Followed::Text(start, text) => {
                        at = start;
                        let mut joined = text;
                        joined.extend_from_slice(&rest[end..]);
                        rest = joined;
                        from = 0;
                        continue;
                    }
                }
            } else {
                (at, known) = (next, Some(attr));
            }
            if last {
                if slash && !known.map_or_else(|| at.attr(), Ok)?.is_dir() {
                    return Err(Errno::ENOTDIR);
                }
                return Ok(Step::Done(Found::Path(at, known)));
            }
            from = end;
        }
    }
    fn searchable(&self, attr: &Attr) -> Result<(), Errno> {
        if !attr.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        perm::check(&self.who.creds, attr, perm::EXEC)
    }
}

/// One step along a symbolic link.
pub enum Followed {
    /// A magic link: there at once.
    Magic(Magic),
    /// Text to resolve from a place.
    Text(Path, Vec<u8>),
}

/// A dentry as a path of the mount it was reached by.
#[must_use]
pub fn beside(path: &Path, dentry: std::sync::Arc<Dentry>) -> Path {
    Path { mount: path.mount.clone(), dentry }
}
