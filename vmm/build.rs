//! Builds what the monitor carries inside it: the ring-0 image, and the guest programs of `bench`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    firmware();
    bench_guests();
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
    let guest = out.join("bench-guest");
    if !compile(&["-static"], &loops, &guest) && compile(&[], &loops, &guest) {
        println!("cargo::warning=no static C library: the programs of `bench` need ld.so");
    }
    compile(&[], &[sources.join("hello.c")], &out.join("bench-hello"));
}

/// Leaves an empty file, which `bench` understands, if there is no program to be had.
fn compile(how: &[&str], sources: &[PathBuf], program: &Path) -> bool {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let made = Command::new(compiler)
        .args(["-O2", "-Wall", "-Wextra", "-s", "-pthread"])
        .args(how)
        .args(sources)
        .arg("-o")
        .arg(program)
        .output();
    match made {
        Ok(output) if output.status.success() => return true,
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr);
            println!("cargo::warning={}: {}", program.display(), words.replace('\n', "; "));
        }
        Err(error) => println!("cargo::warning=no C compiler, so no `bench`: {error}"),
    }
    fs::write(program, b"").expect("OUT_DIR is writable");
    false
}
