//! What a thread's end means to futexes: locks on its robust list are marked ownerless, its id word
//! is cleared (set_robust_list(2), set_tid_address(2)).

use std::sync::{Arc, atomic::Ordering};

use super::{
    ANY,
    pi::{OWNER_DIED, TID_MASK, WAITERS},
};
use crate::{error::Errno, mm::Mm, task::Task};

/// ROBUST_LIST_LIMIT: a list longer than this is a loop.
const LIMIT: usize = 2048;

/// Ends `task`'s dealings with futexes; its memory is still `mm`. `shared` says that others use that
/// memory too.
pub fn release(task: &Task, mm: &Arc<Mm>, shared: bool) {
    let head = task.robust_list.swap(0, Ordering::Relaxed);
    if head != 0 {
        // A list that cannot be read ends the walk, as in Linux.
        let _ = walk(task, mm, head);
    }
    let tid_word = task.clear_child_tid.swap(0, Ordering::Relaxed);
    if tid_word != 0
        && shared
        && mm.write_obj(tid_word, &0u32).is_ok()
        && let Ok(key) = mm.futex_key(tid_word, true)
    {
        task.kernel.futexes.wake(&key, 1, ANY);
    }
}

/// `struct robust_list_head`: list, futex_offset, list_op_pending. Bit 0 of an entry's address says
/// that it is a priority-inheritance lock.
fn walk(task: &Task, mm: &Arc<Mm>, head: u64) -> Result<(), Errno> {
    let [first, offset, pending]: [u64; 3] = mm.read_obj(head)?;
    let mut entry = first;
    for _ in 0..LIMIT {
        if entry & !1 == head {
            break;
        }
        // The successor is read first: once the lock is released its memory may go.
        let next = mm.read_obj::<u64>(entry & !1);
        if entry & !1 != pending & !1 {
            mark(task, mm, entry, offset, false)?;
        }
        entry = next?;
    }
    if pending != 0 {
        mark(task, mm, pending, offset, true)?;
    }
    Ok(())
}

fn mark(task: &Task, mm: &Arc<Mm>, entry: u64, offset: u64, pending: bool) -> Result<(), Errno> {
    let addr = (entry & !1).wrapping_add(offset);
    let is_pi = entry & 1 != 0;
    if !addr.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let me = task.tid.cast_unsigned();
    let word = mm.load_u32(addr)?;
    let key = mm.futex_key(addr, true)?;
    // A lock released but not yet woken for: the wake is done here.
    if pending && !is_pi && word & TID_MASK == 0 {
        wake_both(task, mm, addr);
        return Ok(());
    }
    if word & TID_MASK != me {
        return Ok(());
    }
    if is_pi {
        let private = mm.futex_key(addr, false)?;
        let futexes = &task.kernel.futexes;
        for key in [key, private] {
            match futexes.hand_over(mm, addr, &key, task.tid, OWNER_DIED) {
                Err(Errno::EPERM) => break,
                other => other?,
            }
        }
        return Ok(());
    }
    let old = mm.update_u32(addr, |word| {
        (word & TID_MASK == me).then_some((word & WAITERS) | OWNER_DIED)
    })?;
    if old & WAITERS != 0 && old & TID_MASK == me {
        wake_both(task, mm, addr);
    }
    Ok(())
}

/// Wakes one waiter of `addr`, whether it waits as a private or as a shared futex: the list does not
/// say which kind the lock is.
fn wake_both(task: &Task, mm: &Arc<Mm>, addr: u64) {
    let keys = [mm.futex_key(addr, true), mm.futex_key(addr, false)];
    for key in keys.into_iter().flatten() {
        if task.kernel.futexes.wake(&key, 1, ANY) > 0 {
            break;
        }
    }
}
