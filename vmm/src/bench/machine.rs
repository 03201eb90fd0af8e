//! The machine a bench ran on, as far as figures depend on it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use trapgate_kernel::host::Host;

use crate::platform::kvm::probe;

/// What a reader must know to judge figures, and a user to compare.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// As the processor calls itself.
    pub cpu: String,
    /// How many of them this process may use.
    pub cpus: usize,
    /// RAM.
    pub memory_bytes: u64,
    /// Whether the processor says that a hypervisor is below.
    pub virtual_machine: bool,
    /// Linux's release.
    pub kernel: String,
    /// The distribution.
    pub system: String,
    /// What KVM is here, or why there is none.
    pub kvm: String,
    /// Way of choosing the CPU's frequency.
    pub governor: String,
    /// Transparent huge pages.
    pub huge_pages: String,
    /// Which part of the CPUs others used just before the bench began, or a hypervisor took away.
    pub busy_before: f64,
}

fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn field(text: &str, name: &str, separator: char) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().trim_matches('"').to_owned())
}

/// Ticks that all CPUs spent idle, and in all, by /proc/stat's first line (proc(5)).
fn ticks(stat: &str) -> Option<(f64, f64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    // Guests' time, behind the eighth figure, is in user's already.
    let ticks: Vec<f64> = line.split_whitespace().take(8).flat_map(str::parse).collect();
    // idle and iowait
    Some((ticks.get(3)? + ticks.get(4)?, ticks.iter().sum()))
}

/// How busy the CPUs are while this process sleeps.
fn busy_part() -> f64 {
    let look = || text("/proc/stat").and_then(|stat| ticks(&stat));
    let before = look();
    std::thread::sleep(Duration::from_millis(400));
    match (before, look()) {
        (Some((idle, all)), Some((idle_then, all_then))) if all_then > all => {
            1.0 - (idle_then - idle) / (all_then - all)
        }
        _ => 0.0,
    }
}

impl Machine {
    /// Looks.
    #[must_use]
    pub fn here() -> Machine {
        let host = crate::host::LinuxHost::new();
        let unknown = || "unknown".to_owned();
        let processor = text("/proc/cpuinfo").unwrap_or_default();
        let flags = field(&processor, "flags", ':').unwrap_or_default();
        let kvm = match probe::probe() {
            Ok(found) => {
                let kind = match found.kind {
                    probe::Kind::Hardware => "hardware",
                    probe::Kind::Deprivileged => "deprivileged",
                };
                format!("{kind}, an exit takes {} ns", found.exit_ns)
            }
            Err(error) => format!("no: {error}"),
        };
        Machine {
            cpu: field(&processor, "model name", ':').unwrap_or_else(unknown),
            cpus: host.cpus(),
            memory_bytes: host.total_memory(),
            virtual_machine: flags.split(' ').any(|flag| flag == "hypervisor"),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            system: text("/etc/os-release")
                .and_then(|text| field(&text, "PRETTY_NAME", '='))
                .unwrap_or_else(unknown),
            kvm,
            governor: text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
                .unwrap_or_else(unknown),
            huge_pages: text("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_else(unknown),
            busy_before: busy_part(),
        }
    }

    /// Whether others kept a good part of the CPUs: trapgate's rings, for one, need a free one.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.busy_before > 0.2
    }

    /// Names and values, for people.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let virtual_machine = if self.virtual_machine { ", in a virtual machine" } else { "" };
        vec![
            ("processor", format!("{}{virtual_machine}", self.cpu)),
            ("CPUs", self.cpus.to_string()),
            ("memory", format!("{} MiB", self.memory_bytes >> 20)),
            ("system", format!("{}, Linux {}", self.system, self.kernel)),
            ("KVM", self.kvm.clone()),
            ("frequency governor", self.governor.clone()),
            ("huge pages", self.huge_pages.clone()),
            ("used by others before", format!("{:.0} % of the CPUs", self.busy_before * 100.0)),
        ]
    }
}

/// Year, month and day of a day after 1970-01-01, in the Gregorian calendar.
fn civil(day: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut year, mut left) = (1970, day);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

/// The time now, RFC 3339 in UTC.
#[must_use]
pub fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (year, month, day) = civil(seconds / 86400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(59), (1970, 3, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_781), (2026, 11, 24));
        assert_eq!(civil(47_541), (2100, 3, 1));
    }

    #[test]
    fn idle_ticks() {
        let stat = "cpu  10 0 20 300 5 1 2 3 9 9\ncpu0 1 1 1 1\n";
        assert_eq!(ticks(stat), Some((305.0, 341.0)));
        assert_eq!(ticks("intr 1"), None);
    }

    #[test]
    fn fields_of_the_usual_files() {
        assert_eq!(field("a : b\nmodel name\t: X 1\n", "model name", ':').as_deref(), Some("X 1"));
        assert_eq!(field("NAME=\"D 12\"\n", "NAME", '=').as_deref(), Some("D 12"));
        assert_eq!(field("", "x", ':'), None);
    }
}
