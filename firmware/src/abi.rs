//! Shared types: the image's header and the descriptor tables.

use super::layout;

/// `Header::magic`: "TRAPGATE".
pub const MAGIC: u64 = u64::from_le_bytes(*b"TRAPGATE");
/// `Header::version`: raised by every change of `layout` or of these types.
pub const VERSION: u64 = 4;

/// First bytes of the image. Written by the image's build, read by the monitor.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u64,
    /// [`layout::GATE`].
    pub gate: u64,
    /// [`layout::VECTORS`].
    pub vectors: u64,
    /// [`layout::RING0`].
    pub ring0: u64,
    /// [`layout::IDT`].
    pub idt: u64,
}

impl Header {
    /// Bytes in a header.
    pub const SIZE: usize = 48;
    /// What both sides must agree on.
    pub const CURRENT: Header = Header {
        magic: MAGIC,
        version: VERSION,
        gate: layout::GATE,
        vectors: layout::VECTORS,
        ring0: layout::RING0,
        idt: layout::IDT,
    };
    /// The header in `bytes`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Header::SIZE]) -> Header {
        let word = |i: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[i * 8..i * 8 + 8]);
            u64::from_le_bytes(word)
        };
        Header {
            magic: word(0),
            version: word(1),
            gate: word(2),
            vectors: word(3),
            ring0: word(4),
            idt: word(5),
        }
    }
}

/// Where the phases of a gate begin, from its SYSCALL on. The monitor finds the caller's registers by
/// them when a vCPU stops inside the gate (docs/gate.md).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Phases {
    /// The first instruction: RAX and R11 are the caller's.
    pub entry: u64,
    /// The number is in the ring page from here on, no longer in RAX.
    pub number: u64,
    /// R11 is in the ring page as well.
    pub flags: u64,
    /// The call is in the ring.
    pub posted: u64,
    /// The answer is in the ring page, the call over.
    pub answered: u64,
    /// On the way out of the VM; R11 still in the ring page.
    pub unposted: u64,
    /// R11 is the caller's again, the number not yet in RAX.
    pub leave: u64,
    /// The way out with RAX and R11 the caller's.
    pub out: u64,
    /// Where rewritten call sites enter: RAX and RFLAGS are the caller's, RCX is where it goes on.
    pub jump: u64,
    /// The same with the number in the ring page, no longer in RAX.
    pub jump_number: u64,
    /// Saves and posts the whole register file: RDX is the argument in the ring, RAX and R11 as after `flags`.
    pub full: u64,
    /// Loads the FPU of a register file that a server put in the ring page.
    pub load: u64,
    /// Loads the rest: whatever the registers are, the ring page says what they will be.
    pub loading: u64,
    /// Past its last byte.
    pub end: u64,
}

impl Phases {
    /// Bytes.
    pub const SIZE: usize = 112;
    /// The phases in `bytes`, offsets from the image's first byte.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Phases::SIZE]) -> Phases {
        let word = |i: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[i * 8..i * 8 + 8]);
            // An image of another version may have anything there.
            layout::IMAGE.wrapping_add(u64::from_le_bytes(word))
        };
        Phases {
            entry: word(0),
            number: word(1),
            flags: word(2),
            posted: word(3),
            answered: word(4),
            unposted: word(5),
            leave: word(6),
            out: word(7),
            jump: word(8),
            jump_number: word(9),
            full: word(10),
            load: word(11),
            loading: word(12),
            end: word(13),
        }
    }
}

/// A long-mode interrupt gate (SDM vol. 3, 6.14.1) to the exception stub of `vector`.
#[must_use]
pub const fn idt_gate(vector: u64) -> [u64; 2] {
    let entry = layout::VECTORS + vector * layout::VECTOR_STRIDE;
    // These four may strike in ring 0 while RSP is still the guest's.
    let ist = match vector {
        1 => 1,
        2 => 2,
        8 => 3,
        18 => 4,
        _ => 0,
    };
    // INT3 and INTO are the only software interrupts ring 3 may raise.
    let dpl: u64 = if vector == 3 || vector == 4 { 3 } else { 0 };
    let cs = layout::KERNEL_CS as u64;
    let low = (entry & 0xffff)
        | cs << 16
        | ist << 32
        | (0x8e00 | dpl << 13) << 32
        | (entry >> 16 & 0xffff) << 48;
    [low, entry >> 32]
}

/// The whole interrupt table.
#[must_use]
pub const fn idt() -> [[u64; 2]; 256] {
    let mut table = [[0; 2]; 256];
    let mut vector = 0;
    while vector < 256 {
        table[vector] = idt_gate(vector as u64);
        vector += 1;
    }
    table
}

/// Entries of a vCPU's GDT.
pub const GDT_ENTRIES: usize = 10;

/// A vCPU's GDT; its TSS lies at `tss` and ends at byte `limit`.
#[must_use]
pub const fn gdt(tss: u64, limit: u64) -> [u64; GDT_ENTRIES] {
    let low = (limit & 0xffff)
        | (tss & 0xff_ffff) << 16
        | 0x8b << 40
        | (limit >> 16 & 0xf) << 48
        | (tss >> 24 & 0xff) << 56;
    [
        0,
        0,
        0x00af_9b00_0000_ffff, // KERNEL_CS
        0x00cf_9300_0000_ffff, // KERNEL_SS
        0,                     // USER32_CS: no compatibility mode
        0x00cf_f300_0000_ffff, // USER_SS
        0x00af_fb00_0000_ffff, // USER_CS
        0,
        low,
        tss >> 32,
    ]
}

/// Bytes of a 64-bit TSS without its I/O bitmap.
pub const TSS_SIZE: u64 = 104;
/// Bytes of the I/O bitmap for ports 0 to 0xff and the byte of ones behind it.
pub const BITMAP_SIZE: u64 = 33;
/// Bytes of both.
pub const TSS_BYTES: usize = 137;

/// A vCPU's TSS, and the limit of its descriptor. `page` is the vCPU's page; the I/O bitmap gives
/// ring 3 the gate's port and nothing else if `user_gate`, and does not exist if not.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "constants of at most 137; const fn has no From"
)]
pub const fn tss(page: u64, user_gate: bool) -> ([u8; TSS_BYTES], u64) {
    let mut bytes = [0; TSS_BYTES];
    bytes = put(bytes, 4, page + layout::VCPU_STACK_TOP);
    let mut ist = 1;
    while ist <= 4 {
        bytes = put(bytes, 36 + (ist as usize - 1) * 8, page + layout::vcpu_ist_top(ist));
        ist += 1;
    }
    // The bitmap's offset; one past the limit means that there is none.
    bytes[102] = TSS_SIZE as u8;
    let mut i = TSS_SIZE as usize;
    while i < TSS_BYTES {
        bytes[i] = 0xff;
        i += 1;
    }
    if user_gate {
        let port = layout::PORT_SYSCALL as usize;
        bytes[TSS_SIZE as usize + port / 8] &= !(1 << (port % 8));
        (bytes, TSS_SIZE + BITMAP_SIZE - 1)
    } else {
        (bytes, TSS_SIZE - 1)
    }
}

const fn put(mut bytes: [u8; TSS_BYTES], at: usize, value: u64) -> [u8; TSS_BYTES] {
    let word = value.to_le_bytes();
    let mut i = 0;
    while i < 8 {
        bytes[at + i] = word[i];
        i += 1;
    }
    bytes
}

/// Does the processor push an error code for `vector` (SDM vol. 3, table 6-1)?
#[must_use]
pub const fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_of_a_damaged_image_are_read() {
        let phases = Phases::from_bytes(&[0xff; Phases::SIZE]);
        assert_eq!(phases.end, layout::IMAGE - 1);
    }
}
