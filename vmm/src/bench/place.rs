//! The private directory a bench works in: a copy of the monitor, the guest programs, what workloads read
//! and write. It is gone when the bench ends, also by a signal.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{Refusal, child, hello};

/// Where programs are looked for, here and in every configuration, so that all run the same ones.
pub const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Below /var/tmp, because a guest's /tmp is its own.
const PARENT: &str = "/var/tmp";
const PREFIX: &str = "trapgate-bench-";

/// The loops, from `build.rs`; empty if there was no C compiler.
static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bench-guest"));
/// The dynamic hello, likewise.
static DYNAMIC_HELLO: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bench-hello"));

/// The directory; removed when dropped.
pub struct Place {
    dir: PathBuf,
    numbers: AtomicU32,
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Refusal> {
    fs::write(path, bytes)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(|error| Refusal::new(format!("cannot write {}: {error}", path.display())))
}

/// Directories of benches that were killed outright.
fn remove_stale() {
    let own = rustix::process::getuid().as_raw();
    for entry in fs::read_dir(PARENT).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).map(str::parse::<u32>);
        let Some(Ok(pid)) = pid else { continue };
        // DirEntry's metadata does not follow a link that somebody else may have put there.
        let ours = entry.metadata().is_ok_and(|m| m.is_dir() && m.uid() == own);
        if ours && !Path::new(&format!("/proc/{pid}")).exists() {
            // Another bench may be at it as well.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Place {
    /// Makes it and writes the programs.
    ///
    /// # Errors
    /// It cannot be written, or there are no programs to write.
    pub fn new() -> Result<Place, Refusal> {
        if GUEST.is_empty() {
            let message = "this trapgate was built without a C compiler, so it has no programs to measure; \
                           install cc and build it again";
            return Err(Refusal::new(message.to_owned()));
        }
        remove_stale();
        let dir = Path::new(PARENT).join(format!("{PREFIX}{}", std::process::id()));
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&dir)
            .map_err(|error| Refusal::new(format!("cannot make {}: {error}", dir.display())))?;
        let place = Place { dir, numbers: AtomicU32::new(0) };
        end_on_signals(&place.dir)?;
        // A copy: its pages are shared with no other process, which a sum of memory would count as a part
        // only, and a build in the meantime does not change what is measured.
        fs::copy("/proc/self/exe", place.trapgate())
            .map_err(|error| Refusal::new(format!("cannot copy trapgate: {error}")))?;
        write(&place.guest(), GUEST)?;
        write(&place.hello(), &hello::hello())?;
        write(&place.nothing(), &hello::nothing())?;
        let results = place.results();
        fs::create_dir(&results)
            .map_err(|error| Refusal::new(format!("cannot make {}: {error}", results.display())))?;
        if !DYNAMIC_HELLO.is_empty() {
            write(&place.dir.join("hello-dynamic"), DYNAMIC_HELLO)?;
        }
        Ok(place)
    }
    /// The monitor.
    pub fn trapgate(&self) -> PathBuf {
        self.dir.join("trapgate")
    }
    /// The loops.
    pub fn guest(&self) -> PathBuf {
        self.dir.join("guest")
    }
    /// The static hello.
    pub fn hello(&self) -> PathBuf {
        self.dir.join("hello")
    }
    /// The static program that does nothing.
    pub fn nothing(&self) -> PathBuf {
        self.dir.join("nothing")
    }
    /// The dynamic hello, if there is one.
    pub fn dynamic_hello(&self) -> Option<PathBuf> {
        let path = self.dir.join("hello-dynamic");
        path.exists().then_some(path)
    }
    /// Where a run's output goes.
    pub fn results(&self) -> PathBuf {
        self.dir.join("results")
    }
    /// What a workload reads.
    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.join("data").join(name)
    }
    /// A number that no earlier run had.
    pub fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
    /// A fresh empty directory.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn fresh(&self) -> Result<PathBuf, String> {
        let _not_ending = working();
        let dir = self.dir.join(format!("fresh-{}", self.number()));
        fs::create_dir(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        Ok(dir)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left is removed by the next bench.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Held by whoever starts a program or writes much in the directory; once a signal asks us to end, by the
/// thread that tidies up, for good.
static WORKING: Mutex<()> = Mutex::new(());

/// Waits if the bench is being ended; while the result lives, it is not.
pub fn working() -> MutexGuard<'static, ()> {
    WORKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On a signal that asks us to end: ends what runs, tidies up, ends.
fn end_on_signals(dir: &Path) -> Result<(), Refusal> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let failed = |error: std::io::Error| Refusal::new(format!("cannot watch signals: {error}"));
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let dir = dir.to_owned();
    let watch = move || {
        if let Some(signal) = signals.forever().next() {
            let _kept = working();
            child::kill_below(std::process::id());
            // What was killed a moment ago may still have written a file; the next bench removes the rest.
            for _ in 0..20 {
                if fs::remove_dir_all(&dir).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            std::process::exit(128 + signal);
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch).map_err(failed)?;
    Ok(())
}
