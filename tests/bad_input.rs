//! Bad input to the monitor and bad programs: one line of error, the promised status, no panic.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use trapgate_tests::backend::trapgate;
use trapgate_tests::guest::{Link, guest, guests_dir};
use trapgate_tests::{Backend, Run};

/// A file that is no program, under target/guests/bad.
fn bad(name: &str, bytes: &[u8], mode: u32) -> PathBuf {
    let dir = guests_dir().join("bad");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{name}-{}", std::process::id()));
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn refused(what: &str, run: Run, backend: Backend, status: i32) {
    let got = run.limit(Duration::from_secs(20)).go();
    let lines = got.stderr.lines().count();
    assert!(
        got.status == status && lines == 1 && !got.stderr.contains("panicked"),
        "{what} on {backend}: status {} (want {status}), {lines} lines of error:\n{}",
        got.status,
        got.stderr
    );
}

fn programs(backend: Backend) {
    if !backend.usable("bad_input") {
        return;
    }
    let none = None::<String>;
    let run = |p: PathBuf| Run::new(backend, p, None::<String>);
    refused("a missing program", Run::new(backend, "/no/such", none.clone()), backend, 127);
    refused("a missing command", Run::new(backend, "no-such-command", none.clone()), backend, 127);
    refused("a directory", Run::new(backend, "/usr", none), backend, 126);
    refused("a text file", run(bad("text", b"hello\n", 0o755)), backend, 126);
    refused("no execute bit", run(bad("noexec", b"#!/bin/sh\n", 0o644)), backend, 126);
    refused("an empty file", run(bad("empty", b"", 0o755)), backend, 126);
    let good = fs::read(guest("xattr", Link::Static)).unwrap();
    refused("a truncated ELF", run(bad("cut", &good[..100], 0o755)), backend, 126);
    let mut arm = good.clone();
    arm[18] = 183;
    refused("another machine's ELF", run(bad("arm", &arm, 0o755)), backend, 126);
    refused("a missing interpreter", run(bad("interp", b"#!/no/such\n", 0o755)), backend, 127);
}

/// Every byte of the first headers damaged in turn: any status, but no panic and no hang.
fn damaged(backend: Backend) {
    if !backend.usable("damaged ELF") {
        return;
    }
    let good = fs::read(guest("xattr", Link::Static)).unwrap();
    for at in (16..64).step_by(3).chain((64..120).step_by(7)) {
        let mut image = good.clone();
        image[at] ^= 0xff;
        let path = bad(&format!("damaged{at}-{backend}"), &image, 0o755);
        let got = Run::new(backend, &path, None::<String>).limit(Duration::from_secs(20)).go();
        let _ = fs::remove_file(path);
        assert!(!got.timed_out, "byte {at} damaged hangs {backend}");
        assert!(
            !got.stderr.contains("panicked"),
            "byte {at} damaged on {backend}:\n{}",
            got.stderr
        );
    }
}

fn options(backend: Backend) {
    if !backend.usable("bad options") {
        return;
    }
    for args in [
        vec!["--mem", "1"],
        vec!["--mem", "900T"],
        vec!["--bind", "/no/such/dir:/x"],
        vec!["--root", "/no/such/dir"],
        vec!["--cwd", "/no/such/dir"],
        vec!["--hostname", ""],
        vec!["--mem", "lots"],
        vec!["--bind", "nonsense"],
        vec!["--timeout", "never"],
        vec!["--user", "somebody"],
        vec!["--vcpus", "0"],
        vec!["--no-such-option"],
        vec!["--strace=/no/such/file"],
    ] {
        let run = Run::new(backend, "/bin/true", None::<String>).monitor(args.clone());
        refused(&format!("{args:?}"), run, backend, 125);
    }
    let timed = Run::new(backend, "/bin/sleep", ["30"]).monitor(["--timeout", "1s"]).go();
    assert_eq!(timed.status, 124, "--timeout on {backend}: {}", timed.stderr);
}

fn outputs(backend: Backend) {
    if !backend.usable("closed stdout") {
        return;
    }
    // A guest whose standard streams are closed finds them closed, as on Linux.
    let script =
        "\"$0\" run --backend \"$1\" -- /bin/sh -c 'echo x; echo $? >&2; cat >&2; exit $?' >&- <&-";
    let closed = Command::new("/bin/bash")
        .args(["-c", script, trapgate().to_str().unwrap(), backend.name()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&closed.stderr);
    assert!(
        text.starts_with("/bin/sh: 1: echo: echo: I/O error\n1\n")
            && text.contains("cat: -: Bad file descriptor")
            && closed.status.code() == Some(1),
        "closed streams on {backend}: {}\n{text}",
        closed.status
    );
    let full = Run::script(backend, "dd if=/dev/zero of=big bs=1M count=2000 2>&1 | tail -1; ls /")
        .monitor(["--mem", "256M"])
        .go();
    assert!(!full.stderr.contains("panicked") && !full.timed_out, "full tmpfs: {}", full.stderr);
    for (status, script) in
        [(0, "exit 0"), (7, "exit 7"), (143, "kill -TERM $$"), (137, "kill -9 $$")]
    {
        assert_eq!(Run::script(backend, script).go().status, status, "{script} on {backend}");
    }
}

macro_rules! each {
    ($($name:ident)*) => {
        $(mod $name {
            use super::Backend;
            #[test]
            fn kvm() {
                trapgate_tests::unless_gap(stringify!($name), Backend::Kvm, super::$name);
            }
            #[test]
            fn ptrace() {
                trapgate_tests::unless_gap(stringify!($name), Backend::Ptrace, super::$name);
            }
        })*
    };
}
each! { programs damaged options outputs }

/// The other commands with nowhere to print to: an error in a line, never a panic.
#[test]
fn commands_with_a_full_disk_below() {
    for args in [
        vec!["doctor", "--json"],
        vec!["syscalls"],
        vec!["syscalls", "--json"],
        vec!["bench", "--list"],
        vec!["man"],
        vec!["completions", "bash"],
        vec!["completions", "zsh"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let got = Command::new(trapgate()).args(&args).stdout(full).output().unwrap();
        let text = String::from_utf8_lossy(&got.stderr);
        assert!(
            got.status.code() == Some(125) && text.lines().count() == 1,
            "{args:?} > /dev/full: {}\n{text}",
            got.status
        );
    }
}
