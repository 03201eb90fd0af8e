//! `trapgate doctor`: what this host offers, what will be used and why, and what to fix.

use std::io::Write;

use serde::Serialize;

use crate::{
    cli::DoctorArgs,
    exit,
    platform::{kvm, ptrace},
};

#[derive(Serialize)]
struct Kvm {
    kind: kvm::probe::Kind,
    gate_ring: u8,
    sees_page_table_edits: bool,
    sync_regs: bool,
    xsave_features: u64,
    max_vcpus: u64,
    exit_nanoseconds: u64,
}

#[derive(Serialize)]
struct Ptrace {
    stop_nanoseconds: u64,
    process_nanoseconds: u64,
}

#[derive(Serialize)]
struct Diagnosis {
    version: &'static str,
    kernel: String,
    cpus: usize,
    memory_bytes: u64,
    huge_pages: String,
    huge_pages_shmem: String,
    open_files_limit: u64,
    processes_limit: u64,
    kvm: Result<Kvm, String>,
    ptrace: Result<Ptrace, String>,
    backend: Option<&'static str>,
    gate: Option<String>,
    fixes: Vec<String>,
}

fn first_line(path: &str) -> String {
    std::fs::read_to_string(path)
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn limit(resource: rustix::process::Resource) -> u64 {
    rustix::process::getrlimit(resource).current.unwrap_or(u64::MAX)
}

fn diagnose() -> Diagnosis {
    use trapgate_kernel::host::Host;
    let host = crate::host::LinuxHost::new();
    let kvm = kvm::probe::probe().map_err(|e| e.to_string()).map(|report| Kvm {
        kind: report.kind,
        gate_ring: report.gate_ring,
        sees_page_table_edits: report.sees_edits,
        sync_regs: report.sync_regs,
        xsave_features: report.xsave_features,
        max_vcpus: report.max_vcpus as u64,
        exit_nanoseconds: report.exit_ns,
    });
    let nanos = |d: std::time::Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let ptrace = ptrace::probe().map_err(|e| e.to_string()).map(|probe| Ptrace {
        stop_nanoseconds: nanos(probe.stop),
        process_nanoseconds: nanos(probe.process),
    });
    let backend = match (&kvm, &ptrace) {
        (Ok(_), _) => Some("kvm"),
        (Err(_), Ok(_)) => Some("ptrace"),
        _ => None,
    };
    let gate = match (&kvm, backend) {
        // As `run --gate auto` decides.
        (Ok(kvm), _) if host.cpus() < 2 => {
            Some(format!("exit from ring {}, for a ring server needs a second CPU", kvm.gate_ring))
        }
        (Ok(kvm), _) => {
            Some(format!("rings while they pay, else exit from ring {}", kvm.gate_ring))
        }
        (_, Some(_)) => Some("PTRACE_SYSEMU stop".to_owned()),
        _ => None,
    };
    let mut fixes = Vec::new();
    for failure in [kvm.as_ref().err(), ptrace.as_ref().err()].into_iter().flatten() {
        fixes.push(failure.clone());
    }
    let open_files_limit = limit(rustix::process::Resource::Nofile);
    if open_files_limit < 1024 {
        fixes.push(format!("only {open_files_limit} open files are allowed; raise `ulimit -n`"));
    }
    Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        cpus: host.cpus(),
        memory_bytes: host.total_memory(),
        huge_pages: first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        huge_pages_shmem: first_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        open_files_limit,
        processes_limit: limit(rustix::process::Resource::Nproc),
        kvm,
        ptrace,
        backend,
        gate,
        fixes,
    }
}

fn print(found: &Diagnosis, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "trapgate {} on Linux {}", found.version, found.kernel)?;
    writeln!(out, "CPUs            {}", found.cpus)?;
    writeln!(out, "memory          {} MiB", found.memory_bytes >> 20)?;
    writeln!(out, "huge pages      {} (shmem: {})", found.huge_pages, found.huge_pages_shmem)?;
    writeln!(out, "open files      {}", found.open_files_limit)?;
    match &found.kvm {
        Ok(kvm) => {
            let kind = match kvm.kind {
                kvm::probe::Kind::Hardware => "hardware: SYSCALL raises the CPL",
                kvm::probe::Kind::Deprivileged => "deprivileged: SYSCALL stays in ring 3",
            };
            let edits = if kvm.sees_page_table_edits { "yes" } else { "no, frames are zapped" };
            writeln!(out, "KVM             {kind}")?;
            writeln!(out, "  exit cost     {} ns", kvm.exit_nanoseconds)?;
            writeln!(out, "  sees page-table edits  {edits}")?;
            writeln!(out, "  KVM_CAP_SYNC_REGS      {}", kvm.sync_regs)?;
            writeln!(out, "  XSAVE features         {:#x}", kvm.xsave_features)?;
            writeln!(out, "  vCPUs         at most {}", kvm.max_vcpus)?;
        }
        Err(error) => writeln!(out, "KVM             no: {error}")?,
    }
    match &found.ptrace {
        Ok(ptrace) => {
            writeln!(out, "ptrace          works")?;
            writeln!(out, "  stop cost     {} ns", ptrace.stop_nanoseconds)?;
            writeln!(out, "  new process   {} ns", ptrace.process_nanoseconds)?;
        }
        Err(error) => writeln!(out, "ptrace          no: {error}")?,
    }
    match (found.backend, &found.gate) {
        (Some(backend), Some(gate)) => writeln!(out, "backend         {backend}; gate: {gate}")?,
        _ => writeln!(out, "backend         none works here")?,
    }
    for fix in &found.fixes {
        writeln!(out, "to fix          {fix}")?;
    }
    Ok(())
}

/// Runs the command; the exit status is 1 if no backend works.
#[must_use]
pub fn command(args: &DoctorArgs) -> u8 {
    let found = diagnose();
    let mut out = std::io::stdout().lock();
    let printed = if args.json {
        serde_json::to_writer_pretty(&mut out, &found)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        print(&found, &mut out)
    };
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            exit::report(&format!("cannot print the report: {error}"))
        }
        _ => u8::from(found.backend.is_none()),
    }
}
