//! System-call programs and their text, the subset of syzkaller's format that docs/fuzz.md describes.

use std::fmt::Write as _;

use trapgate_kernel::error::Errno;

use super::desc::Descs;

/// Where the texts of programs say their memory begins, as syzkaller's do.
pub const TEXT_BASE: u64 = 0x7f00_0000_0000;
/// Where it begins in the process that runs them.
pub const DATA_BASE: u64 = 0x2000_0000;
/// Its bytes.
pub const DATA_SIZE: u64 = 4 << 20;
/// Most calls of a program.
pub const MAX_CALLS: usize = 64;

/// A program.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Program {
    /// Its calls in order.
    pub calls: Vec<Call>,
}

/// One call of a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Index of its description.
    pub desc: usize,
    /// Its arguments, one for each of the description's.
    pub args: Vec<Arg>,
    /// The number of the result that its return value becomes (`r0`).
    pub result: Option<u32>,
    /// It runs beside the calls after it.
    pub is_async: bool,
    /// What a suite expects of it; `None`: that it succeeds.
    pub expect: Option<Expect>,
}

/// What a suite expects of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// This error.
    Errno(Errno),
    /// This return value.
    Value(i64),
    /// Nothing in particular.
    Any,
    /// That it has not returned when the program ends.
    Unfinished,
}

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arg {
    /// A number, or a pointer outside the program's memory.
    Value(u64),
    /// An earlier result; the number where there is none.
    Result(u32, u64),
    /// A number in memory that becomes a result once the call has succeeded.
    Define(u32, u64),
    /// A pointer into the program's memory, by its offset there, and what is put there first.
    Pointer(u64, Option<Box<Arg>>),
    /// Bytes.
    Data(Vec<u8>),
    /// So many bytes that the call writes.
    Room(u64),
    /// A structure's or an array's values.
    Group(Vec<Arg>),
    /// One of a union's values.
    Variant(String, Box<Arg>),
}

impl Arg {
    /// Calls `see` with this value and all within.
    pub fn walk<'a>(&'a self, see: &mut dyn FnMut(&'a Arg)) {
        see(self);
        match self {
            Arg::Pointer(_, Some(to)) | Arg::Variant(_, to) => to.walk(see),
            Arg::Group(values) => values.iter().for_each(|value| value.walk(see)),
            _ => {}
        }
    }
    /// Calls `change` with this value and all within, outermost first.
    pub fn walk_mut(&mut self, change: &mut dyn FnMut(&mut Arg)) {
        change(self);
        match self {
            Arg::Pointer(_, Some(to)) | Arg::Variant(_, to) => to.walk_mut(change),
            Arg::Group(values) => values.iter_mut().for_each(|value| value.walk_mut(change)),
            _ => {}
        }
    }
}

impl Program {
    /// Its text, a line a call.
    #[must_use]
    pub fn text(&self, descs: &Descs) -> String {
        let mut out = String::new();
        for call in &self.calls {
            call.write(descs, &mut out);
            out.push('\n');
        }
        out
    }
    /// The call with this index, if there is one.
    #[must_use]
    pub fn call(&self, index: u32) -> Option<&Call> {
        self.calls.get(usize::try_from(index).ok()?)
    }
    /// One more than the highest number of its results.
    #[must_use]
    pub fn results(&self) -> u32 {
        let mut next = 0;
        for call in &self.calls {
            next = next.max(call.result.map_or(0, |r| r + 1));
            call.walk(&mut |arg| {
                if let Arg::Define(number, _) | Arg::Result(number, _) = arg {
                    next = next.max(number + 1);
                }
            });
        }
        next
    }
    /// Takes out the call with this index; uses of its results become plain numbers.
    pub fn remove(&mut self, index: usize) {
        let call = self.calls.remove(index);
        let mut gone: Vec<u32> = call.result.into_iter().collect();
        call.walk(&mut |arg| {
            if let Arg::Define(number, _) = arg {
                gone.push(*number);
            }
        });
        for call in &mut self.calls[index..] {
            call.args.iter_mut().for_each(|arg| {
                arg.walk_mut(&mut |arg| {
                    if let Arg::Result(number, value) = arg
                        && gone.contains(number)
                    {
                        *arg = Arg::Value(*value);
                    }
                });
            });
        }
    }
    /// Drops results that nothing uses and numbers the others anew, in order.
    pub fn tidy(&mut self) {
        let mut used = std::collections::BTreeSet::new();
        for call in &self.calls {
            call.walk(&mut |arg| {
                if let Arg::Result(number, _) = arg {
                    used.insert(*number);
                }
            });
        }
        let mut names = std::collections::HashMap::new();
        let mut next = 0..;
        for call in &mut self.calls {
            let mut fresh = |number: u32| {
                used.contains(&number).then(|| {
                    *names.entry(number).or_insert_with(|| next.next().expect("fewer than 2^32"))
                })
            };
            call.result = call.result.and_then(&mut fresh);
            for arg in &mut call.args {
                arg.walk_mut(&mut |arg| match arg {
                    Arg::Define(number, value) => match fresh(*number) {
                        Some(new) => *number = new,
                        None => *arg = Arg::Value(*value),
                    },
                    Arg::Result(number, value) => match fresh(*number) {
                        Some(new) => *number = new,
                        None => *arg = Arg::Value(*value),
                    },
                    _ => {}
                });
            }
        }
    }
}

impl Call {
    /// Calls `see` with all values of its arguments.
    pub fn walk<'a>(&'a self, see: &mut dyn FnMut(&'a Arg)) {
        self.args.iter().for_each(|arg| arg.walk(see));
    }
    /// Its line, without the newline.
    pub fn write(&self, descs: &Descs, out: &mut String) {
        if let Some(result) = self.result {
            let _ = write!(out, "r{result} = ");
        }
        out.push_str(&descs.get(self.desc).name);
        out.push('(');
        list(&self.args, out);
        out.push(')');
        if self.is_async {
            out.push_str(" (async)");
        }
        match self.expect {
            None => {}
            Some(Expect::Errno(errno)) => {
                let _ = write!(out, " # {}", errno.name());
            }
            Some(Expect::Value(value)) => {
                let _ = write!(out, " # {value:#x}");
            }
            Some(Expect::Any) => out.push_str(" # any"),
            Some(Expect::Unfinished) => out.push_str(" # unfinished"),
        }
    }
}

fn list(args: &[Arg], out: &mut String) {
    for (i, arg) in args.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        value(arg, out);
    }
}

fn value(arg: &Arg, out: &mut String) {
    match arg {
        Arg::Value(number) => {
            let _ = write!(out, "{number:#x}");
        }
        Arg::Result(number, u64::MAX) => {
            let _ = write!(out, "r{number}");
        }
        // Not syzkaller's: it knows the resource's own default.
        Arg::Result(number, default) => {
            let _ = write!(out, "r{number}?{default:#x}");
        }
        Arg::Define(number, default) => {
            let _ = write!(out, "<r{number}=>{default:#x}");
        }
        Arg::Pointer(offset, to) => {
            let _ = write!(out, "&({:#x})", TEXT_BASE + offset);
            if let Some(to) = to {
                out.push('=');
                value(to, out);
            }
        }
        Arg::Data(bytes) => data(bytes, out),
        Arg::Room(len) => {
            let _ = write!(out, "\"\"/{len}");
        }
        Arg::Group(values) => {
            out.push('{');
            list(values, out);
            out.push('}');
        }
        Arg::Variant(name, of) => {
            let _ = write!(out, "@{name}=");
            value(of, out);
        }
    }
}

/// Bytes that are mostly text as `'text\x00'`, others as `"68657861"`.
fn data(bytes: &[u8], out: &mut String) {
    let plain = |b: &u8| (0x20..0x7f).contains(b);
    let text = bytes.iter().rposition(plain).is_some_and(|last| {
        let rest = &bytes[last + 1..];
        bytes[..=last].iter().all(plain) && rest.len() <= 2 && rest.iter().all(|b| *b == 0)
    });
    if text {
        out.push('\'');
        for b in bytes {
            match b {
                b'\'' | b'\\' => {
                    out.push('\\');
                    out.push(char::from(*b));
                }
                b if plain(b) => out.push(char::from(*b)),
                b => {
                    let _ = write!(out, "\\x{b:02x}");
                }
            }
        }
        out.push('\'');
    } else {
        out.push('"');
        bytes.iter().for_each(|b| {
            let _ = write!(out, "{b:02x}");
        });
        out.push('"');
        if bytes.is_empty() {
            out.push_str("/0");
        }
    }
}
