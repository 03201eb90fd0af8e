//! The page that `--report` writes; and what it is made of.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::{desc::Descs, findings::Findings, outcome::Outcome, prog::Program, target::Kind};

/// A moment of a run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since its start.
    pub seconds: f64,
    /// Run until then.
    pub programs: u64,
    /// Kept.
    pub corpus: usize,
    /// Different things seen.
    pub coverage: usize,
    /// Kinds of findings.
    pub findings: usize,
}

impl Sample {
    /// The status line.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "figures to show"
    )]
    pub fn line(&self) -> String {
        let rate = self.programs as f64 / self.seconds.max(1e-3);
        let seconds = self.seconds as u64;
        format!(
            "{:02}:{:02}:{:02}  {} programs, {rate:.0}/s, corpus {}, coverage {}, findings {}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            self.programs,
            self.corpus,
            self.coverage,
            self.findings
        )
    }
}

/// How calls ended, by name.
#[derive(Default)]
pub struct PerCall {
    /// Result (`ok` or an error's name) to count, by call.
    pub calls: BTreeMap<String, BTreeMap<String, u64>>,
}

impl PerCall {
    /// Counts a program's calls.
    pub fn count(&mut self, program: &Program, outcome: &Outcome, descs: &Descs) {
        for (index, call) in program.calls.iter().enumerate() {
            let Some(returned) = outcome.returned(index) else { continue };
            let way =
                if returned.starts_with('E') || returned == "unfinished" { returned } else { "ok" };
            let ways = self.calls.entry(descs.get(call.desc).name.clone()).or_default();
            match ways.get_mut(way) {
                Some(count) => *count += 1,
                None => {
                    ways.insert(way.to_owned(), 1);
                }
            }
        }
    }
}

/// What the page tells.
pub struct Facts<'a> {
    /// The run's seed.
    pub seed: u64,
    /// Its targets, the oracle first.
    pub targets: &'a [Kind],
    /// Programs and time by target.
    pub rates: Vec<(Kind, u64, Duration)>,
    /// One a second.
    pub samples: &'a [Sample],
    /// How calls ended.
    pub calls: &'a PerCall,
    /// What was found.
    pub findings: &'a Findings,
    /// Names.
    pub descs: &'a Descs,
}

/// The page.
#[must_use]
pub fn page(facts: &Facts<'_>) -> String {
    let mut out = String::new();
    let _ = write!(out, "<!doctype html><title>trapgate fuzz</title><p>seed {}", facts.seed);
    out
}
