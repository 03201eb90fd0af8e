//! Differences from Linux that are known and argued, from one reviewed file.

use std::str::FromStr;

use super::outcome::{Difference, Key};

/// The file, as it was when this was built.
const FILE: &str = include_str!("known-differences.txt");

/// One known difference. Each field may hold `*` for anything within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The call, or `-` for what belongs to none.
    pub call: String,
    /// What about: [`Key::kind`].
    pub kind: String,
    /// On Linux.
    pub linux: String,
    /// Here.
    pub here: String,
    /// Why it is right so.
    pub reason: String,
}

impl FromStr for Known {
    type Err = String;

    fn from_str(line: &str) -> Result<Known, String> {
        let fields: Vec<&str> = line.splitn(5, '|').map(str::trim).collect();
        let &[call, kind, linux, here, reason] = fields.as_slice() else {
            return Err(format!(
                "'{line}': five fields expected: call | what | Linux | here | why"
            ));
        };
        if reason.len() < 10 {
            return Err(format!("'{line}': a known difference needs its reason"));
        }
        let [call, kind, linux, here, reason] =
            [call, kind, linux, here, reason].map(str::to_owned);
        Ok(Known { call, kind, linux, here, reason })
    }
}

/// All of them.
///
/// # Errors
/// A line that cannot be read.
pub fn all() -> Result<Vec<Known>, String> {
    let lines = FILE.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::parse).collect()
}

impl Known {
    /// It is this one, in a call of this name.
    #[must_use]
    pub fn covers(&self, call: Option<&str>, difference: &Difference) -> bool {
        let call = match difference.key {
            Key::State(_) | Key::End => "-",
            _ => call.unwrap_or("-"),
        };
        matches(&self.call, call)
            && matches(&self.kind, difference.key.kind())
            && matches(&self.linux, &difference.left)
            && matches(&self.here, &difference.right)
    }
}

/// `*` stands for any text.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    loop {
        if matches(rest, text) {
            return true;
        }
        let mut chars = text.chars();
        if chars.next().is_none() {
            return false;
        }
        text = chars.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_can_be_read_and_is_short() {
        assert!(all().unwrap().len() <= 30);
    }

    #[test]
    fn stars_match_anything() {
        assert!(matches("a*c", "abbc") && matches("*", "") && matches("*b*", "abc"));
        assert!(!matches("a*c", "abbd") && !matches("", "x"));
    }

    #[test]
    fn covers_by_call_kind_and_both_sides() {
        let known: Known =
            "statfs | memory | * | * | sizes differ from host to host".parse().unwrap();
        let difference = |key| Difference { key, left: "00".to_owned(), right: "01".to_owned() };
        assert!(known.covers(Some("statfs"), &difference(Key::Memory(0, 0))));
        assert!(!known.covers(Some("statfs"), &difference(Key::Return(0))));
        assert!(!known.covers(Some("fstatfs"), &difference(Key::Memory(0, 0))));
        assert!(Known::from_str("a | b | c").is_err());
    }
}
