//! read(2), write(2) and their vectored and positioned relatives, lseek(2), sendfile(2).
//!
//! A transfer that blocks half-way keeps its progress in the call (`Call::done`).

use crate::{
    call::Cx,
    error::{Errno, Stop, SysResult, Wait},
    fs::{
        buf::{Sink, Source},
        file::{OpenFile, OpenFlags},
    },
    num::Word,
    platform::USER_END,
    signal::{SigInfo, number::SIGPIPE},
};

/// Most bytes of one transfer (read(2), NOTES).
const MAX_RW: usize = 0x7fff_f000;
/// UIO_MAXIOV.
const MAX_IOV: usize = 1024;
/// RWF_* flags that are accepted: HIPRI, DSYNC, SYNC, NOWAIT, APPEND.
const RWF_KNOWN: u32 = 0x1f;
const RWF_NOWAIT: u32 = 8;
const RWF_APPEND: u32 = 16;

type Segments = Vec<(u64, usize)>;

/// One buffer as Linux's access_ok() sees it.
fn segment(addr: u64, len: usize) -> Result<Segments, Errno> {
    let len = len.min(MAX_RW);
    match addr.checked_add(len as u64) {
        Some(end) if end <= USER_END => Ok(vec![(addr, len)]),
        _ => Err(Errno::EFAULT),
    }
}

/// An iovec array, copied once.
///
/// # Errors
/// EINVAL for too many entries or a negative length, EFAULT.
pub fn segments(cx: &Cx<'_>, iov: u64, count: usize) -> Result<Segments, Errno> {
    if count > MAX_IOV {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0_u8; count * 16];
    cx.mm().read_bytes(iov, &mut raw)?;
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&raw[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let mut total = 0;
    let mut out = Vec::with_capacity(count);
    for i in 0..count {
        let (addr, len) = (word(i * 16), word(i * 16 + 8));
        if len.cast_signed() < 0 {
            return Err(Errno::EINVAL);
        }
        if addr.checked_add(len).is_none_or(|end| end > USER_END) {
            return Err(Errno::EFAULT);
        }
        let len = len.size().min(MAX_RW - total);
        total += len;
        out.push((addr, len));
    }
    Ok(out)
}

fn offset(raw: i64) -> Result<u64, Errno> {
    u64::try_from(raw).map_err(|_| Errno::EINVAL)
}

fn do_read(
    cx: &mut Cx<'_>,
    fd: i32,
    segments: Segments,
    at: Option<u64>,
    nowait: bool,
) -> SysResult {
    let file = cx.files().get(fd)?;
    if !file.readable() {
        return Err(Errno::EBADF.into());
    }
    let mm = cx.mm();
    let mut sink = Sink::user(&mm, segments);
    let attempt = match at {
        None => file.ops.read(&file, &mut sink),
        Some(at) => file.ops.read_at(&file, &mut sink, at),
    };
    cx.block(attempt, nowait || file.nonblock(), file.ops.queue()).map(|n| n as u64)
}

fn do_write(
    cx: &mut Cx<'_>,
    fd: i32,
    segments: Segments,
    at: Option<u64>,
    nowait: bool,
) -> SysResult {
    let file = cx.files().get(fd)?;
    if !file.writable() {
        return Err(Errno::EBADF.into());
    }
    let mm = cx.mm();
    let mut source = Source::user(&mm, segments);
    source.skip(cx.call.done);
    let attempt = match at {
        None => file.ops.write(&file, &mut source),
        Some(at) => file.ops.write_at(&file, &mut source, at + cx.call.done as u64),
    };
    match attempt {
        Ok(n) => {
            cx.call.done += n;
            let whole = source.left() == 0 || nowait || file.nonblock();
            match file.ops.queue() {
                // A short count means that the rest would block.
                Some(queue) if !whole && n > 0 => Err(Stop::Wait(Wait::on(queue))),
                _ => Ok(cx.call.done as u64),
            }
        }
        Err(_) if cx.call.done > 0 && attempt != Err(Errno::EAGAIN) => Ok(cx.call.done as u64),
        Err(errno) => {
            if errno == Errno::EPIPE {
                cx.task.send(SigInfo::kernel(SIGPIPE));
            }
            cx.block(Err(errno), nowait || file.nonblock(), file.ops.queue())
        }
    }
}

/// read(2).
pub fn read(cx: &mut Cx<'_>, fd: i32, buf: u64, count: usize) -> SysResult {
    do_read(cx, fd, segment(buf, count)?, None, false)
}
/// write(2).
pub fn write(cx: &mut Cx<'_>, fd: i32, buf: u64, count: usize) -> SysResult {
    do_write(cx, fd, segment(buf, count)?, None, false)
}
/// pread(2).
pub fn pread64(cx: &mut Cx<'_>, fd: i32, buf: u64, count: usize, at: i64) -> SysResult {
    let at = offset(at)?;
    do_read(cx, fd, segment(buf, count)?, Some(at), false)
}
/// pwrite(2).
pub fn pwrite64(cx: &mut Cx<'_>, fd: i32, buf: u64, count: usize, at: i64) -> SysResult {
    let at = offset(at)?;
    do_write(cx, fd, segment(buf, count)?, Some(at), false)
}
/// readv(2).
pub fn readv(cx: &mut Cx<'_>, fd: i32, iov: u64, count: usize) -> SysResult {
    let segments = segments(cx, iov, count)?;
    do_read(cx, fd, segments, None, false)
}
/// writev(2).
pub fn writev(cx: &mut Cx<'_>, fd: i32, iov: u64, count: usize) -> SysResult {
    let segments = segments(cx, iov, count)?;
    do_write(cx, fd, segments, None, false)
}
/// preadv(2).
pub fn preadv(cx: &mut Cx<'_>, fd: i32, iov: u64, count: usize, at: i64) -> SysResult {
    let at = offset(at)?;
    let segments = segments(cx, iov, count)?;
    do_read(cx, fd, segments, Some(at), false)
}
/// pwritev(2).
pub fn pwritev(cx: &mut Cx<'_>, fd: i32, iov: u64, count: usize, at: i64) -> SysResult {
    let at = offset(at)?;
    let segments = segments(cx, iov, count)?;
    do_write(cx, fd, segments, Some(at), false)
}

/// Position -1 of preadv2(2) and pwritev2(2) means the file's own.
fn own_or(at: i64) -> Result<Option<u64>, Errno> {
    if at == -1 { Ok(None) } else { offset(at).map(Some) }
}

/// preadv2(2).
pub fn preadv2(
    cx: &mut Cx<'_>,
    fd: i32,
    iov: u64,
    count: usize,
    at: i64,
    _high: u64,
    flags: u32,
) -> SysResult {
    if flags & !RWF_KNOWN != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let at = own_or(at)?;
    let segments = segments(cx, iov, count)?;
    do_read(cx, fd, segments, at, flags & RWF_NOWAIT != 0)
}

/// pwritev2(2).
pub fn pwritev2(
    cx: &mut Cx<'_>,
    fd: i32,
    iov: u64,
    count: usize,
    at: i64,
    _high: u64,
    flags: u32,
) -> SysResult {
    if flags & !RWF_KNOWN != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let segments = segments(cx, iov, count)?;
    let at =
        if flags & RWF_APPEND != 0 { Some(cx.files().get(fd)?.attr()?.size) } else { own_or(at)? };
    do_write(cx, fd, segments, at, flags & RWF_NOWAIT != 0)
}

/// lseek(2).
pub fn lseek(cx: &mut Cx<'_>, fd: i32, to: i64, whence: u32) -> SysResult {
    let file = cx.files().get(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF.into());
    }
    Ok(file.ops.seek(&file, to, whence)?)
}

/// Bytes moved at a time between two files.
const PIECE: usize = 64 << 10;

/// Moves up to `count` bytes from `input` to `output` through a kernel buffer; a short write ends
/// the transfer, and what was read beyond it is not consumed where the input has a position.
fn transfer(
    input: &OpenFile,
    output: &OpenFile,
    from: &mut Option<u64>,
    count: usize,
) -> Result<usize, Errno> {
    let mut moved = 0;
    let mut buffer = vec![0; PIECE.min(count)];
    while moved < count {
        let room = buffer.len().min(count - moved);
        let mut sink = Sink::kernel(&mut buffer[..room]);
        let got = match from {
            Some(at) => input.ops.read_at(input, &mut sink, *at),
            None => input.ops.read(input, &mut sink),
        };
        let got = match got {
            Ok(0) => break,
            Ok(n) => n,
            Err(_) if moved > 0 => break,
            Err(errno) => return Err(errno),
        };
        let mut source = Source::kernel(&buffer[..got]);
        let sent = match output.ops.write(output, &mut source) {
            Ok(n) => n,
            Err(errno) => {
                if from.is_none() {
                    give_back(input, got);
                }
                if moved > 0 { break } else { return Err(errno) }
            }
        };
        moved += sent;
        match from {
            Some(at) => *at += sent as u64,
            None if sent < got => give_back(input, got - sent),
            None => {}
        }
        if sent < got {
            break;
        }
    }
    Ok(moved)
}

fn give_back(file: &OpenFile, bytes: usize) {
    if let Ok(bytes) = i64::try_from(bytes) {
        // Inputs of sendfile(2) are files with a position, where this cannot fail.
        let _ = file.ops.seek(file, -bytes, 1);
    }
}

/// sendfile(2).
pub fn sendfile(cx: &mut Cx<'_>, out: i32, input: i32, at: u64, count: usize) -> SysResult {
    let (output, input) = (cx.files().get(out)?, cx.files().get(input)?);
    if !input.readable() || !output.writable() {
        return Err(Errno::EBADF.into());
    }
    if output.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL.into());
    }
    // Only inputs that can be mapped have pages to send (sendfile(2), EINVAL).
    if input.ops.object().is_err() && input.ops.seek(&input, 0, 1).is_err() {
        return Err(Errno::EINVAL.into());
    }
    let mut from = match at {
        0 => None,
        addr => Some(offset(cx.mm().read_obj::<i64>(addr)?)?),
    };
    let moved = transfer(&input, &output, &mut from, count.min(MAX_RW));
    if moved == Err(Errno::EPIPE) {
        cx.task.send(SigInfo::kernel(SIGPIPE));
    }
    let moved = cx.block(moved, output.nonblock(), output.ops.queue())?;
    if let Some(from) = from {
        cx.mm().write_obj(at, &from)?;
    }
    Ok(moved as u64)
}

/// copy_file_range(2), between regular files, by copying.
pub fn copy_file_range(
    cx: &mut Cx<'_>,
    input: i32,
    from_at: u64,
    out: i32,
    to_at: u64,
    count: usize,
    flags: u32,
) -> SysResult {
    let (input, output) = (cx.files().get(input)?, cx.files().get(out)?);
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    if !input.readable() || !output.writable() || output.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EBADF.into());
    }
    for file in [&input, &output] {
        let attr = file.attr()?;
        if attr.is_dir() {
            return Err(Errno::EISDIR.into());
        }
        if !attr.is_regular() {
            return Err(Errno::EINVAL.into());
        }
    }
    let position = |addr: u64| match addr {
        0 => Ok(None),
        addr => offset(cx.mm().read_obj::<i64>(addr)?).map(Some),
    };
    let (from, to) = (position(from_at)?, position(to_at)?);
    let mut buffer = vec![0; PIECE.min(count)];
    let mut moved = 0;
    while moved < count {
        let room = buffer.len().min(count - moved);
        let mut sink = Sink::kernel(&mut buffer[..room]);
        let got = match from {
            Some(at) => input.ops.read_at(&input, &mut sink, at + moved as u64)?,
            None => input.ops.read(&input, &mut sink)?,
        };
        if got == 0 {
            break;
        }
        let mut source = Source::kernel(&buffer[..got]);
        moved += match to {
            Some(at) => output.ops.write_at(&output, &mut source, at + moved as u64)?,
            None => output.ops.write(&output, &mut source)?,
        };
    }
    for (addr, at) in [(from_at, from), (to_at, to)] {
        if let Some(at) = at {
            cx.mm().write_obj(addr, &(at + moved as u64))?;
        }
    }
    Ok(moved as u64)
}
