//! Address spaces against a naive model, and their corners.

#![allow(clippy::cast_possible_truncation, reason = "test data is small")]

use std::sync::Arc;

use super::{
    Limits, MemFault, Mm,
    advise::Advice,
    map::{MapRequest, Place},
    remap::RemapFlags,
    store::PageStore,
    vma::VmaFlags,
};
use crate::{
    error::Errno,
    kernel::Kernel,
    platform::{Access, Fault, PAGE_SIZE, Prot},
    testing::{self, Random, check},
};

const BASE: u64 = 0x10_0000_0000;
const PAGES: u64 = 48;
const RW: Prot = Prot::READ.union(Prot::WRITE);

fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Content {
    Private(u8),
    Shared(u64),
}

/// What a page should be: its access, its first byte.
#[derive(Clone)]
struct Model {
    pages: Vec<Option<(Prot, Content)>>,
}

struct World {
    kernel: Arc<Kernel>,
    store: Arc<PageStore>,
    shared: Vec<u8>,
    spaces: Vec<(Arc<Mm>, Model)>,
}

impl World {
    fn new() -> World {
        let kernel = testing::kernel(16);
        let len = PAGES * PAGE_SIZE;
        let store = PageStore::new(kernel.fresh_id(), &kernel.frames, len, None);
        let mm = Mm::new(&kernel).unwrap();
        let model = Model { pages: vec![None; PAGES as usize] };
        World { store, shared: vec![0; PAGES as usize], spaces: vec![(mm, model)], kernel }
    }

    fn verify(&mut self) {
        let shared = &self.shared;
        for (mm, model) in &self.spaces {
            check(mm);
            for (i, page) in model.pages.iter().enumerate() {
                let mut byte = [0];
                let read = mm.read_bytes(at(i as u64), &mut byte);
                match page {
                    None => assert_eq!(read, Err(Errno::EFAULT), "page {i} is not mapped"),
                    Some((prot, _)) if prot.is_empty() => assert_eq!(read, Err(Errno::EFAULT)),
                    Some((_, Content::Private(b))) => assert_eq!((read, byte[0]), (Ok(()), *b)),
                    Some((_, Content::Shared(n))) => {
                        assert_eq!((read, byte[0]), (Ok(()), shared[*n as usize]));
                    }
                }
            }
        }
    }

    fn step(&mut self, random: &mut Random) {
        let which = random.below(self.spaces.len() as u64) as usize;
        let first = random.below(PAGES);
        let count = 1 + random.below((PAGES - first).min(12));
        let range = first as usize..(first + count) as usize;
        let len = count * PAGE_SIZE;
        let prot = [Prot::empty(), Prot::READ, RW, RW][random.below(4) as usize];
        let operation = random.below(9);
        if operation == 8 {
            if self.spaces.len() < 4 {
                let (mm, model) = &self.spaces[which];
                let child = (mm.fork(&[at(first)]).unwrap(), model.clone());
                self.spaces.push(child);
            } else {
                self.spaces.remove(which);
            }
            return;
        }
        let (mm, model) = &mut self.spaces[which];
        match operation {
            0 => {
                mm.map(MapRequest::anon(Place::Fixed(at(first)), len, prot), Limits::NONE).unwrap();
                model.pages[range].fill(Some((prot, Content::Private(0))));
            }
            1 => {
                let object = self.store.clone();
                let mut request =
                    MapRequest::object(Place::Fixed(at(first)), len, prot, object, first);
                request.flags = VmaFlags::SHARED;
                mm.map(request, Limits::NONE).unwrap();
                for i in range {
                    model.pages[i] = Some((prot, Content::Shared(i as u64)));
                }
            }
            2 => {
                mm.unmap(at(first), len).unwrap();
                model.pages[range].fill(None);
            }
            3 => {
                let hole = model.pages[range.clone()].iter().position(Option::is_none);
                let result = mm.protect(at(first), len, prot, Limits::NONE);
                assert_eq!(result.is_err(), hole.is_some());
                let end = hole.map_or(range.end, |h| range.start + h);
                for page in model.pages[range.start..end].iter_mut().flatten() {
                    page.0 = prot;
                }
            }
            4 => {
                let _ = mm.advise(at(first), len, Advice::Drop(false));
                for page in model.pages[range].iter_mut().flatten() {
                    if let Content::Private(b) = &mut page.1 {
                        *b = 0;
                    }
                }
            }
            5 => {
                // Move one page's mapping elsewhere in the window.
                let to = random.below(PAGES);
                let source = model.pages[first as usize];
                let flags = RemapFlags::MAYMOVE | RemapFlags::FIXED;
                let moved = mm.remap(at(first), PAGE_SIZE, PAGE_SIZE, flags, at(to), Limits::NONE);
                if to == first {
                    assert_eq!(moved, Err(Errno::EINVAL));
                } else if source.is_none() {
                    assert_eq!(moved, Err(Errno::EFAULT));
                } else {
                    assert_eq!(moved, Ok(at(to)));
                    model.pages[to as usize] = source;
                    model.pages[first as usize] = None;
                }
            }
            _ => {
                let byte = random.below(255) as u8 + 1;
                for i in range {
                    let result = mm.write_bytes(at(i as u64), &[byte]);
                    match &mut model.pages[i] {
                        Some((prot, content)) if prot.contains(Prot::WRITE) => {
                            assert_eq!(result, Ok(()));
                            match content {
                                Content::Private(b) => *b = byte,
                                Content::Shared(n) => self.shared[*n as usize] = byte,
                            }
                        }
                        _ => assert_eq!(result, Err(Errno::EFAULT)),
                    }
                }
            }
        }
    }
}

#[test]
fn behaves_like_the_model_and_leaks_nothing() {
    for seed in 1..40 {
        let mut world = World::new();
        let baseline = world.kernel.frames.free();
        let mut random = Random(seed * 0x1234_5678_9abc);
        for _ in 0..60 {
            world.step(&mut random);
            world.verify();
        }
        world.spaces.clear();
        world.store.set_len(0);
        assert_eq!(world.kernel.frames.free(), baseline, "seed {seed}");
    }
}

fn fault(addr: u64, access: Access) -> Fault {
    Fault { vector: 14, error: 0, addr, access }
}

#[test]
fn anonymous_memory_is_filled_as_it_is_mapped() {
    let kernel = testing::kernel(64);
    let mm = Mm::new(&kernel).unwrap();
    let present = |start: u64, len: u64| (0..len).step_by(4096).all(|o| mm.is_present(start + o));
    let small = mm.map(MapRequest::anon(Place::Hint(0), 1 << 20, RW), Limits::NONE).unwrap();
    assert!(present(small, 1 << 20));
    // A large one is filled 2 MiB at a time, as it is touched.
    let map = || mm.map(MapRequest::anon(Place::Hint(0), 6 << 20, RW), Limits::NONE).unwrap();
    let large = map();
    assert!(!mm.is_present(large));
    for chunk in (0..6 << 20).step_by(2 << 20) {
        mm.write_bytes(large + chunk, b"x").unwrap();
        assert!(present(large + chunk, 2 << 20));
    }
    mm.unmap(large, 6 << 20).unwrap();
    let again = map();
    let mut byte = [1];
    mm.read_bytes(again, &mut byte).unwrap();
    assert_eq!(byte, [0], "what another mapping left");
    check(&mm);
}

#[test]
fn reservations_cost_nothing() {
    let kernel = testing::kernel(16);
    let mm = Mm::new(&kernel).unwrap();
    let free = kernel.frames.free();
    let none = MapRequest::anon(Place::Hint(0), 64 << 30, Prot::empty());
    mm.map(none.clone(), Limits::NONE).unwrap();
    let mut lazy = MapRequest { prot: RW, ..none };
    assert_eq!(mm.map(lazy.clone(), Limits::NONE), Err(Errno::ENOMEM));
    lazy.flags = VmaFlags::NORESERVE;
    let start = mm.map(lazy, Limits::NONE).unwrap();
    assert_eq!(kernel.frames.free(), free);
    mm.write_bytes(start + (40 << 30), b"x").unwrap();
    assert!(kernel.frames.free() < free);
}

#[test]
fn accesses_of_unknown_kind() {
    let kernel = testing::kernel(16);
    let mm = Mm::new(&kernel).unwrap();
    let page = mm.map(MapRequest::anon(Place::Hint(0), 4096, RW), Limits::NONE).unwrap();
    let child = mm.fork(&[]).unwrap();
    assert_eq!(child.fault(&fault(page, Access::Unknown)), Ok(()));
    check(&child);
    assert_eq!(mm.fault(&fault(page, Access::Unknown)), Ok(()));
    check(&mm);
    mm.protect(page, 4096, Prot::READ, Limits::NONE).unwrap();
    let faults: Vec<_> = (0..1000).map(|_| mm.fault(&fault(page, Access::Unknown))).collect();
    assert!(faults.contains(&Err(MemFault::Protected)));
    assert_eq!(mm.fault(&fault(page, Access::Write)), Err(MemFault::Protected));
    assert_eq!(mm.fault(&fault(page + 4096, Access::Read)), Err(MemFault::Unmapped));
}

#[test]
fn truncation_revokes_and_faults_with_bus() {
    let kernel = testing::kernel(16);
    let mm = Mm::new(&kernel).unwrap();
    let store = PageStore::new(kernel.fresh_id(), &kernel.frames, 8192, None);
    for flags in [VmaFlags::SHARED, VmaFlags::empty()] {
        store.set_len(8192);
        let mut request = MapRequest::object(Place::Hint(0), 8192, RW, store.clone(), 0);
        request.flags = flags;
        let start = mm.map(request, Limits::NONE).unwrap();
        mm.write_bytes(start, &[7; 8192]).unwrap();
        store.set_len(4096);
        check(&mm);
        assert!(!mm.is_present(start + 4096));
        assert_eq!(mm.fault(&fault(start + 4096, Access::Read)), Err(MemFault::Bus));
    }
}

#[test]
fn exhaustion_is_an_error_and_recovers() {
    let kernel = testing::kernel(4);
    let mm = Mm::new(&kernel).unwrap();
    let free = kernel.frames.free();
    let mut request = MapRequest::anon(Place::Hint(0), 16 << 20, RW);
    request.flags = VmaFlags::NORESERVE;
    let start = mm.map(request, Limits::NONE).unwrap();
    let result = (0..16 << 20).step_by(4096).find_map(|o| mm.write_bytes(start + o, b"x").err());
    assert_eq!(result, Some(Errno::EFAULT));
    assert_eq!(kernel.frames.free(), 0);
    check(&mm);
    mm.clear();
    assert_eq!(kernel.frames.free(), free);
}

#[test]
fn the_stack_grows_to_its_limit() {
    let kernel = testing::kernel(16);
    let mm = Mm::new(&kernel).unwrap();
    mm.set_stack_limit(1 << 20);
    let mut request = MapRequest::anon(Place::Fixed(at(0)), 4096, RW);
    request.flags = VmaFlags::GROWSDOWN;
    mm.map(request, Limits::NONE).unwrap();
    mm.write_bytes(at(0) - 8, b"deep").unwrap();
    mm.write_bytes(at(1) - (1 << 20), b"deep").unwrap();
    assert_eq!(mm.write_bytes(at(0) - (1 << 20), b"deep"), Err(Errno::EFAULT));
    check(&mm);
}

#[test]
fn words_are_exchanged_atomically() {
    let kernel = testing::kernel(4);
    let mm = Mm::new(&kernel).unwrap();
    let word = mm.map(MapRequest::anon(Place::Hint(0), 4096, RW), Limits::NONE).unwrap();
    assert_eq!(mm.cas_u32(word, 0, 5), Ok(Ok(0)));
    assert_eq!(mm.cas_u32(word, 0, 6), Ok(Err(5)));
    assert_eq!(mm.load_u32(word), Ok(5));
    assert_eq!(mm.load_u32(word + 1), Err(Errno::EFAULT));
    assert_eq!(mm.load_u32(u64::MAX - 3), Err(Errno::EFAULT));
    assert_eq!(mm.read_partial(u64::MAX - 1, &mut [0; 8]), 0);
    assert_eq!(mm.read_partial(word + 4090, &mut [0; 8]), 6);
}

#[test]
fn the_break_moves_and_comes_back() {
    let kernel = testing::kernel(16);
    let mm = Mm::new(&kernel).unwrap();
    mm.init_brk(at(0));
    assert_eq!(mm.set_brk(0, Limits::NONE), at(0));
    assert_eq!(mm.set_brk(at(3) + 5, Limits::NONE), at(3) + 5);
    mm.write_bytes(at(3), b"x").unwrap();
    assert_eq!(mm.set_brk(at(1), Limits::NONE), at(1));
    assert_eq!(mm.write_bytes(at(1), b"x"), Err(Errno::EFAULT));
    let limits = Limits { data: 8192, ..Limits::NONE };
    assert_eq!(mm.set_brk(at(9), limits), at(1));
    check(&mm);
}
