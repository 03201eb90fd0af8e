//! What guests may use of the FPU, and XSAVE areas that may come from guests (SDM vol. 1, 13.4).
//!
//! The features are those KVM can save and that need no permission or control register of their own:
//! no AMX (its state must be asked for), no protection keys, no shadow stacks.

use std::io;

use kvm_bindings::{CpuId, kvm_xsave};
use trapgate_kernel::platform::{PlatformError, XsaveLayout};

/// x87, SSE, AVX and the three AVX-512 components.
const ALLOWED: u64 = 0xe7;
const LEGACY_SIZE: usize = 512;
/// The legacy region and the header.
const MIN_SIZE: usize = 576;
/// What KVM_GET_XSAVE fills.
pub(super) const KVM_SIZE: usize = 4096;

const XSTATE_BV: usize = 512;
const MXCSR: usize = 24;
/// Left to software; KVM reports its own features there.
const SW_RESERVED: std::ops::Range<usize> = 464..512;

/// CPUID for guests made from what KVM supports, and the FPU layout that goes with it.
pub(super) fn guest_cpuid(mut cpuid: CpuId) -> (CpuId, XsaveLayout) {
    let mut features = 3;
    let mut size = MIN_SIZE;
    for entry in cpuid.as_slice() {
        if entry.function == 0xd && entry.index == 0 && entry.eax & 3 == 3 {
            features = (u64::from(entry.eax) | u64::from(entry.edx) << 32) & ALLOWED;
        }
    }
    for entry in cpuid.as_mut_slice() {
        match (entry.function, entry.index) {
            // No VMX, no monitor/mwait.
            (1, _) => entry.ecx &= !(1 << 5 | 1 << 3),
            // No protection keys, no shadow stacks; no indirect-branch tracking, no AMX.
            (7, 0) => {
                entry.ecx &= !(1 << 3 | 1 << 4 | 1 << 7);
                entry.edx &= !(1 << 20 | 1 << 22 | 1 << 24 | 1 << 25);
            }
            (0xd, component @ 2..64) => {
                if features & 1 << component == 0 {
                    (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
                } else {
                    let end = u64::from(entry.eax) + u64::from(entry.ebx);
                    size = size.max(usize::try_from(end).unwrap_or(usize::MAX));
                }
            }
            // XSAVEOPT, XSAVEC, XGETBV with ECX = 1.
            (0xd, 1) => (entry.eax, entry.ecx, entry.edx) = (entry.eax & 7, 0, 0),
            // No SVM.
            (0x8000_0001, _) => entry.ecx &= !(1 << 2),
            _ => {}
        }
    }
    if size > KVM_SIZE {
        // No processor lays these components out so; be right and slow if one does.
        (features, size) = (3, MIN_SIZE);
    }
    for entry in cpuid.as_mut_slice() {
        if (entry.function, entry.index) == (0xd, 0) {
            let bytes = u32::try_from(size).unwrap_or(0);
            let low = u32::try_from(features & 0xffff_ffff).unwrap_or(0);
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (low, bytes, bytes, 0);
        }
    }
    (cpuid, XsaveLayout { size, features })
}

/// The initial state.
pub(super) fn initial(layout: XsaveLayout) -> Vec<u8> {
    let mut area = vec![0; layout.size];
    area[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
    area[MXCSR..MXCSR + 4].copy_from_slice(&0x1f80u32.to_le_bytes());
    area
}

/// What KVM_GET_XSAVE gave, as an area in the guest's layout.
pub(super) fn from_kvm(xsave: &kvm_xsave, layout: XsaveLayout) -> Vec<u8> {
    let mut area: Vec<u8> = xsave.region.iter().flat_map(|word| word.to_le_bytes()).collect();
    area.truncate(layout.size);
    area[SW_RESERVED].fill(0);
    area
}

/// An area of ours for KVM_SET_XSAVE.
pub(super) fn to_kvm(area: &[u8]) -> kvm_xsave {
    let mut xsave = kvm_xsave::default();
    for (word, bytes) in xsave.region.iter_mut().zip(area.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    xsave
}

/// What a hostile area may hold.
#[derive(Clone, Copy)]
pub(super) struct FpuRules {
    pub(super) layout: XsaveLayout,
    /// MXCSR bits this processor has.
    pub(super) mxcsr_mask: u32,
}

/// Checks a hostile area as XRSTOR would and returns it in full length.
pub(super) fn check(area: &[u8], rules: FpuRules) -> Result<Vec<u8>, PlatformError> {
    let FpuRules { layout, mxcsr_mask } = rules;
    let refused = || PlatformError::Host {
        op: "FPU state refused",
        source: io::ErrorKind::InvalidInput.into(),
    };
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&area[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let mut out = vec![0; layout.size];
    if area.len() == LEGACY_SIZE {
        out[..LEGACY_SIZE].copy_from_slice(area);
        out[XSTATE_BV] = 3;
    } else if area.len() >= layout.size {
        let header_ok = word(XSTATE_BV) & !layout.features == 0
            && (XSTATE_BV + 8..MIN_SIZE).step_by(8).all(|at| word(at) == 0);
        if !header_ok {
            return Err(refused());
        }
        out.copy_from_slice(&area[..layout.size]);
    } else {
        return Err(refused());
    }
    let mxcsr = u32::from_le_bytes([out[MXCSR], out[MXCSR + 1], out[MXCSR + 2], out[MXCSR + 3]]);
    // XRSTOR loads MXCSR whenever SSE or AVX is asked for, even if their state is initial.
    if mxcsr & !mxcsr_mask != 0 {
        return Err(refused());
    }
    out[SW_RESERVED].fill(0);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: XsaveLayout = XsaveLayout { size: 832, features: 7 };
    const RULES: FpuRules = FpuRules { layout: LAYOUT, mxcsr_mask: 0xffff };

    #[test]
    fn hostile_areas() {
        let good = initial(LAYOUT);
        assert_eq!(check(&good, RULES).expect("the initial state"), good);
        for (at, value) in [(XSTATE_BV, 8), (XSTATE_BV + 15, 0x80), (575, 1), (MXCSR + 3, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(check(&bad, RULES).is_err(), "byte {at}");
        }
        for len in [0, 1, 511, 513, 576, 831] {
            assert!(check(&vec![0; len], RULES).is_err(), "{len} bytes");
        }
        assert_eq!(check(&good[..512], RULES).expect("FXSAVE")[XSTATE_BV], 3);
    }
}
