//! What a bench yields: the figures, how they were made, and where. `--json` writes it, `--compare` and
//! `--from` read it, the text and the page show it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    Refusal,
    machine::Machine,
    stats::{Summary, ratios},
};

/// Version of the JSON form; a reader of another version is told so.
pub const SCHEMA: u32 = 1;

/// Which group an item belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One operation, in a loop.
    Micro,
    /// A program from its start to its end.
    Start,
    /// Memory in use.
    Memory,
    /// A real program's whole run.
    Workload,
}

impl Kind {
    /// Every kind, in the order of reports.
    pub const ALL: [Kind; 4] = [Kind::Micro, Kind::Start, Kind::Memory, Kind::Workload];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Micro => "micro",
            Kind::Start => "start",
            Kind::Memory => "memory",
            Kind::Workload => "workload",
        }
    }
}

/// What a figure counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Time.
    Nanoseconds,
    /// Memory.
    Bytes,
}

impl Unit {
    /// `value` with a prefix that leaves few digits.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        let steps: &[(f64, &str)] = match self {
            Unit::Nanoseconds => &[(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")],
            Unit::Bytes => &[(1_048_576.0, "MiB")],
        };
        let (size, name) = steps
            .iter()
            .find(|(size, _)| value >= *size)
            .or(steps.last())
            .expect("every unit has a step");
        format!("{} {name}", digits(value / size))
    }
}

/// Three digits, no more than two of them behind the point.
#[must_use]
pub fn digits(value: f64) -> String {
    match value {
        v if v >= 99.5 => format!("{v:.0}"),
        v if v >= 9.95 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// `1 round`, `5 rounds`.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// One way a program was run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Configuration {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// How it runs PROGRAM.
    pub command: String,
}

/// One item in one configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Which configuration.
    pub configuration: String,
    /// The figures, round by round, in the item's unit.
    pub values: Vec<f64>,
    /// The same over native's of the same round.
    pub ratios: Vec<f64>,
    /// What the figures come to; nothing if it could not be measured.
    pub value: Option<Summary>,
    /// What the ratios come to.
    pub ratio: Option<Summary>,
    /// Why there is nothing, or less than there should be.
    pub note: Option<String>,
}

/// One item.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// What one operation is.
    pub about: String,
    /// Its group.
    pub kind: Kind,
    /// What its figures count.
    pub unit: Unit,
    /// By configuration, native first.
    pub outcomes: Vec<Outcome>,
}

impl Measured {
    /// Fills in ratios and summaries from the figures.
    pub fn conclude(&mut self) {
        let native = self.outcomes.first().map(|o| o.values.clone()).unwrap_or_default();
        for outcome in &mut self.outcomes {
            outcome.ratios = ratios(&outcome.values, &native);
            outcome.value = Summary::of(&outcome.values);
            outcome.ratio = Summary::of(&outcome.ratios);
        }
    }
    /// The outcome of `configuration`.
    #[must_use]
    pub fn outcome(&self, configuration: &str) -> Option<&Outcome> {
        self.outcomes.iter().find(|o| o.configuration == configuration)
    }
}

/// Everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The version that measured.
    pub trapgate: String,
    /// When it began, RFC 3339.
    pub date: String,
    /// The command line.
    pub command: Vec<String>,
    /// Rounds asked for.
    pub rounds: usize,
    /// Where.
    pub machine: Machine,
    /// How programs were run, native first.
    pub configurations: Vec<Configuration>,
    /// The figures.
    pub items: Vec<Measured>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

impl Report {
    /// Reads a report that `--json` wrote.
    ///
    /// # Errors
    /// It cannot be read, or is something else.
    pub fn load(path: &Path) -> Result<Report, Refusal> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Refusal::new(format!("cannot read {shown}: {error}")))?;
        let not_one = |error| Refusal::new(format!("{shown} is not a bench's JSON: {error}"));
        // The version first: another version's fields may be missing altogether.
        let version: Version = serde_json::from_str(&text).map_err(not_one)?;
        if version.schema != SCHEMA {
            let found = version.schema;
            return Err(Refusal::new(format!("{shown} has schema {found}, this is {SCHEMA}")));
        }
        serde_json::from_str(&text).map_err(not_one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        for (value, shown) in [
            (0.5, "0.50 ns"),
            (170.2, "170 ns"),
            (1412.0, "1.41 µs"),
            (35_400.0, "35.4 µs"),
            (8.6e6, "8.60 ms"),
            (2.5e9, "2.50 s"),
        ] {
            assert_eq!(Unit::Nanoseconds.show(value), shown);
        }
        assert_eq!(Unit::Bytes.show(8.0 * 1_048_576.0), "8.00 MiB");
        assert_eq!(Unit::Bytes.show(524_288.0), "0.50 MiB");
    }
}
