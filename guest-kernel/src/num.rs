//! Width conversions with their meaning in their name, so that handlers need no bare `as`.
//!
//! The ABI is x86-64 only: `usize` and `u64` are the same width.

/// Reinterpretations of a raw system-call word or a length.
pub trait Word: Copy {
    /// As a length or index.
    fn size(self) -> usize;
    /// The low 32 bits, as the kernel reads an `int` argument.
    fn low_i32(self) -> i32;
    /// The low 32 bits, as the kernel reads an `unsigned int` argument.
    fn low_u32(self) -> u32;
    /// The low 16 bits.
    fn low_u16(self) -> u16;
    /// The low 8 bits.
    fn low_u8(self) -> u8;
}

impl Word for u64 {
    #[expect(clippy::cast_possible_truncation, reason = "usize is 64 bits wide")]
    fn size(self) -> usize {
        self as usize
    }
    #[expect(clippy::cast_possible_truncation, reason = "the caller wants the low half")]
    fn low_i32(self) -> i32 {
        self as i32
    }
    #[expect(clippy::cast_possible_truncation, reason = "the caller wants the low half")]
    fn low_u32(self) -> u32 {
        self as u32
    }
    #[expect(clippy::cast_possible_truncation, reason = "the caller wants the low part")]
    fn low_u16(self) -> u16 {
        self as u16
    }
    #[expect(clippy::cast_possible_truncation, reason = "the caller wants the low part")]
    fn low_u8(self) -> u8 {
        self as u8
    }
}

impl Word for u32 {
    fn size(self) -> usize {
        self as usize
    }
    fn low_i32(self) -> i32 {
        self.cast_signed()
    }
    fn low_u32(self) -> u32 {
        self
    }
    fn low_u16(self) -> u16 {
        u64::from(self).low_u16()
    }
    fn low_u8(self) -> u8 {
        u64::from(self).low_u8()
    }
}

impl Word for usize {
    fn size(self) -> usize {
        self
    }
    fn low_i32(self) -> i32 {
        (self as u64).low_i32()
    }
    fn low_u32(self) -> u32 {
        (self as u64).low_u32()
    }
    fn low_u16(self) -> u16 {
        (self as u64).low_u16()
    }
    fn low_u8(self) -> u8 {
        (self as u64).low_u8()
    }
}

/// A signed 32-bit ABI value (fd, pid, AT_FDCWD) sign-extended into RAX.
#[must_use]
pub fn ret_i32(value: i32) -> u64 {
    i64::from(value).cast_unsigned()
}
