//! Rounds: each runs every configuration once, so that what the machine does meanwhile hits all alike.

use std::{fs, net::TcpListener, path::Path, time::Duration};

use super::{
    Refusal, child,
    items::{self, Item, Task},
    machine::{self, Machine},
    model::{Measured, Outcome, Report, SCHEMA},
    place::{self, Place},
    progress::Progress,
    report,
    ways::{self, Chosen, Job},
};
use crate::cli::BenchArgs;

/// What an idle guest prints when it has started.
const READY: &[u8] = b"ready\n";

/// Measures items one by one and keeps what a workload printed natively.
struct Bench<'a> {
    place: &'a Place,
    /// What the current workload must print.
    expected: Option<Vec<u8>>,
}

#[expect(clippy::cast_precision_loss, reason = "a run lasts minutes at most")]
fn nanoseconds(time: Duration) -> f64 {
    time.as_nanos() as f64
}

impl Bench<'_> {
    /// One figure.
    fn once(&mut self, item: &Item, way: &Chosen) -> Result<f64, String> {
        match item.task {
            Task::Loop => {
                let arguments = vec![item.name.to_owned(), path(&self.place.nothing())];
                let program = self.place.guest();
                let job = Job { program: &program, arguments, shared: None };
                let finished = child::run(way.launch(self.place, &job)?, item.limit())?;
                let text = String::from_utf8_lossy(&finished.out);
                text.trim().parse().map_err(|_| format!("it printed '{}'", text.trim()))
            }
            Task::StaticHello => self.hello(item, way, &self.place.hello()),
            Task::DynamicHello => {
                let program = self.place.dynamic_hello();
                let program = program.ok_or("trapgate was built without the dynamic hello")?;
                self.hello(item, way, &program)
            }
            Task::Idle => {
                let program = self.place.guest();
                let arguments = vec!["idle".to_owned()];
                let job = Job { program: &program, arguments, shared: None };
                child::memory_when(way.launch(self.place, &job)?, READY, item.limit())
            }
            Task::Workload(workload) => {
                let data = self.place.data(workload.name);
                let out = way.out(self.place)?;
                let arguments = workload.arguments(&data, &out, free_port()?);
                let job = Job { program: Path::new("/bin/sh"), arguments, shared: Some(&data) };
                let finished = child::run(way.launch(self.place, &job)?, item.limit())?;
                let wanted = self.expected.get_or_insert_with(|| finished.out.clone());
                if finished.out.is_empty() || *wanted != finished.out {
                    return Err("its output is not what it was natively".to_owned());
                }
                if way.is_native() {
                    // Only there for the next run to find an empty one.
                    let _ = fs::remove_dir_all(out);
                }
                Ok(nanoseconds(finished.time))
            }
        }
    }

    fn hello(&self, item: &Item, way: &Chosen, program: &Path) -> Result<f64, String> {
        let job = Job { program, arguments: vec![], shared: None };
        let finished = child::run(way.launch(self.place, &job)?, item.limit())?;
        if finished.out == b"hello\n" {
            return Ok(nanoseconds(finished.time));
        }
        Err("it did not print hello".to_owned())
    }

    /// All rounds of one item.
    fn item(&mut self, item: &Item, ways: &[Chosen], rounds: u32, bar: &Progress) -> Measured {
        self.expected = None;
        let mut outcomes: Vec<Outcome> = ways
            .iter()
            .map(|way| Outcome {
                configuration: way.way.name.to_owned(),
                values: vec![],
                ratios: vec![],
                value: None,
                ratio: None,
                note: None,
            })
            .collect();
        // Round 0 warms caches and is not counted.
        for round in 0..=item.rounds(rounds) {
            for (way, outcome) in ways.iter().zip(&mut outcomes) {
                bar.at(item, way.way.name);
                if outcome.note.is_none() {
                    match self.once(item, way) {
                        Ok(value) if round > 0 => outcome.values.push(value),
                        Ok(_) => {}
                        // Once is enough: what cannot run an item cannot next time, and may take a
                        // minute to find out.
                        Err(reason) => outcome.note = Some(reason),
                    }
                }
                bar.done(item.expected() + way.extra());
            }
        }
        let mut measured = Measured {
            name: item.name.to_owned(),
            about: item.about.to_owned(),
            kind: item.kind(),
            unit: item.unit(),
            outcomes,
        };
        measured.conclude();
        measured
    }
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A TCP port that nobody has at this moment.
fn free_port() -> Result<u16, String> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("no free TCP port: {error}"))
}

/// Leaves out workloads whose programs are missing.
fn installed(
    items: Vec<Item>,
    filter: &[String],
    notes: &mut Vec<String>,
) -> Result<Vec<Item>, Refusal> {
    let mut kept = vec![];
    for item in items {
        let missing = match item.task {
            Task::Workload(workload) => workload.missing(),
            _ => None,
        };
        match missing {
            None => kept.push(item),
            Some(program) => {
                let words = format!("{program} is not installed");
                if filter.iter().any(|term| term == item.name) {
                    return Err(Refusal::missing(format!("{}: {words}", item.name)));
                }
                notes.push(format!("{} left out: {words}", item.name));
            }
        }
    }
    Ok(kept)
}

/// What the whole will take, roughly.
fn expected(items: &[Item], ways: &[Chosen], rounds: u32) -> Duration {
    let round =
        |item: &Item| ways.iter().map(|way| item.expected() + way.extra()).sum::<Duration>();
    items.iter().map(|item| round(item) * (item.rounds(rounds) + 1)).sum()
}

/// Names of items that failed natively or in trapgate itself; what a peer cannot run is the peer's affair.
fn failures(measured: &Measured, ways: &[Chosen]) -> impl Iterator<Item = String> {
    let failed = |(way, outcome): &(&Chosen, &Outcome)| outcome.note.is_some() && !way.is_peer();
    let name = |(way, _): (&Chosen, &Outcome)| format!("{} on {}", measured.name, way.way.name);
    ways.iter().zip(&measured.outcomes).filter(failed).map(name)
}

/// Measures what `args` ask for, showing each item as it is done unless `quiet`; the report, and what failed
/// natively or in trapgate.
///
/// # Errors
/// Nothing could be measured: a bad argument, or no place to work in.
pub fn measure(args: &BenchArgs, quiet: bool) -> Result<(Report, Vec<String>), Refusal> {
    let items = items::chosen(&args.filter)?;
    let (ways, mut notes) = ways::choose(args)?;
    let items = installed(items, &args.filter, &mut notes)?;
    if cfg!(debug_assertions) {
        notes.push(
            "a debug build of trapgate: its figures say little; use a release build".to_owned(),
        );
    }
    if env!("BENCH_GUEST_LINKED") != "static" {
        notes.push(
            "built without a static C library: the guest program goes through ld.so".to_owned(),
        );
    }
    let machine = Machine::here();
    if machine.busy() {
        let part = machine.busy_before * 100.0;
        notes.push(format!(
            "others used {part:.0} % of the CPUs just before: the figures say little"
        ));
    }
    let mut report = Report {
        schema: SCHEMA,
        trapgate: env!("CARGO_PKG_VERSION").to_owned(),
        date: machine::now(),
        command: command_line(),
        rounds: usize::try_from(args.rounds).unwrap_or(usize::MAX),
        machine,
        configurations: ways.iter().map(Chosen::describe).collect(),
        items: vec![],
        notes,
    };
    let total = expected(&items, &ways, args.rounds);
    let show = |text: &str| if quiet { Ok(()) } else { report::print(text) };
    show(&report::head(&report, items.len(), total))?;

    let place = Place::new()?;
    let mut bench = Bench { place: &place, expected: None };
    let bar = Progress::new(total);
    let mut failed = vec![];
    for item in &items {
        if let Task::Workload(workload) = item.task {
            bar.message(&format!("{}: preparing", item.name));
            let _not_ending = place::working();
            workload.prepare(&place.data(workload.name)).map_err(Refusal::new)?;
        }
        let measured = bench.item(item, &ways, args.rounds, &bar);
        bar.aside(|| show(&report::item(&measured)))?;
        failed.extend(failures(&measured, &ways));
        report.items.push(measured);
    }
    Ok((report, failed))
}

/// How this bench was started, for whoever wants to repeat it.
fn command_line() -> Vec<String> {
    let rest = std::env::args().skip(1);
    std::iter::once("trapgate".to_owned()).chain(rest).collect()
}
