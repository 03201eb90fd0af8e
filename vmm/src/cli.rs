//! The command line: one definition from which parsing, `--help`, shell completions and the man
//! page all come.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::units::{self, Bind, EnvVar};

/// Runs Linux programs in a KVM micro-VM that has no guest Linux.
#[derive(Parser, Debug)]
#[command(name = "trapgate", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a program in a micro-VM
    Run(Box<RunArgs>),
    /// Tell what this host offers, which backend will be used and why, and what to fix
    Doctor(DoctorArgs),
    /// List the system calls, how much of each is supported, and what differs from Linux
    Syscalls(SyscallsArgs),
    /// Measure operations and real programs natively, in trapgate and in its peers
    Bench(BenchArgs),
    /// Throw system-call programs at the kernel and compare what they do with Linux
    Fuzz(FuzzArgs),
    /// Print shell completions
    Completions {
        /// The shell to complete for
        shell: clap_complete::Shell,
    },
    /// Print the man pages (troff)
    Man {
        /// Only this subcommand's page
        command: Option<String>,
    },
}

/// Which platform runs the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Backend {
    /// KVM where it works, else ptrace
    Auto,
    /// A KVM virtual machine
    Kvm,
    /// Traced host processes
    Ptrace,
}

/// How `--stats` reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum StatsFormat {
    /// A table on standard error
    Text,
    /// One JSON object on standard error
    Json,
}

/// How system calls reach the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Gate {
    /// Rings while calls come often and the host has a CPU to spare
    Auto,
    /// Rings whose servers never sleep, whether it pays or not
    Ring,
    /// An exit for every call
    Exit,
}

/// `trapgate run`.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: the program's own; 128+N if signal N ended it; 124 on --timeout; 125 if trapgate \
itself failed; 126 if the program cannot be executed; 127 if it is not found.\n\n\
Examples:\n  trapgate run -- bash\n  trapgate run --bind \"$PWD\":/src:ro --cwd /src -- make -n\n  \
trapgate run --backend ptrace --strace=trace.txt -- ls /")]
pub struct RunArgs {
    /// Where the guest runs
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: Backend,
    /// Host directory that becomes the guest's /; writes stay in memory
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Make host SRC visible at DST; writes reach the host unless :ro
    #[arg(long, value_name = "SRC:DST[:ro]", value_parser = units::bind)]
    pub bind: Vec<Bind>,
    /// Mount an empty tmpfs at DST
    #[arg(long, value_name = "DST", value_parser = units::guest_path)]
    pub tmpfs: Vec<PathBuf>,
    /// Set a variable, or pass the host's K on; without any, PATH, HOME, TERM, LANG and the like
    /// are passed on
    #[arg(long, value_name = "K=V", value_parser = units::env)]
    pub env: Vec<EnvVar>,
    /// Working directory in the guest [default: the current one if it exists there, else /]
    #[arg(long, value_name = "DIR", value_parser = units::guest_path)]
    pub cwd: Option<PathBuf>,
    /// Run as this user instead of root
    #[arg(long, value_name = "UID[:GID]", value_parser = units::user)]
    pub user: Option<(u32, u32)>,
    /// Host name the guest sees
    #[arg(long, value_name = "H", default_value = "trapgate", value_parser = units::hostname)]
    pub hostname: String,
    /// Memory the guest may use, e.g. 512M or 4G [default: half of the host's, at most 4G]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub mem: Option<u64>,
    /// CPUs the guest sees [default: the host's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub vcpus: Option<u16>,
    /// How system calls reach the kernel on KVM: through shared memory while that pays, or by leaving
    /// the VM each time
    #[arg(long, value_enum, default_value = "auto")]
    pub gate: Gate,
    /// Host threads that answer calls in shared memory
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub ring_servers: u8,
    /// Leave every SYSCALL instruction where it is, instead of replacing the hot ones by jumps
    #[arg(long)]
    pub no_rewrite: bool,
    /// Derive everything random in the guest from N, the same in every run; no secret may depend on it
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Clocks start at 2024-01-01T00:00:00Z, move by 1 us a system call, and jump to the next timer or
    /// time-out while all tasks wait; a wait for input does not hold them up, and rdtsc stays the host's
    #[arg(long)]
    pub virtual_time: bool,
    /// Compare each address space with the kernel's own books when it ends, and tell what is wrong (for fuzzing)
    #[arg(long)]
    pub audit: bool,
    /// End the guest after this long in real time, e.g. 10s or 2m (exit status 124)
    #[arg(long, value_name = "DUR", value_parser = units::duration)]
    pub timeout: Option<Duration>,
    /// Report counters on standard error at the end
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true,
          default_missing_value = "text")]
    pub stats: Option<StatsFormat>,
    /// Trace system calls to standard error or FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
          default_missing_value = "-")]
    pub strace: Option<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub program: Vec<std::ffi::OsString>,
}

/// `trapgate doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `trapgate syscalls`.
#[derive(Args, Debug)]
pub struct SyscallsArgs {
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// `trapgate bench`.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0; 3 if --compare names regressions; 4 if something asked for by name is not installed; \
5 if a program failed natively or in trapgate; 125 on any other mistake.\n\n\
Examples:\n  trapgate bench --json before.json\n  \
trapgate bench --filter micro,hello --on kvm --compare before.json\n  \
trapgate bench --peers --html bench.html\n  \
trapgate bench --from before.json --html before.html")]
pub struct BenchArgs {
    /// Rounds to count, after one that warms up; of workloads 3 at most
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Only these items: names, parts of names, or kinds (micro, start, memory, workload)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub filter: Vec<String>,
    /// Configurations to compare with native; see --list [default: those of trapgate]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub on: Vec<String>,
    /// Also every peer that is found: gVisor, User-mode Linux, PRoot
    #[arg(long)]
    pub peers: bool,
    /// gVisor's binary [default: runsc in PATH]
    #[arg(long, value_name = "PATH")]
    pub runsc: Option<PathBuf>,
    /// User-mode Linux's binary [default: linux.uml in PATH]
    #[arg(long, value_name = "PATH")]
    pub uml: Option<PathBuf>,
    /// PRoot's binary [default: proot in PATH]
    #[arg(long, value_name = "PATH")]
    pub proot: Option<PathBuf>,
    /// List items and configurations
    #[arg(long)]
    pub list: bool,
    /// Write every round's figures to FILE; - is standard output, instead of the text
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with bars to FILE
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Name what is slower or larger than in OLD, beyond the noise of both (exit status 3)
    #[arg(long, value_name = "OLD.json")]
    pub compare: Option<PathBuf>,
    /// Measure nothing: show, compare or convert the report that --json wrote to FILE
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rounds", "filter", "on", "peers"])]
    pub from: Option<PathBuf>,
}

/// `trapgate fuzz`.
#[derive(Args, Debug)]
#[command(after_help = "\
Programs are text in a subset of syzkaller's format; see docs/fuzz.md.\n\n\
Exit status: 0; 6 if something was found or a program of a suite missed; 125 on any other mistake.\n\n\
Examples:\n  trapgate fuzz run --time 10m --corpus corpus --report fuzz.html\n  \
trapgate fuzz replay corpus/findings/1.prog\n  trapgate fuzz suite tests/fuzz")]
pub struct FuzzArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: FuzzCommand,
}

/// Subcommands of `trapgate fuzz`.
#[derive(Subcommand, Debug)]
pub enum FuzzCommand {
    /// Make programs, run them, keep the interesting ones, report what differs
    Run(FuzzRunArgs),
    /// Run one program everywhere and show what it did
    Replay(FuzzFileArgs),
    /// Make a program that shows a difference as small as can be, and print it
    Minimize(FuzzFileArgs),
    /// Run a directory's programs against what they say they expect, and against Linux
    Suite(FuzzSuiteArgs),
    /// Print a program as C that does the same by itself
    Repro {
        /// The program
        file: PathBuf,
    },
}

/// `trapgate fuzz run`.
#[derive(Args, Debug)]
pub struct FuzzRunArgs {
    /// Makes the same programs, and the same VMs, as another run with this number [default: by chance]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Stop after this long, e.g. 90s, 10m or 2h [default: at Ctrl-C]
    #[arg(long, value_name = "DUR", value_parser = units::duration)]
    pub time: Option<Duration>,
    /// Stop after this many programs
    #[arg(long, value_name = "N", conflicts_with = "time")]
    pub programs: Option<u64>,
    /// Where programs run; the first is right where they differ: native, kvm, kvm-exit, ptrace
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "native,kvm")]
    pub targets: Vec<crate::fuzz::Kind>,
    /// Only calls whose names match, e.g. 'open*,fcntl$*'
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub enable: Vec<String>,
    /// No calls whose names match
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub disable: Vec<String>,
    /// Keep interesting programs and findings here, and go on from what is there
    #[arg(long, value_name = "DIR")]
    pub corpus: Option<PathBuf>,
    /// Run so many at a time, each with its own targets
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,
    /// Write every program and what it did to FILE; two runs with one seed write the same
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Write a page about the run to FILE
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
}

/// `trapgate fuzz replay` and `minimize`.
#[derive(Args, Debug)]
pub struct FuzzFileArgs {
    /// The program
    pub file: PathBuf,
    /// Where to run it; the first is right where they differ
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = crate::fuzz::Kind::LIST
    )]
    pub targets: Vec<crate::fuzz::Kind>,
}

/// `trapgate fuzz suite`.
#[derive(Args, Debug)]
pub struct FuzzSuiteArgs {
    /// Where the programs are: *.prog, also in directories below
    pub dir: PathBuf,
    /// Where to run them; what the first does, the others must do as well
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = crate::fuzz::Kind::LIST
    )]
    pub targets: Vec<crate::fuzz::Kind>,
}
