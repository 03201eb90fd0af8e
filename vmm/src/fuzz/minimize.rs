//! The fewest calls and the simplest arguments that still show a finding.

use super::{
    crew::{Crew, Ran, Setup},
    desc::Descs,
    known::{self, Known},
    load,
    oracle::{self, Finding},
    place::Place,
    prog::{Arg, Program},
    replay,
    target::Kind,
};
use crate::{cli::FuzzFileArgs, exit};

/// Most trials for one program: calls are few, and a trial takes milliseconds.
const TRIALS: usize = 400;

/// Looks for `finding`'s like in other programs.
pub struct Trial<'a, 'b> {
    /// Patient targets.
    pub crew: &'a mut Crew<'b>,
    /// What there is.
    pub descs: &'a Descs,
    /// What does not count.
    pub known: &'a [Known],
    /// The targets that are compared, the oracle first.
    pub targets: &'a [Kind],
}

impl Trial<'_, '_> {
    /// What `program` shows, if anything; `times` runs on each side.
    ///
    /// # Errors
    /// A target cannot be started.
    pub fn show(&mut self, program: &Program, times: usize) -> Result<Option<Finding>, String> {
        let Some((first, others)) = self.targets.split_first() else { return Ok(None) };
        if others.is_empty() {
            return Ok(match self.crew.run_one(*first, program)? {
                Ran::Seen(..) => None,
                Ran::Failed(failure) => Some((*first, failure).into()),
            });
        }
        for other in others {
            let sides = (*first, *other);
            let found = oracle::confirm(self.crew, program, self.descs, self.known, sides, times)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
    /// The smallest program found that shows what has `signature`.
    ///
    /// # Errors
    /// A target cannot be started.
    pub fn minimize(&mut self, program: &Program, signature: &str) -> Result<Program, String> {
        let mut best = program.clone();
        let mut trials = 0;
        let mut holds = |trial: &Program, this: &mut Self| -> Result<bool, String> {
            trials += 1;
            if trials > TRIALS || trial.calls.is_empty() {
                return Ok(false);
            }
            let found = this.show(trial, 2)?;
            Ok(found.is_some_and(|finding| finding.signature(trial, this.descs) == signature))
        };
        // From the end: what comes later needs what comes before.
        let mut changed = true;
        while changed {
            changed = false;
            for index in (0..best.calls.len()).rev() {
                let mut trial = best.clone();
                trial.remove(index);
                if holds(&trial, self)? {
                    best = trial;
                    changed = true;
                }
            }
        }
        for index in 0..best.calls.len() {
            if best.calls[index].is_async {
                let mut trial = best.clone();
                trial.calls[index].is_async = false;
                if holds(&trial, self)? {
                    best = trial;
                }
            }
            let mut at = 0;
            while let Some(trials) = simpler(&best, index, at) {
                for trial in trials {
                    if holds(&trial, self)? {
                        best = trial;
                        break;
                    }
                }
                at += 1;
            }
        }
        best.tidy();
        Ok(best)
    }
}

/// Programs with the value number `at` of the call's arguments made simpler, the simplest first; `None` if
/// there is no such value.
fn simpler(program: &Program, call: usize, at: usize) -> Option<Vec<Program>> {
    let mut value = None;
    let mut number = 0;
    program.calls[call].walk(&mut |arg| {
        if number == at {
            value = Some(arg.clone());
        }
        number += 1;
    });
    let ideas: Vec<Arg> = match value? {
        Arg::Value(0) | Arg::Define(..) | Arg::Pointer(_, None) | Arg::Variant(..) => Vec::new(),
        Arg::Value(value) => {
            let top = 1_u64.checked_shl(63 - value.leading_zeros()).unwrap_or(0);
            let ideas = [0, 1, value & 0xffff_ffff, value & value.wrapping_sub(1), top];
            ideas.into_iter().filter(|idea| *idea != value).map(Arg::Value).collect()
        }
        Arg::Result(_, default) => vec![Arg::Value(default)],
        Arg::Pointer(offset, Some(_)) => vec![Arg::Value(0), Arg::Pointer(offset, None)],
        Arg::Data(bytes) if bytes.len() > 1 => {
            vec![Arg::Data(bytes[..1].to_vec()), Arg::Data(bytes[..bytes.len() / 2].to_vec())]
        }
        Arg::Room(len) if len > 8 => vec![Arg::Room(1), Arg::Room(8)],
        Arg::Data(_) | Arg::Room(_) => Vec::new(),
        Arg::Group(values) if values.len() > 1 => vec![Arg::Group(values[..1].to_vec())],
        Arg::Group(_) => Vec::new(),
    };
    let replaced = ideas.into_iter().map(|idea| {
        let mut trial = program.clone();
        let mut number = 0;
        let mut idea = Some(idea);
        for arg in &mut trial.calls[call].args {
            arg.walk_mut(&mut |arg| {
                let here = number == at;
                number += 1;
                if let (true, Some(idea)) = (here, idea.take_if(|_| here)) {
                    *arg = idea;
                }
            });
        }
        trial
    });
    Some(replaced.collect())
}

/// Runs the command; the exit status.
///
/// # Errors
/// In words for the user.
pub fn command(args: &FuzzFileArgs) -> Result<u8, String> {
    let descs = Descs::new();
    let program = load(&args.file, &descs)?;
    let known = known::all()?;
    let place = Place::new()?;
    let mut crew = Crew::new(Setup { place: &place, seed: None, slow: replay::SLOW }, &descs);
    let mut trial = Trial { crew: &mut crew, descs: &descs, known: &known, targets: &args.targets };
    let Some(finding) = trial.show(&program, 2)? else {
        println!("# all targets do the same; nothing to minimize");
        return Ok(0);
    };
    let small = trial.minimize(&program, &finding.signature(&program, &descs))?;
    let shown = trial.show(&small, 2)?.unwrap_or(finding);
    shown.text(&small, &descs).lines().for_each(|line| println!("# {line}"));
    print!("{}", small.text(&descs));
    Ok(exit::FOUND)
}

#[cfg(test)]
mod tests {
    use super::{super::parse, *};

    #[test]
    fn values_get_simpler_one_at_a_time() {
        let descs = Descs::new();
        let program = parse::program("write(0x3, &(0x7f0000000000)='abcd', 0x4)", &descs).unwrap();
        let texts = |at| {
            simpler(&program, 0, at).unwrap().iter().map(|p| p.text(&descs)).collect::<Vec<_>>()
        };
        assert_eq!(texts(0)[0], "write(0x0, &(0x7f0000000000)='abcd', 0x4)\n");
        assert_eq!(texts(1)[0], "write(0x3, 0x0, 0x4)\n");
        assert_eq!(texts(2)[0], "write(0x3, &(0x7f0000000000)='a', 0x4)\n");
        assert!(simpler(&program, 0, 4).is_none());
    }
}
