//! Where programs run: an executor on Linux itself or as a guest, fed through pipes.

use std::{
    io::{BufReader, Read, Write},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::Duration,
};

use super::{
    encode::Encoded,
    place::Place,
    records::{self, Broken, Raw},
};

/// How long nothing may be heard of a program: well above the executor's own patience.
const SILENCE: Duration = Duration::from_secs(20);
/// How long a target may take to end once it has nothing more to do.
const ENDING: Duration = Duration::from_secs(20);
/// Most that is kept of what a target says on standard error.
const MAX_WORDS: usize = 64 << 10;

/// A kind of target, as `--targets` names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// This host's Linux, in namespaces, under a seccomp denylist.
    Native,
    /// KVM, calls through rings.
    Kvm,
    /// KVM, each call an exit.
    KvmExit,
    /// Traced host processes.
    Ptrace,
}

impl Kind {
    /// All, the oracle first.
    pub const ALL: [Kind; 4] = [Kind::Native, Kind::Kvm, Kind::KvmExit, Kind::Ptrace];
    /// Their names, as `--targets` takes them.
    pub const LIST: &str = "native,kvm,kvm-exit,ptrace";

    /// As `--targets` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Native => "native",
            Kind::Kvm => "kvm",
            Kind::KvmExit => "kvm-exit",
            Kind::Ptrace => "ptrace",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Kind, String> {
        let known = Kind::ALL.map(Kind::name).join(", ");
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| format!("no target '{name}'; there are {known}"))
    }
}

/// Why a target is of no more use.
#[derive(Debug)]
pub struct Failure {
    /// In words: how it ended, and what it said.
    pub message: String,
    /// It made no sound for [`SILENCE`].
    pub hung: bool,
}

/// A running executor.
pub struct Target {
    kind: Kind,
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<Result<Raw, Broken>>,
    words: Arc<Mutex<String>>,
}

impl Target {
    /// Starts one. `seed` makes a VM the same each time.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        kind: Kind,
        place: &Place,
        seed: Option<u64>,
        slow: u32,
    ) -> Result<Target, String> {
        let mut command = command(kind, place, seed)?;
        if slow > 1 {
            command.args(["--slow", &slow.to_string()]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot start the {} target: {error}", kind.name()))?;
        let input = child.stdin.take();
        let (send, answers) = channel();
        let mut output =
            BufReader::with_capacity(1 << 18, child.stdout.take().expect("piped above"));
        std::thread::spawn(move || {
            loop {
                let answer = records::read(&mut output);
                let last = answer.is_err();
                if send.send(answer).is_err() || last {
                    return;
                }
            }
        });
        let words = Arc::new(Mutex::new(String::new()));
        let (kept, errors) = (words.clone(), child.stderr.take().expect("piped above"));
        std::thread::spawn(move || keep(errors, &kept));
        Ok(Target { kind, child, input, answers, words })
    }
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }
    /// Runs programs, in order; what it saw of each. Fewer than were given, if it failed at one.
    ///
    /// # Errors
    /// With what it saw until then.
    pub fn run(&mut self, frames: &[&Encoded]) -> Result<Vec<Raw>, (Vec<Raw>, Failure)> {
        let bytes: Vec<u8> =
            frames.iter().flat_map(|f| &f.words).flat_map(|word| word.to_le_bytes()).collect();
        let Some(mut input) = self.input.take() else {
            return Err((Vec::new(), self.failure("it was told to end", false)));
        };
        // Its answers fill a pipe while it still reads: both ends are served at once.
        let writer = std::thread::spawn(move || {
            // A target that ends early is noticed by its silence.
            let _ = input.write_all(&bytes);
            input
        });
        let mut seen = Vec::with_capacity(frames.len());
        while seen.len() < frames.len() {
            let (message, hung) = match self.answers.recv_timeout(SILENCE) {
                Ok(Ok(raw)) if raw.id == frames[seen.len()].words[1] => {
                    seen.push(raw);
                    continue;
                }
                Ok(Ok(_)) => ("it answered for another program".to_owned(), false),
                Ok(Err(broken)) => (broken.to_string(), false),
                Err(RecvTimeoutError::Timeout) => {
                    (format!("no answer for {} s", SILENCE.as_secs()), true)
                }
                Err(RecvTimeoutError::Disconnected) => ("it ended".to_owned(), false),
            };
            let failure = self.failure(&message, hung);
            return Err((seen, failure));
        }
        self.input = writer.join().ok();
        Ok(seen)
    }
    /// Ends it in good order; complains if it does not end, or says something of a bug.
    ///
    /// # Errors
    /// What is wrong with its end.
    pub fn end(mut self) -> Result<(), Failure> {
        self.input = None;
        match self.wait(ENDING) {
            None => Err(self.failure("it does not end", true)),
            Some(status) if !status.success() => Err(self.failure(&format!("{status}"), false)),
            Some(_) => {
                let words = self.words();
                let (statistics, words): (Vec<&str>, Vec<&str>) =
                    words.lines().partition(|line| line.starts_with('{'));
                let mut wrong: Vec<String> = words.into_iter().map(str::to_owned).collect();
                wrong.extend(statistics.into_iter().flat_map(leaks));
                if wrong.is_empty() {
                    return Ok(());
                }
                let message = format!("{} at its end: {}", self.kind.name(), wrong.join("; "));
                Err(Failure { message, hung: false })
            }
        }
    }
    fn words(&self) -> String {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let step = Duration::from_millis(5);
        for _ in 0..limit.as_millis() / step.as_millis() {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(step),
                Ok(Some(status)) => return Some(status),
                Err(_) => return None,
            }
        }
        None
    }
    fn failure(&mut self, message: &str, hung: bool) -> Failure {
        let mut message = format!("{}: {message}", self.kind.name());
        // One that is ending by itself has something to say yet.
        if !hung && let Some(status) = self.wait(Duration::from_secs(15)) {
            message.push_str(&format!(" ({status})"));
        }
        let words = self.words();
        let words: Vec<&str> = words.lines().filter(|line| !line.starts_with('{')).collect();
        if !words.is_empty() {
            message.push_str(": ");
            message.push_str(&words.join("\n"));
        }
        Failure { message, hung }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a VM's statistics say it still had at its end and not at its beginning.
fn leaks(statistics: &str) -> Vec<String> {
    let report: serde_json::Value = serde_json::from_str(statistics).unwrap_or_default();
    let notes = report["notes"].as_array().cloned().unwrap_or_default();
    let mut out: Vec<String> = notes.iter().map(ToString::to_string).collect();
    let Some(after) = report["in_use_after"].as_object() else {
        out.push("no statistics".to_owned());
        return out;
    };
    for (what, count) in after {
        let before = &report["in_use_before"][what];
        if count.as_u64() > before.as_u64() {
            out.push(format!("a leak: {what} {before} at first, {count} at the end"));
        }
    }
    out
}

fn keep(mut from: impl Read, words: &Mutex<String>) {
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() < MAX_WORDS {
            words.push_str(&String::from_utf8_lossy(&buffer[..len]));
        }
    }
}

fn command(kind: Kind, place: &Place, seed: Option<u64>) -> Result<Command, String> {
    let backend: &[&str] = match kind {
        Kind::Native => {
            let mut command = Command::new(place.executor());
            command.arg("--sandbox");
            return Ok(command);
        }
        Kind::Kvm => &["--backend", "kvm", "--gate", "auto"],
        Kind::KvmExit => &["--backend", "kvm", "--gate", "exit"],
        Kind::Ptrace => &["--backend", "ptrace"],
    };
    let own =
        std::env::current_exe().map_err(|error| format!("cannot find trapgate itself: {error}"))?;
    let mut command = Command::new(own);
    command.arg("run").args(backend).arg("--root").arg(place.root()).args(["--tmpfs", "/w"]);
    let mut bind = place.executor().into_os_string();
    bind.push(":/executor:ro");
    command.arg("--bind").arg(bind).args([
        "--user",
        "1000:1000",
        "--hostname",
        "fuzz",
        "--mem",
        "512M",
    ]);
    command.args(["--cwd", "/", "--env", "PATH=/", "--stats=json", "--audit"]);
    if let Some(seed) = seed {
        command.args(["--seed", &seed.to_string(), "--virtual-time"]);
    }
    command.args(["--", "/executor"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaks_are_what_is_more_at_the_end() {
        let statistics = r#"{"in_use_before":{"frames":3,"files":1},"in_use_after":{"frames":4,"files":1},"notes":["x"]}"#;
        assert_eq!(leaks(statistics), ["\"x\"", "a leak: frames 3 at first, 4 at the end"]);
        assert_eq!(leaks("{"), ["no statistics"]);
    }

    #[test]
    fn targets_are_named_as_they_are_asked_for() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert_eq!(Kind::ALL.map(Kind::name).join(","), Kind::LIST);
        assert!("qemu".parse::<Kind>().unwrap_err().contains("native, kvm, kvm-exit, ptrace"));
    }
}
