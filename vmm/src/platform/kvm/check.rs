//! Page tables against what the kernel granted (`--audit`): nothing more may be usable than that.

use trapgate_firmware::layout;
use trapgate_kernel::platform::{Gpa, Prot};

use super::{Machine, space::pte};

const PAGE_STEP: usize = 4096;

/// Checks the tree below `master`, and that every root leads to the same tables.
pub(super) fn tables(
    machine: &Machine,
    master: Gpa,
    roots: &[Gpa],
    granted: &dyn Fn(u64) -> Option<(Gpa, Prot)>,
) -> Result<(), String> {
    let frames = &machine.ram.frames;
    for slot in 0..layout::PML4_USER {
        let entry = pte::load(frames, master, slot);
        let same = |root: &Gpa| pte::load(frames, *root, slot) & pte::ADDR == entry & pte::ADDR;
        if !roots.iter().all(same) {
            return Err(format!("a CPU's root differs at entry {slot}"));
        }
    }
    table(machine, master, 4, 0, granted)
}

fn table(
    machine: &Machine,
    at: Gpa,
    level: u32,
    base: u64,
    granted: &dyn Fn(u64) -> Option<(Gpa, Prot)>,
) -> Result<(), String> {
    let shift = 12 + 9 * (level - 1);
    let slots = if level == 4 { layout::PML4_USER } else { 512 };
    for slot in 0..slots {
        let entry = pte::load(&machine.ram.frames, at, slot);
        let va = base + ((slot as u64) << shift);
        if entry & pte::PRESENT == 0 {
            continue;
        }
        if level > 1 && entry & pte::LARGE == 0 {
            table(machine, Gpa(entry & pte::ADDR), level - 1, va, granted)?;
            continue;
        }
        for offset in (0..1_u64 << shift).step_by(PAGE_STEP) {
            leaf(va + offset, (entry & pte::ADDR) + offset, entry, granted)?;
        }
    }
    Ok(())
}

fn leaf(
    va: u64,
    gpa: u64,
    entry: u64,
    granted: &dyn Fn(u64) -> Option<(Gpa, Prot)>,
) -> Result<(), String> {
    let Some((frame, prot)) = granted(va) else {
        return Err(format!("page {va:#x} is usable and not granted ({entry:#x})"));
    };
    if frame.0 != gpa {
        return Err(format!("page {va:#x} leads to {gpa:#x}, not to {:#x}", frame.0));
    }
    let writes = entry & pte::WRITE != 0 && !prot.contains(Prot::WRITE);
    let runs = entry & pte::NX == 0 && !prot.contains(Prot::EXEC);
    if writes || runs {
        return Err(format!("page {va:#x} may be used for more than {prot:?} ({entry:#x})"));
    }
    Ok(())
}
