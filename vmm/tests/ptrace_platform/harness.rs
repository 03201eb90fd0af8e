//! A platform with some memory, guest code, and how its runs are looked at.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use trapgate::{
    memory::GuestRam,
    platform::ptrace::{PtraceCpu, PtracePlatform},
};
use trapgate_kernel::{
    frames::Frame,
    platform::{AddressSpace, Cpu, Edit, Exit, Fault, Platform, Prot, Registers},
};

pub const CODE: u64 = 0x40_0000;
pub const DATA: u64 = 0x50_0000;
pub const RX: Prot = Prot::READ.union(Prot::EXEC);
pub const RW: Prot = Prot::READ.union(Prot::WRITE);
pub const MARK: u64 = 0x1122_3344_5566_7788;

/// Guest code: the lines given, then a marker that is not part of it.
macro_rules! guest {
    ($name:ident: $($line:literal),* $(,)?) => {
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            std::arch::naked_asm!($($line,)* ".quad 0x1122334455667788")
        }
    };
}

pub(crate) use guest;

/// The bytes of a [`guest!`].
pub fn bytes(code: unsafe extern "C" fn()) -> Vec<u8> {
    let at: *const u8 = (code as *const ()).cast();
    let mut out = Vec::new();
    while !out.ends_with(&MARK.to_le_bytes()) {
        // SAFETY: every `guest!` ends with MARK, at which the reading stops.
        let byte = unsafe { at.add(out.len()).read() };
        out.push(byte);
    }
    out.truncate(out.len() - 8);
    out
}

/// A platform with some memory.
pub struct Machine {
    pub ram: GuestRam,
    pub platform: Arc<PtracePlatform>,
}

impl Machine {
    pub fn new() -> Machine {
        let ram = GuestRam::new(64 << 20).unwrap();
        let platform = PtracePlatform::new(&ram).unwrap();
        Machine { ram, platform }
    }
    pub fn frame(&self) -> Frame {
        self.ram.frames.alloc().unwrap()
    }
    pub fn code(&self, code: unsafe extern "C" fn()) -> Frame {
        let frame = self.frame();
        frame.write(0, &bytes(code));
        frame
    }
    /// A space with `code` at CODE and one page of data.
    pub fn space(&self, code: unsafe extern "C" fn()) -> Guest {
        let (code, data) = (self.code(code), self.frame());
        let space = self.platform.new_space().unwrap();
        space.apply(&[map(CODE, &code, RX), map(DATA, &data, RW)]).unwrap();
        Guest { space, code, data }
    }
    pub fn cpu(&self, guest: &Guest) -> PtraceCpu {
        self.platform.new_ptrace_cpu(&guest.space).unwrap()
    }
}

pub struct Guest {
    pub space: Arc<dyn AddressSpace>,
    #[expect(dead_code, reason = "keeps the frame")]
    code: Frame,
    pub data: Frame,
}

impl Guest {
    pub fn word(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        self.data.read(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }
    pub fn set_word(&self, offset: usize, value: u64) {
        self.data.write(offset, &value.to_le_bytes());
    }
}

pub fn map(va: u64, frame: &Frame, prot: Prot) -> Edit {
    Edit::Map { va, gpa: frame.gpa(), len: 4096, prot }
}
pub fn start() -> Registers {
    Registers { rip: CODE, rsp: DATA + 4096, rflags: 0x202, ..Registers::default() }
}
/// Runs until something happens.
pub fn run(cpu: &mut PtraceCpu, regs: &mut Registers) -> Exit {
    loop {
        match cpu.run(regs).unwrap() {
            Exit::Interrupted => {}
            exit => return exit,
        }
    }
}
#[track_caller]
pub fn fault(cpu: &mut PtraceCpu, regs: &mut Registers) -> Fault {
    match run(cpu, regs) {
        Exit::Fault(fault) => fault,
        exit => panic!("{exit:?}, not a fault"),
    }
}

/// Processes of the zygote's family that this process has, zombies included.
pub fn stubs() -> usize {
    let me = std::process::id().to_string();
    let mut family = vec![me];
    let mut found = 0;
    let list: Vec<(String, String)> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| {
            let pid = e.ok()?.file_name().into_string().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (_, rest) = stat.rsplit_once(") ")?;
            Some((pid, rest.split(' ').nth(1)?.to_owned()))
        })
        .collect();
    while let Some(parent) = family.pop() {
        for (pid, _) in list.iter().filter(|(_, p)| *p == parent) {
            family.push(pid.clone());
            found += 1;
        }
    }
    found
}

pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
