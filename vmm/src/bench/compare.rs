//! `--compare`: what has become slower, or larger, than the noise of both reports explains.

use std::fmt::Write as _;

use super::{
    model::{Measured, Outcome, Report, Unit, count, digits},
    stats::Summary,
};

/// Below this part of the old figure a difference is noise, however quiet both runs were.
const LEAST: f64 = 0.05;

/// What became of one item in one configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Same,
    Worse,
    Better,
}

/// The spread that a difference of medians must exceed.
fn noise(old: &Summary, new: &Summary) -> f64 {
    old.range().max(new.range()).max(LEAST * old.median)
}

fn judge(old: &Summary, new: &Summary) -> Verdict {
    let difference = new.median - old.median;
    match noise(old, new) {
        noise if difference > noise => Verdict::Worse,
        noise if -difference > noise => Verdict::Better,
        _ => Verdict::Same,
    }
}

/// What is compared: ratios to native, which another day's machine changes least; memory as it is, for
/// native has hardly any.
fn figure(item: &Measured, outcome: &Outcome) -> Option<Summary> {
    match item.unit {
        Unit::Nanoseconds => outcome.ratio,
        Unit::Bytes => outcome.value,
    }
}

fn show(item: &Measured, figure: f64) -> String {
    match item.unit {
        Unit::Nanoseconds => format!("{} x", digits(figure)),
        Unit::Bytes => item.unit.show(figure),
    }
}

/// The comparison as text, and how many regressions it names.
#[must_use]
pub fn compare(old: &Report, new: &Report) -> (String, usize) {
    let mut rows = vec![];
    let (mut worse, mut compared) = (0, 0);
    for item in &new.items {
        let Some(before) = old.items.iter().find(|i| i.name == item.name && i.unit == item.unit)
        else {
            continue;
        };
        for outcome in item.outcomes.iter().filter(|o| o.configuration != "native") {
            let Some(was) = before.outcome(&outcome.configuration).and_then(|o| figure(before, o))
            else {
                continue;
            };
            compared += 1;
            let name = format!("{} on {}", item.name, outcome.configuration);
            let Some(is) = figure(item, outcome) else {
                // Measured once, and now not at all: nothing is worse than that.
                worse += 1;
                let why = outcome.note.as_deref().unwrap_or("not measured");
                rows.push(format!(
                    "REGRESSION  {name:30} {:>10} ->  fails: {why}",
                    show(item, was.median)
                ));
                continue;
            };
            let verdict = judge(&was, &is);
            let word = match verdict {
                Verdict::Same => continue,
                Verdict::Worse => "REGRESSION",
                Verdict::Better => "better",
            };
            worse += usize::from(verdict == Verdict::Worse);
            let change = (is.median / was.median - 1.0) * 100.0;
            let noise = noise(&was, &is) / was.median * 100.0;
            rows.push(format!(
                "{word:10}  {name:30} {:>10} -> {:>10}  {change:+.0} %  (noise {noise:.0} %)",
                show(item, was.median),
                show(item, is.median),
            ));
        }
    }
    let mut text = format!(
        "compared with trapgate {}, {}: {}, {}\n",
        old.trapgate,
        old.date,
        count(compared, "figure"),
        count(worse, "regression")
    );
    if (&old.machine.cpu, old.machine.cpus, &old.machine.kernel)
        != (&new.machine.cpu, new.machine.cpus, &new.machine.kernel)
    {
        let _ = writeln!(
            text,
            "note: that was another machine or kernel ({}, {} CPUs, Linux {})",
            old.machine.cpu, old.machine.cpus, old.machine.kernel
        );
    }
    for (machine, which) in [(&old.machine, "older"), (&new.machine, "newer")] {
        if machine.busy() {
            let _ = writeln!(
                text,
                "note: the {which} report's machine was busy, so differences say little"
            );
        }
    }
    for row in rows {
        let _ = writeln!(text, "{row}");
    }
    (text, worse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(low: f64, median: f64, high: f64) -> Summary {
        Summary { median, low, high }
    }

    #[test]
    fn noise_is_no_regression() {
        let quiet = summary(1.99, 2.0, 2.01);
        assert_eq!(judge(&quiet, &summary(2.08, 2.09, 2.1)), Verdict::Same, "below 5 %");
        assert_eq!(judge(&quiet, &summary(2.1, 2.2, 2.21)), Verdict::Worse);
        assert_eq!(judge(&quiet, &summary(1.7, 1.8, 1.81)), Verdict::Better);
        let noisy = summary(1.5, 2.0, 2.5);
        assert_eq!(judge(&noisy, &summary(2.8, 2.9, 3.0)), Verdict::Same, "within the old spread");
        assert_eq!(judge(&quiet, &summary(2.0, 2.5, 3.0)), Verdict::Same, "within the new spread");
        assert_eq!(judge(&noisy, &summary(3.0, 3.1, 3.2)), Verdict::Worse);
    }
}
