//! The targets of one job: started when first needed, replaced when they fail.

use super::{
    desc::Descs,
    encode::{Encoded, encode},
    needs,
    outcome::Outcome,
    place::Place,
    prog::Program,
    records::Raw,
    target::{Failure, Kind, Target},
};

/// How targets are started.
pub struct Setup<'a> {
    /// Where the executor is.
    pub place: &'a Place,
    /// Makes VMs the same each time.
    pub seed: Option<u64>,
    /// All patience times this.
    pub slow: u32,
}

/// One job's targets.
pub struct Crew<'a> {
    setup: Setup<'a>,
    descs: &'a Descs,
    targets: Vec<Target>,
    next: u64,
}

/// What came of a program on a target.
pub enum Ran {
    /// This.
    Seen(Outcome, Raw),
    /// The target failed at it.
    Failed(Failure),
}

impl<'a> Crew<'a> {
    /// With no target yet.
    #[must_use]
    pub fn new(setup: Setup<'a>, descs: &'a Descs) -> Crew<'a> {
        Crew { setup, descs, targets: Vec::new(), next: 0 }
    }
    fn target(&mut self, kind: Kind) -> Result<&mut Target, String> {
        let index = match self.targets.iter().position(|target| target.kind() == kind) {
            Some(index) => index,
            None => {
                let Setup { place, seed, slow } = self.setup;
                self.targets.push(Target::start(kind, place, seed, slow)?);
                self.targets.len() - 1
            }
        };
        Ok(&mut self.targets[index])
    }
    /// Runs the programs on one target, in order; one result for each.
    ///
    /// # Errors
    /// The target cannot be started at all.
    pub fn run(&mut self, kind: Kind, programs: &[&Program]) -> Result<Vec<Ran>, String> {
        let encoded: Vec<Encoded> = programs
            .iter()
            .map(|program| {
                self.next += 1;
                encode(program, self.descs, self.next, needs::of(program, self.descs))
            })
            .collect();
        let mut out = Vec::with_capacity(programs.len());
        while out.len() < programs.len() {
            let frames: Vec<&Encoded> = encoded[out.len()..].iter().collect();
            let (seen, failure) = match self.target(kind)?.run(&frames) {
                Ok(seen) => (seen, None),
                Err((seen, failure)) => (seen, Some(failure)),
            };
            for raw in seen {
                let (program, regions) = (programs[out.len()], &encoded[out.len()].regions);
                out.push(Ran::Seen(Outcome::new(program, self.descs, regions, &raw), raw));
            }
            if let Some(failure) = failure {
                self.targets.retain(|target| target.kind() != kind);
                out.push(Ran::Failed(failure));
            }
        }
        Ok(out)
    }
    /// Runs one program.
    ///
    /// # Errors
    /// The target cannot be started at all.
    pub fn run_one(&mut self, kind: Kind, program: &Program) -> Result<Ran, String> {
        let mut ran = self.run(kind, &[program])?;
        ran.pop().ok_or_else(|| "no answer".to_owned())
    }
    /// Ends all targets; what was wrong with their ends.
    pub fn end(&mut self) -> Vec<Failure> {
        self.targets.drain(..).filter_map(|target| target.end().err()).collect()
    }
}
