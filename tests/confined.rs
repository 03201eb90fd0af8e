//! The monitor's own confinement: its seccomp filter is on every one of its threads while a guest
//! runs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use trapgate_tests::Backend;
use trapgate_tests::backend::trapgate;

fn filtered(backend: Backend) {
    if !backend.usable("seccomp") {
        return;
    }
    let mut monitor = Command::new(trapgate())
        .args(["run", "--backend", backend.name(), "--", "/bin/bash", "-c"])
        .arg("(while :; do :; done) & echo up; read; kill $!")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(monitor.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let mut states = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", monitor.id())).unwrap() {
        // A thread may end while we look.
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else { continue };
        let field = |name: &str| {
            let found = status.lines().find_map(|l| l.strip_prefix(name));
            found.unwrap_or("?").trim().to_owned()
        };
        states.push((field("Name:"), field("Seccomp:"), field("NoNewPrivs:")));
    }
    drop(monitor.stdin.take());
    let status = monitor.wait().unwrap();
    assert_eq!(line, "up\n");
    assert!(status.success(), "{backend}: {status}");
    assert!(states.len() > 2, "{backend}: {states:?}");
    for (name, seccomp, privileges) in &states {
        assert_eq!((seccomp.as_str(), privileges.as_str()), ("2", "1"), "{name} on {backend}");
    }
}

mod seccomp {
    use super::{Backend, filtered};

    #[test]
    fn kvm() {
        filtered(Backend::Kvm);
    }
    #[test]
    fn ptrace() {
        filtered(Backend::Ptrace);
    }
}
