//! Sizes, durations, users and bind mounts as they are written on the command line.

use std::{path::PathBuf, time::Duration};

/// One `--bind SRC:DST[:ro]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bind {
    /// Host path.
    pub source: PathBuf,
    /// Guest path, absolute.
    pub target: PathBuf,
    /// Writes are refused with EROFS.
    pub read_only: bool,
}

/// One `--env K=V`, or `--env K` to pass the host's value on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EnvVar {
    /// The name.
    pub name: String,
    /// The value; `None` takes the host's.
    pub value: Option<String>,
}

/// Parses a size: a number with an optional suffix K, M, G or T (powers of 1024; `KiB` and `KB`
/// forms mean the same).
///
/// # Errors
/// What is wrong and how to write it.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| format!("'{text}' is not a size; write e.g. 512M or 4G"))?;
    let shift = match suffix.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("'{suffix}' is not a size suffix; use K, M, G or T")),
    };
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("'{text}' is out of range; write e.g. 512M or 4G"))
}

/// Parses a duration: a number (fractions allowed) with a suffix ms, s, m or h; seconds without.
///
/// # Errors
/// What is wrong and how to write it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is not a duration; write e.g. 500ms, 10s or 2m");
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let unit = match suffix {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    Duration::try_from_secs_f64(number * unit).ok().filter(|d| !d.is_zero()).ok_or_else(bad)
}

/// Parses `SRC:DST[:ro|:rw]`.
///
/// # Errors
/// What is wrong and how to write it.
pub fn bind(text: &str) -> Result<Bind, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [source, target] => (*source, *target, "rw"),
        [source, target, mode] => (*source, *target, *mode),
        _ => return Err(format!("'{text}' is not SRC:DST or SRC:DST:ro")),
    };
    if source.is_empty() || !target.starts_with('/') {
        return Err(format!("'{text}': SRC must not be empty and DST must be an absolute path"));
    }
    let read_only = match mode {
        "ro" => true,
        "rw" => false,
        other => return Err(format!("'{other}' is not a bind mode; use ro or rw")),
    };
    Ok(Bind { source: source.into(), target: target.into(), read_only })
}

/// Parses `UID[:GID]`; the group defaults to the user's number.
///
/// # Errors
/// What is wrong and how to write it.
pub fn user(text: &str) -> Result<(u32, u32), String> {
    let id = |part: &str| {
        part.parse::<u32>()
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| format!("'{part}' is not a numeric id; write UID or UID:GID"))
    };
    match text.split_once(':') {
        None => id(text).map(|uid| (uid, uid)),
        Some((uid, gid)) => Ok((id(uid)?, id(gid)?)),
    }
}

/// Parses `K=V` or `K`.
///
/// # Errors
/// What is wrong and how to write it.
pub fn env(text: &str) -> Result<EnvVar, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(format!("'{text}' has no name; write NAME=VALUE"));
    }
    Ok(EnvVar { name: name.to_owned(), value })
}

/// Parses a host name: what uname(2) can hold.
///
/// # Errors
/// What is wrong.
pub fn hostname(text: &str) -> Result<String, String> {
    match text.len() {
        1..=64 => Ok(text.to_owned()),
        length => Err(format!("a host name has 1 to 64 bytes, not {length}")),
    }
}

/// Parses an absolute guest path.
///
/// # Errors
/// What is wrong and how to write it.
pub fn guest_path(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err(format!("'{text}' is not absolute; guest paths start with /"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("1kb"), Ok(1024));
        for bad in ["", "x", "1Q", "0", "99999999999T", "-1"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "0", "1y", "1e9h", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn binds() {
        let got = bind("/a:/b:ro").expect("a good bind");
        assert!(got.read_only && got.target == std::path::Path::new("/b"));
        for bad in ["/a", "/a:b", ":/b", "/a:/b:zz", "/a:/b:ro:x"] {
            assert!(bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn users_and_environment() {
        assert_eq!(user("7"), Ok((7, 7)));
        assert_eq!(user("7:8"), Ok((7, 8)));
        assert!(user("bob").is_err() && user("4294967295").is_err());
        assert_eq!(env("A=b=c").expect("ok").value.as_deref(), Some("b=c"));
        assert!(env("=x").is_err());
    }
}
