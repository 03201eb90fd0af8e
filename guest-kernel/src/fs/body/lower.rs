//! The host file below a body.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    error::Errno,
    host::{HostFile, HostTree},
};

/// The host file below a body, opened when needed.
pub struct Lower {
    tree: Arc<dyn HostTree>,
    path: Mutex<PathBuf>,
    write: bool,
    handle: Mutex<Option<Handle>>,
}

#[derive(Clone)]
struct Handle {
    file: Arc<dyn HostFile>,
    writable: bool,
}

impl Lower {
    /// The file at `path` in `tree`; `write` for passed-through directories.
    #[must_use]
    pub fn new(tree: Arc<dyn HostTree>, path: PathBuf, write: bool) -> Lower {
        Lower { tree, path: Mutex::new(path), write, handle: Mutex::new(None) }
    }
    /// A file of a passed-through directory that is open already. One just created is open for writing
    /// whatever its mode says.
    #[must_use]
    pub fn opened(
        tree: Arc<dyn HostTree>,
        path: PathBuf,
        file: Arc<dyn HostFile>,
        writable: bool,
    ) -> Lower {
        let handle = Mutex::new(Some(Handle { file, writable }));
        Lower { tree, path: Mutex::new(path), write: true, handle }
    }
    /// The open file.
    ///
    /// # Errors
    /// The host's errno.
    pub fn handle(&self) -> Result<Arc<dyn HostFile>, Errno> {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*handle {
            return Ok(handle.file.clone());
        }
        let path = self.path.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let opened = match self.tree.open(&path, self.write) {
            Err(Errno::EACCES | Errno::EROFS | Errno::ETXTBSY | Errno::EPERM) if self.write => {
                Handle { file: self.tree.open(&path, false)?, writable: false }
            }
            other => Handle { file: other?, writable: self.write },
        };
        Ok(handle.insert(opened).file.clone())
    }
    /// Makes sure that the host lets the open file be written, if `write`.
    ///
    /// # Errors
    /// The host's errno.
    pub fn grant(&self, write: bool) -> Result<(), Errno> {
        let known = self.handle()?;
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if !write || handle.as_ref().is_some_and(|h| h.writable) {
            return Ok(());
        }
        let path = self.path.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let file = self.tree.open(&path, true)?;
        let (own, other) = (known.stat()?, file.stat()?);
        if (own.dev, own.ino) != (other.dev, other.ino) {
            return Err(Errno::ESTALE);
        }
        *handle = Some(Handle { file, writable: true });
        Ok(())
    }
    /// It is open now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
    /// Closes the host file; it is opened again when needed.
    pub fn close(&self) {
        *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
    /// The file was renamed on the host.
    pub fn moved(&self, path: PathBuf) {
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = path;
    }
}
