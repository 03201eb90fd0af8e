//! `--stats`: what the guest did, how it reached the kernel, and whether everything it used came back.
//!
//! [`Report`] is the JSON form; its keys are stable and told in docs/performance.md ("Reading --stats").
//! `text` prints the same for people, `phases` takes the times of a run's parts.

mod phases;
mod text;

use std::{
    collections::BTreeMap,
    io::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::Serialize;
use trapgate_kernel::{
    kernel::Kernel,
    linux::table::{Support, Table},
    mm::rewrite::Refusal,
    platform::Traffic,
};

pub use self::phases::{Phase, Phases};
use crate::cli::StatsFormat;

/// Vectors of #DF, as which strange exits come, and #PF.
const DOUBLE_FAULT: usize = 8;
const PAGE_FAULT: usize = 14;

/// One system call's counters.
#[derive(Serialize)]
struct CallRow {
    name: String,
    calls: u64,
    errors: u64,
    nanoseconds: u64,
}

/// Calls by who answered them.
#[derive(Default, Serialize)]
struct Tiers {
    /// Tier 0: the gate. As the guest's own memory says.
    guest: u64,
    /// Tier 1: ring servers.
    ring_servers: u64,
    /// Tier 1: CPUs' threads about to sleep.
    ring_sleepers: u64,
    /// Tier 2: the caller's own host thread.
    exits: u64,
}

/// What went on in rings.
#[derive(Default, Serialize)]
struct Rings {
    /// Calls answered there that came from rewritten sites.
    from_rewritten_sites: u64,
    /// Calls left to the caller's own thread.
    passed_on: u64,
    servers: u64,
    wakes: u64,
    sleeps: u64,
    /// All servers together.
    awake_nanoseconds: u64,
    asleep_nanoseconds: u64,
}

/// Returns from guest code.
#[derive(Default, Serialize)]
struct Exits {
    system_call: u64,
    page_fault: u64,
    /// By vector, without page faults.
    exceptions: BTreeMap<usize, u64>,
    interrupted: u64,
    refused_store: u64,
    strange: u64,
}

/// Everything `--stats` says.
#[derive(Default, Serialize)]
pub struct Report {
    backend: &'static str,
    wall_seconds: f64,
    phases: Vec<Phase>,
    tiers: Tiers,
    rings: Rings,
    exits: Exits,
    /// Those that reached the kernel, by time spent.
    calls: Vec<CallRow>,
    unknown_calls: u64,
    /// Called without there being any support.
    absent_calls: Vec<String>,
    faults: u64,
    copies_on_write: u64,
    zaps: u64,
    pages_zapped: u64,
    signals: u64,
    sites_rewritten: u64,
    sites_left: BTreeMap<&'static str, u64>,
    frames_peak: u64,
    /// Bytes.
    resident_peak: Option<u64>,
    platform: BTreeMap<&'static str, u64>,
    in_use_before: BTreeMap<&'static str, u64>,
    in_use_after: BTreeMap<&'static str, u64>,
    notes: Vec<String>,
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Calls that were made, and the names of those among them that have no support.
fn calls(kernel: &Kernel) -> (Vec<CallRow>, Vec<String>) {
    let table = Table::new();
    let (mut rows, mut absent) = (Vec::new(), Vec::new());
    for (number, stat) in kernel.stats.calls().filter(|(_, stat)| load(&stat.calls) > 0) {
        let row = table.get(number);
        let name = row.map_or_else(|| format!("#{number}"), |r| r.name.to_owned());
        if row.is_none_or(|r| r.support == Support::Absent) {
            absent.push(name.clone());
        }
        rows.push(CallRow {
            name,
            calls: load(&stat.calls),
            errors: load(&stat.errors),
            nanoseconds: load(&stat.nanos),
        });
    }
    rows.sort_by(|a, b| b.nanoseconds.cmp(&a.nanoseconds).then_with(|| a.name.cmp(&b.name)));
    (rows, absent)
}

fn exits(kernel: &Kernel, traffic: &Traffic) -> Exits {
    let faults: Vec<u64> = kernel.stats.faults.iter().map(load).collect();
    let mut exceptions: BTreeMap<usize, u64> =
        faults.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect();
    let page_fault = exceptions.remove(&PAGE_FAULT).unwrap_or(0);
    if let Some(count) = exceptions.get_mut(&DOUBLE_FAULT) {
        *count = count.saturating_sub(traffic.strange);
    }
    exceptions.retain(|_, count| *count > 0);
    Exits {
        system_call: load(&kernel.stats.call_exits),
        page_fault,
        exceptions,
        interrupted: load(&kernel.stats.interrupted),
        refused_store: traffic.refused,
        strange: traffic.strange,
    }
}

impl Report {
    /// Collects everything, after [`Kernel::shutdown`]. `resident` is the monitor's peak, `before` what
    /// was in use before the guest started.
    #[must_use]
    pub fn new(
        kernel: &Kernel,
        phases: &Phases,
        resident: Option<u64>,
        before: &[(&'static str, u64)],
    ) -> Report {
        let stats = &kernel.stats;
        // Asked first: a platform settles then what it frees in batches.
        let after = kernel.in_use().counts;
        let traffic = kernel.platform.traffic();
        let wall = phases.total();
        let (calls, absent_calls) = calls(kernel);
        let exits = exits(kernel, &traffic);
        let awake = nanoseconds(traffic.awake);
        let refused = Refusal::ALL.iter().map(|why| why.reason()).zip(stats.refused.iter());
        Report {
            backend: kernel.platform.name(),
            wall_seconds: wall.as_secs_f64(),
            phases: phases.done().to_vec(),
            tiers: Tiers {
                guest: traffic.in_guest,
                ring_servers: traffic.by_servers,
                ring_sleepers: traffic.by_sleepers,
                exits: exits.system_call,
            },
            rings: Rings {
                from_rewritten_sites: load(&stats.jumped),
                passed_on: traffic.passed_on,
                servers: traffic.servers,
                wakes: traffic.wakes,
                sleeps: traffic.sleeps,
                awake_nanoseconds: awake,
                asleep_nanoseconds: nanoseconds(wall)
                    .saturating_mul(traffic.servers)
                    .saturating_sub(awake),
            },
            faults: exits.page_fault,
            exits,
            calls,
            unknown_calls: load(&stats.unknown),
            absent_calls,
            copies_on_write: load(&stats.cow),
            zaps: traffic.zaps,
            pages_zapped: traffic.zapped_pages,
            signals: load(&stats.signals),
            sites_rewritten: load(&stats.rewritten),
            sites_left: refused.map(|(why, count)| (why, load(count))).collect(),
            frames_peak: kernel.frames.peak(),
            resident_peak: resident,
            platform: kernel.platform.counters().into_iter().collect(),
            in_use_before: before.iter().copied().collect(),
            in_use_after: after.into_iter().collect(),
            notes: kernel.failures.notes(),
        }
    }
    /// Prints it on standard error.
    pub fn print(&self, format: StatsFormat) {
        let text = match format {
            // Strings, numbers and maps with keys that print: this cannot fail.
            StatsFormat::Json => serde_json::to_string(self).unwrap_or_default() + "\n",
            StatsFormat::Text => text::render(self),
        };
        // A closed standard error leaves nobody to report to.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}
