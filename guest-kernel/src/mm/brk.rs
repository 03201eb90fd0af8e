//! The program break.

use std::sync::Arc;

use super::{
    Limits, Mm,
    map::{MapRequest, Place, round_up},
};
use crate::platform::Prot;

impl Mm {
    /// brk(2) as the system call has it: the new break, or the old one if it cannot be moved.
    pub fn set_brk(&self, to: u64, limits: Limits) -> u64 {
        self.edit(|inner| {
            let (start, old) = (inner.layout.brk_start, inner.layout.brk);
            let data = inner.layout.data;
            let used = to.saturating_sub(start).saturating_add(data.1.saturating_sub(data.0));
            if to < start || start == 0 || to > self.user_end() || used > limits.data {
                return old;
            }
            let (Some(from), Some(end)) = (round_up(old), round_up(to)) else { return old };
            if end > from {
                // As Linux, keep a page between the heap and whatever follows it.
                if inner.vmas.overlapping(from, end + 4096).next().is_some() {
                    return old;
                }
                let request = MapRequest {
                    name: Some(Arc::from("[heap]")),
                    ..MapRequest::anon(Place::Fixed(from), end - from, Prot::READ | Prot::WRITE)
                };
                if self.map_locked(inner, request, limits).is_err() {
                    return old;
                }
            } else if end < from {
                self.unmap_locked(inner, end, from);
            }
            inner.layout.brk = to;
            to
        })
    }
    /// Where the heap starts, at exec.
    pub fn init_brk(&self, start: u64) {
        self.edit(|inner| {
            inner.layout.brk_start = start;
            inner.layout.brk = start;
        });
    }
    /// Changes the landmarks (exec, prctl(PR_SET_MM)).
    pub fn set_layout(&self, change: impl FnOnce(&mut super::Layout)) {
        self.edit(|inner| change(&mut inner.layout));
    }
    /// The landmarks.
    #[must_use]
    pub fn layout(&self) -> super::Layout {
        self.read().layout.clone()
    }
}
