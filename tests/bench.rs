//! `trapgate bench`: its lists, mistakes, JSON and comparison. Figures themselves are never judged here:
//! the machine may be doing anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trapgate_tests::backend::trapgate;
use trapgate_tests::guest::target_dir;

fn bench(args: &[&str]) -> Output {
    Command::new(trapgate()).arg("bench").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn file(name: &str) -> PathBuf {
    let dir = target_dir().join("tmp");
    fs::create_dir_all(&dir).unwrap();
    dir.join(format!("bench-{}-{name}", std::process::id()))
}

fn keep(name: &str, report: &Value) -> PathBuf {
    let path = file(name);
    fs::write(&path, report.to_string()).unwrap();
    path
}

/// One line of error and the status promised.
fn refused(args: &[&str], status: i32, words: &str) {
    let got = bench(args);
    let error = text(&got.stderr);
    assert!(
        got.status.code() == Some(status) && error.lines().count() == 1 && error.contains(words),
        "{args:?}: {} (want {status})\n{error}",
        got.status
    );
}

#[test]
fn list_names_every_kind_and_configuration() {
    let got = bench(&["--list"]);
    assert!(got.status.success());
    let list = text(&got.stdout);
    for word in [
        "micro:",
        "start:",
        "memory:",
        "workload:",
        "getppid",
        "clock-vdso",
        "epoll",
        "hello-static",
        "idle-memory",
        "redis",
        "git-status",
        "* native",
        "* kvm ",
        "* kvm-exit",
        "kvm-no-rewrite",
        "* ptrace",
        "runsc-systrap",
        "runsc-ptrace",
        "uml-seccomp",
        "uml-ptrace",
        "proot",
    ] {
        assert!(list.contains(word), "no {word} in\n{list}");
    }
}

#[test]
fn mistakes() {
    refused(&["--rounds", "0"], 125, "--rounds");
    refused(&["--rounds", "many"], 125, "--rounds");
    refused(&["--filter", "no-such-item"], 125, "no-such-item");
    refused(&["--on", "kvm,sideways"], 125, "'sideways' is not a configuration");
    refused(&["--no-such-flag"], 125, "--no-such-flag");
    refused(&["--json", "/no/such/dir/x.json"], 125, "/no/such/dir/x.json");
    refused(&["--html", "/no/such/dir/x.html"], 125, "/no/such/dir/x.html");
    refused(&["--compare", "/no/such.json"], 125, "/no/such.json");
    refused(&["--from", "/etc/passwd"], 125, "is not a bench's JSON");
    refused(&["--from", "/etc/passwd", "--on", "kvm"], 125, "cannot be used with");
    let other = keep("schema.json", &json!({"schema": 999}));
    refused(&["--from", other.to_str().unwrap()], 125, "schema 999");
    fs::remove_file(other).unwrap();
}

#[test]
fn a_missing_peer_has_its_own_status() {
    for (on, flag) in [("proot", "--proot"), ("runsc-ptrace", "--runsc"), ("uml-ptrace", "--uml")] {
        refused(&["--on", on, flag, "/no/such/binary"], 4, "there is no /no/such/binary");
        let got = Command::new(trapgate())
            .args(["bench", "--on", on])
            .env("PATH", "/no/such/dir")
            .output()
            .unwrap();
        let error = text(&got.stderr);
        assert!(got.status.code() == Some(4) && error.lines().count() == 1, "{on}: {error}");
    }
    // Too old, or no such thing at all: never measured under a name that it does not deserve.
    refused(&["--on", "uml-seccomp", "--uml", "/bin/true"], 4, "does not know seccomp");
}

/// A short bench that needs no KVM.
fn measured() -> Value {
    let path = file(&format!("measured-{:?}.json", std::thread::current().id()));
    let path_text = path.to_str().unwrap();
    let got = bench(&[
        "--filter",
        "getppid,hello-static,idle-memory,python",
        "--on",
        "ptrace",
        "--rounds",
        "2",
        "--json",
        path_text,
    ]);
    let (out, error) = (text(&got.stdout), text(&got.stderr));
    assert!(got.status.success(), "{}\n{out}{error}", got.status);
    for line in ["getppid: ", "  native ", "  ptrace "] {
        assert!(out.contains(line), "no '{line}' in\n{out}");
    }
    let report = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    fs::remove_file(path).unwrap();
    report
}

#[test]
fn json_has_every_figure_and_where_it_comes_from() {
    let report = measured();
    assert_eq!(report["schema"], 1);
    assert_eq!(report["rounds"], 2);
    assert!(report["date"].as_str().unwrap().ends_with('Z'));
    assert!(report["command"].as_array().unwrap().len() > 3);
    for name in ["cpu", "kernel", "system", "kvm", "governor", "huge_pages"] {
        assert!(report["machine"][name].is_string(), "machine.{name}");
    }
    let names: Vec<&str> = report["configurations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|way| way["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["native", "ptrace"]);
    let items = report["items"].as_array().unwrap();
    let names: Vec<&str> = items.iter().map(|item| item["name"].as_str().unwrap()).collect();
    let all = ["getppid", "hello-static", "idle-memory", "python"];
    assert!(names == all || names == all[..3], "{names:?}");
    for item in items {
        for outcome in item["outcomes"].as_array().unwrap() {
            assert_eq!(outcome["values"].as_array().unwrap().len(), 2, "{item}");
            assert_eq!(outcome["ratios"].as_array().unwrap().len(), 2, "{item}");
            assert!(outcome["value"]["median"].as_f64().unwrap() > 0.0, "{item}");
        }
        let unit = if item["kind"] == "memory" { "bytes" } else { "nanoseconds" };
        assert_eq!(item["unit"], unit);
    }
}

/// `report` with every summary of `item` on ptrace set to `median`, quartiles close by.
fn doctored(report: &Value, item: &str, median: f64) -> Value {
    let mut report = report.clone();
    for each in report["items"].as_array_mut().unwrap() {
        let changed = each["name"] == item;
        let outcome = &mut each["outcomes"][1];
        let median = if changed { median } else { 10.0 };
        let summary = json!({"median": median, "low": median * 0.99, "high": median * 1.01});
        outcome["value"] = summary.clone();
        outcome["ratio"] = summary;
    }
    report
}

fn compared(old: &Path, new: &Path) -> (Option<i32>, String) {
    let got = bench(&["--from", new.to_str().unwrap(), "--compare", old.to_str().unwrap()]);
    assert!(got.stderr.is_empty(), "{}", text(&got.stderr));
    (got.status.code(), text(&got.stdout))
}

#[test]
fn compare_names_regressions_beyond_the_noise() {
    let report = measured();
    let old = keep("old.json", &doctored(&report, "getppid", 10.0));
    let same = keep("same.json", &doctored(&report, "getppid", 10.2));
    let slower = keep("slower.json", &doctored(&report, "getppid", 15.0));
    let larger = keep("larger.json", &doctored(&report, "idle-memory", 15.0));
    let faster = keep("faster.json", &doctored(&report, "hello-static", 5.0));
    let mut broken = doctored(&report, "getppid", 10.0);
    let outcome = &mut broken["items"][0]["outcomes"][1];
    outcome["value"] = Value::Null;
    outcome["ratio"] = Value::Null;
    outcome["note"] = json!("it fell over");
    let broken = keep("broken.json", &broken);

    let (status, out) = compared(&old, &same);
    assert!(status == Some(0) && out.contains("0 regressions"), "{status:?}\n{out}");
    let (status, out) = compared(&old, &slower);
    let named = out.lines().find(|line| line.starts_with("REGRESSION")).unwrap_or_default();
    assert!(status == Some(3) && named.contains("getppid on ptrace"), "{status:?}\n{out}");
    assert!(named.contains("+50 %") && out.contains(", 1 regression\n"), "{out}");
    let (status, out) = compared(&old, &larger);
    assert!(status == Some(3) && out.contains("idle-memory on ptrace"), "{status:?}\n{out}");
    let (status, out) = compared(&old, &faster);
    assert!(status == Some(0) && out.contains("better      hello-static"), "{status:?}\n{out}");
    let (status, out) = compared(&old, &broken);
    assert!(status == Some(3) && out.contains("it fell over"), "{status:?}\n{out}");
    for path in [old, same, slower, larger, faster, broken] {
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn json_on_standard_output_is_all_there_is() {
    let got = bench(&["--filter", "getppid", "--on", "ptrace", "--rounds", "1", "--json", "-"]);
    assert!(got.status.success(), "{}", text(&got.stderr));
    let report: Value = serde_json::from_slice(&got.stdout).unwrap();
    assert_eq!(report["items"][0]["name"], "getppid");
}

#[test]
fn a_signal_leaves_nothing_behind() {
    let mut child = Command::new(trapgate())
        .args(["bench", "--filter", "gzip", "--on", "ptrace"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let dir = PathBuf::from(format!("/var/tmp/trapgate-bench-{}", child.id()));
    let until = Instant::now() + Duration::from_secs(60);
    // The last of the programs: from then on the signal is watched, and something runs or is prepared.
    while !dir.join("nothing").exists() {
        assert!(Instant::now() < until, "{} does not appear", dir.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert!(!dir.exists(), "{} is left", dir.display());
}
