//! Which instruction stands before a SYSCALL, and whether a jump may stand in its place.
//!
//! A jump has five bytes, SYSCALL two. So the jump replaces the instruction *before* SYSCALL and nothing
//! else: where that is shorter than five bytes, the rest of the jump's displacement is what already lies
//! there, SYSCALL's own bytes first, and the jump's target is chosen to fit (instruction punning, Duck et
//! al., "Binary Rewriting without Control Flow Recovery", PLDI 2020). A branch to the SYSCALL or behind it
//! finds what it always found.

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Register};

#[cfg(any(test, feature = "fuzzing"))]
use crate::num::Word;

/// SYSCALL.
pub(super) const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Bytes of a jump with a 32-bit displacement.
const JUMP: usize = 5;
/// JMP rel32.
const JUMP_OPCODE: u8 = 0xe9;
/// Longest instruction (SDM vol. 2, 2.3.11).
const LONGEST: usize = 15;
/// Bytes before a SYSCALL that are looked at.
pub(super) const LOOK_BACK: u64 = 6 * LONGEST as u64;
/// Bytes from the SYSCALL on that a jump may reach into.
pub(super) const LOOK_AHEAD: u64 = 6;
/// Windows of [`LONGEST`] bytes that must agree.
const WINDOWS: usize = 3;

/// Why a site is left as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Not the private, read-only mapping of a file: made by a JIT, or to be changed.
    NotFileCode,
    /// The call leaves the VM whatever its site looks like.
    OwnThread,
    /// It cannot be told which instruction stands before the SYSCALL.
    Unclear,
    /// That instruction cannot be moved: a branch, or relative to its address.
    Immovable,
    /// It lies on two pages, which cannot be exchanged at once.
    Straddles,
    /// No room where the jump could go, or no memory.
    NoRoom,
}

impl Refusal {
    /// All, in the order of their counters.
    pub const ALL: [Refusal; 6] = [
        Refusal::NotFileCode,
        Refusal::OwnThread,
        Refusal::Unclear,
        Refusal::Immovable,
        Refusal::Straddles,
        Refusal::NoRoom,
    ];
    /// For reports.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::NotFileCode => "not a file's read-only code",
            Refusal::OwnThread => "the call leaves the VM anyway",
            Refusal::Unclear => "unclear which instruction is before it",
            Refusal::Immovable => "the instruction before it cannot be moved",
            Refusal::Straddles => "on two pages",
            Refusal::NoRoom => "no room in reach",
        }
    }
}

/// The instruction before a SYSCALL, and where a jump in its place may lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Displaced {
    /// Its length.
    pub(super) len: usize,
    /// Displacement of the first possible target from the jump's end.
    pub(super) first: i32,
    /// Possible targets from there on.
    pub(super) span: u64,
}

impl Displaced {
    /// The bytes that change, for a jump by `displacement`.
    pub(super) fn jump(self, displacement: i32) -> ([u8; JUMP], usize) {
        let mut bytes = [JUMP_OPCODE, 0, 0, 0, 0];
        bytes[1..].copy_from_slice(&displacement.to_le_bytes());
        (bytes, self.len.min(JUMP))
    }
}

/// Looks at the SYSCALL behind `before` that was made with `number` in RAX; `after` are the bytes from the
/// SYSCALL on.
///
/// # Errors
/// Why it must stay.
pub(super) fn displaced(before: &[u8], after: &[u8], number: u64) -> Result<Displaced, Refusal> {
    let start = predecessor(before).ok_or(Refusal::Unclear)?;
    let found = decode(&before[start..]).ok_or(Refusal::Unclear)?;
    if found.flow_control() != FlowControl::Next || found.is_ip_rel_memory_operand() {
        return Err(Refusal::Immovable);
    }
    // Sets RAX to another number than it had: the SYSCALL was reached by a branch.
    let sets_eax = found.code() == Code::Mov_r32_imm32 && found.op0_register() == Register::EAX;
    if sets_eax && u64::from(found.immediate32()) != number {
        return Err(Refusal::Unclear);
    }
    let len = found.len();
    let free = (len - 1).min(JUMP - 1);
    let mut fixed = [0; 4];
    for (i, byte) in fixed.iter_mut().enumerate().skip(free) {
        *byte = *after.get(1 + i - len).ok_or(Refusal::Unclear)?;
    }
    let first = if free == 4 { i32::MIN } else { i32::from_le_bytes(fixed) };
    Ok(Displaced { len, first, span: 1 << (8 * free) })
}

fn decode(bytes: &[u8]) -> Option<Instruction> {
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let found = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    (!found.is_invalid()).then_some(found)
}

/// Where the instruction begins that ends with `code`.
///
/// Of 15 bytes in a row at least one begins an instruction that is really executed. So the true one is
/// found from some byte of *each* window of 15 bytes. Decoding from a wrong byte soon falls in with the true
/// instructions, so no other is. If more than one is found all the same, nothing is certain.
fn predecessor(code: &[u8]) -> Option<usize> {
    let end = code.len();
    if end < (WINDOWS + 1) * LONGEST {
        return None;
    }
    // By starting byte: the last instruction of a decoding from there, if it ends with `code`.
    let mut last: Vec<Option<usize>> = vec![None; end];
    for i in (0..end).rev() {
        last[i] = decode(&code[i..]).and_then(|found| match i + found.len() {
            next if next == end => Some(i),
            next if next < end => last[next],
            _ => None,
        });
    }
    let windows = || last[..end - LONGEST].rchunks_exact(LONGEST);
    let survives = |i: usize| windows().all(|window| window.contains(&Some(i)));
    let mut found = (end - LONGEST..end).filter(|i| last[*i] == Some(*i) && survives(*i));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Body of a fuzz target (`crate::fuzz`): eight bytes are the number, six what follows the site, the others
/// what lies before it. Whatever jump is put there, the bytes it leaves alone are those of its displacement.
///
/// # Panics
/// On a bug.
#[cfg(any(test, feature = "fuzzing"))]
pub fn hostile_site(bytes: &[u8]) {
    let Some((number, rest)) = bytes.split_first_chunk::<8>() else { return };
    let Some((after, before)) = rest.split_at_checked(LOOK_AHEAD.size()) else { return };
    let before = &before[..before.len().min(LOOK_BACK.size())];
    let Ok(found) = displaced(before, after, u64::from_le_bytes(*number)) else { return };
    assert!((1..=LONGEST.min(before.len())).contains(&found.len));
    let site = [&before[before.len() - found.len..], after].concat();
    for nth in [0, found.span / 2, found.span - 1] {
        let displacement = i64::from(found.first) + nth.cast_signed();
        let displacement = i32::try_from(displacement).expect("within a jump's reach");
        let (jump, changed) = found.jump(displacement);
        assert!(changed <= found.len && jump[changed..] == site[changed..JUMP.max(changed)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// glibc's getppid, and what lies before it.
    const PADDED: &[u8] = &[
        0xc3, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x66, 0x90, 0x48, 0x8b, 0x05, 0x11,
        0x22, 0x03, 0, 0x48, 0x89, 0x07, 0x31, 0xc0, 0xc3, 0x0f, 0x1f, 0x44, 0, 0, 0x48, 0x83,
        0xec, 0x08, 0x48, 0x89, 0x3c, 0x24, 0x48, 0x8b, 0x14, 0x24, 0x48, 0x83, 0xc4, 0x08, 0xc3,
        0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x66, 0x90,
    ];
    const AFTER: &[u8] = &[0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0];

    fn before(last: &[u8]) -> Vec<u8> {
        [PADDED, last].concat()
    }

    #[test]
    fn a_number_moved_to_eax_gives_way_whole() {
        let code = before(&[0xb8, 0x6e, 0, 0, 0]);
        let found = displaced(&code, AFTER, 0x6e).expect("found");
        assert_eq!((found.len, found.span), (5, 1 << 32));
        assert_eq!(found.jump(0x1234_5678), ([0xe9, 0x78, 0x56, 0x34, 0x12], 5));
        // The site was reached with another number.
        assert_eq!(displaced(&code, AFTER, 0x6f), Err(Refusal::Unclear));
    }
    #[test]
    fn a_short_one_lends_the_jump_the_bytes_behind_it() {
        let found = displaced(&before(&[0x31, 0xc0]), AFTER, 0).expect("found");
        assert_eq!((found.len, found.first, found.span), (2, 0x4805_0f00, 256));
        let (bytes, changed) = found.jump(found.first + 0x77);
        assert_eq!((bytes[2..].to_vec(), changed), (AFTER[..3].to_vec(), 2));
        // mov rax, rdi
        let found = displaced(&before(&[0x48, 0x89, 0xf8]), AFTER, 1).expect("found");
        assert_eq!((found.len, found.first, found.span), (3, 0x050f_0000, 1 << 16));
        // A displacement may be negative: ret follows.
        let found = displaced(&before(&[0x31, 0xc0]), &[0x0f, 0x05, 0xc3, 0x90, 0x90], 0);
        assert_eq!(found.expect("found").first, i32::from_le_bytes([0, 0x0f, 0x05, 0xc3]));
    }
    #[test]
    fn what_cannot_move_stays() {
        // je +2; mov rax, [rip + 0x10]; call.
        for code in [&[0x74, 0x02][..], &[0x48, 0x8b, 0x05, 0x10, 0, 0, 0], &[0xe8, 0, 0, 0, 0]] {
            assert_eq!(displaced(&before(code), AFTER, 0), Err(Refusal::Immovable), "{code:x?}");
        }
    }
    #[test]
    fn a_longer_instruction_is_not_cut() {
        // mov r8d, 0x6e ends like mov eax, 0x6e.
        let found = displaced(&before(&[0x41, 0xb8, 0x6e, 0, 0, 0]), AFTER, 0x6e).expect("found");
        assert_eq!(found.len, 6);
        // mov dword ptr [rsp + 0xb8], 0x6e
        let code = before(&[0xc7, 0x84, 0x24, 0xb8, 0, 0, 0, 0x6e, 0, 0, 0]);
        assert_eq!(displaced(&code, AFTER, 0x6e).map(|d| d.len), Ok(11));
    }
    #[test]
    fn too_little_code_tells_nothing() {
        assert_eq!(displaced(&[0xb8, 0x6e, 0, 0, 0], AFTER, 0x6e), Err(Refusal::Unclear));
        assert_eq!(displaced(&[0x90; 80], &[0x0f], 0), Err(Refusal::Unclear));
    }
}
