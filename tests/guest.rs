//! Guest programs: found in `guests/`, compiled once into `target/guests/`.
//!
//! Safe to call from many tests and many test processes at once: one file lock per program, and a
//! finished binary appears by rename. A stamp beside it holds the inputs' hash.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a guest program is linked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Link {
    /// One file, no interpreter.
    Static,
    /// Static but position-independent: the loader relocates it.
    StaticPie,
    /// Through ld.so, as most programs are.
    Dynamic,
}

impl Link {
    fn suffix(self) -> &'static str {
        match self {
            Link::Static => "",
            Link::StaticPie => ".pie",
            Link::Dynamic => ".dyn",
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Link::Static => &["-static"],
            Link::StaticPie => &["-static-pie"],
            Link::Dynamic => &[],
        }
    }
}

/// Cargo's target directory, from where this very test binary lies in it.
pub fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("this test's own path");
    // target/<profile>/deps/<test>
    exe.ancestors().nth(3).expect("a test binary lies in target/PROFILE/deps").to_path_buf()
}

/// Where compiled guest programs go: `target/guests`, unless the guest cannot see it there because
/// its own empty /tmp lies over the checkout.
pub fn guests_dir() -> PathBuf {
    let beside = target_dir().join("guests");
    if !beside.starts_with("/tmp") {
        return beside;
    }
    let mut hash = DefaultHasher::new();
    beside.hash(&mut hash);
    PathBuf::from(format!("/var/tmp/trapgate-guests-{:08x}", hash.finish() >> 32))
}

/// Directory of the guest sources.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guests")
}

/// Path of a compiled guest program, compiling it if its sources changed.
///
/// # Panics
/// With the compiler's words, when it does not compile.
pub fn guest(name: &str, link: Link) -> PathBuf {
    let out_dir = guests_dir();
    fs::create_dir_all(&out_dir).expect("target/guests cannot be created");
    let source = sources().join(format!("{name}.c"));
    let out = out_dir.join(format!("{name}{}", link.suffix()));
    let lock = fs::File::create(out.with_added_extension("lock")).expect("lock file");
    lock.lock().expect("lock on a guest program");

    let mut flags = vec!["-O2", "-Wall", "-Werror", "-pthread"];
    // Bad arguments are what many of these programs are about.
    flags.extend(["-Wno-unused-result", "-Wno-nonnull", "-Wno-array-bounds"]);
    flags.extend(["-Wno-stringop-overflow", "-Wno-stringop-overread", "-Wno-use-after-free"]);
    flags.extend(["-Wno-maybe-uninitialized", "-Wno-format-truncation"]);
    flags.extend(link.flags());
    let mut hash = DefaultHasher::new();
    fs::read(&source).unwrap_or_else(|e| panic!("{}: {e}", source.display())).hash(&mut hash);
    fs::read(sources().join("t.h")).expect("guests/t.h").hash(&mut hash);
    flags.hash(&mut hash);
    let stamp = out.with_added_extension("stamp");
    let want = format!("{:016x}", hash.finish());
    if out.exists() && fs::read_to_string(&stamp).is_ok_and(|have| have == want) {
        return out;
    }

    let fresh = out.with_added_extension(format!("new{}", std::process::id()));
    let made = Command::new("cc")
        .args(&flags)
        .arg("-o")
        .arg(&fresh)
        .arg(&source)
        .args(["-lm", "-lrt", "-lutil"])
        .output()
        .expect("cc cannot be started");
    assert!(
        made.status.success(),
        "{} does not compile:\n{}",
        source.display(),
        String::from_utf8_lossy(&made.stderr)
    );
    fs::rename(&fresh, &out).expect("new guest program in place");
    fs::write(&stamp, want).expect("stamp");
    out
}
