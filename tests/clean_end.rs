//! Clean ends: nothing left in the kernel after churn, nothing left on the host after a kill.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use trapgate_tests::backend::trapgate;
use trapgate_tests::run::{marked, signal};
use trapgate_tests::{Backend, Link, Run, guest};

/// The last line of stderr that is JSON.
fn stats(text: &str) -> Option<&str> {
    text.lines().rev().find(|l| l.trim_start().starts_with('{'))
}

/// The object under `key`, as text.
fn counts<'a>(report: &'a str, key: &str) -> &'a str {
    let from = report.split_once(&format!("\"{key}\":{{")).map_or("", |(_, rest)| rest);
    from.split_once('}').map_or("", |(object, _)| object)
}

/// A churning guest ends contentedly, and its tasks are all gone.
fn churn(backend: Backend) {
    if !backend.usable("churn") {
        return;
    }
    let program = guest("end_churn", Link::Static);
    let got = Run::new(backend, &program, None::<String>)
        .monitor(["--stats=json"])
        .limit(Duration::from_secs(240))
        .go();
    assert!(
        got.status == 0 && !got.timed_out,
        "churn on {backend}: status {}\n{}\n{}",
        got.status,
        got.stdout,
        got.stderr
    );
    let Some(report) = stats(&got.stderr) else {
        panic!("no --stats=json on {backend}: {}", got.stderr)
    };
    let (before, after) = (counts(report, "in_use_before"), counts(report, "in_use_after"));
    assert!(before.contains("frames"), "no counts on {backend}: {report}");
    assert_eq!(before, after, "churn on {backend} leaves something in use");
}

/// The monitor killed in mid-run leaves no process of its own.
fn killed(backend: Backend) {
    if !backend.usable("killed monitor") {
        return;
    }
    let marker = format!("tg-kill-{}-{backend}", std::process::id());
    let mut monitor = Command::new(trapgate())
        .args(["run", "--backend", backend.name(), "--", "/bin/bash", "-c"])
        .arg("for i in 1 2 3 4; do (while :; do :; done) & done; sleep 60 & echo up; wait")
        .env("TRAPGATE_TEST_RUN", &marker)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let pid = monitor.id();
    thread::sleep(Duration::from_millis(1500));
    let family = descendants(pid);
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mut left = marked(&marker);
        left.extend(family.iter().copied().filter(|p| alive(*p)));
        if left.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            signal("KILL", &left);
            panic!("SIGKILL of the monitor on {backend} left {left:?}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| !s.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

fn descendants(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|c| c.parse::<u32>().ok()));
        }
        at += 1;
    }
    found
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
each! { churn killed }
