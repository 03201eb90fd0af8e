//! Bodies of the fuzz targets in `vmm/fuzz`, one per decoder of hostile bytes: as `trapgate_kernel::fuzz`, for what
//! the monitor itself decodes.
//!
//! A body takes any bytes and panics only if the monitor has a bug. `tests` runs each body on damaged good inputs,
//! the same ones each time, and keeps those inputs as corpora; `cargo fuzz` looks for new ones.

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use crate::fuzz::{
    desc::Descs,
    encode::Region,
    outcome::Outcome,
    parse,
    prog::{MAX_CALLS, Program},
    records,
};
pub use crate::platform::kvm::hostile::{RING_HEAD, RingEntries, gate_words};

static DESCS: LazyLock<Descs> = LazyLock::new(Descs::new);

/// The text of a program for `trapgate fuzz`: what is read is printed and read again the same.
///
/// # Panics
/// On a bug.
pub fn program_text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match parse::program(&text, &DESCS) {
        Ok(program) => {
            assert!(program.calls.len() <= MAX_CALLS);
            let printed = program.text(&DESCS);
            assert_eq!(parse::program(&printed, &DESCS).as_ref(), Ok(&program), "{printed}");
        }
        Err(mistake) => {
            let line = text.lines().nth(mistake.line - 1).expect("a mistake is in a line");
            assert!((1..=line.len() + 1).contains(&mistake.column), "{mistake}");
        }
    }
}

/// What executors are taken to have run.
static PROGRAM: LazyLock<Program> = LazyLock::new(|| {
    let text = "getpid()\nclose(0x9)\nread(0x0, &(0x7f0000000000)=\"\"/8, 0x8)\n";
    parse::program(text, &DESCS).expect("a program")
});

/// The stream of an executor, programs one after the other, and what is made of each.
///
/// # Panics
/// On a bug.
pub fn executor_records(mut bytes: &[u8]) {
    let regions = [Region { call: 2, mask: vec![true, false, true] }];
    while let Ok(raw) = records::read(&mut bytes) {
        let outcome = Outcome::new(&PROGRAM, &DESCS, &regions, &raw);
        assert_eq!(outcome.differences(&outcome), []);
        assert!(!outcome.end().is_empty() && !outcome.text(&PROGRAM, &DESCS).is_empty());
        let _ = outcome.state_kinds().count();
    }
}
