//! The auxiliary vector (getauxval(3)) and the image of a new program's stack.

use zerocopy::IntoBytes;

use crate::{error::Errno, mm::Mm, platform::PAGE_SIZE};

/// Keys of the vector.
#[expect(missing_docs, reason = "getauxval(3) names them")]
pub mod at {
    pub const NULL: u64 = 0;
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const HWCAP2: u64 = 26;
    pub const EXECFN: u64 = 31;
    pub const SYSINFO_EHDR: u64 = 33;
    pub const MINSIGSTKSZ: u64 = 51;
}

/// Longest single argument or environment string (`MAX_ARG_STRLEN`).
pub const MAX_STRING: usize = 32 * 4096;
/// Argument room every program gets (`ARG_MAX`).
const ARG_MAX: u64 = 128 << 10;
/// Argument room at most: three quarters of the usual stack limit.
const ARG_LIMIT: u64 = 6 << 20;

/// Bytes of strings and pointers that fit under a stack limit.
#[must_use]
pub fn argument_room(stack_limit: u64) -> u64 {
    (stack_limit / 4).clamp(ARG_MAX, ARG_LIMIT)
}

/// Checks arguments against the limits of execve(2).
///
/// # Errors
/// E2BIG.
pub fn check_size(
    argv: &[Vec<u8>],
    envp: &[Vec<u8>],
    execfn: &[u8],
    stack_limit: u64,
) -> Result<(), Errno> {
    let mut total = (execfn.len() + 1) as u64;
    for string in argv.iter().chain(envp) {
        if string.len() >= MAX_STRING {
            return Err(Errno::E2BIG);
        }
        total += (string.len() + 1 + 8) as u64;
    }
    if total > argument_room(stack_limit) { Err(Errno::E2BIG) } else { Ok(()) }
}

/// Reads a NULL-terminated array of strings from a program (execve(2)'s argv and envp). `used` is
/// what strings and pointers have taken so far.
///
/// # Errors
/// EFAULT, E2BIG.
pub fn read_strings(
    mm: &Mm,
    array: u64,
    stack_limit: u64,
    used: &mut u64,
) -> Result<Vec<Vec<u8>>, Errno> {
    let room = argument_room(stack_limit);
    let mut strings = Vec::new();
    if array == 0 {
        return Ok(strings);
    }
    loop {
        let slot = array.checked_add(8 * strings.len() as u64).ok_or(Errno::EFAULT)?;
        let pointer: u64 = mm.read_obj(slot)?;
        if pointer == 0 {
            return Ok(strings);
        }
        let string = mm.read_cstr(pointer, MAX_STRING, Errno::E2BIG)?;
        *used += (string.len() + 1 + 8) as u64;
        if *used > room {
            return Err(Errno::E2BIG);
        }
        strings.push(string);
    }
}

/// What a new program finds on its stack.
pub struct Stack<'a> {
    /// Arguments.
    pub argv: &'a [Vec<u8>],
    /// Environment.
    pub envp: &'a [Vec<u8>],
    /// AT_EXECFN.
    pub execfn: &'a [u8],
    /// AT_RANDOM's bytes.
    pub random: [u8; 16],
    /// The vector, but for what points into the stack.
    pub auxv: Vec<(u64, u64)>,
    /// How far below the strings the pointers start, to randomise the stack pointer.
    pub skew: u64,
}

/// Where things came to lie.
pub struct Written {
    /// The stack pointer at entry.
    pub sp: u64,
    /// Argument strings.
    pub args: (u64, u64),
    /// Environment strings.
    pub env: (u64, u64),
    /// The vector as written.
    pub auxv: Vec<u8>,
}

impl Stack<'_> {
    /// Bytes below the stack's top that [`Stack::write`] will use, at most.
    #[must_use]
    pub fn size(&self) -> u64 {
        let strings: usize =
            self.argv.iter().chain(self.envp).map(|s| s.len() + 1 + 8).sum::<usize>();
        (strings + self.execfn.len() + 2 * 8 * self.auxv.len()) as u64 + self.skew + PAGE_SIZE
    }
    /// Writes it below `top`, as `create_elf_tables()` lays it out.
    ///
    /// # Errors
    /// EFAULT, ENOMEM when the stack cannot hold it.
    pub fn write(mut self, mm: &Mm, top: u64) -> Result<Written, Errno> {
        // Strings, upwards: arguments, environment, the file's name, then eight zero bytes.
        let mut strings = Vec::new();
        let mut offsets = Vec::new();
        for string in self.argv.iter().chain(self.envp) {
            offsets.push(strings.len() as u64);
            strings.extend_from_slice(string);
            strings.push(0);
        }
        let env_start: usize = self.argv.iter().map(|s| s.len() + 1).sum();
        let execfn = strings.len() as u64;
        strings.extend_from_slice(self.execfn);
        strings.push(0);
        let base = top.checked_sub(8 + strings.len() as u64).ok_or(Errno::E2BIG)?;
        mm.write_bytes(base, &strings)?;
        // Below: the platform's name and the random bytes.
        let platform = (base - 16) & !15;
        mm.write_bytes(platform, b"x86_64\0")?;
        let random = platform - 16;
        mm.write_bytes(random, &self.random)?;
        self.auxv.push((at::RANDOM, random));
        self.auxv.push((at::EXECFN, base + execfn));
        self.auxv.push((at::PLATFORM, platform));
        self.auxv.push((at::NULL, 0));
        // The pointers, so that the stack pointer ends up aligned to 16.
        let mut words = vec![self.argv.len() as u64];
        words.extend(offsets[..self.argv.len()].iter().map(|o| base + o));
        words.push(0);
        words.extend(offsets[self.argv.len()..].iter().map(|o| base + o));
        words.push(0);
        let auxv: Vec<u64> = self.auxv.iter().flat_map(|(key, value)| [*key, *value]).collect();
        words.extend(&auxv);
        let sp = random.checked_sub(self.skew + 8 * words.len() as u64).ok_or(Errno::E2BIG)? & !15;
        mm.write_bytes(sp, words.as_bytes())?;
        let env_start = base + env_start as u64;
        Ok(Written {
            sp,
            args: (base, env_start),
            env: (env_start, base + execfn),
            auxv: auxv.as_bytes().to_vec(),
        })
    }
}
