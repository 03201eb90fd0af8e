//! Exit statuses, and the one-line error every failure of ours is.

/// trapgate itself failed.
pub const FAILURE: u8 = 125;
/// `--timeout` expired.
pub const TIMEOUT: u8 = 124;
/// The program exists but cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The program was not found.
pub const NOT_FOUND: u8 = 127;

/// `bench --compare` found regressions.
pub const REGRESSION: u8 = 3;
/// `bench` was asked by name for something that is not installed.
pub const MISSING: u8 = 4;
/// `bench` could not measure everything: a program failed natively or in trapgate.
pub const INCOMPLETE: u8 = 5;

/// `fuzz` found something, or a program of a suite missed.
pub const FOUND: u8 = 6;

/// Prints `trapgate: MESSAGE` on standard error and returns [`FAILURE`].
#[must_use]
pub fn report(message: &str) -> u8 {
    complain(message);
    FAILURE
}

/// Prints `trapgate: MESSAGE` on standard error.
pub fn complain(message: &str) {
    use std::io::Write;
    // A closed standard error must not turn an error into a panic.
    let _ = writeln!(std::io::stderr(), "trapgate: {message}");
}
