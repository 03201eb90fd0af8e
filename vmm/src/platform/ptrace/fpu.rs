//! The shape of FPU state and the checks a guest's copy of it must pass (SDM vol. 1, chapter 13).

use trapgate_kernel::platform::XsaveLayout;

/// x87, SSE, AVX, the three of AVX-512, PKRU. AMX stays out: the host grants it by permission only.
const WANTED: u64 = 0b11 | 1 << 2 | 0b111 << 5 | 1 << 9;
const LEGACY: usize = 512;
const HEADER_END: usize = 576;
const FCW: std::ops::Range<usize> = 0..2;
const MXCSR: std::ops::Range<usize> = 24..28;
const MXCSR_MASK: std::ops::Range<usize> = 28..32;
/// Bytes the architecture leaves to software; the host describes its own frames there.
const SOFTWARE: std::ops::Range<usize> = 464..512;
const XSTATE_BV: std::ops::Range<usize> = 512..520;
/// XCOMP_BV and the reserved rest of the header.
const MUST_BE_ZERO: std::ops::Range<usize> = 520..576;

/// What the host's FPU can do, and how large its XSAVE area is.
#[derive(Clone, Debug)]
pub struct Fpu {
    /// What guests see.
    pub layout: XsaveLayout,
    /// End of each feature's component in the standard format.
    ends: [usize; 64],
    /// Whether guests can use protection keys.
    pub pku: bool,
}

fn quad(area: &[u8], at: std::ops::Range<usize>) -> u64 {
    area.get(at).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}
fn word(area: &[u8], at: std::ops::Range<usize>) -> u32 {
    area.get(at).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

impl Fpu {
    /// Asks the processor.
    pub fn probe() -> Fpu {
        use std::arch::x86_64::__cpuid_count as cpuid;
        let os_xsave = cpuid(1, 0).ecx & 1 << 27 != 0;
        let xcr0 = if os_xsave { xcr0() } else { 0b11 };
        let features = xcr0 & WANTED;
        let mut ends = [0; 64];
        ends[0] = HEADER_END;
        ends[1] = HEADER_END;
        for (bit, end) in (0u32..).zip(ends.iter_mut()).skip(2) {
            if features & 1 << bit != 0 {
                let leaf = cpuid(0xd, bit);
                *end = (leaf.eax + leaf.ebx) as usize;
            }
        }
        let size = ends.iter().copied().max().unwrap_or(HEADER_END);
        let pku = cpuid(7, 0).ecx & 1 << 4 != 0;
        Fpu { layout: XsaveLayout { size, features }, ends, pku }
    }

    /// What a guest may see of the host's `area`.
    pub fn export(&self, area: &[u8]) -> Vec<u8> {
        let mut out = vec![0; self.layout.size];
        let len = area.len().min(out.len());
        out[..len].copy_from_slice(&area[..len]);
        out[SOFTWARE].fill(0);
        let present = quad(&out, XSTATE_BV) & self.layout.features;
        out[XSTATE_BV].copy_from_slice(&present.to_le_bytes());
        out[MUST_BE_ZERO].fill(0);
        out
    }

    /// The host area for a guest's `area`, `current` being the state it replaces; `None` if the
    /// hardware would refuse it.
    pub fn import(&self, area: &[u8], current: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; current.len()];
        if area.len() < LEGACY || out.len() < HEADER_END {
            return None;
        }
        let mask = match word(current, MXCSR_MASK) {
            0 => 0xffbf,
            mask => mask,
        };
        if word(area, MXCSR) & !mask != 0 {
            return None;
        }
        let mut present = 0b11;
        if area.len() > LEGACY {
            present = quad(area, XSTATE_BV);
            let fits = |bit: usize| present & 1 << bit == 0 || self.ends[bit] <= area.len();
            if area.len() < HEADER_END
                || present & !self.layout.features != 0
                || area[MUST_BE_ZERO].iter().any(|b| *b != 0)
                || !(0..64).all(fits)
            {
                return None;
            }
        }
        let len = area.len().min(self.layout.size).min(out.len());
        out[..len].copy_from_slice(&area[..len]);
        // Spelled out, so that it does not matter which XRSTOR the host uses.
        if present & 1 == 0 {
            out[..MXCSR.start].fill(0);
            out[FCW].copy_from_slice(&0x37fu16.to_le_bytes());
            out[32..160].fill(0);
        }
        if present & 0b10 == 0 {
            out[160..416].fill(0);
            if present & 0b100 == 0 {
                out[MXCSR].copy_from_slice(&0x1f80u32.to_le_bytes());
            }
        }
        out[MXCSR_MASK].copy_from_slice(&current[MXCSR_MASK]);
        out[SOFTWARE].copy_from_slice(&current[SOFTWARE]);
        out[XSTATE_BV].copy_from_slice(&(present | 0b11).to_le_bytes());
        Some(out)
    }

    /// The initial state, for [`Fpu::import`].
    pub fn initial(&self) -> Vec<u8> {
        let mut area = vec![0; HEADER_END];
        area[MXCSR].copy_from_slice(&0x1f80u32.to_le_bytes());
        area
    }
}

/// Whether SSE rather than x87 raised the pending floating-point exception in `area`.
pub fn is_simd_exception(area: &[u8]) -> bool {
    let mxcsr = word(area, MXCSR);
    mxcsr & 0x3f & !(mxcsr >> 7) != 0
}

fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller saw CPUID.1:ECX.OSXSAVE, so XGETBV of register 0 is allowed in ring 3.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_areas_are_refused() {
        let fpu = Fpu::probe();
        let current = vec![0u8; fpu.layout.size];
        let good = fpu.initial();
        assert!(fpu.import(&good, &current).is_some());
        assert!(fpu.import(&good[..512], &current).is_some());
        for len in [0, 1, 511, 513, 575] {
            assert!(fpu.import(&good[..len], &current).is_none(), "{len}");
        }
        let with = |at: usize, byte: u8| {
            let mut area = good.clone();
            area[at] = byte;
            fpu.import(&area, &current)
        };
        assert!(with(27, 0x80).is_none(), "MXCSR");
        assert!(with(519, 0x80).is_none(), "unknown feature");
        assert!(with(514, 0x02).is_none(), "AMX");
        assert!(with(527, 0x80).is_none(), "compacted");
        assert!(with(540, 1).is_none(), "reserved");
        if fpu.layout.features & 4 != 0 {
            assert!(with(512, 4).is_none(), "AVX without room for it");
        }
    }
}
