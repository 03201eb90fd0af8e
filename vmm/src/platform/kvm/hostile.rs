//! Bodies of fuzz targets (`crate::decoders`): what the monitor reads from pages that a guest or its gate wrote.

use std::sync::Arc;

use trapgate_firmware::{
    abi::{self, Header, Phases},
    layout,
};
use trapgate_kernel::platform::{
    Access, PAGE_SIZE, PlatformError, Registers, SavedFpu, Serve, Served, XsaveLayout,
};

use super::{
    cpu,
    fpu::{self, FpuRules},
    image::{Image, at},
    protocol::Words,
    ring::{Found, Ring},
    vcpu,
};
use crate::memory::GuestRam;

/// AVX's, so that a page has all kinds of bytes.
const RULES: FpuRules =
    FpuRules { layout: XsaveLayout { size: 832, features: 7 }, mxcsr_mask: 0xffff };

/// Bytes before a page's in the input of [`RingEntries::one`].
pub const RING_HEAD: usize = 16;

/// A guest's ring page and the vCPU that stops while a call is in it.
pub struct RingEntries {
    ring: Ring,
    phases: [Phases; 2],
}

impl Default for RingEntries {
    /// # Panics
    /// If the host has no memory.
    fn default() -> RingEntries {
        let ram = GuestRam::new(4 << 20).expect("guest memory");
        let phases = Image::load(&ram).expect("the image").phases(&ram);
        let pages = [(); 5].map(|()| ram.frames.alloc().expect("a frame"));
        let ring = Ring::of(&ram.frames, 0, pages).expect("a ring");
        ring.set_server(Arc::new(Echo));
        RingEntries { ring, phases }
    }
}

/// Answers by what the guest wrote.
struct Echo;

impl Serve for Echo {
    fn serve(&self, number: u64, args: [u64; 6], caller: Option<u64>) -> Served {
        assert_ne!(caller, Some(0));
        match number % 4 {
            0 => Served::Value(args[0]),
            1 => Served::Leave(args[1]),
            2 => Served::Punt,
            _ => Served::Save,
        }
    }
    fn serve_whole(&self, regs: &mut Registers, area: &mut dyn SavedFpu) -> Served {
        assert_eq!((regs.rcx, regs.r11), (regs.rip, regs.rflags));
        assert_eq!((regs.fs_base, regs.gs_base), (0, 0));
        match area.get() {
            Ok(state) => {
                assert_acceptable(&state);
                area.set(&state).expect("was accepted before");
                assert!(area.get().is_ok_and(|again| again == state));
            }
            Err(error) => {
                assert!(matches!(error, PlatformError::Host { .. }));
                area.reset();
                assert!(area.get().is_ok_and(|state| state == fpu::initial(RULES.layout)));
            }
        }
        (regs.rax, regs.rsp) = (regs.rdi, regs.rsi);
        Served::Load
    }
}

/// XRSTOR would take it (SDM vol. 1, 13.8.1).
fn assert_acceptable(state: &[u8]) {
    assert_eq!(state.len(), RULES.layout.size);
    assert!(state[512] & !7 == 0 && state[513..576].iter().all(|byte| *byte == 0));
    assert!(state[26..28] == [0, 0], "MXCSR");
}

impl RingEntries {
    /// Has a server look at the page that `bytes` are from the seventeenth on, then takes the call back for a vCPU
    /// that stopped at a place the first bytes say.
    ///
    /// # Panics
    /// On a bug.
    pub fn one(&self, bytes: &[u8]) {
        let Some((head, page)) = bytes.split_first_chunk::<RING_HEAD>() else { return };
        let [gate, flags, low, high, seed @ ..] = *head;
        let ring = &self.ring;
        let size = at(PAGE_SIZE);
        let mut whole_page = vec![0; size];
        whole_page[..page.len().min(size)].copy_from_slice(&page[..page.len().min(size)]);
        ring.fill(&whole_page);
        let (open, rules) = (flags & 1 == 0, (flags & 2 == 0).then_some(RULES));
        let state = ring.state();
        let served = ring.serve(rules, || open);
        match served {
            None => assert_eq!(ring.state(), state, "changed, though nothing was done"),
            Some(how) => {
                assert!(open && [layout::STATE_POSTED, layout::STATE_FULL].contains(&state));
                let expected = match how {
                    Served::Value(_) => layout::STATE_DONE,
                    Served::Leave(_) => layout::STATE_LEAVE,
                    Served::Punt => layout::STATE_PUNT,
                    Served::Save => layout::STATE_SAVE,
                    Served::Load => layout::STATE_LOAD,
                };
                assert_eq!(ring.state(), expected);
                assert!(rules.is_some() || !matches!(how, Served::Save | Served::Load));
            }
        }
        let phases = &self.phases[usize::from(gate & 1)];
        let length = phases.end - phases.entry;
        let rip = phases.entry + u64::from(u16::from_le_bytes([low, high])) % length;
        // Any registers, but the segment bases, which stay.
        let word = |i: usize| u64::from(seed[i % seed.len()]).wrapping_mul(0x0101_0101_0101_0101);
        let before = Registers {
            rax: word(0),
            rcx: word(1),
            rdx: word(2),
            r11: word(3),
            rflags: word(4),
            rsp: word(5),
            rip,
            fs_base: word(6),
            gs_base: word(7),
            ..Registers::default()
        };
        let mut regs = before;
        let found = ring.recover(&mut regs, phases);
        assert_eq!((regs.fs_base, regs.gs_base), (before.fs_base, before.gs_base));
        let asked = rip >= phases.posted && rip < phases.jump || rip >= phases.full;
        assert!(!asked || ring.state() == layout::STATE_IDLE, "a call is left in the ring");
        match found {
            Found::Call => assert_eq!(regs.rip, before.rcx),
            Found::Answered => assert!(asked),
            Found::AnsweredWithFpu => {
                assert!(asked && ring.word(layout::RING_FPU) != 0);
                if let Ok(state) = fpu::check(&ring.area(RULES.layout.size), RULES) {
                    assert_acceptable(&state);
                }
            }
        }
    }
}

/// The words that the image's header and a stopped gate are known by: header, phases, and the exception frame in a
/// vCPU's page. The first two bytes are the frame's place, the third the vector.
///
/// # Panics
/// On a bug.
pub fn gate_words(bytes: &[u8]) {
    let Some((&[low, high, vector], rest)) = bytes.split_first_chunk() else { return };
    let word = |i: usize| {
        let bytes = rest.get(i * 8..i * 8 + 8).and_then(|b| b.try_into().ok());
        bytes.map(u64::from_le_bytes)
    };
    if let Some((words, _)) = rest.split_first_chunk::<{ Header::SIZE }>() {
        let header = Header::from_bytes(words);
        let Header { magic, version, gate, vectors, ring0, idt } = header;
        let all = [magic, version, gate, vectors, ring0, idt];
        assert!(all.iter().enumerate().all(|(i, value)| word(i) == Some(*value)));
        assert_eq!(header == Header::CURRENT, all == current());
    }
    if let Some((words, _)) = rest.split_first_chunk::<{ Phases::SIZE }>() {
        let phases = Phases::from_bytes(words);
        assert_eq!(Some(phases.entry), word(0).map(|offset| offset.wrapping_add(layout::IMAGE)));
        assert_eq!(Some(phases.end), word(13).map(|offset| offset.wrapping_add(layout::IMAGE)));
    }
    let mut page = vec![0; at(PAGE_SIZE)];
    let used = rest.len().min(page.len());
    page[..used].copy_from_slice(&rest[..used]);
    let offset = u64::from(u16::from_le_bytes([low, high]));
    let slice = vm_memory::VolatileSlice::from(page.as_mut_slice());
    if let Some([error, ..]) = vcpu::exception_frame(&slice, offset, vector) {
        assert!(offset.is_multiple_of(8) && offset + 40 <= PAGE_SIZE);
        assert!(error == 0 || abi::has_error_code(vector));
        let fault = cpu::fault(vector, error, 0x1000);
        assert!(vector == 14 || fault.addr == 0 && fault.access == Access::Unknown);
    }
}

fn current() -> [u64; 6] {
    let Header { magic, version, gate, vectors, ring0, idt } = Header::CURRENT;
    [magic, version, gate, vectors, ring0, idt]
}
