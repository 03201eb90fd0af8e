//! `--strace`: one line a call, decoded from the table's argument kinds, in strace(1)'s manner.
//!
//! Lines are written when a call ends, prefixed with the thread's id once there is more than one.

use std::{
    fmt::Write as _,
    io::Write,
    sync::{Mutex, PoisonError},
};

use super::{
    flags,
    table::{Kind, Row, Table},
};
use crate::{call::Call, error::Errno, kernel::Tracer, num::Word, task::Task};

/// Bytes of a string or buffer that are shown, as strace's default.
const SHOWN: usize = 32;

/// The tracer.
pub struct Strace {
    table: Table,
    out: Mutex<Box<dyn Write + Send>>,
}

impl Strace {
    /// Writes to `out`; a write error there is ignored, it must not disturb the guest.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>) -> Strace {
        Strace { table: Table::new(), out: Mutex::new(out) }
    }
    fn line(&self, task: &Task, text: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(out, "[{}] {text}", task.tid);
        let _ = out.flush();
    }
}

impl Tracer for Strace {
    fn call(&self, task: &Task, call: &Call, result: Option<u64>) {
        let mut text = String::new();
        match self.table.get(call.number) {
            Some(row) => render(task, row, call, result, &mut text),
            None => {
                let _ = write!(text, "syscall_{:#x}(", call.number);
                let words: Vec<String> = call.args.iter().map(|a| format!("{a:#x}")).collect();
                text.push_str(&words.join(", "));
                text.push(')');
            }
        }
        match result {
            None => text.push_str(" = ?"),
            Some(value) => finish(&mut text, value, self.table.get(call.number)),
        }
        self.line(task, &text);
    }
    fn signal(&self, task: &Task, text: &str) {
        self.line(task, &format!("--- {text} ---"));
    }
    fn exit(&self, task: &Task, text: &str) {
        self.line(task, &format!("+++ {text} +++"));
    }
}

fn finish(text: &mut String, value: u64, row: Option<&Row>) {
    let signed = value.cast_signed();
    // Linux's own range for an error in RAX (IS_ERR_VALUE).
    if (-4095..0).contains(&signed) {
        let errno = i32::try_from(-signed).ok().and_then(Errno::from_raw);
        let name = errno.map_or("ERRNO", Errno::name);
        let _ = write!(text, " = -1 {name} ({})", -signed);
    } else if row.is_some_and(|r| matches!(r.name, "mmap" | "brk" | "mremap" | "shmat")) {
        let _ = write!(text, " = {value:#x}");
    } else {
        let _ = write!(text, " = {signed}");
    }
}

fn render(task: &Task, row: &Row, call: &Call, result: Option<u64>, text: &mut String) {
    let failed = result.is_none_or(|r| (-4095..0).contains(&r.cast_signed()));
    text.push_str(row.name);
    text.push('(');
    for (i, (_, kind)) in row.args.iter().enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        let returned = result.unwrap_or(0).size();
        text.push_str(&argument(task, *kind, call, i, failed, returned));
    }
    text.push(')');
}

fn argument(
    task: &Task,
    kind: Kind,
    call: &Call,
    i: usize,
    failed: bool,
    returned: usize,
) -> String {
    let word = call.args[i];
    let address = |word: u64| if word == 0 { "NULL".to_owned() } else { format!("{word:#x}") };
    match kind {
        Kind::Int | Kind::Fd | Kind::Pid | Kind::Id(_) => word.low_i32().to_string(),
        Kind::DirFd if word.low_i32() == -100 => "AT_FDCWD".to_owned(),
        Kind::DirFd => word.low_i32().to_string(),
        Kind::Uint | Kind::Size => word.to_string(),
        Kind::Hex => format!("{word:#x}"),
        Kind::Mode => format!("{:#05o}", word.low_u32()),
        Kind::Signal => signal_name(word.low_i32()),
        Kind::Flags(set) | Kind::Enum(set) => flags::describe(set, word & 0xffff_ffff),
        Kind::Path | Kind::Str => string(task, word),
        Kind::StrArray => strings(task, word),
        Kind::In(len) => {
            let len = call.args.get(len).copied().unwrap_or(0).size();
            buffer(task, word, len)
        }
        Kind::Out(_) if !failed => buffer(task, word, returned),
        Kind::StructIn(name) => structure(task, name, word),
        Kind::StructOut(name) if !failed => structure(task, name, word),
        Kind::Out(_) | Kind::StructOut(_) | Kind::IovIn(_) | Kind::IovOut(_) | Kind::Addr => {
            address(word)
        }
    }
}

/// Bytes as a C string literal, without quotes.
fn escape(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\r' => out.push_str("\\r"),
            0x20..=0x7e => out.push(char::from(*byte)),
            other => {
                let _ = write!(out, "\\{other:o}");
            }
        }
    }
    out
}

fn string(task: &Task, addr: u64) -> String {
    if addr == 0 {
        return "NULL".to_owned();
    }
    // Paths are shown whole, as strace does.
    match task.mm().read_cstr(addr, 4096, Errno::ENAMETOOLONG) {
        Ok(bytes) => format!("\"{}\"", escape(&bytes)),
        Err(_) => format!("{addr:#x}"),
    }
}

fn strings(task: &Task, addr: u64) -> String {
    let mm = task.mm();
    let mut out = Vec::new();
    for i in 0..SHOWN as u64 {
        match mm.read_obj::<u64>(addr.wrapping_add(i * 8)) {
            Ok(0) => return format!("[{}]", out.join(", ")),
            Ok(text) => out.push(string(task, text)),
            Err(_) => return format!("{addr:#x}"),
        }
    }
    format!("[{}, ...]", out.join(", "))
}

fn buffer(task: &Task, addr: u64, len: usize) -> String {
    let mut bytes = vec![0; len.min(SHOWN)];
    if addr == 0 || task.mm().read_bytes(addr, &mut bytes).is_err() {
        return if addr == 0 { "NULL".to_owned() } else { format!("{addr:#x}") };
    }
    let more = if len > SHOWN { "..." } else { "" };
    format!("\"{}\"{more}", escape(&bytes))
}

fn structure(task: &Task, name: &str, addr: u64) -> String {
    if addr == 0 {
        return "NULL".to_owned();
    }
    let mm = task.mm();
    match name {
        "timespec" | "timeval" => {
            let unit = if name == "timespec" { "tv_nsec" } else { "tv_usec" };
            mm.read_obj::<[i64; 2]>(addr).map_or_else(
                |_| format!("{addr:#x}"),
                |[s, n]| format!("{{tv_sec={s}, {unit}={n}}}"),
            )
        }
        "int2" | "fds" => mm
            .read_obj::<[i32; 2]>(addr)
            .map_or_else(|_| format!("{addr:#x}"), |[a, b]| format!("[{a}, {b}]")),
        "int" => {
            mm.read_obj::<i32>(addr).map_or_else(|_| format!("{addr:#x}"), |v| format!("[{v}]"))
        }
        "sigset" => mm.read_obj::<u64>(addr).map_or_else(|_| format!("{addr:#x}"), sigset),
        "rlimit" => mm.read_obj::<[u64; 2]>(addr).map_or_else(
            |_| format!("{addr:#x}"),
            |[cur, max]| format!("{{rlim_cur={}, rlim_max={}}}", limit(cur), limit(max)),
        ),
        _ => format!("{addr:#x}"),
    }
}

fn limit(value: u64) -> String {
    if value == u64::MAX { "RLIM_INFINITY".to_owned() } else { value.to_string() }
}

fn sigset(mask: u64) -> String {
    let names: Vec<String> = (1..=64)
        .filter(|n| mask & (1 << (n - 1)) != 0)
        .map(|n| signal_name(n).trim_start_matches("SIG").to_owned())
        .collect();
    format!("[{}]", names.join(" "))
}

/// A signal's name as strace prints it.
#[must_use]
pub fn signal_name(number: i32) -> String {
    const NAMES: [&str; 32] = [
        "0",
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    match usize::try_from(number) {
        Ok(n) if n < NAMES.len() => NAMES[n].to_owned(),
        Ok(n) if (32..=64).contains(&n) => format!("SIGRT_{}", n - 32),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_as_c() {
        assert_eq!(escape(b"a\"b\\\n\x01\xff"), "a\\\"b\\\\\\n\\1\\377");
    }

    #[test]
    fn results_as_strace_words_them() {
        let mut text = String::new();
        finish(&mut text, (-2i64).cast_unsigned(), None);
        assert_eq!(text, " = -1 ENOENT (2)");
        text.clear();
        finish(&mut text, 7, None);
        assert_eq!(text, " = 7");
    }

    #[test]
    fn signals_by_name() {
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(34), "SIGRT_2");
        assert_eq!(signal_name(-1), "-1");
        assert_eq!(sigset(1 | 1 << 8), "[HUP KILL]");
    }
}
