//! The report for people: short headings, numbers to the right, at most 80 columns, nothing that is 0.

use std::fmt::Write;

use super::Report;

/// What a phase of this key is.
fn phase<'a>(name: &'a str, backend: &str) -> &'a str {
    match name {
        "memory" => "guest memory",
        "platform" if backend == "kvm" => "KVM: the VM, and what kind of host this is",
        "platform" => "ptrace: where stubs are made, and a first one",
        "kernel" => "usermode kernel, standard streams",
        "root" => "root file system, binds",
        "program" => "program found and loaded",
        "confine" => "seccomp filter put on",
        "start" => "first thread and CPU, to the first instruction",
        "guest" => "guest, from its first instruction to its end",
        "teardown" => "everything ended and freed",
        other => other,
    }
}

fn exception(vector: usize) -> String {
    let name = match vector {
        0 => "division",
        1 => "debug",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound",
        6 => "invalid instruction",
        7 => "no FPU",
        8 => "double fault",
        11 => "segment",
        12 => "stack",
        13 => "general protection",
        16 => "x87",
        17 => "alignment",
        19 => "SIMD",
        _ => return format!("exception {vector}"),
    };
    format!("exception {vector}, {name}")
}

/// `part` of `whole` as a percentage.
#[allow(clippy::cast_precision_loss, reason = "shown with two digits")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// Lines under one heading: counts that are not 0, with their share of the sum.
struct Group<'a> {
    heading: &'a str,
    lines: Vec<(u64, String)>,
    shares: bool,
}

impl<'a> Group<'a> {
    fn new(heading: &'a str, shares: bool) -> Group<'a> {
        Group { heading, lines: Vec::new(), shares }
    }
    fn line(mut self, count: u64, text: impl Into<String>) -> Group<'a> {
        self.lines.push((count, text.into()));
        self
    }
    /// Nothing at all if all is 0.
    fn print(self, out: &mut String) {
        // What a guest counted for itself may be anything.
        let sum = self.lines.iter().fold(0u64, |sum, (count, _)| sum.saturating_add(*count));
        if sum == 0 {
            return;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n{}", self.heading);
        let lines: Vec<_> = self.lines.iter().filter(|(count, _)| *count > 0).collect();
        for (count, text) in &lines {
            let _ = if self.shares {
                writeln!(out, "{:>7.2} {count:>12}  {text}", percent(*count, sum))
            } else {
                writeln!(out, "{count:>20}  {text}")
            };
        }
        if self.shares && lines.len() > 1 {
            let _ = writeln!(out, "{:>7.2} {sum:>12}  total", 100.0);
        }
    }
}

fn calls(report: &Report, out: &mut String) {
    if report.calls.is_empty() {
        return;
    }
    let time: u64 = report.calls.iter().map(|row| row.nanoseconds).sum();
    let made: u64 = report.calls.iter().map(|row| row.calls).sum();
    let errors: u64 = report.calls.iter().map(|row| row.errors).sum();
    let mut row = |share: f64, nanos: u64, calls: u64, errors: u64, name: &str| {
        let each = nanos / calls.max(1);
        let errors = if errors == 0 { String::new() } else { errors.to_string() };
        let micros = nanos / 1000;
        let _ =
            writeln!(out, "{share:>7.2} {micros:>12} {each:>10} {calls:>10} {errors:>8}  {name}");
    };
    row(100.0, time, made, errors, "total");
    for r in &report.calls {
        row(percent(r.nanoseconds, time), r.nanoseconds, r.calls, r.errors, &r.name);
    }
}

/// The report as text.
pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "trapgate on {}, {:.6} s", report.backend, report.wall_seconds);

    let mut phases = Group::new("Phases\n      %           us", true);
    for part in &report.phases {
        phases = phases.line(part.microseconds, phase(part.name, report.backend));
    }
    phases.print(&mut out);

    let (tiers, rings, exits) = (&report.tiers, &report.rings, &report.exits);
    Group::new("System calls by tier\n      %        calls", true)
        .line(tiers.guest, "tier 0, in the guest")
        .line(tiers.ring_servers, "tier 1, in rings by servers")
        .line(tiers.ring_sleepers, "tier 1, in rings by threads about to sleep")
        .line(tiers.exits, "tier 2, by exits")
        .print(&mut out);
    Group::new("Rings", false)
        .line(rings.from_rewritten_sites, "answered calls from rewritten sites")
        .line(rings.passed_on, "calls passed on to the caller's thread")
        .line(rings.wakes, "servers woken")
        .line(rings.sleeps, "servers gone to sleep")
        .line(rings.awake_nanoseconds / 1000, "us awake")
        .line(rings.asleep_nanoseconds / 1000, "us asleep")
        .print(&mut out);
    let mut by_reason = Group::new("Exits by reason\n      %        exits", true)
        .line(exits.system_call, "system call")
        .line(exits.page_fault, "page fault");
    for (vector, count) in &exits.exceptions {
        by_reason = by_reason.line(*count, exception(*vector));
    }
    by_reason
        .line(exits.interrupted, "interrupted")
        .line(exits.refused_store, "store refused during a revocation")
        .line(exits.strange, "strange")
        .print(&mut out);

    if !report.calls.is_empty() {
        let _ = writeln!(out, "\nTime in the kernel by system call");
        let _ = writeln!(out, "      %           us    ns/call      calls   errors  call");
    }
    calls(report, &mut out);
    for name in &report.absent_calls {
        let _ = writeln!(out, "         not supported: {name}");
    }
    Group::new("Memory", false)
        .line(report.faults, "page faults")
        .line(report.copies_on_write, "copies on write")
        .line(report.zaps, "zaps")
        .line(report.pages_zapped, "pages zapped")
        .line(report.frames_peak * 4, "KiB of guest frames at most")
        .line(report.resident_peak.unwrap_or(0) >> 10, "KiB resident at most")
        .print(&mut out);
    let mut sites = Group::new("Call sites", false)
        .line(report.sites_rewritten, "rewritten to enter by a jump");
    for (why, count) in &report.sites_left {
        sites = sites.line(*count, format!("left: {why}"));
    }
    sites.print(&mut out);
    let mut other = Group::new("Other", false)
        .line(report.signals, "signals to handlers")
        .line(report.unknown_calls, "calls with no number of Linux's");
    for (name, count) in &report.platform {
        other = other.line(*count, *name);
    }
    other.print(&mut out);
    for note in &report.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{CallRow, Exits, Phase, Rings, Tiers};

    fn report() -> Report {
        let row = |name: &str, calls, nanoseconds| CallRow {
            name: name.into(),
            calls,
            errors: 0,
            nanoseconds,
        };
        Report {
            backend: "kvm",
            wall_seconds: 123.456_789,
            phases: vec![Phase { name: "memory", microseconds: 1 << 33 }],
            tiers: Tiers { guest: 1_000_000_000, ring_servers: 7, ring_sleepers: 0, exits: 3 },
            rings: Rings { passed_on: 1, ..Rings::default() },
            exits: Exits {
                system_call: 3,
                exceptions: [(13, 1), (77, 2)].into(),
                ..Exits::default()
            },
            calls: vec![
                row("read", 9, 3_000_000_000),
                row("a_name_of_nineteen_", 1, 1_000_000_000),
            ],
            frames_peak: 1 << 40,
            ..Report::default()
        }
    }

    #[test]
    fn lines_are_short_and_say_something() {
        let text = render(&report());
        for line in text.lines() {
            assert!(line.len() <= 80, "{line}");
            assert!(!line.trim_start().starts_with("0 "), "{line}");
        }
        for heading in ["Phases", "System calls by tier", "Exits by reason", "Memory"] {
            assert!(text.lines().any(|line| line == heading), "no {heading} in\n{text}");
        }
        assert!(!text.contains("Call sites") && !text.contains("about to sleep"), "{text}");
        assert!(text.contains("  75.00      3000000  333333333          9"), "{text}");
        assert!(text.contains("exception 13, general protection"), "{text}");
        assert!(text.contains("exception 77\n"), "{text}");
    }

    #[test]
    fn a_guests_own_count_may_be_anything() {
        let mut wild = report();
        wild.tiers.guest = u64::MAX;
        assert!(render(&wild).contains("18446744073709551615"));
    }

    #[test]
    fn nothing_done_is_nothing_said() {
        let text = render(&Report::default());
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
