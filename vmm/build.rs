//! Builds what the monitor carries inside it: the ring-0 image, the guest programs of `bench`, and the executor
//! of `fuzz`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    firmware();
    bench_guests();
    fuzz_executor();
}

/// The ring-0 image, with the pinned compiler and the host target: a freestanding static ELF with its own
/// linker script. Cargo cannot be asked for that: link arguments would be the host programs' too.
fn firmware() {
    let firmware =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by Cargo")).join("../firmware");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by Cargo")).join("firmware.elf");
    let script = firmware.join("link.ld");
    for file in ["src/main.rs", "src/abi.rs", "src/layout.rs", "link.ld"] {
        println!("cargo::rerun-if-changed={}", firmware.join(file).display());
    }
    let mut rustc = Command::new(env::var_os("RUSTC").expect("set by Cargo"));
    rustc
        .args(["--edition", "2024", "--crate-type", "bin", "--crate-name", "firmware"])
        .args(["-C", "opt-level=2", "-C", "panic=abort", "-C", "no-redzone=yes"])
        .args(["-C", "relocation-model=static", "-C", "code-model=kernel"])
        .args(["-C", "link-arg=-nostdlib", "-C", "link-arg=-static", "-C", "link-arg=-no-pie"])
        .args(["-C", "link-arg=-Wl,--build-id=none,-z,max-page-size=4096"])
        .arg("-C")
        .arg(format!("link-arg=-T{}", script.display()))
        .arg("-o")
        .arg(&out)
        .arg(firmware.join("src/main.rs"));
    if let Some(target) = env::var_os("TARGET") {
        rustc.arg("--target").arg(target);
    }
    let status = rustc.status().expect("cannot run rustc for the firmware image");
    assert!(status.success(), "the firmware image does not build: {status}");
}

/// The C programs that `bench` runs natively and in VMs. They are part of a comparison, not of the
/// monitor: a machine without a C compiler still builds trapgate, and its `bench` says what is missing.
fn bench_guests() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by Cargo"));
    let sources = Path::new("src/bench/guest");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-env-changed=CC");
    let loops = ["main.c", "calls.c", "threads.c", "processes.c", "memory.c", "init.c"];
    let loops: Vec<PathBuf> = loops.iter().map(|file| sources.join(file)).collect();
    let hello = [sources.join("hello.c")];
    let (guest, dynamic) = (out.join("bench-guest"), out.join("bench-hello"));
    // An empty file, which `bench` understands, where there is no program to be had.
    for program in [&guest, &dynamic] {
        fs::write(program, b"").expect("OUT_DIR is writable");
    }
    let mut made = compile(&["-static"], &loops, &guest);
    let linked = if made.is_ok() { "static" } else { "dynamic" };
    if let Err(Obstacle::Refused(words)) = &made {
        println!("cargo::warning=the programs of `bench` are not static, they need ld.so: {words}");
        made = compile(&[], &loops, &guest);
    }
    println!("cargo::rustc-env=BENCH_GUEST_LINKED={linked}");
    match made.and_then(|()| compile(&[], &hello, &dynamic)) {
        Ok(()) => {}
        Err(Obstacle::NoCompiler(error)) => {
            println!("cargo::warning=no C compiler, so `bench` has nothing to run: {error}");
        }
        Err(Obstacle::Refused(words)) => println!("cargo::warning=for `bench`: {words}"),
    }
}

/// The C program that runs system-call programs for `fuzz`. It must be static: the VM's root is empty.
fn fuzz_executor() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by Cargo")).join("fuzz-executor");
    let sources = Path::new("src/fuzz/guest");
    println!("cargo::rerun-if-changed={}", sources.display());
    fs::write(&out, b"").expect("OUT_DIR is writable");
    let mut files: Vec<PathBuf> = fs::read_dir(sources)
        .expect("the executor's sources are part of the package")
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    files.sort();
    match compile(&["-static"], &files, &out) {
        Ok(()) => {}
        Err(Obstacle::NoCompiler(error)) => {
            println!("cargo::warning=no C compiler, so `fuzz` has no executor: {error}");
        }
        Err(Obstacle::Refused(words)) => println!("cargo::warning=for `fuzz`: {words}"),
    }
}

enum Obstacle {
    NoCompiler(std::io::Error),
    /// It said why.
    Refused(String),
}

fn compile(how: &[&str], sources: &[PathBuf], program: &Path) -> Result<(), Obstacle> {
    let made = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()))
        .args(["-O2", "-Wall", "-Wextra", "-s", "-pthread"])
        .args(how)
        .args(sources)
        .arg("-o")
        .arg(program)
        .output()
        .map_err(Obstacle::NoCompiler)?;
    if made.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&made.stderr);
    Err(Obstacle::Refused(words.trim().replace('\n', "; ")))
}
