//! Level, edge and one-shot reporting; nesting; files that go away.

use super::*;
use crate::{
    fs::{
        buf::{Sink, Source},
        file::OpenFlags,
    },
    pipe::Pipe,
};

fn interest(events: Ready, mode: Mode, data: u64) -> Interest {
    Interest { events: events | Ready::ERR | Ready::HUP, mode, data }
}
fn collect(set: &Epoll) -> Vec<(Ready, u64)> {
    let mut out = Vec::new();
    let n = set.collect(16, |_, ready, data| {
        out.push((ready, data));
        Ok(())
    });
    assert_eq!(n, Ok(out.len()));
    out
}
fn put(file: &OpenFile) {
    assert_eq!(file.ops.write(file, &mut Source::kernel(b"x")), Ok(1));
}
fn get(file: &OpenFile) {
    assert_eq!(file.ops.read(file, &mut Sink::kernel(&mut [0])), Ok(1));
}

#[test]
fn level_edge_and_oneshot() {
    let lock = NestingLock::default();
    for (mode, again) in [(Mode::empty(), true), (Mode::EDGE, false), (Mode::ONESHOT, false)] {
        let set = Epoll::new();
        let (r, w) = Pipe::pair(1, (0, 0), OpenFlags::empty());
        assert_eq!(set.add(3, &r, interest(Ready::IN, mode, 7), &lock), Ok(()));
        assert_eq!(collect(&set), []);
        put(&w);
        assert_eq!(collect(&set), [(Ready::IN, 7)]);
        assert_eq!(!collect(&set).is_empty(), again);
        put(&w);
        assert_eq!(collect(&set).is_empty(), mode == Mode::ONESHOT);
        assert_eq!(set.modify(3, &r, interest(Ready::IN, mode, 8)), Ok(()));
        assert_eq!(collect(&set), [(Ready::IN, 8)]);
        get(&r);
        get(&r);
        assert_eq!(collect(&set), []);
    }
}

#[test]
fn adding_twice_and_removing() {
    let lock = NestingLock::default();
    let set = Epoll::new();
    let (r, w) = Pipe::pair(1, (0, 0), OpenFlags::empty());
    let want = interest(Ready::IN, Mode::empty(), 1);
    assert_eq!(set.add(3, &r, want, &lock), Ok(()));
    assert_eq!(set.add(3, &r, want, &lock), Err(Errno::EEXIST));
    assert_eq!(set.add(4, &r, want, &lock), Ok(()));
    assert_eq!(set.remove(5, &r), Err(Errno::ENOENT));
    put(&w);
    assert_eq!(collect(&set).len(), 2);
    assert_eq!(set.remove(4, &r), Ok(()));
    assert_eq!(collect(&set).len(), 1);
    drop(r);
    assert_eq!(collect(&set), []);
}

#[test]
fn sets_within_sets() {
    let lock = NestingLock::default();
    let want = interest(Ready::IN, Mode::empty(), 1);
    let sets: Vec<_> = (0..7).map(|_| OpenFile::new(Epoll::new(), OpenFlags::RDWR)).collect();
    let set = |n: usize| sets[n].downcast::<Epoll>().expect("a set");
    for (n, inner) in sets.iter().enumerate().take(4) {
        assert_eq!(set(n + 1).add(0, inner, want, &lock), Ok(()));
    }
    assert_eq!(set(5).add(0, &sets[4], want, &lock), Err(Errno::ELOOP));
    assert_eq!(set(0).add(0, &sets[3], want, &lock), Err(Errno::ELOOP));
    let (r, w) = Pipe::pair(1, (0, 0), OpenFlags::empty());
    assert_eq!(set(0).add(9, &r, want, &lock), Ok(()));
    assert_eq!(sets[4].ops.poll(&sets[4]), Ready::empty());
    put(&w);
    assert_eq!(sets[4].ops.poll(&sets[4]), Ready::IN | Ready::RDNORM);
    get(&r);
    assert_eq!(sets[4].ops.poll(&sets[4]), Ready::empty());
}
