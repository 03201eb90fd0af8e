//! `trapgate syscalls`: the table as the dispatcher uses it.

use std::io::Write;

use serde::Serialize;
use trapgate_kernel::linux::table::{Row, Support, Table};

use crate::{cli::SyscallsArgs, exit};

#[derive(Serialize)]
struct Entry {
    number: u64,
    name: &'static str,
    support: &'static str,
    caveat: &'static str,
    args: Vec<&'static str>,
}

fn level(support: Support) -> &'static str {
    match support {
        Support::Full => "full",
        Support::Partial => "partial",
        Support::Stub => "stub",
        Support::Absent => "absent",
    }
}

fn entry(row: &Row) -> Entry {
    Entry {
        number: row.number,
        name: row.name,
        support: level(row.support),
        caveat: row.caveat,
        args: row.args.iter().map(|arg| arg.0).collect(),
    }
}

fn print(json: bool, out: &mut impl Write) -> std::io::Result<()> {
    let table = Table::new();
    if json {
        let entries: Vec<Entry> = table.iter().map(entry).collect();
        serde_json::to_writer_pretty(&mut *out, &entries)?;
        return writeln!(out);
    }
    writeln!(out, "{:>4}  {:24} {:8} CAVEAT", "NR", "NAME", "SUPPORT")?;
    for row in table.iter() {
        let line =
            format!("{:>4}  {:24} {:8} {}", row.number, row.name, level(row.support), row.caveat);
        writeln!(out, "{}", line.trim_end())?;
    }
    let count = |support| table.iter().filter(|row| row.support == support).count();
    writeln!(
        out,
        "{} full, {} partial, {} stub, {} absent",
        count(Support::Full),
        count(Support::Partial),
        count(Support::Stub),
        count(Support::Absent)
    )
}

/// Runs the command; the exit status.
#[must_use]
pub fn command(args: &SyscallsArgs) -> u8 {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match print(args.json, &mut out).and_then(|()| out.flush()) {
        Ok(()) => 0,
        // `trapgate syscalls | head` is not a failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(error) => exit::report(&format!("cannot print the table: {error}")),
    }
}
