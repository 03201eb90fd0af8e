//! The user's terminal: raw while the guest owns it, and always restored.
//!
//! The guest's own line discipline does the echoing and editing, so the host's must not.

use std::{
    io::{self, IsTerminal, Stdin},
    sync::{Mutex, PoisonError},
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Restores the terminal when dropped.
pub struct RawTerminal {
    input: Stdin,
    saved: Mutex<Option<Termios>>,
}

impl RawTerminal {
    /// Puts standard input in raw mode if it is a terminal.
    ///
    /// # Errors
    /// The host's error when the terminal refuses.
    pub fn new() -> io::Result<Option<RawTerminal>> {
        let input = io::stdin();
        if !input.is_terminal() {
            return Ok(None);
        }
        let saved = tcgetattr(&input)?;
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Drain, &raw)?;
        Ok(Some(RawTerminal { input, saved: Mutex::new(Some(saved)) }))
    }

    /// Rows and columns, if the terminal knows them.
    #[must_use]
    pub fn size(&self) -> Option<(u16, u16)> {
        let size = tcgetwinsize(&self.input).ok()?;
        (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
    }

    /// Restores the terminal now; later calls do nothing.
    pub fn restore(&self) {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(saved) = saved {
            // Nothing better can be done if the terminal is gone.
            let _ = tcsetattr(&self.input, OptionalActions::Drain, &saved);
        }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.restore();
    }
}
