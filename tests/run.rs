//! One run of one program: started, watched, ended, collected.
//!
//! Neighbours: `backend` names the place, `compare` judges the outcome. Invariant: when
//! [`Run::go`] returns, no process of the run is left; each carries a marker in its environment,
//! which is how those that left the process group are found.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::{Backend, trapgate};

/// Limit of a run that names none. Generous: it only bounds a hang.
const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// What a run yielded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Exit status as a shell shows it: 128+n for signal n.
    pub status: i32,
    /// Standard output, lossily as text.
    pub stdout: String,
    /// Standard error, lossily as text.
    pub stderr: String,
    /// Whether the harness had to end it.
    pub timed_out: bool,
}

/// A run to be made.
pub struct Run {
    backend: Backend,
    monitor_args: Vec<String>,
    program: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Vec<u8>,
    limit: Duration,
}

impl Run {
    /// A program with its arguments.
    pub fn new<S: Into<String>>(
        backend: Backend,
        program: impl AsRef<Path>,
        args: impl IntoIterator<Item = S>,
    ) -> Run {
        let mut all = vec![program.as_ref().to_string_lossy().into_owned()];
        all.extend(args.into_iter().map(Into::into));
        Run {
            backend,
            monitor_args: Vec::new(),
            program: all,
            env: Vec::new(),
            stdin: Vec::new(),
            limit: DEFAULT_LIMIT,
        }
    }

    /// A bash script; `$T` is an empty scratch directory and the working directory.
    pub fn script(backend: Backend, text: &str) -> Run {
        Run::new(backend, "/bin/bash", ["-c", &format!("cd \"$T\" || exit 90\n{text}")])
    }

    /// Further options of `trapgate run` (ignored natively).
    pub fn monitor<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Run {
        self.monitor_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// One more environment variable.
    pub fn env(mut self, key: &str, value: &str) -> Run {
        self.env.push((key.into(), value.into()));
        self
    }

    /// What the program reads; empty otherwise.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Run {
        self.stdin = bytes.into();
        self
    }

    /// Ends the run after this long.
    pub fn limit(mut self, limit: Duration) -> Run {
        self.limit = limit;
        self
    }

    /// Runs it.
    ///
    /// # Panics
    /// When it cannot be started at all.
    pub fn go(self) -> Outcome {
        self.backend.record();
        let marker = next_marker();
        let (mut command, scratch) = self.command(&marker);
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("{:?} cannot be started: {e}", command.get_program()));

        let mut input = child.stdin.take().expect("piped");
        let bytes = self.stdin;
        thread::spawn(move || {
            // A program need not read its input.
            let _ = input.write_all(&bytes);
        });
        let out = collect(child.stdout.take().expect("piped"));
        let err = collect(child.stderr.take().expect("piped"));

        let (status, timed_out) = wait(&mut child, started, self.limit, &marker);
        // Something left behind may hold the pipes open: it gets a moment, then it is ended.
        let grace = Duration::from_secs(5);
        let stdout = out.recv_timeout(grace).unwrap_or_else(|_| {
            kill_marked(&marker);
            out.recv().unwrap_or_default()
        });
        let stderr = err.recv_timeout(grace).unwrap_or_else(|_| {
            kill_marked(&marker);
            err.recv().unwrap_or_default()
        });
        kill_marked(&marker);
        if let Some(dir) = scratch {
            let _ = fs::remove_dir_all(dir);
        }
        Outcome {
            status,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            timed_out,
        }
    }

    /// The command, and natively the scratch directory that is to be removed afterwards.
    fn command(&self, marker: &str) -> (Command, Option<PathBuf>) {
        let scratch = native_scratch(marker);
        let inside = match self.backend {
            Backend::Native => scratch.to_string_lossy().into_owned(),
            Backend::Kvm | Backend::Ptrace => "/tmp".to_owned(),
        };
        let mut env = vec![
            ("PATH".to_owned(), "/usr/bin:/bin:/usr/sbin:/sbin".to_owned()),
            ("HOME".to_owned(), inside.clone()),
            ("T".to_owned(), inside),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("TZ".to_owned(), "UTC".to_owned()),
        ];
        env.extend(self.env.iter().cloned());
        let mut command = match self.backend {
            Backend::Native => {
                fs::create_dir_all(&scratch).expect("scratch directory");
                let mut c = Command::new(&self.program[0]);
                c.args(&self.program[1..]).env_clear().envs(env).current_dir(&scratch);
                c
            }
            Backend::Kvm | Backend::Ptrace => {
                let mut c = Command::new(trapgate());
                c.args(["run", "--backend", self.backend.name(), "--cwd", "/tmp"]);
                c.args(env.iter().flat_map(|(k, v)| ["--env".to_owned(), format!("{k}={v}")]));
                c.args(&self.monitor_args).arg("--").args(&self.program);
                c
            }
        };
        command.env("TRAPGATE_TEST_RUN", marker);
        (command, (self.backend == Backend::Native).then_some(scratch))
    }
}

/// Native scratch lies on a tmpfs if there is one, as the guest's does.
fn native_scratch(marker: &str) -> PathBuf {
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
    base.join(marker)
}

/// Unique among all runs on this machine.
fn next_marker() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("tg-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn collect(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        let _ = send.send(all);
    });
    receive
}

fn wait(child: &mut Child, started: Instant, limit: Duration, marker: &str) -> (i32, bool) {
    let mut timed_out = false;
    loop {
        if let Some(status) = child.try_wait().expect("waiting for a child of ours") {
            let shown = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            return (shown, timed_out);
        }
        if started.elapsed() > limit {
            timed_out = true;
            let _ = child.kill();
            kill_marked(marker);
        }
        // Short at first: most programs end at once.
        let nap = if started.elapsed() < Duration::from_millis(200) { 2 } else { 20 };
        thread::sleep(Duration::from_millis(nap));
    }
}

/// Process ids whose environment carries the marker.
pub fn marked(marker: &str) -> Vec<u32> {
    let needle = format!("TRAPGATE_TEST_RUN={marker}\0");
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    all.flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|env| env.windows(needle.len()).any(|w| w == needle.as_bytes()))
        })
        .collect()
}

fn kill_marked(marker: &str) {
    // A fork may be racing with us: until none is left, but not for ever.
    for _ in 0..50 {
        let left = marked(marker);
        if left.is_empty() {
            return;
        }
        signal("KILL", &left);
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal to processes of ours; those already gone are no error.
pub fn signal(name: &str, pids: &[u32]) {
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    let _ = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$0\" \"$@\" 2>/dev/null", name])
        .args(list)
        .status();
}
