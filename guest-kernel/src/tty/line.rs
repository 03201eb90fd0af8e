//! The line discipline (N_TTY): editing, echo, special characters, output processing.
//!
//! Pure state: bytes go in at either end, and what they cause beyond bytes comes out as [`Event`]s
//! for the terminal to act on outside its lock.

use std::collections::VecDeque;

use super::termios::{Input, Local, Output, Termios, cc};
use crate::signal::{
    Signal,
    number::{SIGINT, SIGQUIT, SIGTSTP},
};

/// Bytes of one line, and of input not yet read (N_TTY_BUF_SIZE).
const LINE_MAX: usize = 4095;
/// Bytes of output the other side may leave unread.
const OUTPUT_MAX: usize = 64 * 1024;

/// What input bytes caused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A signal for the foreground group.
    Signal(Signal),
}

/// The discipline's state.
#[derive(Default)]
pub struct Line {
    /// Modes.
    pub termios: Termios,
    /// The line being edited.
    edit: Vec<u8>,
    /// Finished lines; an empty one is an end of file.
    lines: VecDeque<VecDeque<u8>>,
    /// Input without canonical mode.
    raw: VecDeque<u8>,
    /// What the other side is to see.
    output: VecDeque<u8>,
    /// VLNEXT came: the next byte is literal.
    literal: bool,
    /// VSTOP came.
    pub stopped: bool,
}

impl Line {
    fn has(&self, flag: Local) -> bool {
        self.termios.local.contains(flag)
    }
    fn is(&self, byte: u8, index: usize) -> bool {
        let special = self.termios.chars[index];
        special != 0 && special == byte
    }
    /// Takes bytes typed at the other side.
    pub fn type_in(&mut self, bytes: &[u8]) -> Vec<Event> {
        bytes.iter().filter_map(|byte| self.key(*byte)).collect()
    }
    fn key(&mut self, mut byte: u8) -> Option<Event> {
        let input = self.termios.input;
        if input.contains(Input::ISTRIP) {
            byte &= 0x7f;
        }
        if self.literal {
            self.literal = false;
            self.keep(byte);
            return None;
        }
        match byte {
            b'\r' if input.contains(Input::IGNCR) => return None,
            b'\r' if input.contains(Input::ICRNL) => byte = b'\n',
            b'\n' if input.contains(Input::INLCR) => byte = b'\r',
            _ => {}
        }
        if input.contains(Input::IXON) {
            if self.is(byte, cc::STOP) {
                self.stopped = true;
                return None;
            }
            if self.is(byte, cc::START) {
                self.stopped = false;
                return None;
            }
            if input.contains(Input::IXANY) {
                self.stopped = false;
            }
        }
        if self.has(Local::ISIG) {
            let signals = [(cc::INTR, SIGINT), (cc::QUIT, SIGQUIT), (cc::SUSP, SIGTSTP)];
            if let Some((_, signal)) = signals.into_iter().find(|(i, _)| self.is(byte, *i)) {
                if !self.has(Local::NOFLSH) {
                    self.flush_input();
                    self.output.clear();
                }
                self.stopped = false;
                self.echo(byte);
                return Some(Event::Signal(signal));
            }
        }
        if self.has(Local::ICANON) {
            self.edit_key(byte);
        } else {
            self.keep(byte);
        }
        None
    }
    fn edit_key(&mut self, byte: u8) {
        let extended = self.has(Local::IEXTEN);
        if self.is(byte, cc::ERASE) {
            self.erase_one();
        } else if extended && self.is(byte, cc::WERASE) {
            while self.edit.last().is_some_and(|b| *b == b' ' || *b == b'\t') {
                self.erase_one();
            }
            while self.edit.last().is_some_and(|b| *b != b' ' && *b != b'\t') {
                self.erase_one();
            }
        } else if self.is(byte, cc::KILL) {
            if self.has(Local::ECHOKE) {
                while !self.edit.is_empty() {
                    self.erase_one();
                }
            } else {
                self.edit.clear();
                self.echo(byte);
                if self.has(Local::ECHOK) {
                    self.emit(b'\n');
                }
            }
        } else if extended && self.is(byte, cc::LNEXT) {
            self.literal = true;
        } else if self.is(byte, cc::EOF) {
            self.finish();
        } else if byte == b'\n' || self.is(byte, cc::EOL) || extended && self.is(byte, cc::EOL2) {
            if self.has(Local::ECHO) || self.has(Local::ECHONL) && byte == b'\n' {
                self.emit(byte);
            }
            self.edit.push(byte);
            self.finish();
        } else {
            self.keep(byte);
        }
    }
    /// The line is complete.
    fn finish(&mut self) {
        if self.lines.iter().map(VecDeque::len).sum::<usize>() <= 16 * LINE_MAX {
            self.lines.push_back(std::mem::take(&mut self.edit).into());
        }
    }
    /// Stores a byte that is nothing special.
    fn keep(&mut self, byte: u8) {
        if self.has(Local::ICANON) {
            if self.edit.len() >= LINE_MAX {
                return;
            }
            self.edit.push(byte);
        } else {
            if self.raw.len() >= LINE_MAX {
                return;
            }
            self.raw.push_back(byte);
        }
        self.echo(byte);
    }
    fn is_control(byte: u8) -> bool {
        byte < 32 && byte != b'\t' && byte != b'\n' || byte == 127
    }
    fn echo(&mut self, byte: u8) {
        if !self.has(Local::ECHO) {
            return;
        }
        if Self::is_control(byte) && self.has(Local::ECHOCTL) {
            self.output.extend([b'^', byte ^ 0x40]);
        } else {
            self.emit(byte);
        }
    }
    /// Takes the last character off the line, and off the screen.
    fn erase_one(&mut self) {
        let Some(mut byte) = self.edit.pop() else { return };
        // With IUTF8 a character is all of its bytes.
        while self.termios.input.contains(Input::IUTF8) && byte & 0xc0 == 0x80 {
            let Some(before) = self.edit.pop() else { break };
            byte = before;
        }
        if self.has(Local::ECHO) && self.has(Local::ECHOE) {
            let width = if Self::is_control(byte) && self.has(Local::ECHOCTL) { 2 } else { 1 };
            for _ in 0..width {
                self.output.extend(b"\x08 \x08");
            }
        }
    }
    /// Adds one byte of output, processed.
    fn emit(&mut self, byte: u8) {
        let output = self.termios.output;
        let post = output.contains(Output::OPOST);
        match byte {
            b'\n' if post && output.contains(Output::ONLCR) => self.output.extend(b"\r\n"),
            b'\r' if post && output.contains(Output::OCRNL) => self.output.push_back(b'\n'),
            _ => self.output.push_back(byte),
        }
    }
    /// Takes what a program prints; the count, 0 if there is no room.
    pub fn print(&mut self, bytes: &[u8]) -> usize {
        let room = self.room().min(bytes.len());
        for byte in &bytes[..room] {
            self.emit(*byte);
        }
        room
    }
    /// Bytes that can be printed now.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.stopped { 0 } else { OUTPUT_MAX.saturating_sub(self.output.len()) }
    }
    /// Takes up to `max` bytes of output.
    pub fn take_output(&mut self, max: usize) -> Vec<u8> {
        let count = max.min(self.output.len());
        self.output.drain(..count).collect()
    }
    /// Puts back what could not be delivered.
    pub fn untake_output(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().rev() {
            self.output.push_front(*byte);
        }
    }
    /// Bytes of output.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.output.len()
    }
    /// What a read of `max` bytes gets now: `None` if it has to wait. `waited` says that VTIME is
    /// over.
    pub fn read(&mut self, max: usize) -> Option<Vec<u8>> {
        if self.has(Local::ICANON) {
            let line = self.lines.front_mut()?;
            let count = max.min(line.len());
            let bytes = line.drain(..count).collect();
            if line.is_empty() {
                self.lines.pop_front();
            }
            return Some(bytes);
        }
        let least = usize::from(self.termios.chars[cc::MIN]).min(max);
        if self.raw.len() < least.max(usize::from(least > 0)) && self.raw.len() < max {
            return None;
        }
        let count = max.min(self.raw.len());
        Some(self.raw.drain(..count).collect())
    }
    /// Whether [`Line::read`] would get something.
    #[must_use]
    pub fn readable(&self) -> bool {
        if self.has(Local::ICANON) {
            !self.lines.is_empty()
        } else {
            // poll(2) counts VMIN only without VTIME.
            let time = self.termios.chars[cc::TIME];
            let least = if time == 0 { self.termios.chars[cc::MIN].max(1) } else { 1 };
            self.raw.len() >= usize::from(least)
        }
    }
    /// Bytes a read would get (FIONREAD).
    #[must_use]
    pub fn pending(&self) -> usize {
        if self.has(Local::ICANON) {
            self.lines.iter().map(VecDeque::len).sum()
        } else {
            self.raw.len()
        }
    }
    /// Changes the modes; input moves between line and raw form.
    pub fn set(&mut self, termios: Termios) {
        let canonical = termios.local.contains(Local::ICANON);
        if self.has(Local::ICANON) && !canonical {
            for line in self.lines.drain(..) {
                self.raw.extend(line);
            }
            self.raw.extend(self.edit.drain(..));
        } else if !self.has(Local::ICANON) && canonical && !self.raw.is_empty() {
            self.lines.push_back(std::mem::take(&mut self.raw));
        }
        if !termios.input.contains(Input::IXON) {
            self.stopped = false;
        }
        self.termios = termios;
    }
    /// TCIFLUSH.
    pub fn flush_input(&mut self) {
        self.edit.clear();
        self.lines.clear();
        self.raw.clear();
    }
    /// TCOFLUSH.
    pub fn flush_output(&mut self) {
        self.output.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(line: &mut Line) -> String {
        String::from_utf8_lossy(&line.take_output(usize::MAX)).into_owned()
    }

    #[test]
    fn editing_echo_and_lines() {
        let mut line = Line::default();
        assert_eq!(line.type_in(b"helo\x7flo wrld\x17world\r"), []);
        assert_eq!(line.read(5), Some(b"hello".to_vec()));
        assert_eq!(line.read(100), Some(b" world\n".to_vec()));
        assert_eq!(line.read(100), None);
        assert!(screen(&mut line).starts_with("helo\x08 \x08lo wrld"));
        line.type_in(b"ab\x04\x04");
        assert_eq!(line.read(9), Some(b"ab".to_vec()));
        assert_eq!(line.read(9), Some(Vec::new()), "end of file");
    }

    #[test]
    fn signals_and_literals() {
        let mut line = Line::default();
        assert_eq!(line.type_in(b"gone\x03"), [Event::Signal(SIGINT)]);
        assert_eq!(screen(&mut line), "^C");
        line.type_in(b"\x16\x03\n");
        assert_eq!(line.read(9), Some(b"\x03\n".to_vec()));
        assert_eq!(line.print(b"a\nb"), 3);
        assert!(screen(&mut line).ends_with("a\r\nb"));
    }

    #[test]
    fn raw_mode() {
        let mut line = Line::default();
        let mut raw = line.termios;
        raw.local = Local::from_bits_retain(0);
        raw.input = Input::from_bits_retain(0);
        line.type_in(b"left");
        line.set(raw);
        assert_eq!(line.type_in(b"\x03\r"), []);
        assert_eq!(line.read(100), Some(b"left\x03\r".to_vec()));
        assert_eq!(line.read(1), None);
    }
}
