//! The page that `--report` writes; and what it is made of.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::{desc::Descs, findings::Findings, outcome::Outcome, prog::Program, target::Kind};
use crate::html::{STYLE, Text};

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
    let last = facts.samples.last().map(Sample::line).unwrap_or_default();
    let targets: Vec<&str> = facts.targets.iter().map(|kind| kind.name()).collect();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>trapgate fuzz</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}{OWN_STYLE}</style></head><body><main>\n\
         <header><h1>trapgate fuzz</h1><p>{}; targets {}; seed {}.</p>\
         <p>The same again: <code>trapgate fuzz run --seed {} --targets {}</code></p></header>\n",
        Text(last),
        Text(targets.join(", ")),
        facts.seed,
        facts.seed,
        Text(targets.join(",")),
    );
    findings(facts, &mut out);
    over_time(facts.samples, &mut out);
    rates(facts, &mut out);
    per_call(facts, &mut out);
    out.push_str("</main></body></html>\n");
    out
}

const OWN_STYLE: &str = "
svg { width: 100%; height: 9rem; background: var(--panel); }
polyline { fill: none; stroke: var(--c1); stroke-width: 2; vector-effect: non-scaling-stroke; }
pre { background: var(--panel); padding: .6rem; overflow-x: auto; }
details { margin: .4rem 0; }
.calls td, .calls th, .rates td, .rates th { padding: .1rem .8rem .1rem 0; vertical-align: top; }
.calls td:last-child { white-space: normal; text-align: left; }
.share { background: var(--c1); display: inline-block; height: .6rem; min-width: 1px; }
";

fn findings(facts: &Facts<'_>, out: &mut String) {
    let entries = &facts.findings.entries;
    let _ = write!(out, "<section id=\"findings\"><h2>Findings: {}</h2>", entries.len());
    if entries.is_empty() {
        out.push_str("<p>Nothing differed, failed or hung.</p>");
    }
    for (signature, entry) in entries {
        let _ = write!(
            out,
            "<details class=\"finding\" open><summary><b>{}</b> <small>{} times, first after {:.0} s</small></summary>\
             <pre>{}</pre><pre>{}</pre></details>",
            Text(signature),
            entry.count,
            entry.at,
            Text(entry.program.text(facts.descs)),
            Text(entry.finding.text(&entry.program, facts.descs)),
        );
    }
    out.push_str("</section>\n");
}

/// Two curves: programs a second, and coverage.
#[expect(clippy::cast_precision_loss, reason = "places of a drawing")]
fn over_time(samples: &[Sample], out: &mut String) {
    out.push_str("<section id=\"time\"><h2>Over time</h2>");
    let end = samples.last().map_or(1.0, |sample| sample.seconds.max(1e-3));
    let rate = |i: usize| {
        let before =
            if i == 0 { (0.0, 0) } else { (samples[i - 1].seconds, samples[i - 1].programs) };
        (samples[i].programs - before.1) as f64 / (samples[i].seconds - before.0).max(1e-3)
    };
    let curves: [(&str, Vec<f64>); 2] = [
        ("Programs a second", (0..samples.len()).map(rate).collect()),
        ("Coverage", samples.iter().map(|sample| sample.coverage as f64).collect()),
    ];
    for (name, values) in curves {
        let top = values.iter().copied().fold(1.0, f64::max);
        let _ = write!(
            out,
            "<p>{name}, 0 to {top:.0}, over {end:.0} s</p><svg class=\"curve\" viewBox=\"0 0 1000 100\" \
             preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{name}\"><polyline points=\"",
        );
        for (sample, value) in samples.iter().zip(&values) {
            let _ = write!(
                out,
                "{:.1},{:.1} ",
                sample.seconds / end * 1000.0,
                100.0 - value / top * 98.0
            );
        }
        out.push_str("\"/></svg>");
    }
    out.push_str("</section>\n");
}

#[expect(clippy::cast_precision_loss, reason = "a rate to show")]
fn rates(facts: &Facts<'_>, out: &mut String) {
    out.push_str(
        "<section id=\"rates\"><h2>Targets</h2><p>Programs a second of the time that a job gave to the target.</p>\
         <table class=\"rates\"><thead><tr><th>target<th>programs<th>a second</tr></thead><tbody>",
    );
    for (kind, programs, time) in &facts.rates {
        let rate = *programs as f64 / time.as_secs_f64().max(1e-9);
        let _ = write!(out, "<tr><th>{}<td>{programs}<td>{rate:.0}</tr>", kind.name());
    }
    out.push_str("</tbody></table></section>\n");
}

#[expect(clippy::cast_precision_loss, reason = "a width to show")]
fn per_call(facts: &Facts<'_>, out: &mut String) {
    let calls = &facts.calls.calls;
    let most = calls.values().map(|ways| ways.values().sum::<u64>()).max().unwrap_or(1);
    let all = facts.descs.len();
    let _ = write!(
        out,
        "<section id=\"calls\"><h2>Calls: {} of {all} made</h2><div class=\"wide\"><table class=\"calls\">\
         <thead><tr><th>call<th>made<th><th>ended in</tr></thead><tbody>",
        calls.len()
    );
    for (name, ways) in calls {
        let made: u64 = ways.values().sum();
        let mut ways: Vec<(&String, &u64)> = ways.iter().collect();
        ways.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let list: Vec<String> = ways.iter().map(|(way, count)| format!("{way} {count}")).collect();
        let _ = write!(
            out,
            "<tr><th>{}<td>{made}<td style=\"text-align:left;width:7rem\"><span class=\"share\" style=\"width:{:.2}rem\"></span><td>{}</tr>",
            Text(name),
            made as f64 / most as f64 * 6.5,
            Text(list.join(", ")),
        );
    }
    out.push_str("</tbody></table></div></section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_findings_says_so() {
        let descs = Descs::new();
        let sample = Sample { seconds: 2.0, programs: 10, corpus: 1, coverage: 3, findings: 0 };
        let (calls, findings) = (PerCall::default(), Findings::default());
        let facts = Facts {
            seed: 7,
            targets: &[Kind::Kvm],
            rates: vec![(Kind::Kvm, 10, Duration::from_secs(2))],
            samples: &[sample],
            calls: &calls,
            findings: &findings,
            descs: &descs,
        };
        let page = page(&facts);
        assert!(
            page.contains("Nothing differed")
                && page.contains("seed 7")
                && page.contains("<th>kvm<td>10<td>5")
        );
    }
}
