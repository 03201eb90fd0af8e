//! A platform and a host that exist only in memory, for unit tests.

use std::{
    any::Any,
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::{
    creds::Creds,
    error::Errno,
    frames::{Backing, Frames},
    fs::{
        buf::Sink,
        file::{FileOps, OpenFile, OpenFlags},
        setup::{self, FsConfig},
    },
    host::{Host, HostTree},
    kernel::{Config, Kernel, Parts},
    mm::{
        Limits, Mm,
        map::{MapRequest, Place},
        object::MemObject,
        store::PageStore,
    },
    num::Word as _,
    platform::{
        AddressSpace, Cpu, Edit, Exit, Gpa, Kick, PAGE_SIZE, Platform, PlatformError, Prot,
        Registers, USER_END, XsaveLayout,
    },
    signal::TaskSignals,
    task::{Task, TaskParts, comm_from},
    time::virtual_time::VirtualTime,
};

/// An address space that only remembers what it was told.
#[derive(Default)]
pub struct FakeSpace {
    pages: Mutex<BTreeMap<u64, (u64, Prot)>>,
}

impl AddressSpace for FakeSpace {
    fn apply(&self, edits: &[Edit]) -> Result<(), PlatformError> {
        let mut pages = self.pages.lock().unwrap();
        for edit in edits {
            match *edit {
                Edit::Map { va, gpa, len, prot } => {
                    assert!(!prot.is_empty() && (va | gpa.0 | len) % PAGE_SIZE == 0);
                    assert!(va + len <= USER_END);
                    for offset in (0..len).step_by(4096) {
                        pages.insert(va + offset, (gpa.0 + offset, prot));
                    }
                }
                Edit::Unmap { va, len } => pages.retain(|p, _| *p < va || *p >= va + len),
                Edit::Protect { va, len, prot } => {
                    for (_, page) in pages.range_mut(va..va + len) {
                        page.1 = prot;
                    }
                    if prot.is_empty() {
                        pages.retain(|p, _| *p < va || *p >= va + len);
                    }
                }
            }
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The space of `mm` translates exactly what its page map says, and the page map is sound.
pub fn check(mm: &Mm) {
    if let Err(what) = mm.check() {
        panic!("{what}");
    }
    let mut told = BTreeMap::new();
    mm.read().pages.each(0, USER_END, |va, pte| {
        if !pte.prot().is_empty() {
            told.insert(va, (pte.gpa().0, pte.prot()));
        }
    });
    let space = mm.space().as_any().downcast_ref::<FakeSpace>().unwrap();
    assert_eq!(*space.pages.lock().unwrap(), told);
}

struct FakePlatform;

impl Platform for FakePlatform {
    fn name(&self) -> &'static str {
        "fake"
    }
    fn new_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(Arc::new(FakeSpace::default()))
    }
    fn new_cpu(&self, _: &Arc<dyn AddressSpace>) -> Result<Box<dyn Cpu>, PlatformError> {
        Err(PlatformError::Gone)
    }
    fn xsave_layout(&self) -> XsaveLayout {
        XsaveLayout { size: 832, features: 7 }
    }
}

/// A CPU that runs nothing and only has an FPU, of the fake platform's layout.
pub struct FakeCpu {
    /// Its XSAVE area.
    pub fpu: Vec<u8>,
}

impl Default for FakeCpu {
    fn default() -> FakeCpu {
        FakeCpu { fpu: vec![0; 832] }
    }
}

impl Cpu for FakeCpu {
    fn run(&mut self, _: &mut Registers) -> Result<Exit, PlatformError> {
        Err(PlatformError::Gone)
    }
    fn switch(&mut self, _: &Arc<dyn AddressSpace>) -> Result<(), PlatformError> {
        Ok(())
    }
    fn fpu(&mut self) -> Result<Vec<u8>, PlatformError> {
        Ok(self.fpu.clone())
    }
    fn set_fpu(&mut self, area: &[u8]) -> Result<(), PlatformError> {
        assert!(area.len() == 512 || area.len() == 832, "{} bytes of FPU state", area.len());
        // XSTATE_BV has nothing but the layout's features.
        if area.get(512..520).is_some_and(|bits| bits[0] & !7 != 0 || bits[1..] != [0; 7]) {
            let source = io::ErrorKind::InvalidInput.into();
            return Err(PlatformError::Host { op: "FPU state refused", source });
        }
        self.fpu[..area.len()].copy_from_slice(area);
        Ok(())
    }
    fn reset_fpu(&mut self) -> Result<(), PlatformError> {
        self.fpu.fill(0);
        Ok(())
    }
    fn kicker(&self) -> Arc<dyn Kick> {
        Arc::new(FakeKick)
    }
}

struct FakeKick;

impl Kick for FakeKick {
    fn kick(&self) {}
}

/// Where [`task`]'s memory begins.
pub const BUFFER: u64 = 0x10_0000;
/// Its bytes.
pub const BUFFER_SIZE: u64 = 4 * PAGE_SIZE;

/// A task that no host thread runs, with some memory at [`BUFFER`] and no files.
pub fn task(kernel: &Arc<Kernel>) -> Arc<Task> {
    let mm = Mm::new(kernel).unwrap();
    let place = Place::FixedNoReplace(BUFFER);
    let request = MapRequest::anon(place, BUFFER_SIZE, Prot::READ | Prot::WRITE);
    mm.map(request, Limits::NONE).unwrap();
    let parts = TaskParts {
        mm,
        files: Arc::default(),
        fs: setup::build(kernel, &FsConfig::default()).unwrap(),
        creds: Arc::new(Creds::user(0, 0)),
        signals: TaskSignals::default(),
        comm: comm_from(b"fake"),
    };
    kernel.admit(parts, false).unwrap()
}

#[derive(Default)]
struct FakeHost {
    ticks: AtomicU64,
    time: Option<Arc<VirtualTime>>,
}

/// A host with these clocks.
#[cfg(test)]
pub fn host_in(time: &Arc<VirtualTime>) -> Arc<dyn Host> {
    Arc::new(FakeHost { time: Some(time.clone()), ..FakeHost::default() })
}

impl Host for FakeHost {
    fn monotonic(&self) -> Duration {
        match &self.time {
            Some(time) => time.monotonic(),
            None => Duration::from_nanos(self.ticks.fetch_add(1, Ordering::Relaxed)),
        }
    }
    fn virtual_time(&self) -> Option<Arc<VirtualTime>> {
        self.time.clone()
    }
    fn realtime(&self) -> Duration {
        self.monotonic()
    }
    fn thread_cpu_time(&self) -> (Duration, Duration) {
        Default::default()
    }
    fn random(&self, buf: &mut [u8]) {
        for byte in buf {
            let x = self.ticks.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *byte = x.to_be_bytes()[0];
        }
    }
    fn spawn(&self, _: &str, _: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn cpus(&self) -> usize {
        2
    }
    fn total_memory(&self) -> u64 {
        1 << 30
    }
    fn open_tree(&self, _: &Path) -> Result<Arc<dyn HostTree>, Errno> {
        Err(Errno::ENOENT)
    }
}

struct Zeroing(Arc<GuestMemoryMmap<()>>);

impl Backing for Zeroing {
    fn discard(&self, gpa: Gpa, len: u64) {
        use vm_memory::Bytes;
        let zero = vec![0; usize::try_from(len).unwrap()];
        self.0.write_slice(&zero, GuestAddress(gpa.0)).unwrap();
    }
}

/// A kernel with `megabytes` of memory on the fake platform.
pub fn kernel(megabytes: usize) -> Arc<Kernel> {
    kernel_on(Arc::new(FakePlatform), Arc::new(FakeHost::default()), megabytes)
}

/// A kernel with `megabytes` of memory on this platform and host.
pub fn kernel_on(
    platform: Arc<dyn Platform>,
    host: Arc<dyn Host>,
    megabytes: usize,
) -> Arc<Kernel> {
    let base = 1 << 32;
    let size = megabytes << 20;
    let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(base), size)]).unwrap());
    let backing = Box::new(Zeroing(memory.clone()));
    let frames = Frames::new(memory, Gpa(base), size as u64, backing);
    let config = Config { hostname: "test".into(), cpus: 2, memory: size as u64, audit: true };
    Kernel::new(Parts { platform, host, frames, config })
}

/// A file of fixed bytes.
pub struct FixedFile {
    bytes: Vec<u8>,
    store: Arc<PageStore>,
}

impl FixedFile {
    /// Opens it.
    pub fn open(kernel: &Arc<Kernel>, bytes: &[u8]) -> Arc<OpenFile> {
        let store = PageStore::new(kernel.fresh_id(), &kernel.frames, bytes.len() as u64, None);
        store.write_at(&mut crate::fs::buf::Source::kernel(bytes), 0).unwrap();
        OpenFile::new(Arc::new(FixedFile { bytes: bytes.to_vec(), store }), OpenFlags::empty())
    }
}

impl FileOps for FixedFile {
    fn read_at(&self, _: &OpenFile, dst: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        dst.put(&self.bytes[start..])
    }
    fn object(&self) -> Result<Arc<dyn MemObject>, Errno> {
        Ok(self.store.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A small reproducible generator.
pub struct Random(pub u64);

impl Random {
    /// The next number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Damages byte strings, the same way each time for a seed: what the fuzz targets do, in short.
pub struct Mutator(u64);

impl Mutator {
    /// One that starts at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Mutator {
        Mutator(seed)
    }
    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % (limit.max(1) as u64)).size()
    }
    /// `seed` with one to four damages.
    #[must_use]
    pub fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        const VALUES: [u64; 12] = [
            0,
            1,
            0xff,
            0xfff,
            0x1000,
            0x7fff_ffff,
            0xffff_ffff,
            0x7fff_ffff_f000,
            0x8000_0000_0000,
            1 << 63,
            u64::MAX - 0xfff,
            u64::MAX,
        ];
        let mut out = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(out.len());
            let width = [1, 2, 4, 8][self.below(4)];
            match self.below(5) {
                0 => out.truncate(at),
                1 => {
                    let bit = self.below(8);
                    out.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << bit);
                }
                2 => {
                    let from = self.below(out.len());
                    let piece: Vec<u8> = out.iter().copied().skip(from).take(width * 8).collect();
                    out.iter_mut().skip(at).zip(piece).for_each(|(b, p)| *b = p);
                }
                choice => {
                    let value = if choice == 3 { self.next() } else { VALUES[self.below(12)] };
                    // Fields of headers lie at multiples of their size.
                    let at = at / width * width;
                    let bytes = value.to_le_bytes();
                    out.iter_mut().skip(at).zip(&bytes[..width]).for_each(|(b, v)| *b = *v);
                }
            }
        }
        out
    }
}
