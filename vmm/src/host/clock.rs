//! The host's clocks as a line over the processor's time-stamp counter, so that guests can read them
//! without asking: nanoseconds = base + (counter - base counter) * slope.
//!
//! The host's own clock bends slightly as it is disciplined (NTP), so the line is laid anew every now and
//! then ([`Clock::refresh`]), continuously: a new line begins where the old one is and is sloped so as to
//! meet the host's clock by the next time. All of the monitor reads the same line, so guests and the
//! kernel never disagree. Without an invariant counter that the host itself trusts there is no line.

use std::{
    arch::x86_64::{__cpuid, _rdtsc},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering, fence},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use trapgate_kernel::host::ClockLine;

/// A slope is measured over at least this many nanoseconds: the two readings at its ends are good to some
/// 50 ns.
const LEAST_SPAN: u64 = 8_000_000;
/// A line further than this from the host's clock was not disciplined but left behind (suspend).
const LOST: u64 = 2_000_000;

/// One reading of everything at once.
#[derive(Clone, Copy)]
struct Sample {
    tsc: u64,
    mono: u64,
    real: u64,
}

#[derive(Default)]
struct State {
    last: Option<Sample>,
}

/// The line, and what it is made from.
pub(super) struct Clock {
    usable: bool,
    state: Mutex<State>,
    /// Odd while the words below change.
    sequence: AtomicU32,
    /// Base counter, slope, monotonic and real base; slope 0 is no line.
    words: [AtomicU64; 4],
}

fn nanos(id: ClockId) -> u64 {
    let now = clock_gettime(id);
    now.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.cast_unsigned())
}

/// The time-stamp counter.
pub(crate) fn counter() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 processor, and Linux lets programs read it (CR4.TSD clear)
    // unless prctl(PR_SET_TSC) forbids it, which the monitor does not.
    unsafe { _rdtsc() }
}

fn sample() -> Sample {
    let mut best = (u64::MAX, Sample { tsc: 0, mono: 0, real: 0 });
    for _ in 0..5 {
        let before = counter();
        let mono = nanos(ClockId::Monotonic);
        let after = counter();
        let window = after.wrapping_sub(before);
        if window < best.0 {
            let real = nanos(ClockId::Realtime);
            let again = nanos(ClockId::Monotonic);
            let offset = real.wrapping_sub(mono.midpoint(again));
            let tsc = before.wrapping_add(window / 2);
            best = (window, Sample { tsc, mono, real: mono.wrapping_add(offset) });
        }
    }
    best.1
}

impl Clock {
    pub(super) fn new() -> Clock {
        let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        let trusted = std::fs::read_to_string(source)
            .is_ok_and(|name| matches!(name.trim(), "tsc" | "kvm-clock"));
        // Invariant TSC: CPUID 80000007H:EDX[8] (SDM vol. 3, 18.17.1).
        let invariant =
            __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & 1 << 8 != 0;
        Clock {
            usable: trusted && invariant,
            state: Mutex::default(),
            sequence: AtomicU32::new(0),
            words: [const { AtomicU64::new(0) }; 4],
        }
    }
    /// The line in force.
    pub(super) fn line(&self) -> Option<ClockLine> {
        loop {
            let sequence = self.sequence.load(Ordering::Acquire);
            let [tsc, slope, mono, real] =
                std::array::from_fn(|i| self.words[i].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if sequence & 1 == 0 && self.sequence.load(Ordering::Relaxed) == sequence {
                return (slope != 0).then_some(ClockLine { tsc, slope, mono, real });
            }
            std::hint::spin_loop();
        }
    }
    fn set(&self, line: ClockLine) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let words = [line.tsc, line.slope, line.mono, line.real];
        for (to, word) in self.words.iter().zip(words) {
            to.store(word, Ordering::Relaxed);
        }
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }
    /// Monotonic and real nanoseconds by the line, if there is one.
    pub(super) fn now(&self) -> Option<(Duration, Duration)> {
        let line = self.line()?;
        let passed = line.passed(counter());
        Some((Duration::from_nanos(line.mono + passed), Duration::from_nanos(line.real + passed)))
    }
    /// Lays the line anew; it, once there is one.
    pub(super) fn refresh(&self) -> Option<ClockLine> {
        if !self.usable {
            return None;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = sample();
        let old = self.line();
        let Some(last) = state.last else {
            state.last = Some(now);
            return None;
        };
        let (ticks, span) = (now.tsc.wrapping_sub(last.tsc), now.mono.saturating_sub(last.mono));
        if span < LEAST_SPAN || ticks == 0 {
            return old;
        }
        let line = lay(old, now, ticks, span);
        state.last = Some(now);
        self.set(line);
        Some(line)
    }
}

/// The line after `old` at `now`, `ticks` and `span` nanoseconds after the last reading.
fn lay(old: Option<ClockLine>, now: Sample, ticks: u64, span: u64) -> ClockLine {
    let slope = |nanos: u128| u64::try_from((nanos << 32) / u128::from(ticks)).unwrap_or(u64::MAX);
    let measured = slope(u128::from(span));
    let Some(old) = old else {
        return ClockLine { tsc: now.tsc, slope: measured, mono: now.mono, real: now.real };
    };
    let mono = old.mono + old.passed(now.tsc);
    let offset = now.real.wrapping_sub(now.mono);
    if now.mono > mono + LOST {
        // It may leap ahead, never back.
        return ClockLine { tsc: now.tsc, slope: measured, mono: now.mono, real: now.real };
    }
    // Over a time like the last one, make good what is missing; at most a twentieth at once.
    let target = u128::from((now.mono + span).saturating_sub(mono));
    let slope = slope(target).clamp(measured - measured / 20, measured + measured / 20);
    ClockLine { tsc: now.tsc, slope, mono, real: mono.wrapping_add(offset) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter of 2.5 GHz.
    fn at(mono: u64) -> Sample {
        Sample { tsc: 77 + mono * 5 / 2, mono, real: mono + 1_000_000_000_000 }
    }

    #[test]
    fn lines_are_continuous_and_meet_the_clock() {
        let mut line = lay(None, at(10_000_000), 25_000_000, 10_000_000);
        assert_eq!(line.passed(at(20_000_000).tsc), 9_999_999);
        // The clock runs 20 ppm fast for a while: the line follows without a step.
        let mut mono = 10_000_000;
        let mut tsc = at(mono).tsc;
        for _ in 0..20 {
            mono += 250_005_000;
            tsc += 625_000_000;
            let now = Sample { tsc, mono, real: mono + 5 };
            let before = line.mono + line.passed(tsc);
            line = lay(Some(line), now, 625_000_000, 250_005_000);
            assert_eq!(line.mono, before);
            assert!(line.mono.abs_diff(mono) <= 5_001, "{} {mono}", line.mono);
        }
        assert!(line.mono.abs_diff(mono) < 100, "{} {mono}", line.mono);
    }

    #[test]
    fn a_line_never_goes_back() {
        let line = lay(None, at(10_000_000), 25_000_000, 10_000_000);
        // The host says less time has passed than the line did.
        let now = Sample { tsc: at(260_000_000).tsc, mono: 255_000_000, real: 0 };
        let next = lay(Some(line), now, 625_000_000, 245_000_000);
        assert!(next.mono >= line.mono + line.passed(now.tsc));
        assert!(next.slope > 0);
        // A suspend: it leaps ahead.
        let now = Sample { tsc: at(270_000_000).tsc, mono: 9_000_000_000, real: 0 };
        assert_eq!(lay(Some(line), now, 650_000_000, 8_990_000_000).mono, 9_000_000_000);
    }

    #[test]
    fn the_line_keeps_to_the_hosts_clock() {
        let clock = Clock::new();
        if !clock.usable {
            assert!(clock.refresh().is_none());
            return;
        }
        assert!(clock.refresh().is_none());
        std::thread::sleep(Duration::from_millis(12));
        assert!(clock.refresh().is_some());
        let (mut last, mut worst) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..1000 {
            let low = nanos(ClockId::Monotonic);
            let (mono, _) = clock.now().expect("a line");
            let high = nanos(ClockId::Monotonic);
            assert!(mono >= last);
            last = mono;
            let off = Duration::from_nanos(low)
                .saturating_sub(mono)
                .max(mono.saturating_sub(Duration::from_nanos(high)));
            worst = worst.max(off);
        }
        assert!(worst < Duration::from_millis(1), "{worst:?} off");
    }
}
