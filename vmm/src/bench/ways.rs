//! Configurations: the ways a program is run, native first.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    Refusal,
    child::{Launch, Results},
    model::Configuration,
    peers::Peer,
    place::{PATH, Place},
};
use crate::{
    cli::BenchArgs,
    platform::{kvm, ptrace},
};

/// What runs the program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// This machine's own kernel.
    Native,
    /// `trapgate run` with these options.
    Trapgate(&'static [&'static str]),
    /// Somebody else's.
    Peer(Peer),
}

/// One configuration.
pub struct Way {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Whether it is measured when `--on` says nothing.
    by_default: bool,
    runner: Runner,
}

const fn own(
    name: &'static str,
    by_default: bool,
    options: &'static [&'static str],
    about: &'static str,
) -> Way {
    Way { name, about, by_default, runner: Runner::Trapgate(options) }
}

const fn peer(name: &'static str, peer: Peer, about: &'static str) -> Way {
    Way { name, about, by_default: false, runner: Runner::Peer(peer) }
}

/// Every configuration.
static WAYS: &[Way] = &[
    Way {
        name: "native",
        about: "this machine's own kernel",
        by_default: true,
        runner: Runner::Native,
    },
    own("kvm", true, &["--backend", "kvm"], "trapgate on KVM"),
    own(
        "kvm-exit",
        true,
        &["--backend", "kvm", "--gate", "exit"],
        "trapgate on KVM, an exit for every call",
    ),
    own(
        "kvm-no-rewrite",
        true,
        &["--backend", "kvm", "--no-rewrite"],
        "trapgate on KVM, SYSCALL instructions left as they are",
    ),
    own("ptrace", true, &["--backend", "ptrace"], "trapgate on ptrace"),
    peer("runsc-systrap", Peer::RunscSystrap, "gVisor, systrap platform"),
    peer("runsc-ptrace", Peer::RunscPtrace, "gVisor, ptrace platform"),
    peer("uml-seccomp", Peer::UmlSeccomp, "User-mode Linux, seccomp mode"),
    peer("uml-ptrace", Peer::UmlPtrace, "User-mode Linux, ptrace mode"),
    peer("proot", Peer::Proot, "PRoot, which confines nothing but paths"),
];

/// A program to run.
pub struct Job<'a> {
    /// Its path.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// A directory it may write in.
    pub shared: Option<&'a Path>,
}

/// A configuration that was asked for, and what runs it.
pub struct Chosen {
    /// Which.
    pub way: &'static Way,
    /// The peer's binary.
    binary: PathBuf,
}

impl Chosen {
    /// Whether it is the one that others are compared with.
    pub fn is_native(&self) -> bool {
        self.way.runner == Runner::Native
    }
    /// Whether it is somebody else's.
    pub fn is_peer(&self) -> bool {
        matches!(self.way.runner, Runner::Peer(_))
    }
    /// About how much longer it takes to start than trapgate; only progress and the time announced depend
    /// on it.
    pub fn extra(&self) -> Duration {
        match self.way.runner {
            Runner::Peer(Peer::UmlSeccomp | Peer::UmlPtrace) => Duration::from_millis(1200),
            Runner::Peer(Peer::RunscSystrap | Peer::RunscPtrace) => Duration::from_millis(150),
            _ => Duration::ZERO,
        }
    }
    /// The empty directory a workload writes in, by its name where the workload runs.
    pub fn out(&self, place: &Place) -> Result<PathBuf, String> {
        if self.is_native() { place.fresh() } else { Ok("/tmp".into()) }
    }
    /// How it runs `job`.
    ///
    /// # Errors
    /// What a peer needs beside cannot be written.
    pub fn launch(&self, place: &Place, job: &Job) -> Result<Launch, String> {
        let results = place.results();
        let mut launch = match self.way.runner {
            Runner::Native => {
                let mut command = Command::new(job.program);
                command.args(&job.arguments);
                Launch { command, results: Results::Own(results) }
            }
            Runner::Trapgate(options) => {
                let mut command = Command::new(place.trapgate());
                command.arg("run").args(options);
                if let Some(shared) = job.shared {
                    command.arg(format!("--bind={0}:{0}", shared.display()));
                }
                command.arg("--").arg(job.program).args(&job.arguments);
                Launch { command, results: Results::Own(results) }
            }
            Runner::Peer(peer) => peer.launch(&self.binary, place, &results, job)?,
        };
        launch.command.current_dir("/").env_clear().envs(ENVIRONMENT.iter().copied());
        Ok(launch)
    }
    /// What a report says about it.
    pub fn describe(&self) -> Configuration {
        let command = match self.way.runner {
            Runner::Native => "PROGRAM".to_owned(),
            Runner::Trapgate(options) => format!("trapgate run {} -- PROGRAM", options.join(" ")),
            Runner::Peer(peer) => peer.shown().to_owned(),
        };
        Configuration { name: self.way.name.to_owned(), about: self.way.about.to_owned(), command }
    }
}

/// The same for all, whatever the user's own holds.
pub const ENVIRONMENT: &[(&str, &str)] = &[("PATH", PATH), ("HOME", "/tmp"), ("LANG", "C.UTF-8")];

/// Why this machine cannot run `runner`, if so.
fn obstacle(runner: Runner, binary: &Path) -> Result<(), Refusal> {
    match runner {
        Runner::Native => Ok(()),
        Runner::Trapgate(options) if options.contains(&"kvm") => {
            kvm::probe::probe().map(|_| ()).map_err(|error| Refusal::new(error.to_string()))
        }
        Runner::Trapgate(_) => {
            ptrace::probe().map(|_| ()).map_err(|error| Refusal::new(error.to_string()))
        }
        Runner::Peer(peer) => peer.obstacle(binary).map_err(Refusal::missing),
    }
}

/// Configurations to measure, native first, and notes on those left out.
///
/// # Errors
/// An unknown name, or a named configuration that this machine cannot run.
pub fn choose(args: &BenchArgs) -> Result<(Vec<Chosen>, Vec<String>), Refusal> {
    for name in &args.on {
        if !WAYS.iter().any(|way| way.name == name) {
            let known: Vec<&str> = WAYS.iter().map(|way| way.name).collect();
            let known = known.join(", ");
            return Err(Refusal::new(format!(
                "'{name}' is not a configuration; there are {known}"
            )));
        }
    }
    let (mut chosen, mut notes) = (vec![], vec![]);
    for way in WAYS {
        let named = args.on.iter().any(|name| name == way.name);
        let is_peer = matches!(way.runner, Runner::Peer(_));
        let by_default = args.on.is_empty() && way.by_default;
        let wanted = named || by_default || way.runner == Runner::Native || is_peer && args.peers;
        if !wanted {
            continue;
        }
        let found = match way.runner {
            Runner::Peer(peer) => peer.find(args).map_err(Refusal::missing),
            _ => Ok(PathBuf::new()),
        };
        let found = found.and_then(|binary| obstacle(way.runner, &binary).map(|()| binary));
        match found {
            Ok(binary) => chosen.push(Chosen { way, binary }),
            Err(refusal) if named => {
                let message = format!("{}: {}", way.name, refusal.message);
                return Err(Refusal { message, ..refusal });
            }
            Err(refusal) => notes.push(format!("{} left out: {}", way.name, refusal.message)),
        }
    }
    Ok((chosen, notes))
}

/// Names and descriptions, for `--list`.
pub fn list() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    WAYS.iter().map(|way| (way.name, way.about, way.by_default))
}
