//! What tests call: the same thing natively and on a backend, and a readable difference.
//!
//! Native results are remembered within a test process, since both backends want them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::backend::{Backend, loud};
use crate::guest::{Link, guest};
use crate::run::{Outcome, Run};

type Native = Arc<OnceLock<Outcome>>;

/// The native outcome under this key, made at most once; concurrent callers wait for it.
fn native(key: &str, make: impl FnOnce() -> Outcome) -> Outcome {
    static DONE: Mutex<Option<HashMap<String, Native>>> = Mutex::new(None);
    let slot = {
        let mut all = DONE.lock().unwrap_or_else(PoisonError::into_inner);
        let all = all.get_or_insert_default();
        Arc::clone(all.entry(key.to_owned()).or_default())
    };
    slot.get_or_init(make).clone()
}

/// Runs a guest program on `backend` and asserts that it says what it says natively, and that it
/// is content.
///
/// # Panics
/// With a diff that names program and backend.
pub fn same_as_native(name: &str, link: Link, backend: Backend) {
    same_with(name, link, backend, &[]);
}

/// [`same_as_native`] with further options of `trapgate run`.
///
/// # Panics
/// As [`same_as_native`].
pub fn same_with(name: &str, link: Link, backend: Backend, options: &[&str]) {
    let program = guest(name, link);
    if !backend.usable(name) {
        return;
    }
    let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
    let make = |b: Backend| Run::new(b, &program, None::<String>).monitor(options.clone()).go();
    let reference = native(&format!("{name} {link:?}"), || make(Backend::Native));
    assert!(
        reference.status == 0 && !reference.timed_out,
        "{name} fails on this Linux itself (status {}):\n{}{}",
        reference.status,
        reference.stdout,
        reference.stderr
    );
    if backend != Backend::Native {
        judge(name, backend, &reference, &make(backend));
    }
}

/// Runs a bash script natively and on `backend` and asserts equal output and status; natively it
/// must exit with `status`.
///
/// # Panics
/// With a diff that names script and backend.
pub fn same_script(name: &str, backend: Backend, status: i32, text: &str) {
    if !backend.usable(name) {
        return;
    }
    let reference = native(name, || Run::script(Backend::Native, text).go());
    assert!(
        reference.status == status && !reference.timed_out,
        "{name} on this Linux itself ends with {} instead of {status}:\n{}{}",
        reference.status,
        reference.stdout,
        reference.stderr
    );
    if backend != Backend::Native {
        judge(name, backend, &reference, &Run::script(backend, text).go());
    }
}

/// Runs a test that is not a comparison; one listed in `known-gaps.txt` announces its failure
/// instead of failing the suite.
///
/// # Panics
/// As `test` does, if it is not listed.
pub fn unless_gap(name: &str, backend: Backend, test: fn(Backend)) {
    if !known_gap(name, backend) {
        return test(backend);
    }
    match std::panic::catch_unwind(|| test(backend)) {
        Ok(()) => loud(&format!("{name} on {backend} now passes: take it off known-gaps.txt")),
        Err(_) => loud(&format!("KNOWN GAP: {name} on {backend} fails (known-gaps.txt)")),
    }
}

/// `name` is listed in `known-gaps.txt` for `backend`: it still runs, and its difference is
/// announced instead of failing the suite.
fn known_gap(name: &str, backend: Backend) -> bool {
    let listed = include_str!("known-gaps.txt");
    listed.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(name) && words.any(|word| word == backend.to_string())
    })
}

fn judge(name: &str, backend: Backend, native: &Outcome, got: &Outcome) {
    let known = known_gap(name, backend);
    if native == got {
        if known {
            loud(&format!("{name} on {backend} now equals native: take it off known-gaps.txt"));
        }
        return;
    }
    if known {
        loud(&format!("KNOWN GAP: {name} on {backend} differs from native (known-gaps.txt)"));
        return;
    }
    let mut report = format!("{name} on {backend} differs from native");
    if got.timed_out {
        report.push_str(": ended by the harness's time limit");
    }
    if native.status != got.status {
        report.push_str(&format!("\n  status: native {}, {backend} {}", native.status, got.status));
    }
    for (what, a, b) in
        [("stdout", &native.stdout, &got.stdout), ("stderr", &native.stderr, &got.stderr)]
    {
        if a != b {
            report.push_str(&format!("\n  {what} (- native, + {backend}):\n"));
            report.push_str(&diff(a, b));
        }
    }
    panic!("{report}");
}

/// Lines of `a` and `b` that differ, with their neighbours, at most 200 of them.
fn diff(a: &str, b: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
    let mut rows = Vec::new();
    if a.len().saturating_mul(b.len()) > 4_000_000 {
        rows.push(format!("    ({} lines against {})", a.len(), b.len()));
        let at = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
        rows.extend(a.iter().skip(at).take(5).map(|l| format!("  - {l}")));
        rows.extend(b.iter().skip(at).take(5).map(|l| format!("  + {l}")));
    } else {
        walk(&a, &b, &mut rows);
    }
    let more = rows.len().saturating_sub(200);
    rows.truncate(200);
    if more > 0 {
        rows.push(format!("    ... and {more} more"));
    }
    rows.join("\n")
}

/// Longest common subsequence; equal lines are left out except one before each change.
fn walk(a: &[&str], b: &[&str], rows: &mut Vec<String>) {
    let width = b.len() + 1;
    let mut best = vec![0u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            best[i * width + j] = if a[i] == b[j] {
                best[(i + 1) * width + j + 1] + 1
            } else {
                best[(i + 1) * width + j].max(best[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut before: Option<&str> = None;
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            before = Some(a[i]);
            i += 1;
            j += 1;
            continue;
        }
        if let Some(line) = before.take() {
            rows.push(format!("    {line}"));
        }
        let drop =
            j == b.len() || (i < a.len() && best[(i + 1) * width + j] >= best[i * width + j + 1]);
        if drop {
            rows.push(format!("  - {}", a[i]));
            i += 1;
        } else {
            rows.push(format!("  + {}", b[j]));
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::diff;

    #[test]
    fn a_diff_shows_what_differs_and_the_line_before() {
        assert_eq!(diff("a\nb\nc\nd", "a\nb\nx\nd"), "    b\n  - c\n  + x");
        assert_eq!(diff("a\n", "a\nb\n"), "    a\n  + b");
        assert_eq!(diff("", "b\n"), "  + b");
    }
}
