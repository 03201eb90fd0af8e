//! Other programs that run Linux programs behind a kernel of their own, or behind path translation,
//! each with the options that make it fastest without giving up what it is for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use super::{
    child::{Launch, Results},
    place::Place,
    ways::{ENVIRONMENT, Job},
};
use crate::cli::BenchArgs;

/// One way of running one peer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// gVisor, calls caught by seccomp and SIGSYS, answered through shared memory.
    RunscSystrap,
    /// gVisor, calls caught by ptrace.
    RunscPtrace,
    /// User-mode Linux, calls caught by seccomp and SIGSYS.
    UmlSeccomp,
    /// User-mode Linux, calls caught by ptrace.
    UmlPtrace,
    /// `PRoot`.
    Proot,
}

/// The files stay ours alone while it runs, so that the sentry may cache them.
const RUNSC: &[&str] = &[
    "--network=none",
    "--ignore-cgroups",
    "--file-access=exclusive",
    "--file-access-mounts=exclusive",
];
/// Memory that every item fits into: User-mode Linux keeps a table of all it might use.
const UML: &[&str] = &[
    "mem=512M",
    "root=/dev/root",
    "rootfstype=hostfs",
    "rootflags=/",
    "rw",
    "quiet",
    "con=null",
    "con0=null,fd:1",
];

impl Peer {
    fn platform(self) -> &'static str {
        match self {
            Peer::RunscSystrap => "systrap",
            Peer::RunscPtrace | Peer::UmlPtrace => "ptrace",
            Peer::UmlSeccomp => "seccomp",
            Peer::Proot => "",
        }
    }

    /// The command in a form that can be read.
    pub fn shown(self) -> &'static str {
        match self {
            Peer::RunscSystrap => {
                "runsc --platform=systrap --network=none --ignore-cgroups --file-access=exclusive \
                 --file-access-mounts=exclusive run (a bundle with root /, a tmpfs on /tmp)"
            }
            Peer::RunscPtrace => {
                "runsc --platform=ptrace --network=none --ignore-cgroups --file-access=exclusive \
                 --file-access-mounts=exclusive run (a bundle with root /, a tmpfs on /tmp)"
            }
            Peer::UmlSeccomp => {
                "linux.uml mem=512M rootfstype=hostfs rootflags=/ rw seccomp=on init=(runs PROGRAM, powers off)"
            }
            Peer::UmlPtrace => {
                "linux.uml mem=512M rootfstype=hostfs rootflags=/ rw seccomp=off init=(runs PROGRAM, powers off)"
            }
            Peer::Proot => "proot -b FRESH:/tmp PROGRAM",
        }
    }

    /// Its binary: as a flag names it, or from PATH.
    ///
    /// # Errors
    /// There is none.
    pub fn find(self, args: &BenchArgs) -> Result<PathBuf, String> {
        let (flag, option, name) = match self {
            Peer::RunscSystrap | Peer::RunscPtrace => (&args.runsc, "--runsc", "runsc"),
            Peer::UmlSeccomp | Peer::UmlPtrace => (&args.uml, "--uml", "linux.uml"),
            Peer::Proot => (&args.proot, "--proot", "proot"),
        };
        if let Some(path) = flag {
            let found = std::path::absolute(path).ok().filter(|path| path.is_file());
            return found.ok_or_else(|| format!("there is no {}", path.display()));
        }
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&dirs)
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
            .ok_or_else(|| format!("no `{name}` in PATH; install it or give {option} PATH"))
    }

    /// Whether this build of the peer can do what is asked of it: an older User-mode Linux ignores
    /// `seccomp=on` and would be measured under a wrong name.
    ///
    /// # Errors
    /// It cannot.
    pub fn obstacle(self, binary: &Path) -> Result<(), String> {
        let (argument, word) = match self {
            Peer::RunscSystrap | Peer::RunscPtrace => ("flags", self.platform()),
            Peer::UmlSeccomp => ("--help", "seccomp="),
            Peer::UmlPtrace | Peer::Proot => return Ok(()),
        };
        let output = Command::new(binary)
            .arg(argument)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot start {}: {error}", binary.display()))?;
        let says = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(word);
        if says(&output.stdout) || says(&output.stderr) {
            return Ok(());
        }
        Err(format!("{} is too old: it does not know {}", binary.display(), self.platform()))
    }

    /// How it runs `job`.
    ///
    /// # Errors
    /// What it needs beside cannot be written.
    pub fn launch(
        self,
        binary: &Path,
        place: &Place,
        results: &Path,
        job: &Job,
    ) -> Result<Launch, String> {
        let mut command = Command::new(binary);
        let own = Results::Own(results.to_owned());
        let results = match self {
            Peer::RunscSystrap | Peer::RunscPtrace => {
                let bundle = place.fresh()?;
                write(&bundle.join("config.json"), bundle_config(job).to_string().as_bytes())?;
                if !rustix::process::geteuid().is_root() {
                    command.arg("--rootless");
                }
                command.arg("--root").arg(bundle.join("state"));
                command.arg(format!("--platform={}", self.platform())).args(RUNSC);
                command.arg("run").arg("--bundle").arg(&bundle);
                command.arg(format!("trapgate-{}-{}", std::process::id(), place.number()));
                own
            }
            Peer::UmlSeccomp | Peer::UmlPtrace => {
                let dir = place.fresh()?;
                let mut words = environment();
                words.push(String::new());
                words.extend(argv(job));
                let mut text = words.join("\0");
                text.push('\0');
                write(&dir.join("command"), text.as_bytes())?;
                let seccomp = if self == Peer::UmlSeccomp { "on" } else { "off" };
                command.args(UML).arg(format!("seccomp={seccomp}"));
                command.arg(format!("init={}", place.guest().display()));
                command.arg("--").arg("init").arg(&dir);
                Results::Machine(dir)
            }
            Peer::Proot => {
                command.arg("-b").arg(format!("{}:/tmp", place.fresh()?.display()));
                command.arg(job.program).args(&job.arguments);
                own
            }
        };
        Ok(Launch { command, results })
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn argv(job: &Job) -> Vec<String> {
    let mut words = vec![job.program.to_string_lossy().into_owned()];
    words.extend(job.arguments.iter().cloned());
    words
}

fn environment() -> Vec<String> {
    ENVIRONMENT.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// config.json of an OCI bundle whose root is this machine's, read only, as trapgate's is.
fn bundle_config(job: &Job) -> serde_json::Value {
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc"}),
        json!({"destination": "/sys", "type": "sysfs"}),
        json!({"destination": "/dev", "type": "tmpfs"}),
        json!({"destination": "/tmp", "type": "tmpfs"}),
    ];
    if let Some(shared) = job.shared {
        mounts.push(json!({
            "destination": shared, "source": shared, "type": "bind", "options": ["rbind", "rw"],
        }));
    }
    json!({
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": argv(job),
            "env": environment(),
            "cwd": "/",
            "capabilities": {
                "bounding": ["CAP_DAC_OVERRIDE"],
                "effective": ["CAP_DAC_OVERRIDE"],
                "permitted": ["CAP_DAC_OVERRIDE"],
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 4096}],
        },
        "root": {"path": "/", "readonly": true},
        "mounts": mounts,
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
        ]},
    })
}
