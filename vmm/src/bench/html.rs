//! A report as one page that needs nothing beside it: no script, no font, no picture from elsewhere.
//!
//! Each item is a table, a row for each configuration, with figures and a bar: the page reads as well
//! aloud as it looks. Bars of times begin at native's and show the ratio on a logarithmic axis common to
//! the group; bars of memory begin at zero.

use std::fmt::{self, Write as _};

use super::{
    model::{Kind, Measured, Outcome, Report, Unit, count, digits},
    stats::Summary,
};
use crate::html::{STYLE, Text};

/// A horizontal axis.
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Where bars begin.
    base: f64,
    ticks: Vec<f64>,
}

impl Axis {
    /// For ratios around 1: whole powers of ten at both ends would waste room, so halves of them.
    fn ratios(figures: &[f64]) -> Axis {
        let bound =
            |start: f64, pick: fn(f64, f64) -> f64| figures.iter().copied().fold(start, pick);
        let half =
            |value: f64, round: fn(f64) -> f64| 10_f64.powf(round(value.log10() * 4.0) / 4.0);
        let low = half(bound(0.9, f64::min).max(1e-3), f64::floor);
        let high = half(bound(1.5, f64::max) * 1.05, f64::ceil);
        let mut ticks = vec![];
        for decade in [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5] {
            // Between near ends there is room for more.
            let steps: &[f64] = if high / low < 60.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            ticks.extend(steps.iter().map(|step| decade * step));
        }
        ticks.retain(|tick| (low..=high).contains(tick));
        Axis { low, high, logarithmic: true, base: 1.0, ticks }
    }
    /// From zero, in steps of 1, 2 or 5 times a power of ten.
    fn amounts(figures: &[f64], unit: f64) -> Axis {
        let high = figures.iter().copied().fold(unit, f64::max) * 1.02;
        let wanted = high / unit / 5.0;
        let decade = 10_f64.powf(wanted.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * decade).into_iter().find(|s| *s >= wanted);
        let step = step.unwrap_or(decade) * unit;
        let ticks = (0..=6_u8).map(|i| f64::from(i) * step).filter(|tick| *tick <= high).collect();
        Axis { low: 0.0, high, logarithmic: false, base: 0.0, ticks }
    }
    /// The place of `value`, in per cent.
    fn place(&self, value: f64) -> f64 {
        let part = if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        part.clamp(0.0, 1.0) * 100.0
    }
}

/// What bars of an item show.
fn figure(item: &Measured, outcome: &Outcome, native: bool) -> Option<Summary> {
    match item.unit {
        Unit::Bytes => outcome.value,
        // Native's own noise, against its own median.
        Unit::Nanoseconds if native => outcome.value.filter(|v| v.median > 0.0).map(|v| Summary {
            median: 1.0,
            low: v.low / v.median,
            high: v.high / v.median,
        }),
        Unit::Nanoseconds => outcome.ratio,
    }
}

fn axis(items: &[&Measured]) -> Axis {
    let mut figures = vec![];
    for item in items {
        for (i, outcome) in item.outcomes.iter().enumerate() {
            let summary = figure(item, outcome, i == 0);
            figures.extend(summary.into_iter().flat_map(|s| [s.low, s.median, s.high]));
        }
    }
    match items.first().map(|item| item.unit) {
        Some(Unit::Bytes) => Axis::amounts(&figures, 1_048_576.0),
        _ => Axis::ratios(&figures),
    }
}

fn tick_name(axis: &Axis, tick: f64) -> String {
    if axis.logarithmic { format!("{tick}×") } else { format!("{:.0}", tick / 1_048_576.0) }
}

fn plot(out: &mut String, axis: &Axis, figure: &Summary, color: usize) -> fmt::Result {
    write!(out, "<td class=plot><div>")?;
    for tick in &axis.ticks {
        let class = if (tick - axis.base).abs() < f64::EPSILON { "grid base" } else { "grid" };
        write!(out, "<i class=\"{class}\" style=\"left:{:.2}%\"></i>", axis.place(*tick))?;
    }
    let (base, end) = (axis.place(axis.base), axis.place(figure.median));
    let (left, width) = (base.min(end), (end - base).abs());
    write!(out, "<i class=\"bar c{color}\" style=\"left:{left:.2}%;width:{width:.2}%\"></i>")?;
    let (from, to) = (axis.place(figure.low), axis.place(figure.high));
    let width = to - from;
    write!(out, "<i class=spread style=\"left:{from:.2}%;width:{width:.2}%\"></i></div></td>")
}

fn item(out: &mut String, item: &Measured, axis: &Axis) -> fmt::Result {
    let (name, about) = (Text(&item.name), Text(&item.about));
    write!(out, "<table class=item id=\"i-{name}\"><caption><b>{name}</b> {about}</caption>")?;
    write!(out, "<thead><tr><th scope=col>configuration<th scope=col>median<th scope=col>")?;
    let times = item.unit == Unit::Nanoseconds;
    out.push_str(if times { "× native" } else { "quartiles" });
    write!(out, "<th scope=col class=axis><div>")?;
    for tick in &axis.ticks {
        let (place, name) = (axis.place(*tick), tick_name(axis, *tick));
        write!(out, "<span style=\"left:{place:.2}%\">{name}</span>")?;
    }
    writeln!(out, "</div></thead><tbody>")?;
    for (i, outcome) in item.outcomes.iter().enumerate() {
        write!(out, "<tr><th scope=row>{}", Text(&outcome.configuration))?;
        let shown = outcome.value.zip(figure(item, outcome, i == 0));
        let Some((value, bar)) = shown else {
            let why = outcome.note.as_deref().unwrap_or("not measured");
            writeln!(out, "<td>–<td>–<td class=why>{}", Text(why))?;
            continue;
        };
        let range = format!("{} .. {}", item.unit.show(value.low), item.unit.show(value.high));
        let note =
            outcome.note.as_deref().map(|note| format!("; then: {note}")).unwrap_or_default();
        write!(out, "<td title=\"{}{}\">", Text(&range), Text(note))?;
        write!(out, "{}<td>", Text(item.unit.show(value.median)))?;
        if times {
            let range = format!("{} .. {}", digits(bar.low), digits(bar.high));
            write!(out, "{} <small>{}</small>", digits(bar.median), Text(range))?;
        } else {
            write!(out, "<small>{}</small>", Text(range))?;
        }
        plot(out, axis, &bar, i)?;
        writeln!(out)?;
    }
    writeln!(out, "</tbody></table>")
}

/// A table of all ratios at once, tinted by how far they are from native.
fn overview(out: &mut String, report: &Report) -> fmt::Result {
    let others: Vec<&str> = report.configurations.iter().skip(1).map(|c| c.name.as_str()).collect();
    if others.is_empty() {
        return Ok(());
    }
    write!(
        out,
        "<section><h2>At a glance</h2><p>Times as multiples of native's, medians; memory in MiB."
    )?;
    write!(
        out,
        "<div class=wide><table class=glance><thead><tr><th scope=col>item<th scope=col>native"
    )?;
    for name in &others {
        write!(out, "<th scope=col>{}", Text(name))?;
    }
    writeln!(out, "<tbody>")?;
    for item in &report.items {
        let name = Text(&item.name);
        write!(out, "<tr><th scope=row><a href=\"#i-{name}\">{name}</a>")?;
        let native = item.outcomes.first().and_then(|o| o.value);
        write!(out, "<td>{}", native.map_or("–".to_owned(), |v| item.unit.show(v.median)))?;
        for name in &others {
            let outcome = item.outcome(name);
            match (item.unit, outcome.and_then(|o| o.value), outcome.and_then(|o| o.ratio)) {
                (Unit::Bytes, Some(value), _) => {
                    write!(out, "<td>{}", item.unit.show(value.median))?;
                }
                (Unit::Nanoseconds, _, Some(ratio)) => {
                    // Three times as slow tints a quarter, a hundred times nearly fully.
                    let tint = (ratio.median.log10().abs() * 45.0).clamp(0.0, 90.0);
                    let class = if ratio.median < 1.0 { "fast" } else { "slow" };
                    let shown = digits(ratio.median);
                    write!(out, "<td class={class} style=\"--tint:{tint:.0}%\">{shown}")?;
                }
                _ => write!(out, "<td>–")?,
            }
        }
        writeln!(out)?;
    }
    writeln!(out, "</table></div></section>")
}

fn group(out: &mut String, report: &Report, kind: Kind) -> fmt::Result {
    let (title, words) = match kind {
        Kind::Micro => (
            "Single operations",
            "Nanoseconds for one operation, in a loop of at least 60 ms inside the guest.",
        ),
        Kind::Start => {
            ("Starts", "From the start of the command to its end, the VM's start included.")
        }
        Kind::Memory => ("Memory", "MiB in use by the whole process tree (proportional set size)."),
        Kind::Workload => (
            "Workloads",
            "From the start of the command to its end, the VM's start included; output checked.",
        ),
    };
    let items: Vec<&Measured> = report.items.iter().filter(|item| item.kind == kind).collect();
    if items.is_empty() {
        return Ok(());
    }
    writeln!(out, "<section id={}><h2>{title}</h2><p>{words}", kind.name())?;
    let axis = axis(&items);
    items.iter().try_for_each(|measured| item(out, measured, &axis))?;
    writeln!(out, "</section>")
}

fn about(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "<section><h2>The machine</h2><dl>")?;
    for (name, value) in report.machine.rows() {
        writeln!(out, "<dt>{name}<dd>{}", Text(value))?;
    }
    writeln!(
        out,
        "</dl></section><section><h2>Configurations</h2><div class=wide><table class=ways>"
    )?;
    writeln!(out, "<thead><tr><th scope=col>name<th scope=col>what it is<th scope=col>how<tbody>")?;
    for (i, way) in report.configurations.iter().enumerate() {
        write!(out, "<tr><th scope=row><i class=\"swatch c{i}\"></i>{}", Text(&way.name))?;
        writeln!(out, "<td>{}<td><code>{}</code>", Text(&way.about), Text(&way.command))?;
    }
    writeln!(out, "</table></div></section>")
}

fn reading(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "<section><h2>How to read it, and how to repeat it</h2>")?;
    writeln!(
        out,
        "<p>Every round runs each configuration once, after one round that is not counted. A ratio is \
         taken within its round, so that what else the machine did strikes both sides. Shown are the \
         median over rounds and, as a thin line, the quartiles; the thin line in native's row is \
         native's own noise. Axes of times are logarithmic: a bar to the left of 1 is faster than \
         native.<p>With trapgate {} on this machine:",
        Text(&report.trapgate)
    )?;
    // Words that a shell would split or interpret are rare here; they are quoted all the same.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:+@".contains(c);
    let quote = |word: &String| match word {
        word if !word.is_empty() && word.chars().all(plain) => word.clone(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    };
    let command: Vec<String> = report.command.iter().map(quote).collect();
    writeln!(out, "<pre>{}</pre>", Text(command.join(" ")))?;
    for note in &report.notes {
        writeln!(out, "<p class=note>{}", Text(note))?;
    }
    writeln!(out, "</section>")
}

fn render(out: &mut String, report: &Report) -> fmt::Result {
    let style = STYLE;
    let date = report.date.replace('T', " ").replace('Z', " UTC");
    writeln!(
        out,
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
         <title>trapgate bench, {0}</title>\n<style>\n{style}</style>\n\
         <header><h1>trapgate bench</h1><p>trapgate {1} · {0} · {2} · {3}</header>\n<main>",
        Text(date),
        Text(&report.trapgate),
        count(report.rounds, "round"),
        Text(&report.machine.cpu)
    )?;
    overview(out, report)?;
    for kind in Kind::ALL {
        group(out, report, kind)?;
    }
    about(out, report)?;
    reading(out, report)?;
    writeln!(out, "</main>\n</html>")
}

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = render(&mut out, report);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_names_is_text() {
        let nasty = "<script>alert(\"1\")</script> & 'x'";
        let shown = Text(nasty).to_string();
        assert_eq!(shown, "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;x&#39;");
    }

    #[test]
    fn ratios_have_their_places() {
        let axis = Axis::ratios(&[0.5, 1.0, 80.0]);
        assert!(axis.place(1.0) > 0.0 && axis.place(80.0) < 100.0);
        assert!(axis.place(10.0) > axis.place(1.0));
        let middle = f64::midpoint(axis.place(1.0), axis.place(100.0));
        assert!((axis.place(10.0) - middle).abs() < 1e-9 || axis.high < 100.0);
        assert!(axis.ticks.contains(&1.0) && axis.ticks.contains(&10.0), "{:?}", axis.ticks);
    }

    #[test]
    fn amounts_begin_at_zero() {
        let axis = Axis::amounts(&[500_000.0, 33.0 * 1_048_576.0], 1_048_576.0);
        assert!(axis.place(0.0).abs() < 1e-9 && axis.ticks.len() >= 3, "{:?}", axis.ticks);
    }
}
