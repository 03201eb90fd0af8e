//! The progress bar, on a terminal only.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::items::Item;

/// A bar whose length is the time expected, in milliseconds; none where nobody would see it.
pub struct Progress(Option<ProgressBar>);

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Progress {
    /// At its beginning.
    pub fn new(total: Duration) -> Progress {
        if !stderr().is_terminal() {
            return Progress(None);
        }
        let bar = ProgressBar::new(milliseconds(total));
        if let Ok(style) =
            ProgressStyle::with_template("{bar:30} {percent:>3} %  {eta} to go  {msg}")
        {
            bar.set_style(style);
        }
        Progress(Some(bar))
    }
    /// What is being run.
    pub fn at(&self, item: &Item, configuration: &str) {
        if self.0.is_some() {
            self.message(&format!("{} on {configuration}", item.name));
        }
    }
    /// Any other words.
    pub fn message(&self, words: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(words.to_owned());
        }
    }
    /// A run is over that was expected to take `time`.
    pub fn done(&self, time: Duration) {
        if let Some(bar) = &self.0 {
            bar.inc(milliseconds(time));
        }
    }
    /// Does `work`, which may print, with the bar out of the way.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(bar) => bar.suspend(work),
            None => work(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
