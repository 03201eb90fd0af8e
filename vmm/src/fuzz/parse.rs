//! From text to a program. Text is hostile: every size and depth has a bound.

use trapgate_kernel::error::Errno;

use super::{
    desc::{Descs, Type},
    prog::{Arg, Call, DATA_SIZE, Expect, MAX_CALLS, Program, TEXT_BASE},
};

/// Deepest nesting of values.
const MAX_DEPTH: usize = 8;
/// Most bytes of one buffer.
pub const MAX_DATA: usize = 64 << 10;
/// Highest number of a result.
const MAX_RESULT: u64 = 255;

/// A mistake in a text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// From 1, in bytes.
    pub column: usize,
    /// What is wrong, and where it helps, what is right.
    pub message: String,
}

/// Reads a program; lines that begin with `#` and empty ones are passed over.
///
/// # Errors
/// The first mistake.
pub fn program(text: &str, descs: &Descs) -> Result<Program, Mistake> {
    let mut program = Program::default();
    for (number, line) in text.lines().enumerate() {
        let body = line.trim();
        if body.is_empty() || body.starts_with('#') {
            continue;
        }
        let mut reader = Reader { text: line.as_bytes(), at: 0 };
        let call = reader.call(descs).map_err(|message| Mistake {
            line: number + 1,
            column: reader.at.min(line.len()) + 1,
            message,
        })?;
        if program.calls.len() == MAX_CALLS {
            let message = format!("more than {MAX_CALLS} calls");
            return Err(Mistake { line: number + 1, column: 1, message });
        }
        program.calls.push(call);
    }
    Ok(program)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

type Parsed<T> = Result<T, String>;

impl Reader<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }
    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t') {
            self.at += 1;
        }
    }
    fn takes(&mut self, what: &str) -> bool {
        self.space();
        let found = self.text[self.at.min(self.text.len())..].starts_with(what.as_bytes());
        if found {
            self.at += what.len();
        }
        found
    }
    fn expect(&mut self, what: &str) -> Parsed<()> {
        if self.takes(what) { Ok(()) } else { Err(format!("'{what}' expected")) }
    }
    fn word(&mut self) -> &str {
        self.space();
        let from = self.at;
        while self.peek().is_ascii_alphanumeric() || matches!(self.peek(), b'_' | b'$') {
            self.at += 1;
        }
        std::str::from_utf8(&self.text[from..self.at]).unwrap_or_default()
    }
    fn number(&mut self) -> Parsed<u64> {
        let negative = self.takes("-");
        let from = self.at;
        let word = self.word().to_owned();
        let parsed = match word.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => word.parse(),
        };
        match parsed {
            Ok(value) if negative => Ok(value.wrapping_neg()),
            Ok(value) => Ok(value),
            Err(_) => {
                self.at = from;
                Err("a number expected (0x10, 16)".to_owned())
            }
        }
    }
    /// `r7`, if that stands here.
    fn result(&mut self) -> Parsed<Option<u32>> {
        self.space();
        if self.peek() != b'r' || !self.text.get(self.at + 1).is_some_and(u8::is_ascii_digit) {
            return Ok(None);
        }
        self.at += 1;
        match self.number()? {
            number @ 0..=MAX_RESULT => Ok(u32::try_from(number).ok()),
            _ => Err(format!("results are numbered 0 to {MAX_RESULT}")),
        }
    }
    fn call(&mut self, descs: &Descs) -> Parsed<Call> {
        let result = self.result()?;
        if result.is_some() {
            self.expect("=")?;
        }
        let from = self.at;
        let name = self.word().to_owned();
        let Some(desc) = descs.find(&name) else {
            self.at = from;
            return Err(format!("no call '{name}'; `trapgate syscalls` lists them"));
        };
        self.expect("(")?;
        let types = &descs.get(desc).args;
        let mut args = Vec::with_capacity(types.len());
        while !self.takes(")") {
            if !args.is_empty() {
                self.expect(",")?;
            }
            let Some(kind) = types.get(args.len()) else {
                return Err(format!("{name} has {} arguments", types.len()));
            };
            args.push(self.value(Some(kind), 0)?);
        }
        if args.len() != types.len() {
            return Err(format!("{name} has {} arguments, here are {}", types.len(), args.len()));
        }
        let is_async = self.takes("(async)");
        let expect = if self.takes("#") { Some(self.expectation()?) } else { None };
        self.space();
        if self.at < self.text.len() {
            return Err("nothing more expected".to_owned());
        }
        Ok(Call { desc, args, result, is_async, expect })
    }
    fn expectation(&mut self) -> Parsed<Expect> {
        self.space();
        let from = self.at;
        if self.peek() == b'-' || self.peek().is_ascii_digit() {
            return self.number().map(|value| Expect::Value(value.cast_signed()));
        }
        match self.word() {
            "any" => Ok(Expect::Any),
            "unfinished" => Ok(Expect::Unfinished),
            name => match (1..134).filter_map(Errno::from_raw).find(|e| e.name() == name) {
                Some(errno) => Ok(Expect::Errno(errno)),
                None => {
                    let message = format!("'{name}' is no errno; 'any' expects nothing");
                    self.at = from;
                    Err(message)
                }
            },
        }
    }
    fn value(&mut self, kind: Option<&Type>, depth: usize) -> Parsed<Arg> {
        if depth > MAX_DEPTH {
            return Err(format!("values nest deeper than {MAX_DEPTH}"));
        }
        self.space();
        match self.peek() {
            b'r' => match self.result()? {
                Some(number) if self.takes("?") => Ok(Arg::Result(number, self.number()?)),
                Some(number) => Ok(Arg::Result(number, u64::MAX)),
                None => Err("a value expected".to_owned()),
            },
            b'<' => {
                self.at += 1;
                let number = self.result()?.ok_or("a result expected (<r0=>0x0)")?;
                self.expect("=>")?;
                Ok(Arg::Define(number, self.number()?))
            }
            b'&' => self.pointer(kind, depth),
            b'\'' => self.quoted(),
            b'"' => self.hex(),
            b'{' | b'[' => self.group(kind, depth),
            b'@' => {
                self.at += 1;
                let name = self.word().to_owned();
                self.expect("=")?;
                let of = match kind {
                    Some(Type::Union(variants)) => {
                        let found = variants.iter().find(|(n, _)| *n == name);
                        &found.ok_or_else(|| format!("no variant '@{name}' here"))?.1
                    }
                    _ => return Err("no variants here".to_owned()),
                };
                Ok(Arg::Variant(name, Box::new(self.value(Some(of), depth + 1)?)))
            }
            b'n' if self.takes("nil") => Ok(Arg::Value(0)),
            _ => self.number().map(Arg::Value),
        }
    }
    fn pointer(&mut self, kind: Option<&Type>, depth: usize) -> Parsed<Arg> {
        self.expect("&")?;
        self.expect("(")?;
        let address = self.number()?;
        self.expect(")")?;
        let offset = address.wrapping_sub(TEXT_BASE);
        if offset >= DATA_SIZE {
            return Err(format!(
                "addresses run from {TEXT_BASE:#x} to {:#x}",
                TEXT_BASE + DATA_SIZE - 1
            ));
        }
        if !self.takes("=") {
            return Ok(Arg::Pointer(offset, None));
        }
        let to = match kind {
            Some(Type::Pointer(_, to)) => Some(&**to),
            _ => None,
        };
        let to = self.value(to, depth + 1)?;
        Ok(Arg::Pointer(offset, Some(Box::new(to))))
    }
    fn group(&mut self, kind: Option<&Type>, depth: usize) -> Parsed<Arg> {
        let end = if self.peek() == b'{' { "}" } else { "]" };
        self.at += 1;
        let mut values = Vec::new();
        while !self.takes(end) {
            if !values.is_empty() {
                self.expect(",")?;
            }
            let of = match kind {
                Some(Type::Array(of)) if values.len() < MAX_CALLS => Some(&**of),
                Some(Type::Struct(_, members)) => {
                    let shown = members.iter().filter(|m| !matches!(m, Type::Hidden(_)));
                    let member = shown.clone().nth(values.len());
                    Some(member.ok_or_else(|| format!("{} members here", shown.count()))?)
                }
                Some(Type::Strings) if values.len() < MAX_CALLS => None,
                Some(Type::Array(_) | Type::Strings) => return Err("too many values".to_owned()),
                _ => return Err("no group of values fits here".to_owned()),
            };
            values.push(self.value(of, depth + 1)?);
        }
        Ok(Arg::Group(values))
    }
    fn quoted(&mut self) -> Parsed<Arg> {
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            let byte = *self.text.get(self.at).ok_or("\"'\" expected")?;
            self.at += 1;
            match byte {
                b'\'' => return Ok(Arg::Data(bytes)),
                b'\\' if self.peek() == b'x' => {
                    let digits = self.text.get(self.at + 1..self.at + 3);
                    let digits = digits.and_then(|d| std::str::from_utf8(d).ok());
                    let value = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
                    bytes.push(value.ok_or("two hexadecimal digits expected after \\x")?);
                    self.at += 3;
                }
                b'\\' => {
                    bytes.push(*self.text.get(self.at).ok_or("\"'\" expected")?);
                    self.at += 1;
                }
                byte => bytes.push(byte),
            }
            if bytes.len() > MAX_DATA {
                return Err(format!("more than {MAX_DATA} bytes"));
            }
        }
    }
    fn hex(&mut self) -> Parsed<Arg> {
        self.at += 1;
        let mut bytes = Vec::new();
        while self.peek() != b'"' {
            let digits = self.text.get(self.at..self.at + 2);
            let digits = digits.and_then(|d| std::str::from_utf8(d).ok());
            let value = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
            bytes.push(value.ok_or("two hexadecimal digits a byte expected")?);
            self.at += 2;
            if bytes.len() > MAX_DATA {
                return Err(format!("more than {MAX_DATA} bytes"));
            }
        }
        self.at += 1;
        if bytes.is_empty() && self.takes("/") {
            return match self.number()? {
                0 => Ok(Arg::Data(bytes)),
                len if len <= MAX_DATA as u64 => Ok(Arg::Room(len)),
                _ => Err(format!("more than {MAX_DATA} bytes")),
            };
        }
        Ok(Arg::Data(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &str) -> String {
        let descs = Descs::new();
        let parsed = program(text, &descs).unwrap_or_else(|e| panic!("{text}: {e}"));
        let printed = parsed.text(&descs);
        assert_eq!(program(&printed, &descs).as_ref(), Ok(&parsed), "{printed}");
        printed
    }

    #[test]
    fn prints_what_it_reads() {
        let text = "\
r0 = openat(0xffffffffffffff9c, &(0x7f0000000000)='./file0\\x00', 0x42, 0x1ff)
write(r0, &(0x7f0000000040)=\"61ff\", 0x2)
pipe2(&(0x7f0000000080)={<r1=>0xffffffffffffffff, <r2=>0xffffffffffffffff}, 0x0)
read(r1, &(0x7f00000000c0)=\"\"/16, 0x10) (async)
connect(r2, &(0x7f0000000100)=@un={0x1, './s\\x00'}, 0x6e) # ENOTSOCK
close(r0) # 0x0
mmap(0x0, 0x1000, 0x3, 0x22, 0xffffffffffffffff, 0x0) # any
writev(r2?0x1, &(0x7f0000000180)={{&(0x7f00000001c0)=\"00\", 0x1}}, 0x1) # unfinished
";
        assert_eq!(round(text), text);
    }

    #[test]
    fn decimal_numbers_and_lists_in_brackets_are_read() {
        assert_eq!(
            round("# a comment\n\n poll(&(0x7f0000000000)=[{-1, 1, 0}], 1, 0)"),
            "poll(&(0x7f0000000000)={{0xffffffffffffffff, 0x1, 0x0}}, 0x1, 0x0)\n"
        );
    }

    #[test]
    fn mistakes_are_named() {
        let descs = Descs::new();
        for (text, message) in [
            ("opne()", "line 1, column 1: no call 'opne'; `trapgate syscalls` lists them"),
            ("close(1, 2)", "line 1, column 9: close has 1 arguments"),
            ("close()", "line 1, column 8: close has 1 arguments, here are 0"),
            ("close(0x1) # EFOO", "line 1, column 14: 'EFOO' is no errno; 'any' expects nothing"),
            ("\nclose(q)", "line 2, column 7: a number expected (0x10, 16)"),
            (
                "read(0, &(0x10), 1)",
                "line 1, column 16: addresses run from 0x7f0000000000 to 0x7f00003fffff",
            ),
            ("bind(0, &(0x7f0000000000)=@no={}, 1)", "line 1, column 31: no variant '@no' here"),
        ] {
            let mistake = program(text, &descs).expect_err(text);
            assert_eq!(mistake.to_string(), message);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let descs = Descs::new();
        let deep = format!("read({}", "&(0x7f0000000000)=".repeat(100_000));
        assert!(program(&deep, &descs).is_err());
    }
}
