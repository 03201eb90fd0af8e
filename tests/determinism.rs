//! `--seed` and `--virtual-time`: a program of one thread does the same in every run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use trapgate_tests::guest::target_dir;
use trapgate_tests::{Backend, Link, Outcome, Run, guest, same_with};

/// Bounds a hang, in real time; what is slept through by the guest is years.
const GUARD: [&str; 2] = ["--timeout", "50s"];

fn run(backend: Backend, options: &[&str], program: &str, args: &[&str]) -> Outcome {
    let got = Run::new(backend, program, args.iter().copied())
        .monitor(GUARD.iter().chain(options).copied())
        .go();
    assert_eq!((got.status, got.timed_out), (0, false), "{backend}: {}{}", got.stdout, got.stderr);
    got
}

/// Output and trace of the program whose answers follow from both options, by thread: what a parent does
/// while its child runs is not in order.
fn trace(
    backend: Backend,
    name: &str,
    options: &[&str],
) -> (String, BTreeMap<String, Vec<String>>) {
    let path: PathBuf = target_dir().join("guests").join(format!("trace-{backend}-{name}"));
    let strace = format!("--strace={}", path.display());
    let options: Vec<&str> = options.iter().copied().chain([strace.as_str()]).collect();
    let program = guest("det_repeat", Link::Static);
    let got = run(backend, &options, &program.to_string_lossy(), &[]);
    let mut threads: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in fs::read_to_string(&path).expect("a trace").lines() {
        let (thread, call) = line.split_once(' ').expect("a thread's line");
        threads.entry(thread.to_owned()).or_default().push(call.to_owned());
    }
    let _ = fs::remove_file(&path);
    (got.stdout, threads)
}

/// `text` without the digits of addresses, which differ between backends.
fn placeless(text: &str) -> String {
    let mut parts = text.split("0x");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| {
        out + "0x" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit())
    })
}

fn the_same_twice(backend: Backend) {
    if !backend.usable("the_same_twice") {
        return;
    }
    let once = trace(backend, "first", &["--seed", "42", "--virtual-time"]);
    assert!(once.1.len() >= 4, "children were traced: {:?}", once.1.keys());
    assert_eq!(once, trace(backend, "second", &["--seed", "42", "--virtual-time"]));
    let other = trace(backend, "other", &["--seed", "43", "--virtual-time"]);
    assert_ne!(once.0, other.0);
    // Nothing else hangs on the seed: the same lines but for bytes and addresses.
    assert_eq!(once.0.lines().count(), other.0.lines().count());
    // Time and randomness are two things.
    assert_ne!(once.0, trace(backend, "timeless", &["--virtual-time"]).0);
}

#[test]
fn kvm_does_the_same_twice() {
    the_same_twice(Backend::Kvm);
}

#[test]
fn ptrace_does_the_same_twice() {
    the_same_twice(Backend::Ptrace);
}

/// On KVM by every gate, and on both backends, but for addresses.
#[test]
fn how_calls_arrive_makes_no_difference() {
    let program = guest("det_repeat", Link::Static);
    let mut seen: Option<(String, String)> = None;
    for (backend, gate) in [
        (Backend::Kvm, "auto"),
        (Backend::Kvm, "ring"),
        (Backend::Kvm, "exit"),
        (Backend::Ptrace, "auto"),
    ] {
        if !backend.usable("how_calls_arrive_makes_no_difference") {
            continue;
        }
        let options = ["--seed", "7", "--virtual-time", "--gate", gate];
        let got = run(backend, &options, &program.to_string_lossy(), &[]);
        let text = placeless(&got.stdout);
        let name = format!("{backend} {gate}");
        match &seen {
            None => seen = Some((name, text)),
            Some((first, want)) => assert_eq!(&text, want, "{first} and {name}"),
        }
    }
}

/// Address layout and random bytes repeat in real time as well.
#[test]
fn a_seed_alone() {
    for backend in Backend::GUESTS {
        if !backend.usable("a_seed_alone") {
            continue;
        }
        let program = guest("det_repeat", Link::Static);
        let random = |seed| {
            let options = ["--seed", seed];
            run(backend, &options, &program.to_string_lossy(), &["randomness"]).stdout
        };
        assert_eq!(random("1"), random("1"));
        assert_ne!(random("1"), random("2"));
    }
}

/// Programs that sleep, in turn and at the same time, are done at once; their order is that of time.
#[test]
fn sleeps_end_at_once() {
    const SCRIPT: &str = "
        sleep 1000
        (sleep 5000; echo late) & (sleep 300; echo early) & (sleep 4000; echo later) &
        wait
        timeout 100 sleep 3000; echo $?
        timeout 1000 bash -c 'while :; do sleep 10; done'; echo $?
        read -t 600 line < <(sleep 700); echo read $?
        date -u +%Y-%m-%dT%H:%M";
    for backend in Backend::GUESTS {
        if !backend.usable("sleeps_end_at_once") {
            continue;
        }
        let got = run(backend, &["--virtual-time"], "/bin/bash", &["-c", SCRIPT]);
        assert_eq!(
            got.stdout, "early\nlater\nlate\n124\n124\nread 142\n2024-01-01T02:08\n",
            "{backend}"
        );
    }
}

/// What waits, wakes and times out looks as it does on Linux, but for how long it takes.
#[test]
fn waits_are_as_ever() {
    for name in ["epoll", "futex", "gate", "mq", "poll", "signals", "tcp", "timerfd"] {
        for backend in Backend::GUESTS {
            same_with(name, Link::Static, backend, &["--virtual-time"]);
        }
    }
}

/// Threads that wake each other and wait with limits they never need: time does not jump past those that
/// have been woken.
#[test]
fn the_woken_count_as_running() {
    for backend in Backend::GUESTS {
        if !backend.usable("the_woken_count_as_running") {
            continue;
        }
        let program = guest("det_turns", Link::Static);
        let got = run(backend, &["--virtual-time"], &program.to_string_lossy(), &[]);
        assert_eq!(got.stdout, "no wait timed out\n", "{backend}");
    }
}
