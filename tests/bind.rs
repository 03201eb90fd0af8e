//! `--bind SRC:DST`: what a guest does in a bound directory is what the host finds there, and
//! nothing it does leads out of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use trapgate_tests::guest::guests_dir;
use trapgate_tests::{Backend, Link, Run, guest};

/// An empty directory of the host, removed with the value.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str, backend: Backend) -> Dir {
        let path = guests_dir().join(format!("bind-{name}-{backend}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("src")).unwrap();
        Dir(path)
    }
    fn src(&self) -> PathBuf {
        self.0.join("src")
    }
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.src().join(name)).unwrap_or_else(|e| format!("<{e}>"))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bound(source: &Path, mode: &str, run: Run) -> Run {
    run.monitor(["--bind".to_owned(), format!("{}:/mnt/b{mode}", source.display())])
}

/// Runs a script in the bound directory; it must end with 0.
fn script(dir: &Dir, backend: Backend, text: &str) -> String {
    let run = Run::script(backend, &format!("cd /mnt/b || exit 91\nset -e\n{text}"));
    let got = bound(&dir.src(), "", run).go();
    assert_eq!(got.status, 0, "on {backend}: {}{}", got.stdout, got.stderr);
    got.stdout
}

fn reaches_the_host(backend: Backend) {
    if !backend.usable("bind") {
        return;
    }
    let dir = Dir::new("writes", backend);
    fs::write(dir.src().join("old"), "from the host\n").unwrap();
    let seen = script(
        &dir,
        backend,
        "cat old; echo new > made; echo more >> made; printf 0123456789 > cut; truncate -s 4 cut
         mkdir -p d/e; mv old d/e/moved; ln d/e/moved hard; ln -s d/e/moved soft; rm -f nothing
         echo gone > gone; rm gone; mkdir empty; rmdir empty; cp made copy; chmod 640 copy
         touch -d @1000000000 copy; ls -A | sort | tr '\\n' ' '; cat soft; stat -c '%h %s' hard",
    );
    assert_eq!(seen, "from the host\ncopy cut d hard made soft from the host\n2 14\n");
    assert_eq!(dir.read("made"), "new\nmore\n");
    assert_eq!(dir.read("cut"), "0123");
    assert_eq!(dir.read("d/e/moved"), "from the host\n");
    assert_eq!(fs::read_link(dir.src().join("soft")).unwrap(), Path::new("d/e/moved"));
    let copy = fs::metadata(dir.src().join("copy")).unwrap();
    assert_eq!(copy.permissions().mode() & 0o7777, 0o640);
    let time = copy.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(time.as_secs(), 1_000_000_000);
    let mut names: Vec<_> = fs::read_dir(dir.src())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["copy", "cut", "d", "hard", "made", "soft"]);
}

/// The guest program's own checks, in a bound directory; then what it left there.
fn by_program(backend: Backend) {
    if !backend.usable("bind") {
        return;
    }
    let dir = Dir::new("program", backend);
    let run = Run::new(backend, guest("end_bind", Link::Static), None::<String>).env("T", "/mnt/b");
    let got = bound(&dir.src(), "", run).go();
    assert_eq!(got.status, 0, "on {backend}: {}{}", got.stdout, got.stderr);
    assert_eq!(dir.read("mapped"), "Mapped and stored\n");
    assert_eq!(dir.read("shared").len(), 8192);
    assert_eq!(dir.read("appended").len(), 4 * 100 * 10);
    assert_eq!(dir.read("unlinked"), "<No such file or directory (os error 2)>");
}

fn one_file(backend: Backend) {
    if !backend.usable("bind") {
        return;
    }
    let dir = Dir::new("file", backend);
    let file = dir.src().join("f");
    fs::write(&file, "one\n").unwrap();
    fs::write(dir.src().join("beside"), "secret\n").unwrap();
    let run =
        Run::script(backend, "cat /mnt/b; echo two >> /mnt/b; cat /mnt/b/../beside; ls -d /mnt/b");
    let got = bound(&file, "", run).go();
    assert_eq!(got.stdout, "one\n/mnt/b\n", "on {backend}: {}", got.stderr);
    assert_eq!(dir.read("f"), "one\ntwo\n");
}

fn read_only(backend: Backend) {
    if !backend.usable("bind") {
        return;
    }
    let dir = Dir::new("ro", backend);
    fs::write(dir.src().join("f"), "kept\n").unwrap();
    let text = "cd /mnt/b; cat f; for c in 'echo x > f' 'echo x > g' 'rm f' 'mkdir d' 'ln f h' \
                'mv f g' 'chmod 777 f' 'truncate -s 0 f' 'touch f'; do sh -c \"$c\" 2>&1 | \
                grep -c 'Read-only file system'; done | sort | uniq -c | tr -s ' '";
    let got = bound(&dir.src(), ":ro", Run::script(backend, text)).go();
    assert_eq!(got.stdout, "kept\n 9 1\n", "on {backend}: {}", got.stderr);
    assert_eq!(dir.read("f"), "kept\n");
    assert_eq!(fs::read_dir(dir.src()).unwrap().count(), 1);
}

/// Links that lead out lead to the guest's own files, and racing renames lead nowhere.
fn stays_inside(backend: Backend) {
    if !backend.usable("bind") {
        return;
    }
    let dir = Dir::new("escape", backend);
    let secret = dir.0.join("secret");
    fs::write(&secret, "secret\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    symlink("../secret", dir.src().join("up")).unwrap();
    symlink(&secret, dir.src().join("abs")).unwrap();
    symlink("..", dir.src().join("dir")).unwrap();
    let seen = script(
        &dir,
        backend,
        "cat up dir/secret ../secret 2>/dev/null || true
         echo broken > up 2>/dev/null || true; echo broken > dir/secret 2>/dev/null || true
         ln -s ../secret made; chmod 777 made up 2>/dev/null || true; cat made 2>/dev/null || true
         mkdir -p a/b; echo in > a/b/secret
         for i in $(seq 60); do mv a/b a/c 2>/dev/null; ln -s ../.. a/b 2>/dev/null
         rm -f a/b; mv a/c a/b; done &
         for i in $(seq 60); do cat a/b/secret 2>/dev/null | grep -v '^in$' || true
         chmod 777 a/b/secret 2>/dev/null || true; echo in > a/b/secret 2>/dev/null || true; done
         wait; echo end",
    );
    // What a link leads to is the guest's own: /mnt/secret, in memory.
    assert!(!seen.contains("secret") && seen.ends_with("end\n"), "{backend}: {seen}");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret\n");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 2, "something was made outside");
}

/// A file that the host changes is seen changed at the next open.
fn follows_the_host(backend: Backend) {
    if !backend.usable("bind") {
        return;
    }
    let dir = Dir::new("outside", backend);
    fs::write(dir.src().join("f"), "before\n").unwrap();
    let changed = dir.src();
    let host = std::thread::spawn(move || {
        while !changed.join("ready").exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        fs::write(changed.join("f"), "after, and longer\n").unwrap();
        fs::write(changed.join("g"), "made outside\n").unwrap();
        fs::write(changed.join("go"), "").unwrap();
    });
    let seen = script(
        &dir,
        backend,
        "cat f; touch ready; while ! test -e go; do sleep 0.01; done; cat f g; ls | tr '\\n' ' '",
    );
    host.join().unwrap();
    assert_eq!(seen, "before\nafter, and longer\nmade outside\nf g go ready ");
}

/// Waits until `name` exists in the bound directory: the guest is that far.
fn await_guest(src: &Path, name: &str) {
    let start = std::time::Instant::now();
    while !src.join(name).exists() && start.elapsed().as_secs() < 50 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Descriptors of directories of the tree `src` that a monitor has open.
fn directories_open(src: &Path) -> usize {
    let bind = format!("{}:/mnt/b", src.display());
    let mut most = 0;
    for process in fs::read_dir("/proc").unwrap().flatten().map(|e| e.path()) {
        let args = fs::read(process.join("cmdline")).unwrap_or_default();
        if !String::from_utf8_lossy(&args).contains(&bind) {
            continue;
        }
        let Ok(open) = fs::read_dir(process.join("fd")) else { continue };
        let targets = open.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        most = most.max(targets.filter(|to| to.starts_with(src) && to.is_dir()).count());
    }
    most
}

/// Directories looked into are held open, but only so many of them; what is given up is found again.
fn few_directories_open(backend: Backend) {
    if !backend.usable("bind") {
        return;
    }
    let dir = Dir::new("held", backend);
    for n in 0..2000 {
        fs::create_dir(dir.src().join(format!("d{n}"))).unwrap();
        fs::write(dir.src().join(format!("d{n}/f")), format!("{n}\n")).unwrap();
    }
    let src = dir.src();
    let host = std::thread::spawn(move || {
        await_guest(&src, "ready");
        let open = directories_open(&src);
        fs::write(src.join("go"), "").unwrap();
        open
    });
    // As many as the guest's own descriptors allow are in use at once.
    let seen = script(
        &dir,
        backend,
        "ulimit -Sn 900; for n in $(seq 0 799); do exec {fd}< d$n; test -f d$n/f; done
         test $(find . -name f -size -9k | wc -l) = 2000
         for n in $(seq 0 799); do test -f d$n/f; done
         touch ready; while ! test -e go; do sleep 0.01; done; cat d3/f d799/f d1999/f",
    );
    let open = host.join().unwrap();
    assert_eq!(seen, "3\n799\n1999\n");
    // The root of the bind besides, and what is being opened just then.
    assert!((100..=260).contains(&open), "on {backend}: {open} directories are open");
}

/// Names that the host replaces between two calls are what they are now, held directory or not; a
/// link in a directory's place does not lead out.
fn replaced_by_the_host(backend: Backend) {
    if !backend.usable("bind") {
        return;
    }
    let dir = Dir::new("replaced", backend);
    let (src, outside) = (dir.src(), dir.0.join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "secret\n").unwrap();
    for name in ["a", "b", "c", "c/deep"] {
        fs::create_dir(src.join(name)).unwrap();
        fs::write(src.join(name).join("f"), format!("in {name}\n")).unwrap();
    }
    let host = std::thread::spawn(move || {
        await_guest(&src, "ready");
        for name in ["a", "b"] {
            fs::rename(src.join(name), src.join(format!("old-{name}"))).unwrap();
        }
        symlink("../outside", src.join("a")).unwrap();
        fs::create_dir(src.join("b")).unwrap();
        fs::write(src.join("b/g"), "new\n").unwrap();
        fs::rename(src.join("c/deep"), outside.join("deep")).unwrap();
        fs::write(src.join("go"), "").unwrap();
    });
    let seen = script(
        &dir,
        backend,
        "cat a/f b/f c/deep/f; exec 5< a; cd c/deep; touch ../../ready
         while ! test -e /mnt/b/go; do sleep 0.01; done; cd /mnt/b
         cat a/f 2>/dev/null || echo a link; test -L a; stat -c %F a; cat b/f 2>/dev/null || cat b/g
         test -e c/deep || echo none; cat old-a/f; echo x > a/g 2>/dev/null || echo no place",
    );
    host.join().unwrap();
    let before = "in a\nin b\nin c/deep\n";
    assert_eq!(
        seen,
        format!("{before}a link\nsymbolic link\nnew\nnone\nin a\nno place\n"),
        "on {backend}"
    );
    let left: Vec<_> = fs::read_dir(dir.0.join("outside")).unwrap().flatten().collect();
    assert_eq!(left.len(), 2, "something was made outside: {left:?}");
    assert_eq!(fs::read_to_string(dir.0.join("outside/f")).unwrap(), "secret\n");
}

/// A guest in a directory that the host moves away is still in it, and gets no higher by it.
fn moved_by_the_host(backend: Backend) {
    if !backend.usable("bind") {
        return;
    }
    let dir = Dir::new("moved", backend);
    let (src, outside) = (dir.src(), dir.0.join("outside"));
    fs::create_dir_all(src.join("a/b")).unwrap();
    fs::write(src.join("a/b/f"), "f\n").unwrap();
    fs::write(src.join("top"), "top of the bind\n").unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("top"), "secret\n").unwrap();
    let host = std::thread::spawn(move || {
        await_guest(&src, "ready");
        fs::rename(src.join("a/b"), outside.join("b")).unwrap();
        fs::write(src.join("go"), "").unwrap();
    });
    let seen = script(
        &dir,
        backend,
        "cd a/b; cat f; touch ../../ready; while ! test -e /mnt/b/go; do sleep 0.01; done
         cat f; ls; cat ../top 2>/dev/null || echo none; cat ../../top",
    );
    host.join().unwrap();
    assert_eq!(seen, "f\nf\nf\nnone\ntop of the bind\n", "on {backend}");
}

fn git(backend: Backend) {
    if !backend.usable("bind") {
        return;
    }
    let dir = Dir::new("git", backend);
    script(
        &dir,
        backend,
        "export HOME=/tmp GIT_CONFIG_NOSYSTEM=1; git init -q -b main .; git config user.name t
         git config user.email t@example.org; echo hello > f; mkdir d; seq 1000 > d/g
         git add .; git commit -q -m first; echo more >> f; git commit -q -am second; git gc -q
         git log --format=%s > log; git status --porcelain",
    );
    let host = |args: &[&str]| {
        let safe = format!("safe.directory={}", dir.src().display());
        let out = Command::new("git")
            .args(["-c", &safe, "-C"])
            .arg(dir.src())
            .args(args)
            .output()
            .expect("git on the host");
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!(host(&["log", "--format=%s"]), "second\nfirst\n");
    assert_eq!(host(&["show", "HEAD:f"]), "hello\nmore\n");
    host(&["fsck", "--strict"]);
    assert_eq!(dir.read("log"), "second\nfirst\n");
}

macro_rules! each {
    ($($name:ident)*) => {
        $(mod $name {
            use super::Backend;
            #[test]
            fn kvm() {
                super::$name(Backend::Kvm);
            }
            #[test]
            fn ptrace() {
                super::$name(Backend::Ptrace);
            }
        })*
    };
}
each! {
    reaches_the_host by_program one_file read_only stays_inside follows_the_host few_directories_open
    replaced_by_the_host moved_by_the_host git
}
