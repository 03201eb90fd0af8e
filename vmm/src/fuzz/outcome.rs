//! What a program was seen to do, in lines that two kernels can be compared by.

use std::{collections::BTreeMap, fmt::Write as _};

use trapgate_kernel::{error::Errno, linux::strace::signal_name};

use super::{
    desc::Descs,
    encode::Region,
    needs,
    prog::{DATA_BASE, DATA_SIZE, Program},
    records::{End, Raw},
};

/// A program's run, each fact under a key of its own, in an order that reads well.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Outcome {
    facts: BTreeMap<Key, String>,
}

/// What a fact is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// What the call with this index returned.
    Return(u32),
    /// Memory after it: region.
    Memory(u32, u32),
    /// The so manieth signal after or in it.
    Signal(u32, u32),
    /// How the program ended.
    End,
    /// State at the end, by what it is about (`fd 3`).
    State(String),
}

/// One fact in which two runs differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What about.
    pub key: Key,
    /// On the first; empty where it says nothing.
    pub left: String,
    /// On the second.
    pub right: String,
}

impl Key {
    /// Index of the call it belongs to.
    #[must_use]
    pub fn call(&self) -> Option<usize> {
        match self {
            Key::Return(call) | Key::Memory(call, _) | Key::Signal(call, _) => {
                usize::try_from(*call).ok()
            }
            Key::End | Key::State(_) => None,
        }
    }
    /// `return`, `memory`, `signal`, `end`, or the state's first word.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Key::Return(_) => "return",
            Key::Memory(..) => "memory",
            Key::Signal(..) => "signal",
            Key::End => "end",
            Key::State(about) => about.split(' ').next().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Key::Return(call) => write!(f, "call {call}: return"),
            Key::Memory(call, region) => write!(f, "call {call}: memory {region}"),
            Key::Signal(call, number) => write!(f, "call {call}: signal {number}"),
            Key::End => f.write_str("end"),
            Key::State(about) => f.write_str(about),
        }
    }
}

impl Outcome {
    /// From the executor's records; numbers that the kernel hands out by its own lights get names.
    #[must_use]
    pub fn new(program: &Program, descs: &Descs, regions: &[Region], raw: &Raw) -> Outcome {
        let mut facts = BTreeMap::new();
        let mut names = Names::default();
        for (index, finished, value) in &raw.calls {
            let Some(call) = program.call(*index) else { continue };
            let text = match finished {
                false => "unfinished".to_owned(),
                true => names.result(*value, descs.get(call.desc).returns),
            };
            let varies = needs::varies(descs.get(call.desc).call(), "return");
            let said = varies && !text.starts_with('E');
            facts.insert(Key::Return(*index), if said { "something".to_owned() } else { text });
        }
        let mut of_call: BTreeMap<u32, Vec<&Region>> = BTreeMap::new();
        for region in regions {
            of_call.entry(u32::try_from(region.call).unwrap_or(u32::MAX)).or_default().push(region);
        }
        for (index, number, bytes) in &raw.regions {
            let place = usize::try_from(*number).unwrap_or(usize::MAX);
            let mask = of_call.get(index).and_then(|regions| regions.get(place));
            facts.insert(Key::Memory(*index, *number), hex(bytes, mask.map_or(&[], |r| &r.mask)));
        }
        let mut count = BTreeMap::new();
        let mut signals = raw.signals.clone();
        if program.calls.iter().any(|call| call.is_async) {
            // In which call a signal met a program whose calls overlap is chance.
            signals.iter_mut().for_each(|signal| signal.0 = 0);
            signals.sort_unstable();
        }
        for (index, number, code) in &signals {
            let nth: &mut u32 = count.entry(*index).or_default();
            let name = signal_name(number.cast_signed());
            facts.insert(Key::Signal(*index, *nth), format!("{name} code {code}"));
            *nth += 1;
        }
        let end = match raw.end {
            End::Completed => "completed".to_owned(),
            End::Killed(signal) => format!("killed by {}", signal_name(signal.cast_signed())),
            End::Exited(status) => format!("exited with {status}"),
            End::Waiting(call) => format!("waiting in call {call}"),
        };
        facts.insert(Key::End, end);
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        // Where rewritten system-call sites jump to is ours alone (docs/rewriting.md).
        for line in raw.state.iter().filter(|line| !line.ends_with("[trapgate]")) {
            let (about, value) = split(line);
            let nth = seen.entry(about.clone()).or_default();
            let about = if *nth == 0 { about } else { format!("{about} #{nth}") };
            *nth += 1;
            facts.insert(Key::State(about), value);
        }
        Outcome { facts }
    }
    /// What a call returned, as text; `None` where it was never made.
    #[must_use]
    pub fn returned(&self, call: usize) -> Option<&str> {
        let key = Key::Return(u32::try_from(call).ok()?);
        self.facts.get(&key).map(String::as_str)
    }
    /// How it ended.
    #[must_use]
    pub fn end(&self) -> &str {
        self.facts.get(&Key::End).map_or("", String::as_str)
    }
    /// The state's lines without what counts (sizes, positions): kinds of files, flags, permissions.
    pub fn state_kinds(&self) -> impl Iterator<Item = String> {
        self.facts.iter().filter_map(|(key, value)| {
            let Key::State(_) = key else { return None };
            let words = value
                .split(' ')
                .filter(|w| !w.contains("size=") && !w.contains("pos=") && !w.contains("data="));
            Some(format!("{} {}", key.kind(), words.collect::<Vec<_>>().join(" ")))
        })
    }
    /// What differs between the two.
    #[must_use]
    pub fn differences(&self, other: &Outcome) -> Vec<Difference> {
        let mut keys: Vec<&Key> = self.facts.keys().chain(other.facts.keys()).collect();
        keys.sort();
        keys.dedup();
        let of = |facts: &BTreeMap<Key, String>, key| facts.get(key).cloned().unwrap_or_default();
        keys.into_iter()
            .map(|key| Difference {
                key: key.clone(),
                left: of(&self.facts, key),
                right: of(&other.facts, key),
            })
            .filter(|d| d.left != d.right)
            .collect()
    }
    /// A line a fact, calls as the program's text has them.
    #[must_use]
    pub fn text(&self, program: &Program, descs: &Descs) -> String {
        let mut out = String::new();
        for (key, value) in &self.facts {
            match key {
                Key::Return(index) => {
                    let call = program.call(*index);
                    let mut line = String::new();
                    if let Some(call) = call {
                        call.write(descs, &mut line);
                    }
                    let _ = writeln!(out, "{line} = {value}");
                }
                key => {
                    let _ = writeln!(out, "    {key}: {value}");
                }
            }
        }
        out
    }
}

/// A state line's subject and the rest: `fd 3`, `file ./a`, `act 10`, `vma 20000000-20001000`; others
/// are all subject.
fn split(line: &str) -> (String, String) {
    let mut words = line.splitn(3, ' ');
    let first = words.next().unwrap_or_default();
    match first {
        "fd" | "file" | "act" | "vma" => {
            let about = format!("{first} {}", words.next().unwrap_or_default());
            (about, words.next().unwrap_or_default().to_owned())
        }
        _ => (first.to_owned(), line[first.len()..].trim_start().to_owned()),
    }
}

/// Names for numbers in order of appearance.
#[derive(Default)]
struct Names {
    seen: BTreeMap<(&'static str, i64), usize>,
}

impl Names {
    fn result(&mut self, value: i64, what: Option<&'static str>) -> String {
        if (-4095..0).contains(&value) {
            let errno = i32::try_from(-value).ok().and_then(Errno::from_raw);
            return errno.map_or_else(|| format!("error {}", -value), |e| e.name().to_owned());
        }
        let data = i64::try_from(DATA_BASE).unwrap_or(0)
            ..i64::try_from(DATA_BASE + DATA_SIZE).unwrap_or(0);
        match what {
            // 0 and 1 are the same everywhere: nobody, and the process that began all.
            Some(kind @ ("pid" | "shm" | "msg" | "sem")) if value > 1 || kind != "pid" => {
                let next = self.seen.keys().filter(|(k, _)| *k == kind).count();
                let nth = *self.seen.entry((kind, value)).or_insert(next);
                format!("{kind} #{nth}")
            }
            Some("address") if !data.contains(&value) => "an address".to_owned(),
            _ => format!("{value:#x}"),
        }
    }
}

/// Bytes in hexadecimal, `..` for those that are not compared; trailing zeros are not shown.
fn hex(bytes: &[u8], mask: &[bool]) -> String {
    let mut out = String::new();
    let shown = |i: usize| mask.get(i).copied().unwrap_or(true);
    let end = (0..bytes.len()).rev().find(|i| bytes[*i] != 0 && shown(*i)).map_or(0, |i| i + 1);
    for (i, byte) in bytes[..end].iter().enumerate() {
        if shown(i) {
            let _ = write!(out, "{byte:02x}");
        } else {
            out.push_str("..");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::parse, *};

    fn outcome(raw: &Raw) -> Outcome {
        let descs = Descs::new();
        let program = parse::program("getpid()\ngetppid()\nclose(0x9)", &descs).unwrap();
        Outcome::new(&program, &descs, &[Region { call: 2, mask: vec![false, true, true] }], raw)
    }

    #[test]
    fn pids_are_named_and_masked_bytes_hidden() {
        let calls = vec![(0, true, 57), (1, true, 1), (2, true, -9)];
        let raw = Raw { calls, regions: vec![(2, 0, vec![7, 8, 0])], ..Raw::default() };
        let other = Raw {
            calls: vec![(0, true, 99), (1, true, 1), (2, true, -9)],
            regions: vec![(2, 0, vec![9, 8, 0])],
            ..Raw::default()
        };
        assert_eq!(outcome(&raw).differences(&outcome(&other)), []);
        assert_eq!(outcome(&raw).returned(0), Some("pid #0"));
        assert_eq!(outcome(&raw).returned(2), Some("EBADF"));
    }

    #[test]
    fn what_only_one_has_is_a_difference() {
        let raw = Raw { state: vec!["fd 3 reg 644".to_owned()], ..Raw::default() };
        let differences = outcome(&raw).differences(&outcome(&Raw::default()));
        let key = Key::State("fd 3".to_owned());
        assert_eq!(differences, [Difference { key, left: "reg 644".into(), right: String::new() }]);
    }
}
