//! What counts as a finding, and telling it from chance.

use super::{
    crew::{Crew, Ran},
    desc::Descs,
    known::Known,
    outcome::{Difference, Key, Outcome},
    prog::Program,
    target::{Failure, Kind},
};

/// Something to look at.
#[derive(Debug, Clone)]
pub enum Finding {
    /// Two targets differ.
    Differ {
        /// The one that counts as right.
        left: Kind,
        /// The other.
        right: Kind,
        /// In this.
        differences: Vec<Difference>,
    },
    /// A target panicked, hung or did not end well.
    Failed {
        /// Which.
        kind: Kind,
        /// In its own words.
        message: String,
        /// It made no sound.
        hung: bool,
    },
}

impl Finding {
    /// Equal for findings that are most likely the same: the call and what about it.
    #[must_use]
    pub fn signature(&self, program: &Program, descs: &Descs) -> String {
        match self {
            Finding::Differ { left, right, differences } => {
                let Some(first) = differences.first() else { return String::new() };
                let call = call_of(first, program, descs).unwrap_or("-");
                let word = |text: &str| {
                    let text = text.split(' ').next().unwrap_or_default();
                    // Numbers are chance, errors are not.
                    if text.starts_with(|c: char| c.is_ascii_uppercase()) {
                        text.to_owned()
                    } else {
                        String::new()
                    }
                };
                let (a, b) = (word(&first.left), word(&first.right));
                format!("{}/{} {call} {} {a}/{b}", left.name(), right.name(), first.key.kind())
            }
            Finding::Failed { kind, message, hung } => {
                let what = if *hung { "hang" } else { "failure" };
                // The line of a panic tells it from others; addresses and numbers of threads do not.
                let line = message.lines().find(|l| l.contains("panicked") || l.contains("bug"));
                let line: String =
                    line.unwrap_or_default().chars().filter(|c| !c.is_ascii_digit()).collect();
                format!("{} {what} {line}", kind.name())
            }
        }
    }
    /// In words, a line a fact.
    #[must_use]
    pub fn text(&self, program: &Program, descs: &Descs) -> String {
        match self {
            Finding::Differ { left, right, differences } => differences
                .iter()
                .map(|d| {
                    let call =
                        call_of(d, program, descs).map(|c| format!(" ({c})")).unwrap_or_default();
                    let or_nothing =
                        |t: &str| if t.is_empty() { "nothing".to_owned() } else { t.to_owned() };
                    format!(
                        "{}{call}: {} {}, {} {}\n",
                        d.key,
                        left.name(),
                        or_nothing(&d.left),
                        right.name(),
                        or_nothing(&d.right)
                    )
                })
                .collect(),
            Finding::Failed { message, hung, .. } => {
                format!("{}{}\n", if *hung { "hung: " } else { "" }, message)
            }
        }
    }
}

/// The call a difference belongs to.
#[must_use]
pub fn call_of<'a>(d: &Difference, program: &Program, descs: &'a Descs) -> Option<&'a str> {
    d.key.call().and_then(|i| program.calls.get(i)).map(|call| descs.get(call.desc).call())
}

/// Differences that no known one covers. What comes after a call that is known to end differently may differ
/// for that alone, and does not count.
#[must_use]
pub fn unknown(
    all: Vec<Difference>,
    program: &Program,
    descs: &Descs,
    known: &[Known],
) -> Vec<Difference> {
    let covered = |d: &Difference| known.iter().any(|k| k.covers(call_of(d, program, descs), d));
    let returns = |d: &&Difference| matches!(d.key, Key::Return(_)) && covered(d);
    let parted = all.iter().filter(returns).filter_map(|d| d.key.call()).min();
    let counts = |d: &Difference| match (parted, d.key.call()) {
        (Some(parted), Some(call)) => call <= parted,
        (Some(_), None) => false,
        (None, _) => true,
    };
    all.into_iter().filter(|d| counts(d) && !covered(d)).collect()
}

impl From<(Kind, Failure)> for Finding {
    fn from((kind, failure): (Kind, Failure)) -> Finding {
        Finding::Failed { kind, message: failure.message, hung: failure.hung }
    }
}

/// Runs a program again with all the time it may want, each side `times` times, and says whether `left` and
/// `right` differ in what neither of them varies in by itself.
///
/// # Errors
/// A target cannot be started.
pub fn confirm(
    crew: &mut Crew<'_>,
    program: &Program,
    descs: &Descs,
    known: &[Known],
    sides: (Kind, Kind),
    times: usize,
) -> Result<Option<Finding>, String> {
    // Overlapping calls have many outcomes; two runs do not show them all.
    let times = if program.calls.iter().any(|call| call.is_async) { times * 4 } else { times };
    let mut seen: [Vec<Outcome>; 2] = Default::default();
    for (kind, seen) in [sides.0, sides.1].into_iter().zip(&mut seen) {
        for _ in 0..times {
            match crew.run_one(kind, program)? {
                Ran::Seen(outcome, _) => seen.push(outcome),
                Ran::Failed(failure) => return Ok(Some((kind, failure).into())),
            }
        }
    }
    let mut varying = Vec::new();
    for runs in &seen {
        for run in &runs[1..] {
            varying.extend(runs[0].differences(run).into_iter().map(|d| d.key));
        }
    }
    // What varies may do so by chance on one side alone, so all of the other's values count.
    let differences = seen[0][0].differences(&seen[1][0]);
    let steady = differences.into_iter().filter(|d| !varying.contains(&d.key)).collect();
    let differences = unknown(steady, program, descs, known);
    let (left, right) = sides;
    Ok((!differences.is_empty()).then_some(Finding::Differ { left, right, differences }))
}

#[cfg(test)]
mod tests {
    use super::{super::parse, *};

    #[test]
    fn what_follows_a_known_difference_does_not_count() {
        let descs = Descs::new();
        let program = parse::program("close(0x1)\nclose(0x2)\nclose(0x3)", &descs).unwrap();
        let known: Vec<Known> =
            vec!["close | return | 0x0 | EPERM | for this test alone".parse().unwrap()];
        let difference = |key, left: &str, right: &str| Difference {
            key,
            left: left.into(),
            right: right.into(),
        };
        let all = vec![
            difference(Key::Return(0), "0x0", "EBADF"),
            difference(Key::Return(1), "0x0", "EPERM"),
            difference(Key::Return(2), "0x0", "EBADF"),
            difference(Key::End, "a", "b"),
        ];
        assert_eq!(unknown(all.clone(), &program, &descs, &known), all[..1]);
        assert_eq!(unknown(all.clone(), &program, &descs, &[]), all);
    }
}
