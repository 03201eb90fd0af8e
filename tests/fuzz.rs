//! `trapgate fuzz` as its users meet it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use trapgate_tests::{
    Backend,
    backend::trapgate,
    browser::{rendered, self_contained},
    guest::target_dir,
};

/// A directory of this test's own.
fn scratch(name: &str) -> PathBuf {
    let dir = target_dir().join("tmp").join(format!("fuzz-{name}-{}", std::process::id()));
    // It may be left over from a run that was killed.
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn fuzz(args: &[&str]) -> Output {
    Command::new("timeout")
        .args(["-k", "5", "300"])
        .arg(trapgate())
        .arg("fuzz")
        .args(args)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Every target this machine has, Linux first.
fn targets() -> String {
    let mut all = vec!["native"];
    if Backend::Kvm.usable("fuzz") {
        all.extend(["kvm", "kvm-exit"]);
    }
    if Backend::Ptrace.usable("fuzz") {
        all.push("ptrace");
    }
    all.join(",")
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

#[test]
fn the_suite_passes_everywhere() {
    let output = fuzz(&["suite", programs().to_str().unwrap(), "--targets", &targets()]);
    assert!(output.status.success(), "{}", text(&output));
    let said = text(&output);
    let count: usize = said.split(' ').next().unwrap().parse().expect("how many programs");
    assert!(count >= 300, "{said}");
}

#[test]
fn a_suite_that_misses_says_where_and_fails() {
    let dir = scratch("miss");
    fs::write(dir.join("a.prog"), "close(0x63) # EPERM\n").unwrap();
    let output = fuzz(&["suite", dir.to_str().unwrap(), "--targets", "native"]);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output));
    assert!(text(&output).contains("native: call 0: EBADF, expected EPERM"), "{}", text(&output));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn mistakes_are_one_line() {
    let dir = scratch("mistakes");
    let bad = dir.join("bad.prog");
    fs::write(&bad, "close(0x1\n").unwrap();
    let bad = bad.to_str().unwrap();
    for (args, words) in [
        (vec!["replay", "/no/such.prog"], "cannot read /no/such.prog"),
        (vec!["replay", bad], "line 1, column 10: ',' expected"),
        (vec!["minimize", bad], "line 1"),
        (vec!["repro", bad], "line 1"),
        (vec!["suite", "/no/such"], "cannot read /no/such"),
        (vec!["suite", dir.to_str().unwrap(), "--targets", "qemu"], "there are native, kvm"),
        (vec!["run", "--programs", "1", "--enable", "no_such_call"], "leave no call"),
        (vec!["run", "--time", "soon"], "soon"),
    ] {
        let output = fuzz(&args);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(125), "{args:?}: {said}");
        assert!(said.lines().count() == 1 && said.contains(words), "{args:?}: {said}");
    }
    fs::remove_dir_all(dir).unwrap();
}

/// The sandbox of native programs.
#[test]
fn native_programs_cannot_touch_the_host() {
    let dir = scratch("sandbox");
    let mark = dir.join("mark");
    fs::write(&mark, "mine").unwrap();
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::set_permissions(&mark, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let program = dir.join("a.prog");
    let path = mark.display();
    let own = std::process::id();
    fs::write(
        &program,
        format!(
            "openat(-100, &(0x7f0000000000)='{path}\\x00', 0x2, 0x0) # ENOENT\n\
             unlink(&(0x7f0000001000)='{path}\\x00') # ENOENT\n\
             chmod(&(0x7f0000002000)='/dev/null\\x00', 0x0) # EROFS\n\
             fchown(0x0, 0x3e8, 0x3e8) # EROFS\n\
             kill({own:#x}, 0x9) # ESRCH\n\
             mount(&(0x7f0000003000)='a\\x00', &(0x7f0000003040)='/w\\x00', &(0x7f0000003080)='tmpfs\\x00', 0x0, 0x0) # EPERM\n\
             ptrace() # EPERM\n\
             socket$tcp(0x2, 0x1, 0x0)\n\
             connect(0x3, &(0x7f0000004000)=@in={{0x2, 0x5000, 0x08080808}}, 0x10) # ENETUNREACH\n"
        ),
    )
    .unwrap();
    let output = fuzz(&["suite", dir.to_str().unwrap(), "--targets", "native"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read_to_string(&mark).unwrap(), "mine");
    fs::remove_dir_all(dir).unwrap();
}

/// The C that `repro` prints does what the program did.
#[test]
fn reproducers_compile_and_agree() {
    let dir = scratch("repro");
    let program = dir.join("a.prog");
    fs::write(
        &program,
        "pipe2(&(0x7f0000000000)={<r0=>0xffffffffffffffff, <r1=>0xffffffffffffffff}, 0x0)\n\
         read(r0, &(0x7f0000000040)=\"\"/8, 0x8) (async)\n\
         write(r1, &(0x7f0000000080)='abc', 0x3)\n\
         close(0x63)\n",
    )
    .unwrap();
    let output = fuzz(&["repro", program.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    let (source, binary) = (dir.join("a.c"), dir.join("a"));
    fs::write(&source, &output.stdout).unwrap();
    let cc = Command::new("cc")
        .args(["-static", "-pthread", "-Wall", "-Werror", "-o"])
        .arg(&binary)
        .arg(&source)
        .output()
        .unwrap();
    assert!(cc.status.success(), "{}", text(&cc));
    let ran = Command::new(&binary).output().unwrap();
    assert_eq!(text(&ran), "pipe2 = 0\nwrite = 0x3\nclose = -1 (EBADF)\n");
    fs::remove_dir_all(dir).unwrap();
}

/// One seed, one trace, byte for byte; another seed, another.
fn same_seed_same_trace(backend: Backend, target: &str) {
    if !backend.usable("fuzz determinism") {
        return;
    }
    let dir = scratch(&format!("seed-{target}"));
    let trace = |seed: &str, name: &str| {
        let path = dir.join(name);
        let output = fuzz(&[
            "run",
            "--seed",
            seed,
            "--programs",
            "512",
            "--targets",
            target,
            "--disable",
            "*clone*,*fork,futex*",
            "--trace",
            path.to_str().unwrap(),
        ]);
        assert!(output.status.success(), "{}", text(&output));
        fs::read_to_string(path).unwrap()
    };
    let (first, second, other) = (trace("7", "a"), trace("7", "b"), trace("8", "c"));
    let differing: Vec<(&str, &str)> =
        first.lines().zip(second.lines()).filter(|(a, b)| a != b).take(5).collect();
    assert!(first == second, "{differing:#?}");
    assert!(first != other && first.lines().count() > 1000);
    fs::remove_dir_all(dir).unwrap();
}
#[test]
fn same_seed_same_trace_on_kvm() {
    same_seed_same_trace(Backend::Kvm, "kvm-exit");
}
#[test]
fn same_seed_same_trace_on_ptrace() {
    same_seed_same_trace(Backend::Ptrace, "ptrace");
}

/// A run finds no difference between our own backends, no failure and no leak.
#[test]
fn backends_agree() {
    if !Backend::Kvm.usable("fuzz") || !Backend::Ptrace.usable("fuzz") {
        return;
    }
    let output = fuzz(&["run", "--seed", "1", "--programs", "3000", "--targets", "ptrace,kvm"]);
    assert!(output.status.success(), "{}", text(&output));
}

/// Ctrl-C ends a run in good order; the next goes on from its corpus.
#[test]
fn interrupted_runs_lose_nothing() {
    let dir = scratch("interrupt");
    let corpus = dir.join("corpus");
    let args = ["run", "--seed", "3", "--targets", "native", "--corpus", corpus.to_str().unwrap()];
    let child = Command::new(trapgate())
        .arg("fuzz")
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let kept = || fs::read_dir(corpus.join("corpus")).map_or(0, |dir| dir.flatten().count());
    let begun = Instant::now();
    while kept() < 50 {
        assert!(begun.elapsed() < Duration::from_secs(100), "no corpus comes about");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("findings 0"), "{}", text(&output));
    let before = kept();
    let resumed = fuzz(&[&args[..], &["--programs", "0"]].concat());
    assert!(resumed.status.success(), "{}", text(&resumed));
    assert!(before >= 50 && kept() >= before);
    assert!(!text(&resumed).contains("corpus 0,"), "{}", text(&resumed));
    fs::remove_dir_all(dir).unwrap();
}

/// The report, as a browser shows it.
#[test]
fn chromium_shows_the_report() {
    let dir = scratch("report");
    let page = dir.join("fuzz.html");
    let output = fuzz(&[
        "run",
        "--seed",
        "5",
        "--programs",
        "256",
        "--targets",
        "native",
        "--report",
        page.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", text(&output));
    let html = self_contained(&page);
    let measure = "<script>const p = document.createElement('pre'); p.id = 'measured'; \
        const seen = (s) => [...document.querySelectorAll(s)].filter(e => e.getBoundingClientRect().height > 3).length; \
        p.textContent = [seen('section'), seen('svg.curve'), seen('.calls tbody tr') > 20, \
        document.documentElement.scrollWidth <= document.documentElement.clientWidth].join(' '); \
        document.querySelector('main').append(p);</script></main>";
    let measuring = dir.join("measuring.html");
    fs::write(&measuring, html.replace("</main>", measure)).unwrap();
    for width in [1200, 600] {
        let dom = rendered(&measuring, &dir.join("profile"), width);
        assert!(
            dom.contains("<pre id=\"measured\">4 2 true true</pre>"),
            "at {width} pixels:\n{dom}"
        );
    }
    fs::remove_dir_all(dir).unwrap();
}
