//! A CPU's ring page, through which the gate hands system calls to a server and gets answers without
//! leaving the VM (docs/gate.md).
//!
//! One call at most is in a ring: the thread that made it waits. Words in the page belong to the guest
//! and are hostile; what they can do is give that guest other answers. Which thread of the monitor acts
//! for the guest never follows from them: a server serves a ring only while it is *open*, that is, while
//! its vCPU is in KVM_RUN, and holds the ring's lock meanwhile; whoever closes the ring takes that lock. So a
//! CPU's own thread and a server never act for one guest thread at once. The steps are in `protocol`.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use trapgate_firmware::{abi::Phases, layout};
use trapgate_kernel::{
    frames::{Frame, Frames},
    platform::{Answers, Gpa, PAGE_SIZE, PlatformError, Registers, Serve, Served},
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};

use super::{
    Kind, Machine,
    fpu::FpuRules,
    image::{at, index},
    protocol::{self, Words},
    registers::{self, PageFpu},
    space::{pte, table},
};

/// Idle rings kept for the next CPU.
const SPARE: usize = 32;

/// One CPU's ring page, its page of known answers, and the page tables that lead to them.
pub(super) struct Ring {
    /// Position among [`Rings`].
    pub(super) id: usize,
    ram: Arc<Frames>,
    /// Third, second and first level, the ring page, the page of known answers; given up by
    /// [`Ring::retire`], however long a server still knows the ring.
    pages: [Gpa; 5],
    words: Page,
    server: Mutex<Option<Arc<dyn Serve>>>,
}

/// The ring page as the monitor has it mapped. Servers look at it without pause: the way through guest
/// memory's regions would be most of what a look costs.
struct Page(*const AtomicU64);

// SAFETY: points to atomics in guest RAM, which lives as long as the ring's `ram`.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    /// Of the page at `page`.
    fn of(ram: &Frames, page: Gpa) -> Result<Page, PlatformError> {
        let address = ram.memory().get_host_address(GuestAddress(page.0));
        let address = address.map_err(|_| PlatformError::OutOfMemory("a ring"))?;
        Ok(Page(address.cast_const().cast()))
    }
    /// The word at `offset`, one of the layout's.
    fn at(&self, offset: u64) -> &AtomicU64 {
        assert!(offset < PAGE_SIZE && offset.is_multiple_of(8));
        // SAFETY: the page is one mapped page of guest RAM, the offset lies in it and is aligned; guests
        // and monitor use it through atomics only. `ram` keeps the mapping as long as the ring.
        unsafe { &*self.0.wrapping_byte_add(at(offset)) }
    }
    /// The state, half a word.
    fn state(&self) -> &AtomicU32 {
        const { assert!(layout::RING_STATE < PAGE_SIZE && layout::RING_STATE.is_multiple_of(4)) };
        // SAFETY: as in `at`.
        unsafe { &*self.0.wrapping_byte_add(at(layout::RING_STATE)).cast() }
    }
}

/// What a vCPU that stopped in the gate was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// A system call to be answered on this thread.
    Call,
    /// A system call that has been answered: the registers are those after it.
    Answered,
    /// The same, and the FPU state is to be the one in the ring page.
    AnsweredWithFpu,
}

impl Ring {
    fn new(machine: &Machine, id: usize) -> Result<Ring, PlatformError> {
        let frames = &machine.ram.frames;
        let [third, second, first] = [table(machine)?, table(machine)?, table(machine)?];
        // Counted and given up like tables: KVM's translations of them must be gone before reuse.
        let (ring, known) = (table(machine)?, table(machine)?);
        pte::store(frames, third.gpa(), index(layout::RING, 30), second.gpa().0 | pte::LINK);
        pte::store(frames, second.gpa(), index(layout::RING, 21), first.gpa().0 | pte::LINK);
        // A ring-0 gate may not touch pages of ring 3 (SMAP), and ring 3 has no business there.
        let user = if machine.kind == Kind::Deprivileged { pte::USER } else { 0 };
        let leaf = pte::PRESENT | pte::ACCESSED | pte::DIRTY | pte::NX | user;
        let slot = |va| index(va, 12);
        let writable = ring.gpa().0 | leaf | pte::WRITE;
        pte::store(frames, first.gpa(), slot(layout::RING), writable);
        pte::store(frames, first.gpa(), slot(layout::KNOWN), known.gpa().0 | leaf);
        Ring::of(frames, id, [third, second, first, ring, known])
    }
    /// Of these pages.
    pub(super) fn of(
        frames: &Arc<Frames>,
        id: usize,
        pages: [Frame; 5],
    ) -> Result<Ring, PlatformError> {
        let words = Page::of(frames, pages[3].gpa())?;
        let pages = pages.map(Frame::into_gpa);
        let ring = Ring { id, ram: frames.clone(), pages, words, server: Mutex::new(None) };
        ring.forget();
        Ok(ring)
    }
    /// Puts `bytes` where guests write.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn fill(&self, bytes: &[u8]) {
        let _ = self.page().write_slice(bytes, 0);
    }
    /// What the entry of a root for the private slot leads to.
    pub(super) fn root_entry(&self) -> u64 {
        self.pages[0].0 | pte::LINK
    }
    fn page(&self) -> VolatileSlice<'_> {
        self.ram.slice(self.pages[3], 4096)
    }
    fn known(&self) -> VolatileSlice<'_> {
        self.ram.slice(self.pages[4], 4096)
    }
    pub(super) fn word(&self, offset: u64) -> u64 {
        self.words.at(offset).load(Ordering::Relaxed)
    }
    fn retire(&self, machine: &Machine) {
        for page in self.pages {
            machine.revoker.retire(Frame::from_gpa(&self.ram, page), machine);
        }
    }
    /// Nothing known, no call, no server.
    fn forget(&self) {
        let _ = self.known().write_slice(&[0xff; 4096], 0);
        let _ = self.page().write_slice(&[0; 4096], 0);
        *self.lock() = None;
    }
    /// Who answers its calls.
    pub(super) fn set_server(&self, server: Arc<dyn Serve>) {
        *self.lock() = Some(server);
    }
    /// Calls answered from the page of known answers so far, as the gate says.
    pub(super) fn known_calls(&self) -> u64 {
        self.word(layout::RING_COUNT)
    }

    /// A call waits in the ring. Cheap, and no more than a hint.
    pub(super) fn is_posted(&self) -> bool {
        protocol::is_posted(self.state())
    }
    /// Answers the call in the ring if there is one and `open` says that its vCPU is in the guest; how. `fpu` is
    /// `None` where no gate saves the whole register file.
    pub(super) fn serve(&self, fpu: Option<FpuRules>, open: impl Fn() -> bool) -> Option<Served> {
        protocol::serve(self, open, |server, whole| {
            if whole {
                return self.serve_whole(server.as_ref()?, fpu);
            }
            // Copied once: the guest may write while we read.
            let word = |i: u64| self.word(layout::RING_ARGS + i * 8);
            let args = [word(0), word(1), word(2), word(3), word(4), word(5)];
            let number = self.word(layout::RING_NUMBER);
            let caller = Some(self.word(layout::RING_CALLER)).filter(|at| *at != 0);
            let served = server.as_ref()?.serve(number, args, caller);
            let unable = served == Served::Save && fpu.is_none();
            Some(if unable { Served::Punt } else { served })
        })
    }
    /// The same for a call that came with the whole register file.
    fn serve_whole(&self, server: &Arc<dyn Serve>, fpu: Option<FpuRules>) -> Option<Served> {
        let Some(rules) = fpu else { return Some(Served::Punt) };
        let mut regs = registers::saved(self);
        self.set_word(layout::RING_FPU, 0);
        let served = server.serve_whole(&mut regs, &mut PageFpu { ring: self, rules });
        if served == Served::Load {
            registers::put(self, regs);
        }
        Some(served)
    }
    pub(super) fn set_word(&self, offset: u64, value: u64) {
        self.words.at(offset).store(value, Ordering::Relaxed);
    }
    /// The FPU state in the page.
    pub(super) fn area(&self, size: usize) -> Vec<u8> {
        let mut area = vec![0; size];
        // Inside the page, or no gate saves anything (`Machine::whole`).
        let _ = self.page().read_slice(&mut area, at(layout::RING_XSAVE));
        area
    }
    /// Replaces it, to be loaded with the other registers.
    pub(super) fn set_area(&self, area: &[u8]) {
        let _ = self.page().write_slice(area, at(layout::RING_XSAVE));
        self.set_word(layout::RING_FPU, 1);
    }

    /// Turns the registers of a vCPU that stopped in the gate at `regs.rip` into its caller's: as at
    /// SYSCALL, or as after it. The ring is closed.
    pub(super) fn recover(&self, regs: &mut Registers, phases: &Phases) -> Found {
        let rip = regs.rip;
        // In this state, or past it: the ring page has all that the registers will be.
        let loading = rip >= phases.loading && rip < phases.end;
        let posted = rip >= phases.posted && rip < phases.jump || rip >= phases.full;
        if loading || posted && self.state() == layout::STATE_LOAD {
            self.set_state(layout::STATE_IDLE);
            registers::loaded(self, regs);
            let fpu = !loading && self.word(layout::RING_FPU) != 0;
            return if fpu { Found::AnsweredWithFpu } else { Found::Answered };
        }
        if rip >= phases.number && rip < phases.out || rip >= phases.jump_number {
            regs.rax = self.word(layout::RING_NUMBER);
        }
        if rip >= phases.full {
            // The gate uses RDX for a moment.
            regs.rdx = self.word(layout::RING_ARGS + 16);
        }
        if rip >= phases.flags && rip < phases.leave || rip >= phases.full {
            regs.r11 = self.word(layout::RING_FLAGS);
        }
        if rip >= phases.jump && rip < phases.full {
            regs.r11 = regs.rflags;
        }
        // SYSCALL has cleared these; who came by a jump still has them.
        regs.r11 |= regs.rflags & u64::from(layout::ODD_FLAGS);
        (regs.rip, regs.rflags) = (regs.rcx, regs.r11);
        if rip < phases.posted || rip >= phases.jump && rip < phases.full {
            return Found::Call;
        }
        let taken = rip >= phases.answered && rip < phases.unposted;
        match protocol::take_back(self, taken) {
            Some(value) => {
                regs.rax = value;
                Found::Answered
            }
            None => Found::Call,
        }
    }
}

impl Words for Ring {
    type Lock<'a> = MutexGuard<'a, Option<Arc<dyn Serve>>>;
    fn lock(&self) -> Self::Lock<'_> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn try_lock(&self) -> Option<Self::Lock<'_>> {
        self.server.try_lock().ok()
    }
    fn state(&self) -> u32 {
        self.words.state().load(Ordering::Acquire)
    }
    fn set_state(&self, state: u32) {
        self.words.state().store(state, Ordering::Release);
    }
    fn value(&self) -> u64 {
        self.word(layout::RING_VALUE)
    }
    fn set_value(&self, value: u64) {
        self.words.at(layout::RING_VALUE).store(value, Ordering::Relaxed);
    }
}

impl Answers for Ring {
    fn set(&self, number: u64, value: Option<u64>) {
        if number < layout::KNOWN_CALLS {
            let value = value.unwrap_or(layout::UNKNOWN);
            let _ = self.known().store(value, at(number * 8), Ordering::Relaxed);
        }
    }
}

/// All rings; a ring's id is its place here for as long as it exists.
#[derive(Default)]
pub(super) struct Rings {
    state: Mutex<State>,
    /// Raised when `all` changes.
    pub(super) version: AtomicU64,
    /// Calls that rings now gone answered from their known pages.
    known_calls: AtomicU64,
}

#[derive(Default)]
struct State {
    all: Vec<Option<Arc<Ring>>>,
    spare: Vec<Arc<Ring>>,
}

impl Rings {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A ring for a new CPU.
    pub(super) fn take(&self, machine: &Machine) -> Result<Arc<Ring>, PlatformError> {
        let mut state = self.state();
        if let Some(ring) = state.spare.pop() {
            return Ok(ring);
        }
        let id = state.all.iter().position(Option::is_none).unwrap_or(state.all.len());
        let ring = Arc::new(Ring::new(machine, id)?);
        if id == state.all.len() {
            state.all.push(None);
        }
        state.all[id] = Some(ring.clone());
        self.version.fetch_add(1, Ordering::Release);
        Ok(ring)
    }
    /// Makes a closed ring ready for another CPU.
    pub(super) fn rest(&self, ring: &Ring) {
        self.known_calls.fetch_add(ring.known_calls(), Ordering::Relaxed);
        ring.forget();
    }
    /// Takes a closed ring back; no root leads to it any more.
    pub(super) fn give(&self, ring: Arc<Ring>, machine: &Machine) {
        self.rest(&ring);
        let mut state = self.state();
        if state.spare.len() < SPARE {
            state.spare.push(ring);
            return;
        }
        state.all[ring.id] = None;
        drop(state);
        self.version.fetch_add(1, Ordering::Release);
        ring.retire(machine);
    }
    /// Frees the rings that no CPU uses.
    pub(super) fn drain(&self, machine: &Machine) {
        let spare = {
            let mut state = self.state();
            let spare = std::mem::take(&mut state.spare);
            for ring in &spare {
                state.all[ring.id] = None;
            }
            spare
        };
        self.version.fetch_add(1, Ordering::Release);
        for ring in spare {
            ring.retire(machine);
        }
    }
    /// All rings, by id.
    pub(super) fn list(&self) -> Vec<Option<Arc<Ring>>> {
        self.state().all.clone()
    }
    /// Calls answered in the guest.
    pub(super) fn known_calls(&self) -> u64 {
        let state = self.state();
        let live: u64 = state.all.iter().flatten().map(|ring| ring.known_calls()).sum();
        live.wrapping_add(self.known_calls.load(Ordering::Relaxed))
    }
}

/// Bytes in a ring's two pages, for the layout's sake.
const _: () = assert!(layout::KNOWN_CALLS * 8 <= PAGE_SIZE && layout::RING_COUNT < PAGE_SIZE);
