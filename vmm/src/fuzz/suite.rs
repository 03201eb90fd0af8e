//! `trapgate fuzz suite`: programs that say what they expect, everywhere, and everywhere alike.

use std::path::{Path, PathBuf};

use super::{
    crew::{Crew, Ran, Setup},
    desc::Descs,
    known::{self, Known},
    load,
    oracle::{self, Finding},
    outcome::Outcome,
    place::Place,
    prog::{Expect, Program},
    replay,
    target::Kind,
};
use crate::{cli::FuzzSuiteArgs, exit};

/// A program of the suite.
struct Case {
    path: PathBuf,
    program: Program,
    /// Targets it is for, if not all (`# targets: kvm ptrace`).
    only: Option<Vec<Kind>>,
}

/// Runs the command; the exit status.
///
/// # Errors
/// In words for the user.
pub fn command(args: &FuzzSuiteArgs) -> Result<u8, String> {
    let descs = Descs::new();
    let known = known::all()?;
    let cases = collect(&args.dir, &descs)?;
    let place = Place::new()?;
    let first = args.targets.first().copied().ok_or("no targets")?;
    let columns = run_all(&args.targets, &cases, &descs, &place)?;
    let mut crew = Crew::new(Setup { place: &place, seed: None, slow: replay::SLOW }, &descs);
    let mut missed = 0;
    for (index, case) in cases.iter().enumerate() {
        let mut complaints = Vec::new();
        let oracle = columns[0][index].as_ref();
        for (kind, column) in args.targets.iter().zip(&columns) {
            let Some(ran) = &column[index] else { continue };
            let suspect = match (ran, oracle) {
                (Ran::Failed(_), _) => true,
                (Ran::Seen(outcome, _), Some(Ran::Seen(right, _))) => {
                    let differences = right.differences(outcome);
                    !misses(case, outcome).is_empty()
                        || !oracle::unknown(differences, &case.program, &descs, &known).is_empty()
                }
                (Ran::Seen(outcome, _), _) => !misses(case, outcome).is_empty(),
            };
            if suspect {
                let sides = (oracle.is_some() && *kind != first).then_some((first, *kind));
                complaints.extend(look_again(&mut crew, case, &descs, &known, *kind, sides)?);
            }
        }
        if !complaints.is_empty() {
            missed += 1;
            println!("{}:", case.path.display());
            complaints.iter().for_each(|line| println!("    {line}"));
        }
    }
    let names: Vec<&str> = args.targets.iter().map(|k| k.name()).collect();
    println!(
        "{} programs on {}: {} passed, {missed} missed",
        cases.len(),
        names.join(", "),
        cases.len() - missed
    );
    Ok(if missed == 0 { 0 } else { exit::FOUND })
}

/// Every case on every target, a column a target, targets side by side.
fn run_all(
    targets: &[Kind],
    cases: &[Case],
    descs: &Descs,
    place: &Place,
) -> Result<Vec<Vec<Option<Ran>>>, String> {
    std::thread::scope(|scope| {
        let columns: Vec<_> = targets
            .iter()
            .map(|kind| {
                scope.spawn(move || {
                    let mut crew = Crew::new(Setup { place, seed: None, slow: 1 }, descs);
                    let ours =
                        |case: &&Case| case.only.as_ref().is_none_or(|only| only.contains(kind));
                    let programs: Vec<&Program> =
                        cases.iter().filter(ours).map(|c| &c.program).collect();
                    let mut ran = crew.run(*kind, &programs)?.into_iter();
                    let column =
                        cases.iter().map(|case| if ours(&case) { ran.next() } else { None });
                    let column: Vec<Option<Ran>> = column.collect();
                    match crew.end().first() {
                        Some(failure) => Err(failure.message.clone()),
                        None => Ok(column),
                    }
                })
            })
            .collect();
        let joined = columns
            .into_iter()
            .map(|column| column.join().map_err(|_| "a bug in trapgate".to_owned())?);
        joined.collect()
    })
}

/// Once more with more patience, alone: what is still wrong.
fn look_again(
    crew: &mut Crew<'_>,
    case: &Case,
    descs: &Descs,
    known: &[Known],
    kind: Kind,
    sides: Option<(Kind, Kind)>,
) -> Result<Vec<String>, String> {
    let mut lines = match crew.run_one(kind, &case.program)? {
        Ran::Failed(failure) => vec![failure.message],
        Ran::Seen(outcome, _) => misses(case, &outcome),
    };
    lines.iter_mut().for_each(|line| line.insert_str(0, &format!("{}: ", kind.name())));
    if let Some(sides) = sides
        && let Some(finding @ Finding::Differ { .. }) =
            oracle::confirm(crew, &case.program, descs, known, sides, 2)?
    {
        lines.extend(finding.text(&case.program, descs).lines().map(str::to_owned));
    }
    Ok(lines)
}

/// What a run did other than expected.
fn misses(case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut out = Vec::new();
    for (index, call) in case.program.calls.iter().enumerate() {
        let returned = outcome.returned(index);
        let finished = returned.filter(|text| *text != "unfinished");
        let failed = |text: &str| text.starts_with('E') || text.starts_with("error");
        let (right, expected) = match call.expect {
            Some(Expect::Any) => (true, String::new()),
            Some(Expect::Unfinished) => (finished.is_none(), "that it does not return".to_owned()),
            Some(Expect::Errno(errno)) => (finished == Some(errno.name()), errno.name().to_owned()),
            Some(Expect::Value(value)) => {
                let value = format!("{value:#x}");
                (finished == Some(&*value), value)
            }
            None => (finished.is_some_and(|text| !failed(text)), "success".to_owned()),
        };
        if !right {
            out.push(format!(
                "call {index}: {}, expected {expected}",
                returned.unwrap_or("not made")
            ));
        }
    }
    out
}

fn collect(dir: &Path, descs: &Descs) -> Result<Vec<Case>, String> {
    let mut paths = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let failed = |error| format!("cannot read {}: {error}", dir.display());
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "prog") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(format!("no programs (*.prog) below {}", dir.display()));
    }
    paths.into_iter().map(|path| case(path, descs)).collect()
}

fn case(path: PathBuf, descs: &Descs) -> Result<Case, String> {
    let program = load(&path, descs)?;
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let only = text
        .lines()
        .find_map(|line| line.strip_prefix("# targets:"))
        .map(|list| list.split_whitespace().map(str::parse).collect::<Result<Vec<Kind>, String>>())
        .transpose()
        .map_err(|message| format!("{}: {message}", path.display()))?;
    Ok(Case { path, program, only })
}
