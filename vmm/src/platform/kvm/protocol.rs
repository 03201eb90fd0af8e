//! Who acts for a guest thread: the steps by which ring servers and a CPU's own thread keep out of each
//! other's way (docs/gate.md, Rings), apart from where a ring's words lie.
//!
//! `ring` and `server` run these steps over a page of guest RAM; `tests/ring_model.rs` runs the same steps under
//! loom, in every interleaving up to a bound.

use trapgate_firmware::layout::{
    STATE_DONE, STATE_FULL, STATE_IDLE, STATE_LEAVE, STATE_LOAD, STATE_POSTED, STATE_PUNT,
    STATE_SAVE,
};
use trapgate_kernel::platform::Served;

/// One ring: the words its guest shares, and its lock, which the guest cannot reach.
pub trait Words {
    /// The lock, held.
    type Lock<'a>
    where
        Self: 'a;
    /// Takes the lock.
    fn lock(&self) -> Self::Lock<'_>;
    /// Takes the lock if that is possible at once.
    fn try_lock(&self) -> Option<Self::Lock<'_>>;
    /// [`STATE_IDLE`] and so on, with acquire: what was written before it is seen.
    fn state(&self) -> u32;
    /// The same, with release.
    fn set_state(&self, state: u32);
    /// The answer.
    fn value(&self) -> u64;
    /// Sets the answer.
    fn set_value(&self, value: u64);
}

/// A call waits for a server in `state`.
pub fn is_posted(state: u32) -> bool {
    state == STATE_POSTED || state == STATE_FULL
}

/// A server's part: answers the call in the ring by `answer`, which is told whether the register file is there
/// too, if there is one and `open` says that its vCPU is in the guest; how. `None`: nothing was done.
pub fn serve<'a, R: Words>(
    ring: &'a R,
    open: impl Fn() -> bool,
    answer: impl FnOnce(&R::Lock<'a>, bool) -> Option<Served>,
) -> Option<Served> {
    let lock = ring.try_lock()?;
    // Looked at under the lock: what was seen before it may be over.
    if !open() {
        return None;
    }
    let state = ring.state();
    if !is_posted(state) {
        return None;
    }
    let served = answer(&lock, state == STATE_FULL)?;
    ring.set_state(match served {
        Served::Value(value) => {
            ring.set_value(value);
            STATE_DONE
        }
        Served::Leave(value) => {
            ring.set_value(value);
            STATE_LEAVE
        }
        Served::Punt => STATE_PUNT,
        Served::Save => STATE_SAVE,
        Served::Load => STATE_LOAD,
    });
    Some(served)
}

/// The part of a CPU's own thread after the vCPU has left the guest: `shut` says that the ring is not open
/// any more; on return no server acts for it.
pub fn close<R: Words>(ring: &R, shut: impl FnOnce()) {
    shut();
    // Whoever began before has it; who comes later finds the ring shut.
    drop(ring.lock());
}

/// The part of a CPU's own thread whose vCPU has stopped in the gate with a call in the ring: the answer, if
/// the call has one. `taken`: the gate has taken the answer and put the state back. The ring is closed.
pub fn take_back<R: Words>(ring: &R, taken: bool) -> Option<u64> {
    let state = ring.state();
    ring.set_state(STATE_IDLE);
    (taken || state == STATE_DONE || state == STATE_LEAVE).then(|| ring.value())
}
