//! `trapgate bench`: the same programs natively and in each configuration, interleaved, as ratios.
//!
//! Machines are shared and noisy, so every round runs each configuration once, ratios are taken
//! within a round, and the median and the quartiles over rounds are reported.
//!
//! * What is measured: [`items`], [`workloads`], and the C programs of `guest/` that `build.rs` compiles.
//! * How a program is run: [`ways`] and [`peers`]; in [`place`], by [`child`].
//! * Rounds: [`measure`], with [`progress`].
//! * What comes of it: [`model`] with [`stats`] and [`machine`]; shown by [`report`] and [`html`], judged by
//!   [`compare`].

mod child;
mod compare;
mod hello;
mod html;
mod items;
mod machine;
mod measure;
mod model;
mod peers;
mod place;
mod progress;
mod report;
mod stats;
mod ways;
mod workloads;

use std::{fs::File, path::Path};

use self::model::Report;
use crate::{cli::BenchArgs, exit};

/// Why there is no report: a line for the user, and the exit status.
#[derive(Debug)]
pub struct Refusal {
    message: String,
    status: u8,
}

impl Refusal {
    fn new(message: String) -> Refusal {
        Refusal { message, status: exit::FAILURE }
    }
    /// Something that was asked for by name is not installed.
    fn missing(message: String) -> Refusal {
        Refusal { message, status: exit::MISSING }
    }
}

fn list() -> String {
    let mut text = String::new();
    for kind in model::Kind::ALL {
        text += &format!("{}:\n", kind.name());
        for item in items::all().filter(|item| item.kind() == kind) {
            text += &format!("  {:14} {}\n", item.name, item.about);
        }
    }
    text += "configurations (* measured by default):\n";
    for (name, about, by_default) in ways::list() {
        text += &format!("{} {name:14} {about}\n", if by_default { '*' } else { ' ' });
    }
    text
}

/// Finds out now, not after ten minutes, that a report cannot be written.
fn check_writable(path: &Path) -> Result<(), Refusal> {
    let cannot = |error| Refusal::new(format!("cannot write {}: {error}", path.display()));
    File::options().append(true).create(true).open(path).map(|_| ()).map_err(cannot)
}

fn write(path: &Path, text: &str) -> Result<(), Refusal> {
    let cannot = |error| Refusal::new(format!("cannot write {}: {error}", path.display()));
    std::fs::write(path, text).map_err(cannot)
}

fn json(report: &Report) -> Result<String, Refusal> {
    let text = serde_json::to_string_pretty(report);
    let cannot = |error| Refusal::new(format!("cannot make the JSON: {error}"));
    text.map(|text| text + "\n").map_err(cannot)
}

/// Shows a report that was measured before.
fn show(report: &Report) -> Result<(), Refusal> {
    report::print(&report::machine(report))?;
    report.items.iter().try_for_each(|item| report::print(&report::item(item)))
}

fn go(args: &BenchArgs) -> Result<u8, Refusal> {
    if args.list {
        return report::print(&list()).map(|()| 0);
    }
    let json_on_stdout = args.json.as_deref() == Some(Path::new("-"));
    let json_file = args.json.as_deref().filter(|_| !json_on_stdout);
    let old = args.compare.as_deref().map(Report::load).transpose()?;
    for path in [json_file, args.html.as_deref()].into_iter().flatten() {
        check_writable(path)?;
    }
    let (report, failed) = match &args.from {
        Some(path) => (Report::load(path)?, vec![]),
        None => measure::measure(args, json_on_stdout)?,
    };
    if args.from.is_some() && !json_on_stdout {
        show(&report)?;
    }
    if json_on_stdout {
        report::print(&json(&report)?)?;
    }
    if let Some(path) = json_file {
        write(path, &json(&report)?)?;
    }
    if let Some(path) = &args.html {
        write(path, &html::page(&report))?;
    }
    let mut status = 0;
    if !failed.is_empty() {
        exit::complain(&format!("could not be measured: {}", failed.join(", ")));
        status = exit::INCOMPLETE;
    }
    if let Some(old) = old {
        let (text, regressions) = compare::compare(&old, &report);
        if json_on_stdout {
            text.lines().for_each(exit::complain);
        } else {
            report::print(&text)?;
        }
        if regressions > 0 {
            status = exit::REGRESSION;
        }
    }
    Ok(status)
}

/// Runs the command; the exit status.
#[must_use]
pub fn command(args: &BenchArgs) -> u8 {
    match go(args) {
        Ok(status) => status,
        Err(refusal) => {
            exit::complain(&refusal.message);
            refusal.status
        }
    }
}
