//! Builds the ring-0 image with the pinned compiler and the host target: a freestanding static ELF
//! with its own linker script. Cargo cannot be asked for that: link arguments would be the host
//! programs' too.

use std::{env, path::PathBuf, process::Command};

fn main() {
    let firmware =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by Cargo")).join("../firmware");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by Cargo")).join("firmware.elf");
    let script = firmware.join("link.ld");
    for file in ["src/main.rs", "src/abi.rs", "src/layout.rs", "link.ld"] {
        println!("cargo::rerun-if-changed={}", firmware.join(file).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
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
