//! `trapgate run`: from the command line to a VM, and from its end to an exit status.

use std::{
    ffi::OsStr,
    io::{IsTerminal, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use trapgate_kernel::{
    creds::Creds,
    error::Errno,
    fs::{
        fdtable::FdTable,
        file::OpenFile,
        inode::Actor,
        setup::{self, FsConfig},
        vfs,
    },
    host::Host,
    kernel::{Config, Kernel, Parts},
    linux::{exec_image, strace::Strace},
    signal::TaskSignals,
    task::{TaskParts, boot::Handle, comm_from, process::rlimit, status::ExitStatus},
};
use vmm_sys_util::eventfd::EventFd;

use crate::{
    backend,
    cli::{Gate, RunArgs},
    console::Console,
    events::{self, Ended, Target},
    exit,
    host::{self, LinuxHost, RepeatableHost, Resident, Shown, Streams},
    memory::GuestRam,
    platform::kvm::KvmOptions,
    stats::{self, Phases},
};

/// Variables passed on from the host when no `--env` is given.
const PASSED_ON: [&str; 8] = ["PATH", "HOME", "TERM", "LANG", "LC_ALL", "TZ", "USER", "COLORTERM"];
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Least memory in which a program can run at all.
const LEAST_MEMORY: u64 = 8 << 20;
/// Most memory asked for when `--mem` does not say.
const DEFAULT_MEMORY: u64 = 4 << 30;
/// How long the VM's threads may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a run did not come about: the message and the exit status.
struct Failure {
    message: String,
    status: u8,
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure { message, status: exit::FAILURE }
    }
}

/// Runs the command; the exit status.
#[must_use]
pub fn command(args: &RunArgs) -> u8 {
    match run(args) {
        Ok(status) => status,
        Err(failure) => {
            exit::complain(&failure.message);
            failure.status
        }
    }
}

fn run(args: &RunArgs) -> Result<u8, Failure> {
    let host = Arc::new(LinuxHost::new());
    let mut phases = Phases::begin(host.clone());
    // Where the host tells no peak the statistics go without it.
    let resident = args.stats.and_then(|_| Resident::open().ok());
    events::block_signals().map_err(|e| format!("cannot block signals: {e}"))?;
    let kernel = boot(args, host, &mut phases)?;
    let baseline = kernel.in_use().counts;
    let shown = Shown {
        numbered: args.seed.is_some() || args.virtual_time,
        times: kernel.virtual_time.as_ref().map(|time| time.realtime()),
    };
    let streams = Streams::new(shown).map_err(|e| format!("cannot watch standard streams: {e}"))?;
    let console = Console::new(&kernel).map_err(|e| format!("cannot use the terminal: {e}"))?;
    let console = console.map(Arc::new);
    phases.end("kernel");
    let first = First { args, kernel: &kernel, streams: &streams, console: console.as_deref() };
    let handle = Arc::new(first.program(&mut phases)?);
    let ended = supervise(args, &handle, console.as_ref())?;
    // The program's own thread took this moment; none, if it never came that far.
    let entered = kernel.stats.first_entry.get();
    phases.end_at("start", entered.copied().unwrap_or_default());
    phases.end("guest");
    let status = handle.status();
    drop(console);
    let all_gone = kernel.shutdown(PATIENCE);
    phases.end("teardown");
    if let Some(report) = kernel.failures.fatal() {
        exit::complain(&format!("a bug in trapgate ended the VM: {report}"));
        return Ok(exit::FAILURE);
    }
    if !all_gone {
        exit::complain("the VM's threads did not end in time (a bug in trapgate)");
    }
    match args.stats {
        // The statistics have the notes as well.
        Some(format) => {
            let peak = resident.and_then(|resident| resident.peak());
            stats::Report::new(&kernel, &phases, peak, &baseline).print(format);
        }
        None => kernel.failures.notes().iter().for_each(|note| exit::complain(note)),
    }
    Ok(match (ended, status) {
        (Ended::Timeout, _) => {
            let limit = args.timeout.unwrap_or_default();
            exit::complain(&format!("--timeout: ended after {:.1} s", limit.as_secs_f64()));
            exit::TIMEOUT
        }
        (Ended::Guest, Some(ExitStatus::Exited(code))) => code,
        (Ended::Guest, Some(ExitStatus::Signaled { signal, .. })) => 128 + signal,
        (Ended::Guest, None) => exit::FAILURE,
    })
}

fn boot(args: &RunArgs, host: Arc<LinuxHost>, phases: &mut Phases) -> Result<Arc<Kernel>, Failure> {
    let total = host.total_memory();
    let memory = args.mem.unwrap_or_else(|| (total / 2).clamp(LEAST_MEMORY, DEFAULT_MEMORY));
    if memory < LEAST_MEMORY {
        let least = LEAST_MEMORY >> 20;
        return Err(format!("--mem: {memory} bytes are too few; give at least {least}M").into());
    }
    if memory > total {
        let (asked, has) = (memory >> 20, total >> 20);
        let message = format!("--mem: {asked} MiB is more than this host's {has} MiB; lower it");
        return Err(message.into());
    }
    let ram = GuestRam::new(memory).map_err(|error| error.to_string())?;
    phases.end("memory");
    let vcpus = args.vcpus.map(usize::from);
    let servers = match args.gate {
        Gate::Exit => 0,
        Gate::Auto if host.cpus() < 2 => 0,
        Gate::Auto | Gate::Ring => usize::from(args.ring_servers),
    };
    let always = args.gate == Gate::Ring;
    let options =
        KvmOptions { servers, always, rewrite: !args.no_rewrite, ..KvmOptions::default() };
    let platform = backend::start(args.backend, &ram, options)?;
    phases.end("platform");
    let cpus = vcpus.unwrap_or_else(|| host.cpus()).max(1);
    let config = Config { hostname: args.hostname.clone(), cpus, memory, audit: args.audit };
    let host: Arc<dyn Host> = if args.seed.is_some() || args.virtual_time {
        Arc::new(RepeatableHost::new(host, args.seed, args.virtual_time))
    } else {
        host
    };
    let kernel = Kernel::new(Parts { platform, host, frames: ram.frames.clone(), config });
    if let Some(path) = &args.strace {
        let out: Box<dyn Write + Send> = if path == Path::new("-") {
            Box::new(std::io::stderr())
        } else {
            let file = std::fs::File::create(path)
                .map_err(|error| format!("--strace={}: {error}", path.display()))?;
            Box::new(file)
        };
        // A fresh kernel has no tracer yet.
        let _ = kernel.tracer.set(Box::new(Strace::new(out)));
    }
    Ok(kernel)
}

fn environment(args: &RunArgs) -> Vec<Vec<u8>> {
    let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
    let mut set = |name: &str, value: &OsStr| {
        pairs.retain(|(n, _)| n != name);
        pairs.push((name.to_owned(), value.as_bytes().to_vec()));
    };
    set("PATH", OsStr::new(DEFAULT_PATH));
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            set(name, &value);
        }
    }
    for var in &args.env {
        match &var.value {
            Some(value) => set(&var.name, OsStr::new(value)),
            None => {
                if let Some(value) = std::env::var_os(&var.name) {
                    set(&var.name, &value);
                }
            }
        }
    }
    pairs
        .into_iter()
        .map(|(name, value)| [name.as_bytes(), b"=", value.as_slice()].concat())
        .collect()
}

/// The place of `program`, searched for in PATH if it has no slash, as execvp(3) does.
fn find_program(
    who: &Actor,
    program: &[u8],
    environment: &[Vec<u8>],
) -> Result<(Vec<u8>, Arc<OpenFile>), Failure> {
    let cwd = who.fs.cwd();
    let candidates: Vec<Vec<u8>> = if program.contains(&b'/') {
        vec![program.to_vec()]
    } else {
        let path = environment.iter().find_map(|v| v.strip_prefix(b"PATH=")).unwrap_or_default();
        path.split(|b| *b == b':')
            .map(|dir| if dir.is_empty() { b".".as_slice() } else { dir })
            .map(|dir| [dir, b"/", program].concat())
            .collect()
    };
    let mut denied = None;
    for path in candidates {
        match vfs::open_exec(who, &cwd, &path, true) {
            Ok(file) => return Ok((path, file)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => denied = denied.or(Some(errno)),
        }
    }
    let shown = String::from_utf8_lossy(program);
    Err(match denied {
        Some(errno) => Failure {
            message: format!("cannot execute '{shown}': {}", describe(errno)),
            status: exit::NOT_EXECUTABLE,
        },
        None => Failure {
            message: format!("'{shown}' not found in the guest; check --root, --bind and PATH"),
            status: exit::NOT_FOUND,
        },
    })
}

/// An errno in words, with its name.
fn describe(errno: Errno) -> String {
    format!("{} ({errno})", words(errno))
}

fn words(errno: Errno) -> String {
    let text = std::io::Error::from_raw_os_error(i32::from(errno.raw())).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// What the first program is made from.
struct First<'a> {
    args: &'a RunArgs,
    kernel: &'a Arc<Kernel>,
    streams: &'a Arc<Streams>,
    console: Option<&'a Console>,
}

impl First<'_> {
    fn program(&self, phases: &mut Phases) -> Result<Handle, Failure> {
        let First { args, kernel, streams, console } = *self;
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let mut config = FsConfig {
            root: Some(args.root.clone()),
            binds: args
                .bind
                .iter()
                .map(|b| setup::Bind {
                    source: b.source.clone(),
                    target: bytes(&b.target),
                    read_only: b.read_only,
                })
                .collect(),
            tmpfs: args.tmpfs.iter().map(|t| bytes(t)).collect(),
            cwd: args.cwd.as_deref().map(bytes).unwrap_or_default(),
        };
        let fs = match setup::build(kernel, &config) {
            Ok(fs) => fs,
            Err(error) => return Err(format!("{error} ({})", words(error.errno())).into()),
        };
        if args.cwd.is_none()
            && let Ok(cwd) = std::env::current_dir()
        {
            // The current directory is a courtesy: where the guest has none like it, / serves.
            config.cwd = bytes(&cwd);
            let who = Actor::kernel(kernel, &fs);
            if let Ok(place) = vfs::find(&who, &fs.root(), &config.cwd, true)
                && place.attr().is_ok_and(|a| a.is_dir())
            {
                fs.set_cwd(place);
            }
        }
        phases.end("root");
        let creds = args.user.map_or_else(|| Creds::user(0, 0), |(uid, gid)| Creds::user(uid, gid));
        let creds = Arc::new(creds);
        let who =
            Actor { kernel: kernel.clone(), creds: creds.clone(), fs: fs.clone(), task: None };
        let envp = environment(args);
        let argv: Vec<Vec<u8>> = args.program.iter().map(|a| a.as_bytes().to_vec()).collect();
        let (path, file) = find_program(&who, &argv[0], &envp)?;
        let open = |path: &[u8]| vfs::open_exec(&who, &who.fs.cwd(), path, true);
        let image = exec_image::load(exec_image::Request {
            kernel,
            file,
            path: &path,
            argv,
            envp,
            creds: &creds,
            stack_limit: rlimit::defaults()[rlimit::STACK].0,
            randomize: true,
            open: &open,
        })
        .map_err(|errno| Failure {
            message: format!(
                "cannot execute '{}': {}",
                String::from_utf8_lossy(&path),
                describe(errno)
            ),
            // It was found: what is missing is the interpreter it names.
            status: match errno {
                Errno::ENOENT | Errno::ENOTDIR => exit::NOT_FOUND,
                _ => exit::NOT_EXECUTABLE,
            },
        })?;
        let files = Arc::new(FdTable::default());
        for number in 0..3_u8 {
            let terminal = match number {
                0 => std::io::stdin().is_terminal(),
                1 => std::io::stdout().is_terminal(),
                _ => std::io::stderr().is_terminal(),
            };
            let stream = match console {
                Some(console) if terminal => console.guest.file(&who).ok(),
                _ => streams.open(number),
            };
            if let Some(stream) = stream {
                // The table is empty and three is below any limit.
                let _ = files.replace(i32::from(number), stream, false, 3);
            }
        }
        phases.end("program");
        // From here on the guest may run: the monitor gives up every call it will not need.
        host::seccomp::install(kernel.platform.name()).map_err(|error| error.to_string())?;
        phases.end("confine");
        let comm = comm_from(&image.comm);
        let parts =
            TaskParts { mm: image.mm, files, fs, creds, signals: TaskSignals::default(), comm };
        kernel
            .start_first(parts, image.regs, console.map(|c| &*c.guest))
            .map_err(|errno| format!("cannot start the first program: {}", describe(errno)).into())
    }
}

struct Guest {
    handle: Arc<Handle>,
    console: Option<Arc<Console>>,
}

impl Target for Guest {
    fn signal(&self, number: i32) {
        if let Ok(signal) = u8::try_from(number) {
            self.handle.signal(signal);
        }
    }
    fn input(&self, bytes: &[u8]) {
        if let Some(console) = &self.console {
            console.guest.input(bytes);
        }
    }
    fn resize(&self) {
        if let Some(console) = &self.console {
            console.resize();
        }
    }
}

/// Runs the event loop until the guest has ended or must end.
fn supervise(
    args: &RunArgs,
    handle: &Arc<Handle>,
    console: Option<&Arc<Console>>,
) -> Result<Ended, Failure> {
    let broken = |error: std::io::Error| Failure::from(format!("event loop: {error}"));
    let ended = EventFd::new(libc::EFD_CLOEXEC).map_err(broken)?;
    let signal_end = ended.try_clone().map_err(broken)?;
    let waiting = handle.clone();
    std::thread::Builder::new()
        .name("waiter".into())
        .spawn(move || {
            let _ = waiting.wait(None);
            // The loop holds the other end; a counter of one cannot overflow.
            let _ = signal_end.write(1);
        })
        .map_err(broken)?;
    let target = Arc::new(Guest { handle: handle.clone(), console: console.cloned() });
    events::run(target, ended, args.timeout, console.is_some()).map_err(broken)
}
