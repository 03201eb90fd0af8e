//! `trapgate fuzz replay`: one program everywhere, and what it did.

use super::{
    crew::{Crew, Ran, Setup},
    desc::Descs,
    known, load,
    oracle::{self, Finding},
    place::Place,
};
use crate::{cli::FuzzFileArgs, exit};

/// Patience of targets that run one program only: certainty counts, not speed.
pub const SLOW: u32 = 10;

/// Runs the command; the exit status.
///
/// # Errors
/// In words for the user.
pub fn command(args: &FuzzFileArgs) -> Result<u8, String> {
    let descs = Descs::new();
    let program = load(&args.file, &descs)?;
    let known = known::all()?;
    let place = Place::new()?;
    let mut crew = Crew::new(Setup { place: &place, seed: None, slow: SLOW }, &descs);
    let first = args.targets.first().copied().ok_or("no targets")?;
    let mut findings: Vec<Finding> = Vec::new();
    for kind in &args.targets {
        match crew.run_one(*kind, &program)? {
            Ran::Seen(outcome, _) if *kind == first => {
                print!("{}:\n{}", kind.name(), outcome.text(&program, &descs));
            }
            Ran::Seen(..) => {
                findings.extend(oracle::confirm(
                    &mut crew,
                    &program,
                    &descs,
                    &known,
                    (first, *kind),
                    2,
                )?);
            }
            Ran::Failed(failure) => findings.push((*kind, failure).into()),
        }
    }
    findings.extend(crew.end().into_iter().map(|failure| Finding::Failed {
        kind: first,
        message: failure.message,
        hung: failure.hung,
    }));
    for finding in &findings {
        print!("{}", finding.text(&program, &descs));
    }
    if findings.is_empty() {
        println!(
            "all alike: {}",
            args.targets.iter().map(|k| k.name()).collect::<Vec<_>>().join(", ")
        );
        return Ok(0);
    }
    Ok(exit::FOUND)
}
