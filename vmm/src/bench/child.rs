//! One run of a program: started, timed to its end, ended with all it started if it takes too long.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

use super::place;

/// A command, and where its results appear. Files rather than pipes: nobody has to read while it runs.
pub struct Launch {
    /// What to start.
    pub command: Command,
    /// Where its standard streams, or those of the program inside it, go.
    pub results: Results,
}

/// Files that results appear in.
pub enum Results {
    /// The command's own streams and status, in files of this directory.
    Own(PathBuf),
    /// A machine whose first process writes files of this directory (guest/init.c); the command's own
    /// streams are the machine's console.
    Machine(PathBuf),
}

impl Results {
    fn dir(&self) -> &Path {
        match self {
            Results::Own(dir) | Results::Machine(dir) => dir,
        }
    }
    /// What the program has printed so far.
    fn out(&self) -> Vec<u8> {
        fs::read(self.dir().join("out")).unwrap_or_default()
    }
    /// The last thing that was said about an error.
    fn complaint(&self) -> String {
        ["err", "console"]
            .iter()
            .filter_map(|name| fs::read(self.dir().join(name)).ok())
            .find_map(|bytes| {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                text.lines().rfind(|line| !line.trim().is_empty()).map(|l| l.trim().to_owned())
            })
            .unwrap_or_else(|| "no word of why".to_owned())
    }
}

/// A run that ended well.
pub struct Finished {
    /// What the program printed.
    pub out: Vec<u8>,
    /// From start to end.
    pub time: Duration,
}

struct Running {
    child: Child,
    results: Results,
    started: Instant,
}

fn start(launch: Launch) -> Result<Running, String> {
    let Launch { mut command, results } = launch;
    let dir = results.dir();
    let _not_ending = place::working();
    for stale in ["out", "err", "status", "console"] {
        // Most were never there.
        let _ = fs::remove_file(dir.join(stale));
    }
    let make = |name: &str| {
        File::create(dir.join(name)).map_err(|error| format!("cannot make {name}: {error}"))
    };
    let (out, err) = match results {
        Results::Own(_) => (make("out")?, make("err")?),
        Results::Machine(_) => {
            let console = make("console")?;
            let copy = console.try_clone().map_err(|error| format!("cannot start: {error}"))?;
            (console, copy)
        }
    };
    // A group of its own: a terminal's Ctrl-C reaches the bench alone, which then ends what it started.
    command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    let started = Instant::now();
    let child = command.spawn().map_err(|error| {
        format!("cannot start {}: {error}", command.get_program().to_string_lossy())
    })?;
    Ok(Running { child, results, started })
}

impl Running {
    /// Ends it and everything it started.
    fn kill(&mut self) {
        kill_below(self.child.id());
        // It may have ended by itself; either way there is nothing left to wait for afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
    /// Waits for the end; whether it came in time.
    fn ends_within(&self, limit: Duration) -> Result<bool, String> {
        let failed = |error: rustix::io::Errno| format!("cannot wait: {error}");
        let pidfd =
            pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).map_err(failed)?;
        let limit = Timespec::try_from(limit).map_err(|_| "the limit is too long".to_owned())?;
        loop {
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) {
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

/// Runs it to its end.
///
/// # Errors
/// Why it is no measurement, in one line: it did not start, failed, or took longer than `limit`.
pub fn run(launch: Launch, limit: Duration) -> Result<Finished, String> {
    let mut running = start(launch)?;
    let in_time = running.ends_within(limit);
    let time = running.started.elapsed();
    if in_time != Ok(true) {
        running.kill();
        in_time?;
        return Err(format!("no end after {} s", limit.as_secs()));
    }
    let status = running.child.wait().map_err(|error| format!("cannot wait: {error}"))?;
    let results = &running.results;
    let failed = || Err(results.complaint());
    match results {
        Results::Own(_) if !status.success() => failed(),
        Results::Machine(dir) if fs::read(dir.join("status")).ok().as_deref() != Some(b"0\n") => {
            failed()
        }
        _ => Ok(Finished { out: results.out(), time }),
    }
}

/// Starts it, waits until it has printed `sign` and a moment longer, and tells the bytes of memory that it
/// and all it started have in use; ends it.
///
/// # Errors
/// Why there is no figure.
pub fn memory_when(launch: Launch, sign: &[u8], limit: Duration) -> Result<f64, String> {
    let mut running = start(launch)?;
    let deadline = running.started + limit;
    let measured = loop {
        if running.results.out() == sign {
            // Whatever starting has set in motion has come to rest by then.
            std::thread::sleep(Duration::from_millis(400));
            break proportional_memory(running.child.id());
        }
        if Instant::now() > deadline {
            break Err(format!("not ready after {} s", limit.as_secs()));
        }
        if running.ends_within(Duration::from_millis(10))? {
            break Err(running.results.complaint());
        }
    };
    running.kill();
    measured
}

/// `root` and every process below it.
fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // proc(5): the parent is the second field after the name, which may hold anything but ends
        // with the last parenthesis.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        if let Some(parent) = parent.and_then(|parent| parent.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut all = vec![root];
    let mut at = 0;
    while at < all.len() {
        all.extend(children.get(&all[at]).into_iter().flatten());
        at += 1;
    }
    all
}

/// Ends every process below `root`.
pub fn kill_below(root: u32) {
    for pid in tree(root).into_iter().skip(1) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The sum of proportional set sizes: a page that several of them map counts once.
fn proportional_memory(root: u32) -> Result<f64, String> {
    let mut sum = 0.0;
    let mut seen = HashSet::new();
    for pid in tree(root) {
        // Processes of one address space (CLONE_VM without CLONE_THREAD) each report all of it. The same
        // mappings with the same figures to the last page are taken for that.
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let path = format!("/proc/{pid}/smaps_rollup");
        // A process may end between two looks; the first must be there.
        let Ok(text) = fs::read_to_string(&path) else {
            if pid == root {
                return Err(format!("cannot read {path}"));
            }
            continue;
        };
        if !seen.insert((maps, text.clone())) {
            continue;
        }
        let kilobytes = text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
        sum += kilobytes.unwrap_or(0.0) * 1024.0;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(name: &str, script: &str) -> Launch {
        let dir = std::env::temp_dir().join(format!("trapgate-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Launch { command, results: Results::Own(dir) }
    }

    #[test]
    fn ends() {
        let limit = Duration::from_secs(20);
        let good = run(launch("good", "echo x"), limit).map(|f| f.out);
        assert_eq!(good, Ok(b"x\n".to_vec()));
        let bad = run(launch("bad", "echo why >&2; exit 3"), limit).map(|f| f.out);
        assert_eq!(bad, Err("why".to_owned()));
        let late = run(launch("late", "sleep 60 & sleep 60"), Duration::from_millis(100));
        assert_eq!(late.map(|f| f.out), Err("no end after 0 s".to_owned()));
    }

    #[test]
    fn memory_of_a_tree() {
        let waiting = launch("memory", "echo ready; sleep 60");
        let bytes = memory_when(waiting, b"ready\n", Duration::from_secs(20)).expect("a figure");
        assert!(bytes > 4096.0, "{bytes}");
    }
}
