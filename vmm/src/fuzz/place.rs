//! The private directory a fuzz run works in: the executor, an empty root. It is gone at the end.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// The executor, from `build.rs`; empty if there was no C compiler that links statically.
static EXECUTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/fuzz-executor"));

/// The directory; removed when dropped.
pub struct Place {
    dir: PathBuf,
}

/// Several places of one process have different names.
static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Place {
    /// Makes it.
    ///
    /// # Errors
    /// In words for the user.
    pub fn new() -> Result<Place, String> {
        if EXECUTOR.is_empty() {
            return Err(
                "this trapgate was built without a C compiler and a static libc, so it has \
                        no executor; install them (gcc, libc6-dev) and build it again"
                    .to_owned(),
            );
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("trapgate-fuzz-{}-{number}", std::process::id());
        let place = Place { dir: std::env::temp_dir().join(name) };
        let failed = |error: io::Error| format!("cannot make {}: {error}", place.dir.display());
        fs::DirBuilder::new().mode(0o755).create(&place.dir).map_err(failed)?;
        fs::create_dir(place.root()).map_err(failed)?;
        let executor = place.executor();
        fs::write(&executor, EXECUTOR).map_err(failed)?;
        fs::set_permissions(&executor, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        Ok(place)
    }
    /// The executor.
    #[must_use]
    pub fn executor(&self) -> PathBuf {
        self.dir.join("executor")
    }
    /// An empty directory.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }
    /// Itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Somebody may have taken it away before us.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
