//! `trapgate fuzz run`: makes programs, runs them, keeps the interesting ones, judges.

use std::{
    collections::HashMap,
    io::{IsTerminal, Write},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    corpus::Corpus,
    crew::{Crew, Ran, Setup},
    desc::{Desc, Descs},
    findings::{Entry, Findings},
    generate::{Choices, Generator},
    known::{self, Known},
    minimize::Trial,
    needs,
    oracle::{self, Finding},
    place::Place,
    prog::Program,
    replay,
    report::{self, Sample},
    rng::Rng,
    target::Kind,
};
use crate::{cli::FuzzRunArgs, exit};

/// Programs that are sent to a target at once: enough to keep it busy, few enough to learn from soon.
const BATCH: usize = 256;
/// Looks of one kind that came to nothing before only some are taken again.
const DOUBTS: u32 = 6;

/// What all jobs share.
struct Run<'a> {
    descs: &'a Descs,
    choices: Choices,
    known: Vec<Known>,
    targets: &'a [Kind],
    place: &'a Place,
    corpus: Mutex<Corpus>,
    findings: Mutex<Findings>,
    /// Programs not yet begun.
    left: AtomicU64,
    done: AtomicU64,
    /// Differences that did not show again.
    unsteady: AtomicU64,
    calls: Mutex<report::PerCall>,
    /// Programs and nanoseconds by target.
    rates: Mutex<HashMap<Kind, (u64, Duration)>>,
    stop: Arc<AtomicBool>,
    started: Instant,
    trace: Option<Mutex<std::fs::File>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the command; the exit status.
///
/// # Errors
/// In words for the user.
pub fn command(args: &FuzzRunArgs) -> Result<u8, String> {
    let descs = Descs::new();
    let seed = args.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_secs() ^ u64::from(now.subsec_nanos()) << 32)
    });
    let native = args.targets.contains(&Kind::Native);
    let enabled = |desc: &Desc| {
        let by = |list: &[String]| {
            list.iter().any(|p| known::matches(p, &desc.name) || known::matches(p, desc.call()))
        };
        let chosen = if args.enable.is_empty() {
            !native || needs::is_native(desc.call())
        } else {
            by(&args.enable)
        };
        chosen && !by(&args.disable)
    };
    let choices = Choices::new(&descs, &enabled);
    if choices.is_empty() {
        return Err(
            "--enable and --disable leave no call; `trapgate syscalls` lists them".to_owned()
        );
    }
    if args.targets.is_empty() {
        return Err("--targets names none".to_owned());
    }
    let place = Place::new()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in
        [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
    {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .map_err(|error| format!("cannot watch signals: {error}"))?;
    }
    let dir = args.corpus.as_deref();
    let run = Run {
        descs: &descs,
        choices,
        known: known::all()?,
        targets: &args.targets,
        place: &place,
        corpus: Mutex::new(Corpus::new(dir)?),
        findings: Mutex::new(Findings::new(dir)?),
        left: AtomicU64::new(args.programs.unwrap_or(u64::MAX)),
        done: AtomicU64::new(0),
        unsteady: AtomicU64::new(0),
        calls: Mutex::default(),
        rates: Mutex::default(),
        stop,
        started: Instant::now(),
        trace: args.trace.as_deref().map(trace_file).transpose()?,
    };
    eprintln!(
        "seed {seed}, {} calls and variants, targets {}",
        run.choices.count(),
        names(&args.targets)
    );
    let samples = run.all(args, seed)?;
    run.sum_up(seed);
    if let Some(path) = &args.report {
        let page = run.page(seed, &samples);
        std::fs::write(path, page)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(if lock(&run.findings).entries.is_empty() { 0 } else { exit::FOUND })
}

fn trace_file(path: &Path) -> Result<Mutex<std::fs::File>, String> {
    let file = std::fs::File::create(path)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(Mutex::new(file))
}

fn names(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

impl Run<'_> {
    /// Runs all jobs and the status line; one sample a second.
    fn all(&self, args: &FuzzRunArgs, seed: u64) -> Result<Vec<Sample>, String> {
        let earlier = lock(&self.corpus).earlier(self.descs);
        std::thread::scope(|scope| {
            let jobs: Vec<_> = (0..u64::from(args.jobs))
                .map(|job| {
                    let share: Vec<Program> = earlier
                        .iter()
                        .skip(usize::try_from(job).unwrap_or(0))
                        .step_by(args.jobs.into())
                        .cloned()
                        .collect();
                    let seed = Rng::new(seed ^ job << 32).draw();
                    scope.spawn(move || {
                        let done = Job::new(self, seed).work(&share);
                        if done.is_err() {
                            self.stop.store(true, Ordering::Relaxed);
                        }
                        done
                    })
                })
                .collect();
            let samples = self.watch(args.time, &|| jobs.iter().all(|job| job.is_finished()));
            for job in jobs {
                job.join().map_err(|_| "a bug in trapgate's fuzz engine".to_owned())??;
            }
            Ok(samples)
        })
    }
    /// The status line, until all is done.
    fn watch(&self, limit: Option<Duration>, finished: &dyn Fn() -> bool) -> Vec<Sample> {
        let terminal = std::io::stderr().is_terminal();
        let mut samples = Vec::new();
        let mut next = Duration::from_secs(1);
        while !finished() {
            std::thread::sleep(Duration::from_millis(50));
            let passed = self.started.elapsed();
            if limit.is_some_and(|limit| passed >= limit) {
                self.stop.store(true, Ordering::Relaxed);
            }
            if passed < next {
                continue;
            }
            next += Duration::from_secs(1);
            let sample = self.sample();
            let line = sample.line();
            if terminal {
                eprint!("\r\x1b[K{line}");
                let _ = std::io::stderr().flush();
            } else if samples.len() % 30 == 29 {
                eprintln!("{line}");
            }
            samples.push(sample);
        }
        if terminal {
            eprintln!();
        }
        samples.push(self.sample());
        samples
    }
    fn sample(&self) -> Sample {
        let corpus = lock(&self.corpus);
        Sample {
            seconds: self.started.elapsed().as_secs_f64(),
            programs: self.done.load(Ordering::Relaxed),
            corpus: corpus.programs().len(),
            coverage: corpus.coverage(),
            findings: lock(&self.findings).entries.len(),
        }
    }
    fn sum_up(&self, seed: u64) {
        let sample = self.sample();
        println!(
            "{} (seed {seed}, {} unsteady)",
            sample.line(),
            self.unsteady.load(Ordering::Relaxed)
        );
        let rates = lock(&self.rates);
        for kind in self.targets {
            if let Some((programs, time)) = rates.get(kind) {
                #[expect(clippy::cast_precision_loss, reason = "a rate to show")]
                let rate = *programs as f64 / time.as_secs_f64().max(1e-9);
                println!(
                    "{:9} {programs:>9} programs, {rate:>7.0} a second of its own time",
                    kind.name()
                );
            }
        }
        for (signature, entry) in &lock(&self.findings).entries {
            println!("\n{signature} ({} times)", entry.count);
            entry
                .finding
                .text(&entry.program, self.descs)
                .lines()
                .for_each(|line| println!("# {line}"));
            print!("{}", entry.program.text(self.descs));
        }
    }
    fn page(&self, seed: u64, samples: &[Sample]) -> String {
        let rates = lock(&self.rates);
        let rates = self
            .targets
            .iter()
            .filter_map(|kind| rates.get(kind).map(|(n, time)| (*kind, *n, *time)));
        report::page(&report::Facts {
            seed,
            targets: self.targets,
            rates: rates.collect(),
            samples,
            calls: &lock(&self.calls),
            findings: &lock(&self.findings),
            descs: self.descs,
        })
    }
    /// Takes up to [`BATCH`] programs off what is left; 0 at the end.
    fn take(&self) -> usize {
        if self.stop.load(Ordering::Relaxed) {
            return 0;
        }
        let most = BATCH as u64;
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            Some(left.saturating_sub(most))
        });
        usize::try_from(left.unwrap_or(0).min(most)).unwrap_or(0)
    }
}

/// One thread with targets of its own.
struct Job<'a> {
    run: &'a Run<'a>,
    generator: Generator<'a>,
    crew: Crew<'a>,
    /// For second looks, with more patience.
    patient: Crew<'a>,
    /// Kinds of differences that did not show again: how often.
    doubts: HashMap<String, u32>,
}

impl<'a> Job<'a> {
    fn new(run: &'a Run<'a>, seed: u64) -> Job<'a> {
        let setup = |slow| Setup { place: run.place, seed: Some(seed), slow };
        Job {
            run,
            generator: Generator {
                descs: run.descs,
                choices: &run.choices,
                rng: Rng::new(seed),
                heavy: false,
            },
            crew: Crew::new(setup(1), run.descs),
            patient: Crew::new(setup(replay::SLOW), run.descs),
            doubts: HashMap::new(),
        }
    }
    fn work(mut self, earlier: &[Program]) -> Result<(), String> {
        for programs in earlier.chunks(BATCH) {
            if !self.run.stop.load(Ordering::Relaxed) {
                self.batch(programs)?;
            }
        }
        loop {
            let count = self.run.take();
            if count == 0 {
                break;
            }
            let programs: Vec<Program> = (0..count).map(|_| self.program()).collect();
            self.batch(&programs)?;
        }
        for failure in self.crew.end().into_iter().chain(self.patient.end()) {
            let finding = Finding::Failed {
                kind: self.run.targets[0],
                message: failure.message,
                hung: failure.hung,
            };
            self.record(Program::default(), finding)?;
        }
        Ok(())
    }
    fn program(&mut self) -> Program {
        let corpus = lock(&self.run.corpus);
        let rng = &mut self.generator.rng;
        if corpus.programs().is_empty() || rng.chance(1, 5) {
            drop(corpus);
            return self.generator.program();
        }
        // Half of the time one of the newest: what was new lately is worth more.
        let all = corpus.programs();
        let recent = &all[all.len().saturating_sub(64)..];
        let from = if rng.chance(1, 2) { recent } else { all };
        let mut base = rng.pick(from).clone();
        for _ in 0..4 {
            // Heavy programs are often new, and slow.
            if needs::of(&base, self.run.descs).fresh && !rng.chance(1, 8) {
                base = rng.pick(from).clone();
            }
        }
        let other = rng.pick(all).clone();
        drop(corpus);
        self.generator.mutate(&base, Some(&other))
    }
    fn batch(&mut self, programs: &[Program]) -> Result<(), String> {
        let run = self.run;
        let refs: Vec<&Program> = programs.iter().collect();
        let mut columns = Vec::with_capacity(run.targets.len());
        for kind in run.targets {
            let begun = Instant::now();
            columns.push(self.crew.run(*kind, &refs)?);
            let mut rates = lock(&run.rates);
            let rate = rates.entry(*kind).or_default();
            *rate = (rate.0 + programs.len() as u64, rate.1 + begun.elapsed());
        }
        for (index, program) in programs.iter().enumerate() {
            let row: Vec<&Ran> = columns.iter().map(|column| &column[index]).collect();
            self.judge(program, &row)?;
        }
        run.done.fetch_add(programs.len() as u64, Ordering::Relaxed);
        Ok(())
    }
    fn judge(&mut self, program: &Program, row: &[&Ran]) -> Result<(), String> {
        let run = self.run;
        if let Some(trace) = &run.trace {
            let mut file = lock(trace);
            let mut text = program.text(run.descs);
            for (kind, ran) in run.targets.iter().zip(row) {
                if let Ran::Seen(outcome, _) = ran {
                    text.push_str(&format!(
                        "{}:\n{}",
                        kind.name(),
                        outcome.text(program, run.descs)
                    ));
                }
            }
            writeln!(file, "{text}").map_err(|error| format!("cannot write the trace: {error}"))?;
        }
        // Coverage is the kernel's, not the oracle's.
        if let Some(Ran::Seen(outcome, _)) = row.last() {
            lock(&run.calls).count(program, outcome, run.descs);
            let mut corpus = lock(&run.corpus);
            corpus
                .consider(program, outcome, run.descs)
                .map_err(|error| format!("cannot write to the corpus: {error}"))?;
        }
        for (kind, ran) in run.targets.iter().zip(row) {
            if let Ran::Failed(failure) = ran {
                let finding = Finding::Failed {
                    kind: *kind,
                    message: failure.message.clone(),
                    hung: failure.hung,
                };
                self.record(program.clone(), finding)?;
                return Ok(());
            }
        }
        let Ran::Seen(right, _) = row[0] else { return Ok(()) };
        for (kind, ran) in run.targets.iter().zip(row).skip(1) {
            let Ran::Seen(outcome, _) = ran else { continue };
            let differences =
                oracle::unknown(right.differences(outcome), program, run.descs, &run.known);
            if !differences.is_empty() {
                let finding = Finding::Differ { left: run.targets[0], right: *kind, differences };
                self.suspect(program, &finding, *kind)?;
            }
        }
        Ok(())
    }
    /// Looks again at what may be a finding.
    fn suspect(&mut self, program: &Program, finding: &Finding, kind: Kind) -> Result<(), String> {
        let run = self.run;
        let doubtful = finding.signature(program, run.descs);
        if lock(&run.findings).again(&doubtful) {
            return Ok(());
        }
        let doubts = self.doubts.entry(doubtful).or_default();
        *doubts += 1;
        if *doubts > DOUBTS && !doubts.is_multiple_of(16) {
            run.unsteady.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let sides = (run.targets[0], kind);
        match oracle::confirm(&mut self.patient, program, run.descs, &run.known, sides, 2)? {
            Some(finding) => self.record(program.clone(), finding),
            None => {
                run.unsteady.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }
    fn record(&mut self, program: Program, finding: Finding) -> Result<(), String> {
        let run = self.run;
        let signature = finding.signature(&program, run.descs);
        if lock(&run.findings).again(&signature) {
            return Ok(());
        }
        let targets: Vec<Kind> = match &finding {
            Finding::Differ { left, right, .. } => vec![*left, *right],
            Finding::Failed { kind, .. } => vec![*kind],
        };
        let mut small = program;
        let mut shown = finding;
        // A silence of 20 s a trial is too dear.
        if !small.calls.is_empty() && !matches!(shown, Finding::Failed { hung: true, .. }) {
            let mut trial = Trial {
                crew: &mut self.patient,
                descs: run.descs,
                known: &run.known,
                targets: &targets,
            };
            small = trial.minimize(&small, &signature)?;
            match trial.show(&small, 2)? {
                Some(finding) => shown = finding,
                // A crash that comes now and then is one all the same; a difference may be chance.
                None if matches!(shown, Finding::Differ { .. }) => {
                    run.unsteady.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                None => {}
            }
        }
        let at = run.started.elapsed().as_secs_f64();
        let entry = Entry { program: small, finding: shown, count: 1, at };
        lock(&run.findings).add(signature, entry, run.descs)
    }
}
