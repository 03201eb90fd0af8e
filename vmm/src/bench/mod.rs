//! `trapgate bench`: the same loops natively and on each backend, interleaved, as ratios.
//!
//! Machines are shared and noisy, so every round runs each configuration once, ratios are taken
//! within a round, and the median and spread over rounds are reported.

pub mod guest;
mod hello;
mod report;

use std::{path::PathBuf, process::Command, time::Instant};

use self::report::{Report, Series};
use crate::{cli::BenchArgs, exit};

/// One way to run a program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Native,
    /// A configuration's name, and the options of `trapgate run` that make it.
    Guest(&'static str, &'static [&'static str]),
}

/// Every configuration.
const WAYS: &[Way] = &[
    Way::Native,
    Way::Guest("kvm", &["--backend", "kvm"]),
    Way::Guest("kvm-exit", &["--backend", "kvm", "--gate", "exit"]),
    Way::Guest("ptrace", &["--backend", "ptrace"]),
];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Native => "native",
            Way::Guest(name, _) => name,
        }
    }
    fn command(self, own: &PathBuf, program: &PathBuf, args: &[&str]) -> Command {
        match self {
            Way::Native => {
                let mut command = Command::new(program);
                command.args(args);
                command
            }
            Way::Guest(_, options) => {
                let mut command = Command::new(own);
                command.arg("run").args(options);
                for path in [own, program] {
                    // A program outside the default root's reach (a tmpfs over /tmp) is bound in.
                    let text = path.display();
                    command.arg(format!("--bind={text}:{text}:ro"));
                }
                command.arg("--").arg(program).args(args);
                command
            }
        }
    }
}

/// Nanoseconds per operation as the guest loop reports it.
fn loop_time(way: Way, own: &PathBuf, item: &str) -> Result<f64, String> {
    let output = way
        .command(own, own, &["bench-guest", item])
        .output()
        .map_err(|error| format!("cannot start {}: {error}", way.name()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("{item} on {}: {}", way.name(), errors.lines().last().unwrap_or("no output"))
    })
}

/// Nanoseconds from start to end of a whole run of `program`.
fn start_time(way: Way, own: &PathBuf, program: &PathBuf) -> Result<f64, String> {
    let start = Instant::now();
    let output = way
        .command(own, program, &[])
        .output()
        .map_err(|error| format!("cannot start {}: {error}", way.name()))?;
    let spent = start.elapsed();
    if output.stdout == b"hello\n" && output.status.success() {
        return Ok(spent.as_secs_f64() * 1e9);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("hello on {}: {}", way.name(), errors.lines().last().unwrap_or("wrong output")))
}

fn ways(args: &BenchArgs) -> Result<Vec<Way>, String> {
    let mut chosen = vec![Way::Native];
    for name in &args.on {
        match WAYS.iter().find(|way| way.name() == name) {
            Some(Way::Native) => {}
            Some(way) => chosen.push(*way),
            None => {
                return Err(format!(
                    "'{name}' is not a configuration; use kvm, kvm-exit or ptrace"
                ));
            }
        }
    }
    Ok(chosen)
}

fn run(args: &BenchArgs) -> Result<Report, String> {
    let own = std::env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
    let ways = ways(args)?;
    let hello = hello::Hello::write()?;
    let wanted = |name: &str| args.filter.as_ref().is_none_or(|f| name.contains(f.as_str()));
    let mut items: Vec<(&str, &str)> =
        guest::ITEMS.iter().map(|item| (item.name, item.about)).collect();
    items.push(("hello", "start to end of a static program that prints one line"));
    items.retain(|(name, _)| wanted(name));
    if items.is_empty() {
        return Err("no item matches --filter; see `trapgate bench --list`".to_owned());
    }
    let mut report = Report::new(&ways.iter().map(|way| way.name()).collect::<Vec<_>>());
    for (name, about) in items {
        let mut series = Series::new(name, about, ways.len());
        // Round 0 warms caches and is not counted.
        for round in 0..=args.rounds {
            let mut times = Vec::new();
            for way in &ways {
                times.push(match name {
                    "hello" => start_time(*way, &own, &hello.path)?,
                    _ => loop_time(*way, &own, name)?,
                });
            }
            if round > 0 {
                series.add(&times);
            }
        }
        if !args.json {
            report.print_row(&series);
        }
        report.push(series);
    }
    Ok(report)
}

/// Runs the command; the exit status.
#[must_use]
pub fn command(args: &BenchArgs) -> u8 {
    if args.list {
        for item in guest::ITEMS {
            println!("{:10} {}", item.name, item.about);
        }
        println!("{:10} start to end of a static program that prints one line", "hello");
        return 0;
    }
    match run(args) {
        Err(message) => exit::report(&message),
        Ok(report) if args.json => report.print_json(),
        Ok(_) => 0,
    }
}

/// The guest side; the exit status.
#[must_use]
pub fn guest_command(item: &str) -> u8 {
    match guest::measure(item) {
        Ok(nanoseconds) => {
            println!("{nanoseconds:.2}");
            0
        }
        Err(message) => exit::report(&message),
    }
}
