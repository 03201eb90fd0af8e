//! A report as text.

use std::{
    fmt::Write as _,
    io::{ErrorKind, Write},
    time::Duration,
};

use super::{
    Refusal,
    model::{Measured, Outcome, Report, count, digits},
};

/// Prints on standard output; a reader who has gone is no error.
///
/// # Errors
/// The host's.
pub fn print(text: &str) -> Result<(), Refusal> {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Refusal::new(format!("cannot print the report: {error}")))
        }
        _ => Ok(()),
    }
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{} s", seconds.max(1)),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// What comes before the figures.
#[must_use]
pub fn head(report: &Report, items: usize, expected: Duration) -> String {
    let mut text = format!(
        "{} on {}, {}: about {}\n",
        count(items, "item"),
        count(report.configurations.len(), "configuration"),
        count(report.rounds, "round"),
        span(expected)
    );
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// The machine, for a report that is read from a file.
#[must_use]
pub fn machine(report: &Report) -> String {
    let mut text = format!("trapgate {}, {}\n", report.trapgate, report.date);
    for (name, value) in report.machine.rows() {
        let _ = writeln!(text, "  {name:20} {value}");
    }
    text
}

fn row(measured: &Measured, outcome: &Outcome, native: bool) -> String {
    let name = &outcome.configuration;
    let Some(value) = outcome.value else {
        return format!("  {name:14} {:>9}  {}", "-", outcome.note.as_deref().unwrap_or(""));
    };
    let show = |figure| measured.unit.show(figure);
    let spread = format!("{} .. {}", show(value.low), show(value.high));
    let mut line = format!("  {name:14} {:>9}  {spread:24}", show(value.median));
    if let Some(ratio) = outcome.ratio.filter(|_| !native) {
        let spread = format!("{} .. {}", digits(ratio.low), digits(ratio.high));
        let _ = write!(line, " {:>6} x native  {spread}", digits(ratio.median));
    }
    if let Some(note) = &outcome.note {
        let _ = write!(line, "  then: {note}");
    }
    line
}

/// One item: a line for each configuration, with median and quartiles.
#[must_use]
pub fn item(measured: &Measured) -> String {
    let mut text = format!("{}: {}\n", measured.name, measured.about);
    for (i, outcome) in measured.outcomes.iter().enumerate() {
        let _ = writeln!(text, "{}", row(measured, outcome, i == 0).trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::model::{Kind, Unit};

    #[test]
    fn rows() {
        let outcome = |name: &str, values: &[f64], note: Option<&str>| Outcome {
            configuration: name.to_owned(),
            values: values.to_vec(),
            ratios: vec![],
            value: None,
            ratio: None,
            note: note.map(str::to_owned),
        };
        let mut measured = Measured {
            name: "x".to_owned(),
            about: "an item".to_owned(),
            kind: Kind::Micro,
            unit: Unit::Nanoseconds,
            outcomes: vec![
                outcome("native", &[100.0, 200.0], None),
                outcome("kvm", &[200.0, 400.0], None),
                outcome("proot", &[], Some("it cannot")),
            ],
        };
        measured.conclude();
        let text = item(&measured);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "x: an item");
        assert_eq!(lines[1], "  native            150 ns  125 ns .. 175 ns");
        assert!(lines[2].ends_with("2.00 x native  2.00 .. 2.00"), "{}", lines[2]);
        assert_eq!(lines[3], "  proot                  -  it cannot");
    }
}
