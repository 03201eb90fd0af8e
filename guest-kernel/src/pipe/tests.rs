//! Unit tests of the slot arithmetic and of readiness.

use super::*;

fn write(file: &OpenFile, bytes: &[u8]) -> Result<usize, Errno> {
    file.ops.write(file, &mut Source::kernel(bytes))
}
fn read(file: &OpenFile, len: usize) -> Result<Vec<u8>, Errno> {
    let mut buf = vec![0; len];
    let n = file.ops.read(file, &mut Sink::kernel(&mut buf))?;
    buf.truncate(n);
    Ok(buf)
}
fn pair() -> (Arc<OpenFile>, Arc<OpenFile>) {
    Pipe::pair(1, (0, 0), OpenFlags::empty())
}

#[test]
fn bytes_come_out_in_order() {
    let (r, w) = pair();
    let data: Vec<u8> = (0..10_000u32).map(|i| i.to_le_bytes()[0]).collect();
    assert_eq!(write(&w, &data), Ok(10_000));
    assert_eq!(read(&r, 3), Ok(data[..3].to_vec()));
    assert_eq!(read(&r, 20_000), Ok(data[3..].to_vec()));
    assert_eq!(read(&r, 1), Err(Errno::EAGAIN));
}

#[test]
fn capacity_is_counted_in_slots() {
    let (r, w) = pair();
    let mut writes = 0;
    while write(&w, &[7; 3000]).is_ok() {
        writes += 1;
    }
    assert_eq!(writes, 16, "one slot each: 3000 does not fit behind 3000");
    assert!(!w.ops.poll(&w).contains(Ready::OUT));
    assert_eq!(read(&r, 3000).map(|b| b.len()), Ok(3000));
    assert!(w.ops.poll(&w).contains(Ready::OUT));
    let (_r, w) = pair();
    let mut total = 0;
    while let Ok(n) = write(&w, &[7]) {
        total += n;
    }
    assert_eq!(total, 65536);
}

#[test]
fn small_writes_are_atomic_and_large_ones_partial() {
    let (_r, w) = pair();
    assert_eq!(write(&w, &vec![1; 65536 - 100]), Ok(65536 - 100));
    assert_eq!(write(&w, &[2; 101]), Err(Errno::EAGAIN));
    assert_eq!(write(&w, &[2; 100]), Ok(100));
    let (r, w) = pair();
    assert_eq!(write(&w, &vec![1; 100_000]), Ok(65536));
    assert_eq!(read(&r, 5000).map(|b| b.len()), Ok(5000));
    assert_eq!(write(&w, &vec![1; 100_000]), Ok(4096));
}

#[test]
fn hangup_and_error_as_linux_reports_them() {
    let (r, w) = pair();
    assert_eq!(r.ops.poll(&r), Ready::empty());
    assert_eq!(w.ops.poll(&w), Ready::OUT | Ready::WRNORM);
    assert_eq!(write(&w, b"x"), Ok(1));
    drop(w);
    assert_eq!(r.ops.poll(&r), Ready::IN | Ready::RDNORM | Ready::HUP);
    assert_eq!(read(&r, 9), Ok(b"x".to_vec()));
    assert_eq!(read(&r, 9), Ok(Vec::new()));
    let (r, w) = pair();
    drop(r);
    assert_eq!(w.ops.poll(&w), Ready::OUT | Ready::WRNORM | Ready::ERR);
    assert_eq!(write(&w, b"x"), Err(Errno::EPIPE));
}

#[test]
fn resizing_keeps_the_bytes() {
    let (r, w) = pair();
    assert_eq!(write(&w, &[1; 9000]), Ok(9000));
    assert_eq!(read(&r, 5000).map(|b| b.len()), Ok(5000));
    let pipe = &PipeEnd::of(&r).expect("a pipe").pipe;
    assert_eq!(pipe.set_capacity(4096, false), Err(Errno::EBUSY));
    assert_eq!(pipe.set_capacity(100_000, false), Ok(131_072));
    assert_eq!(pipe.set_capacity(4 << 20, false), Err(Errno::EPERM));
    assert_eq!(pipe.pending(), 4000);
    assert_eq!(read(&r, 9000), Ok(vec![1; 4000]));
    assert_eq!(pipe.set_capacity(1, false), Ok(4096));
}

#[test]
fn packets_keep_their_bounds() {
    let (r, w) = Pipe::pair(1, (0, 0), OpenFlags::DIRECT);
    assert_eq!(write(&w, b"one"), Ok(3));
    assert_eq!(write(&w, b"two"), Ok(3));
    assert_eq!(read(&r, 100), Ok(b"one".to_vec()));
    assert_eq!(read(&r, 1), Ok(b"t".to_vec()));
    assert_eq!(read(&r, 1), Err(Errno::EAGAIN));
}
