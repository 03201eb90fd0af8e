//! The monitor's peak resident set.

use std::{fs::File, io, os::unix::fs::FileExt};

/// The way to it, opened while files may still be opened by name.
pub struct Resident(File);

impl Resident {
    /// Opens it.
    ///
    /// # Errors
    /// The host's, where /proc is missing.
    pub fn open() -> io::Result<Resident> {
        Ok(Resident(File::open("/proc/self/status")?))
    }
    /// The peak so far in bytes. Not getrusage's: that one counts what was there before execve(2).
    #[must_use]
    pub fn peak(&self) -> Option<u64> {
        let mut buf = [0; 4096];
        let len = self.0.read_at(&mut buf, 0).ok()?;
        parse(&String::from_utf8_lossy(&buf[..len]))
    }
}

/// VmHWM in bytes (proc_pid_status(5)).
fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_a_line_of_status() {
        assert_eq!(parse("Name:\tx\nVmHWM:\t    8128 kB\nVmRSS:\t 12 kB\n"), Some(8128 << 10));
        assert_eq!(parse("Name:\tx\n"), None);
        assert!(Resident::open().is_ok_and(|own| own.peak().is_some_and(|peak| peak > 1 << 16)));
    }
}
