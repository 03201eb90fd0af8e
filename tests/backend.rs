//! Where a program runs: on this Linux, or in Trapgate on one of its backends.
//!
//! Neighbours: `run` starts the command built here. Invariant: a backend that cannot be used says
//! so on stderr, and every run is recorded so that `z_ran` can tell tests from silence.

use std::env;
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::guest::target_dir;

/// A place to run a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// This Linux, directly: the reference.
    Native,
    /// `trapgate run --backend kvm`.
    Kvm,
    /// `trapgate run --backend ptrace`.
    Ptrace,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Backend {
    /// The two that must equal native.
    pub const GUESTS: [Backend; 2] = [Backend::Kvm, Backend::Ptrace];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Native => "native",
            Backend::Kvm => "kvm",
            Backend::Ptrace => "ptrace",
        }
    }

    /// Whether tests may use it; when not, says why, loudly, once per call.
    ///
    /// `TRAPGATE_TEST_BACKENDS=ptrace` (comma-separated) restricts a run by hand.
    pub fn usable(self, test: &str) -> bool {
        if let Ok(list) = env::var("TRAPGATE_TEST_BACKENDS")
            && self != Backend::Native
            && !list.split(',').any(|b| b == self.name())
        {
            loud(&format!("{test}: {self} half left out by TRAPGATE_TEST_BACKENDS={list}"));
            return false;
        }
        if self == Backend::Kvm && !kvm_present() {
            loud(&format!("{test}: NOT RUN on kvm: /dev/kvm cannot be opened here"));
            return false;
        }
        true
    }

    /// Records that something ran here, for `z_ran`.
    pub(crate) fn record(self) {
        let dir = ran_dir();
        let noted = fs::create_dir_all(&dir).and_then(|()| {
            fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(dir.join(self.name()))?
                .write_all(b".")
        });
        noted.expect("target/guests/ran cannot be written");
    }

    /// How many runs the suites started by the same `cargo test` made here.
    pub fn runs_so_far(self) -> usize {
        fs::read(ran_dir().join(self.name())).map_or(0, |b| b.len())
    }
}

/// Whether `/dev/kvm` can be opened for reading and writing.
pub fn kvm_present() -> bool {
    fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// A line nobody can overlook, past the test runner's capture.
pub fn loud(text: &str) {
    let line = format!("\n*** {text} ***\n");
    // The runner captures eprintln!, not descriptor 2 itself.
    if let Ok(mut err) = fs::OpenOptions::new().write(true).open("/proc/self/fd/2") {
        let _ = err.write_all(line.as_bytes());
    } else {
        eprint!("{line}");
    }
}

/// Test binaries of one `cargo test` share their parent, and so this directory.
fn ran_dir() -> PathBuf {
    target_dir().join("guests/ran").join(parent_id().to_string())
}

/// The monitor's binary: `$TRAPGATE`, or built by cargo into the target directory.
pub fn trapgate() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(path) = env::var_os("TRAPGATE") {
            return PathBuf::from(path);
        }
        let release = !cfg!(debug_assertions);
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "-p", "trapgate", "--bin", "trapgate"]);
        if release {
            cargo.arg("--release");
        }
        let built = cargo
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .expect("cargo cannot be started to build trapgate");
        assert!(built.success(), "cargo build -p trapgate failed");
        target_dir().join(if release { "release" } else { "debug" }).join("trapgate")
    })
}
