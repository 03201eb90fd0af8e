//! Medians, spreads and ratios, and how they are shown.

use serde::Serialize;

use crate::exit;

/// All rounds of one item.
#[derive(Serialize)]
pub struct Series {
    name: String,
    about: String,
    /// Nanoseconds, by configuration, by round.
    nanoseconds: Vec<Vec<f64>>,
}

/// The middle of `values`, 0 of none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

impl Series {
    /// No round yet.
    pub fn new(name: &str, about: &str, configurations: usize) -> Series {
        Series {
            name: name.to_owned(),
            about: about.to_owned(),
            nanoseconds: vec![Vec::new(); configurations],
        }
    }
    /// One round's times, native first.
    pub fn add(&mut self, times: &[f64]) {
        for (all, time) in self.nanoseconds.iter_mut().zip(times) {
            all.push(*time);
        }
    }
    /// Ratios of configuration `which` to native, round by round.
    fn ratios(&self, which: usize) -> Vec<f64> {
        self.nanoseconds[which].iter().zip(&self.nanoseconds[0]).map(|(a, b)| a / b).collect()
    }
}

/// Everything measured.
#[derive(Serialize)]
pub struct Report {
    configurations: Vec<String>,
    items: Vec<Series>,
}

impl Report {
    /// Prints nothing yet.
    pub fn new(configurations: &[&str]) -> Report {
        Report {
            configurations: configurations.iter().map(|c| (*c).to_owned()).collect(),
            items: Vec::new(),
        }
    }
    /// Keeps a finished item.
    pub fn push(&mut self, series: Series) {
        self.items.push(series);
    }
    /// One line a configuration.
    pub fn print_row(&self, series: &Series) {
        println!("{} ({})", series.name, series.about);
        for (i, name) in self.configurations.iter().enumerate() {
            let times = &series.nanoseconds[i];
            let low = times.iter().copied().fold(f64::INFINITY, f64::min);
            let high = times.iter().copied().fold(0.0, f64::max);
            print!("  {name:8} {:>12.1} ns  [{low:.1} .. {high:.1}]", median(times));
            if i > 0 {
                print!("  {:.2} x native", median(&series.ratios(i)));
            }
            println!();
        }
    }
    /// One JSON object; the exit status.
    pub fn print_json(&self) -> u8 {
        match serde_json::to_string_pretty(self) {
            Ok(text) => {
                println!("{text}");
                0
            }
            Err(error) => exit::report(&format!("cannot print the report: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        let mut series = Series::new("x", "y", 2);
        series.add(&[2.0, 4.0]);
        series.add(&[1.0, 3.0]);
        assert_eq!(series.ratios(1), [2.0, 3.0]);
    }
}
