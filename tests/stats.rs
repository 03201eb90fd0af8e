//! `--stats`: what it says of a program whose calls are known.

use serde_json::Value;
use trapgate_tests::{Backend, Link, Run, guest};

/// `counts CASE` under `options`; its report.
fn report(backend: Backend, case: &str, options: &[&str]) -> Value {
    let got = Run::new(backend, guest("counts", Link::Static), [case])
        .monitor(["--stats=json"])
        .monitor(options.iter().copied())
        .go();
    assert_eq!(got.status, 0, "{backend}: {}{}", got.stdout, got.stderr);
    let line = got.stderr.lines().find(|line| line.starts_with('{')).expect("statistics");
    serde_json::from_str(line).expect("JSON")
}

/// The number at `path` ("tiers/exits").
fn number(report: &Value, path: &str) -> u64 {
    let found = report.pointer(&format!("/{path}")).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number at {path} in {report}"))
}

/// `calls` or `errors` of one system call.
fn of_call(report: &Value, name: &str, key: &str) -> u64 {
    let rows = report["calls"].as_array().expect("rows");
    rows.iter().find(|row| row["name"] == name).map_or(0, |row| number(row, key))
}

/// Every key of docs/performance.md is there, and what must agree does.
fn structure(report: &Value, backend: Backend) {
    assert_eq!(report["backend"], backend.name());
    assert!(report["wall_seconds"].as_f64().is_some_and(|wall| wall > 0.0), "{report}");
    for key in [
        "tiers/guest tiers/ring_servers tiers/ring_sleepers tiers/exits",
        "rings/from_rewritten_sites rings/passed_on rings/servers rings/wakes rings/sleeps",
        "rings/awake_nanoseconds rings/asleep_nanoseconds",
        "exits/system_call exits/page_fault exits/interrupted exits/refused_store exits/strange",
        "unknown_calls faults copies_on_write zaps pages_zapped signals sites_rewritten",
        "frames_peak resident_peak",
    ] {
        for key in key.split(' ') {
            number(report, key);
        }
    }
    for key in ["exits/exceptions", "sites_left", "platform", "in_use_before", "in_use_after"] {
        let found = report.pointer(&format!("/{key}"));
        assert!(found.is_some_and(Value::is_object), "no object {key} in {report}");
    }
    // A C library that starts asks for rseq.
    assert_eq!(report["absent_calls"], serde_json::json!(["rseq"]), "{report}");
    assert!(report["notes"].as_array().is_some_and(Vec::is_empty), "{report}");
    let phases = report["phases"].as_array().expect("phases");
    let names: Vec<&str> = phases.iter().filter_map(|phase| phase["name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "memory", "platform", "kernel", "root", "program", "confine", "start", "guest",
            "teardown"
        ]
    );
    assert!(phases.iter().all(|phase| phase["microseconds"].is_u64()), "{report}");
    assert!(number(report, "frames_peak") > 0 && number(report, "resident_peak") > 1 << 20);
    assert_eq!(number(report, "exits/strange"), 0);
    assert_eq!(number(report, "faults"), number(report, "exits/page_fault"));

    // A call reaches the kernel by a ring or by an exit, and is counted once either way.
    let rings = number(report, "tiers/ring_servers") + number(report, "tiers/ring_sleepers");
    let exits = number(report, "tiers/exits");
    let rows = report["calls"].as_array().expect("rows");
    let counted: u64 = rows.iter().map(|row| number(row, "calls")).sum();
    assert_eq!(rings + exits, counted + number(report, "unknown_calls"), "{report}");
    assert_eq!(exits, number(report, "exits/system_call"));
    assert!(number(report, "rings/from_rewritten_sites") <= rings, "{report}");
    assert!(number(report, "rings/passed_on") <= exits, "{report}");
    assert!(number(report, "rings/sleeps") <= number(report, "rings/wakes"), "{report}");
}

/// Calls are in the tiers they must be in.
fn calls(backend: Backend, options: &[&str], rings: bool, known: bool) {
    let report = report(backend, "known_numbers", options);
    structure(&report, backend);
    assert_eq!(of_call(&report, "umask", "calls"), 70);
    assert_eq!(of_call(&report, "close", "errors"), 30);
    let guest = number(&report, "tiers/guest");
    let seen = ["getpid", "getppid"].map(|name| of_call(&report, name, "calls"));
    let all = guest + seen[0] + seen[1];
    if known {
        // The kernel is shown one in 1024; a few others are answered there as the program starts.
        assert!((4002..4102).contains(&all) && seen[0] + seen[1] < 20, "{report}");
    } else {
        assert_eq!((guest, seen), (0, [3001, 1001]), "{report}");
    }
    if !rings {
        for key in ["ring_servers", "ring_sleepers"] {
            assert_eq!(number(&report, &format!("tiers/{key}")), 0, "{report}");
        }
        assert_eq!(number(&report, "rings/passed_on") + number(&report, "rings/wakes"), 0);
        assert!(number(&report, "tiers/exits") >= 100, "{report}");
    }
}

fn exceptions(backend: Backend) {
    let report = report(backend, "known_exceptions", &[]);
    structure(&report, backend);
    let invalid = number(&report, "exits/exceptions/6");
    assert_eq!((invalid, number(&report, "signals")), (5, 5), "{report}");
    assert!(number(&report, "copies_on_write") >= 4 && number(&report, "faults") >= 4, "{report}");
    if backend == Backend::Kvm {
        assert!(number(&report, "zaps") > 0 && number(&report, "pages_zapped") > 0, "{report}");
    }
}

#[test]
fn calls_kvm() {
    if Backend::Kvm.usable("calls_kvm") {
        calls(Backend::Kvm, &[], true, true);
        calls(Backend::Kvm, &["--gate", "ring"], true, true);
        calls(Backend::Kvm, &["--gate", "exit"], false, true);
        calls(Backend::Kvm, &["--gate", "exit", "--strace=/dev/null"], false, false);
    }
}
#[test]
fn calls_ptrace() {
    if Backend::Ptrace.usable("calls_ptrace") {
        calls(Backend::Ptrace, &[], false, false);
    }
}
#[test]
fn exceptions_kvm() {
    if Backend::Kvm.usable("exceptions_kvm") {
        exceptions(Backend::Kvm);
    }
}
#[test]
fn exceptions_ptrace() {
    if Backend::Ptrace.usable("exceptions_ptrace") {
        exceptions(Backend::Ptrace);
    }
}

/// The form for people has its headings, and fits.
#[test]
fn text() {
    for backend in [Backend::Kvm, Backend::Ptrace] {
        if !backend.usable("text") {
            continue;
        }
        let program = guest("counts", Link::Static);
        let got = Run::new(backend, program, ["known_exceptions"]).monitor(["--stats"]).go();
        assert_eq!(got.status, 0, "{}", got.stderr);
        for heading in [
            "Phases",
            "System calls by tier",
            "Exits by reason",
            "Time in the kernel by system call",
            "Memory",
        ] {
            let found = got.stderr.lines().any(|line| line == heading);
            assert!(found, "{backend}: no {heading} in\n{}", got.stderr);
        }
        assert!(got.stderr.lines().all(|line| line.chars().count() <= 80), "{}", got.stderr);
    }
}
