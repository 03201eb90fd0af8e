//! `--stats`: what the guest did, and whether everything it used came back.

use std::{io::Write, sync::atomic::Ordering, time::Duration};

use serde::Serialize;
use serde_json::{Map, Value, json};
use trapgate_kernel::{
    kernel::Kernel,
    linux::{stats::Stats, table::Table},
    mm::rewrite::Refusal,
};

use crate::cli::StatsFormat;

#[derive(Serialize)]
struct CallRow {
    name: String,
    calls: u64,
    errors: u64,
    nanoseconds: u64,
}

fn calls(kernel: &Kernel) -> Vec<CallRow> {
    let table = Table::new();
    let mut rows: Vec<CallRow> = kernel
        .stats
        .calls()
        .filter(|(_, stat)| stat.calls.load(Ordering::Relaxed) > 0)
        .map(|(number, stat)| CallRow {
            name: table.get(number).map_or_else(|| format!("#{number}"), |r| r.name.to_owned()),
            calls: stat.calls.load(Ordering::Relaxed),
            errors: stat.errors.load(Ordering::Relaxed),
            nanoseconds: stat.nanos.load(Ordering::Relaxed),
        })
        .collect();
    rows.sort_by(|a, b| b.nanoseconds.cmp(&a.nanoseconds).then_with(|| a.name.cmp(&b.name)));
    rows
}

/// Names of called system calls that have no support.
fn absent(kernel: &Kernel) -> Vec<String> {
    use trapgate_kernel::linux::table::Support;
    let table = Table::new();
    kernel
        .stats
        .calls()
        .filter(|(_, stat)| stat.calls.load(Ordering::Relaxed) > 0)
        .filter(|(number, _)| table.get(*number).is_none_or(|r| r.support == Support::Absent))
        .map(|(number, _)| {
            table.get(number).map_or_else(|| format!("#{number}"), |r| r.name.into())
        })
        .collect()
}

/// Why hot call sites were left as they were, and how many.
fn left(stats: &Stats) -> impl Iterator<Item = (&'static str, u64)> {
    let counts = stats.refused.iter().map(|count| count.load(Ordering::Relaxed));
    Refusal::ALL.iter().map(|why| why.reason()).zip(counts)
}

fn object(pairs: &[(&'static str, u64)]) -> Value {
    Value::Object(pairs.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect::<Map<_, _>>())
}

/// Reports on standard error. `baseline` is what was in use before the guest started; call after
/// [`Kernel::shutdown`].
pub fn report(
    kernel: &Kernel,
    format: StatsFormat,
    baseline: &[(&'static str, u64)],
    wall: Duration,
) {
    let stats = &kernel.stats;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let after = kernel.in_use().counts;
    let counters = kernel.platform.counters();
    let mut out = std::io::stderr().lock();
    // A closed standard error leaves nobody to report to.
    let _ = match format {
        StatsFormat::Json => {
            let value = json!({
                "backend": kernel.platform.name(),
                "wall_seconds": wall.as_secs_f64(),
                "calls": calls(kernel),
                "unknown_calls": load(&stats.unknown),
                "absent_calls": absent(kernel),
                "faults": load(&stats.faults),
                "copies_on_write": load(&stats.cow),
                "signals": load(&stats.signals),
                "sites_rewritten": load(&stats.rewritten),
                "sites_left": Value::Object(left(stats).map(|(why, n)| (why.into(), n.into())).collect()),
                "frames_peak": kernel.frames.peak(),
                "platform": object(&counters),
                "in_use_before": object(baseline),
                "in_use_after": object(&after),
                "notes": kernel.failures.notes(),
            });
            writeln!(out, "{value}")
        }
        StatsFormat::Text => (|| {
            writeln!(out, "backend {}, {:.3} s", kernel.platform.name(), wall.as_secs_f64())?;
            writeln!(out, "{:>10} {:>8} {:>12}  call", "calls", "errors", "us")?;
            for row in calls(kernel) {
                let micros = row.nanoseconds / 1000;
                writeln!(out, "{:>10} {:>8} {micros:>12}  {}", row.calls, row.errors, row.name)?;
            }
            for name in absent(kernel) {
                writeln!(out, "not supported: {name}")?;
            }
            writeln!(
                out,
                "faults {}, copies on write {}, signals {}, most frames {} ({} MiB)",
                load(&stats.faults),
                load(&stats.cow),
                load(&stats.signals),
                kernel.frames.peak(),
                kernel.frames.peak() >> 8
            )?;
            write!(out, "call sites rewritten {}", load(&stats.rewritten))?;
            for (why, count) in left(stats).filter(|(_, count)| *count > 0) {
                write!(out, "; left {count}: {why}")?;
            }
            writeln!(out)?;
            for (name, value) in counters {
                writeln!(out, "{name} {value}")?;
            }
            for note in kernel.failures.notes() {
                writeln!(out, "note: {note}")?;
            }
            Ok(())
        })(),
    };
}
