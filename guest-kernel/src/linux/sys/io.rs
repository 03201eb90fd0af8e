//! read(2), write(2), their vectored and positioned kinds, lseek(2), sendfile(2), sync(2),
//! truncate(2), fallocate(2).

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{path::file, signal::raise, socket};
use crate::{
    call::Cx,
    error::{Errno, Stop, SysResult, Wait},
    fs::{
        body::MAX_SIZE,
        buf::{Sink, Source},
        file::{OpenFile, OpenFlags},
        inode::{Actor, Attr, SetAttr},
        inotify::{self, Events},
        perm,
    },
    mm::Mm,
    net::{Kind, Socket},
    num::Word,
    platform::USER_END,
    signal::number,
    task::process::rlimit,
};

/// Most bytes one call moves (MAX_RW_COUNT).
const MAX_RW: usize = 0x7fff_f000;
/// Most iovecs (UIO_MAXIOV).
const MAX_IOV: u64 = 1024;

type Segments = Vec<(u64, usize)>;

/// One buffer, checked against the address-space limit.
fn segment(addr: u64, count: usize) -> Result<Segments, Errno> {
    let end = addr.checked_add(count as u64).ok_or(Errno::EFAULT)?;
    if end > USER_END {
        return Err(Errno::EFAULT);
    }
    Ok(vec![(addr, count.min(MAX_RW))])
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct IoVec {
    base: u64,
    len: u64,
}

/// An iovec array, checked and cut to what one call moves.
///
/// # Errors
/// EINVAL, EFAULT.
pub fn iovec(mm: &Mm, addr: u64, count: u64) -> Result<Segments, Errno> {
    if count > MAX_IOV {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![IoVec { base: 0, len: 0 }; count.size()];
    mm.read_bytes(addr, raw.as_mut_bytes())?;
    let mut left = MAX_RW;
    let mut out = Vec::new();
    for iov in raw {
        if iov.len.cast_signed() < 0 {
            return Err(Errno::EINVAL);
        }
        if iov.base.checked_add(iov.len).is_none_or(|end| end > USER_END) {
            return Err(Errno::EFAULT);
        }
        let take = iov.len.size().min(left);
        left -= take;
        out.push((iov.base, take));
    }
    Ok(out)
}

/// Where a transfer happens.
#[derive(Clone, Copy)]
pub(super) enum Where {
    /// At the file's own position.
    Here,
    At(u64),
}

fn place(offset: i64) -> Result<Where, Errno> {
    u64::try_from(offset).map(Where::At).map_err(|_| Errno::EINVAL)
}

pub(super) fn readable(cx: &Cx<'_>, fd: i32) -> Result<Arc<OpenFile>, Errno> {
    let file = file(cx, fd)?;
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    if file.ops.moves().0 { Ok(file) } else { Err(Errno::EINVAL) }
}
pub(super) fn writable(cx: &Cx<'_>, fd: i32) -> Result<Arc<OpenFile>, Errno> {
    let file = file(cx, fd)?;
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    if file.ops.moves().1 { Ok(file) } else { Err(Errno::EINVAL) }
}

/// A transfer must not end past the largest offset (`rw_verify_area()`).
fn verify(file: &OpenFile, segments: &Segments, at: Where) -> Result<(), Errno> {
    let start = match at {
        Where::At(offset) => offset,
        Where::Here if file.path.is_some() => file.with_position(|p| *p),
        Where::Here => return Ok(()),
    };
    let want: u64 = segments.iter().map(|s| s.1 as u64).sum();
    let fits = start.checked_add(want).is_some_and(|end| end <= MAX_SIZE);
    if fits { Ok(()) } else { Err(Errno::EINVAL) }
}

pub(super) fn read_to(
    cx: &mut Cx<'_>,
    file: &OpenFile,
    segments: Segments,
    at: Where,
    nowait: bool,
) -> SysResult {
    verify(file, &segments, at)?;
    file.ops.admit(cx.task, false)?;
    let mm = cx.mm();
    let mut sink = Sink::user(&mm, segments);
    let attempt = match at {
        Where::Here => file.ops.read(file, &mut sink),
        Where::At(offset) => file.ops.read_at(file, &mut sink, offset),
    };
    let nonblock = nowait || file.nonblock();
    let read = match file.downcast::<Socket>() {
        Some(socket) => socket::wait(cx, socket, attempt, nonblock, socket.timeouts().0)?,
        None => cx.block(attempt, nonblock, file.ops.queue())?,
    };
    if read > 0 {
        told(cx, file, Events::ACCESS);
    }
    Ok(read as u64)
}

/// Whoever watches the file hears of it (inotify(7)).
pub(super) fn told(cx: &Cx<'_>, file: &OpenFile, events: Events) {
    if cx.kernel().fs.inotify.in_use() {
        inotify::file(file, events);
    }
}

/// write(2) to whatever it is. A socket's peer is told who writes, not who made the socket.
pub(super) fn write_here(
    cx: &Cx<'_>,
    file: &OpenFile,
    source: &mut Source<'_>,
) -> Result<usize, Errno> {
    match file.downcast::<Socket>() {
        Some(socket) => socket.write_by(socket::who(cx), source),
        None => file.ops.write(file, source),
    }
}

/// Bytes that may be written at `at` under RLIMIT_FSIZE; a write wholly past it raises SIGXFSZ.
fn within_limit(cx: &Cx<'_>, file: &OpenFile, at: Where, want: usize) -> Result<usize, Errno> {
    let limit = cx.task.process.limit(rlimit::FSIZE);
    if limit == rlimit::INFINITY || file.path.is_none() {
        return Ok(want);
    }
    let attr = file.attr()?;
    if !attr.is_regular() {
        return Ok(want);
    }
    let start = match at {
        _ if file.flags().contains(OpenFlags::APPEND) => attr.size,
        Where::At(offset) => offset,
        Where::Here => file.with_position(|p| *p),
    };
    if start >= limit && want > 0 {
        raise(cx, number::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(want.min((limit - start).size()))
}

pub(super) fn write_from(
    cx: &mut Cx<'_>,
    file: &OpenFile,
    mut segments: Segments,
    at: Where,
    nowait: bool,
) -> SysResult {
    verify(file, &segments, at)?;
    let want: usize = segments.iter().map(|s| s.1).sum();
    let allowed = within_limit(cx, file, at, want)?;
    if allowed < want {
        let mut left = allowed;
        for segment in &mut segments {
            segment.1 = segment.1.min(left);
            left -= segment.1;
        }
    }
    let want = allowed;
    file.ops.admit(cx.task, true)?;
    let mm = cx.mm();
    let mut source = Source::user(&mm, segments);
    let done = cx.call.done;
    source.skip(done);
    let attempt = match at {
        Where::Here => write_here(cx, file, &mut source),
        Where::At(offset) => file.ops.write_at(file, &mut source, offset + done as u64),
    };
    match attempt {
        Ok(n) => {
            if n > 0 {
                strip_set_id(cx, file);
                told(cx, file, Events::MODIFY);
            }
            let total = done + n;
            let blocks = !nowait && !file.nonblock() && n > 0 && total < want;
            if !blocks || file.ops.queue().is_none() {
                return Ok(total as u64);
            }
            cx.call.done = total;
            wait_to_write(cx, file, false)
        }
        Err(Errno::EPIPE) => {
            // Sockets that keep messages apart leave it at the error.
            if file.downcast::<Socket>().is_none_or(|socket| socket.kind == Kind::Stream) {
                raise(cx, number::SIGPIPE);
            }
            if done > 0 { Ok(done as u64) } else { Err(Errno::EPIPE.into()) }
        }
        Err(Errno::EAGAIN) => wait_to_write(cx, file, nowait || file.nonblock()),
        Err(_) if done > 0 => Ok(done as u64),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits for room, at most for SO_SNDTIMEO; what has been written by then is the result.
fn wait_to_write(cx: &mut Cx<'_>, file: &OpenFile, nonblock: bool) -> SysResult {
    let full = Err::<u64, _>(Errno::EAGAIN);
    let Some(socket) = file.downcast::<Socket>() else {
        return cx.block(full, nonblock, file.ops.queue());
    };
    let done = cx.call.done as u64;
    match socket::wait(cx, socket, full, nonblock, socket.timeouts().1) {
        Err(Stop::Errno(Errno::EAGAIN)) if done > 0 => Ok(done),
        other => other,
    }
}

/// A write takes set-id bits away (inode(7)) unless the writer has CAP_FSETID.
fn strip_set_id(cx: &Cx<'_>, file: &OpenFile) {
    let creds = cx.task.creds();
    if creds.capable(crate::creds::cap::FSETID) {
        return;
    }
    if let Some(path) = &file.path
        && let Ok(attr) = path.attr()
        && let Some(mode) = perm::stripped(&creds, &attr)
    {
        // The bytes are written: the bits not going is the file system's affair.
        let _ = path.inode().set_attr(&SetAttr { mode: Some(mode), ..SetAttr::default() });
    }
}

/// read(2).
pub fn read(cx: &mut Cx<'_>, fd: i32, buf: u64, count: usize) -> SysResult {
    let file = readable(cx, fd)?;
    read_to(cx, &file, segment(buf, count)?, Where::Here, false)
}
/// write(2).
pub fn write(cx: &mut Cx<'_>, fd: i32, buf: u64, count: usize) -> SysResult {
    let file = writable(cx, fd)?;
    write_from(cx, &file, segment(buf, count)?, Where::Here, false)
}
/// ESPIPE for what has no positions comes before EBADF for the wrong access mode.
fn positioned(cx: &Cx<'_>, fd: i32) -> Result<Arc<OpenFile>, Errno> {
    let file = file(cx, fd)?;
    if file.positioned() { Ok(file) } else { Err(Errno::ESPIPE) }
}
/// pread(2).
pub fn pread64(cx: &mut Cx<'_>, fd: i32, buf: u64, count: usize, offset: i64) -> SysResult {
    let at = place(offset)?;
    positioned(cx, fd)?;
    let file = readable(cx, fd)?;
    read_to(cx, &file, segment(buf, count)?, at, false)
}
/// pwrite(2).
pub fn pwrite64(cx: &mut Cx<'_>, fd: i32, buf: u64, count: usize, offset: i64) -> SysResult {
    let at = place(offset)?;
    positioned(cx, fd)?;
    let file = writable(cx, fd)?;
    write_from(cx, &file, segment(buf, count)?, at, false)
}

const RWF_NOWAIT: u32 = 8;
const RWF_APPEND: u32 = 0x10;
const RWF_NOAPPEND: u32 = 0x20;
/// What Linux knows, and what of it is here.
const RWF_KNOWN: u32 = 0x1ff;
const RWF_HERE: u32 = 0x3f;

/// An iovec array of `fd`'s vectored call, and the file (`vfs_readv()`); nothing to move means that
/// neither the offset nor the flags matter. `None` then.
fn vectored(
    cx: &Cx<'_>,
    (fd, iov, count): (i32, u64, u64),
    at: Where,
    flags: u32,
    write: bool,
) -> Result<Option<(Arc<OpenFile>, Segments)>, Errno> {
    if matches!(at, Where::At(_)) {
        positioned(cx, fd)?;
    }
    let file = if write { writable(cx, fd)? } else { readable(cx, fd)? };
    let segments = iovec(&cx.mm(), iov, count)?;
    if segments.iter().all(|segment| segment.1 == 0) {
        return Ok(None);
    }
    verify(&file, &segments, at)?;
    // RWF_NOAPPEND for a file that appends is refused, as by Linux before 6.9.
    let unappend = flags & RWF_NOAPPEND != 0 && file.flags().contains(OpenFlags::APPEND);
    if flags & !RWF_KNOWN == 0 && flags & RWF_APPEND != 0 && flags & RWF_NOAPPEND != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & !RWF_HERE != 0 || (write && unappend) {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(Some((file, segments)))
}
fn read_vector(cx: &mut Cx<'_>, what: (i32, u64, u64), at: Where, flags: u32) -> SysResult {
    match vectored(cx, what, at, flags, false)? {
        None => Ok(0),
        Some((file, to)) => read_to(cx, &file, to, at, flags & RWF_NOWAIT != 0),
    }
}
fn write_vector(cx: &mut Cx<'_>, what: (i32, u64, u64), at: Where, flags: u32) -> SysResult {
    let Some((file, from)) = vectored(cx, what, at, flags, true)? else { return Ok(0) };
    let mut at = at;
    if flags & RWF_APPEND != 0 {
        let end = file.attr()?.size;
        match at {
            Where::Here => file.with_position(|position| *position = end),
            Where::At(_) => at = Where::At(end),
        }
    }
    write_from(cx, &file, from, at, flags & RWF_NOWAIT != 0)
}
/// readv(2).
pub fn readv(cx: &mut Cx<'_>, fd: i32, iov: u64, count: u64) -> SysResult {
    read_vector(cx, (fd, iov, count), Where::Here, 0)
}
/// writev(2).
pub fn writev(cx: &mut Cx<'_>, fd: i32, iov: u64, count: u64) -> SysResult {
    write_vector(cx, (fd, iov, count), Where::Here, 0)
}
/// preadv(2); the high half of the offset is unused on 64 bits.
pub fn preadv(cx: &mut Cx<'_>, fd: i32, iov: u64, count: u64, at: i64, _high: u64) -> SysResult {
    read_vector(cx, (fd, iov, count), place(at)?, 0)
}
/// pwritev(2).
pub fn pwritev(cx: &mut Cx<'_>, fd: i32, iov: u64, count: u64, at: i64, _high: u64) -> SysResult {
    write_vector(cx, (fd, iov, count), place(at)?, 0)
}
fn place2(offset: i64) -> Result<Where, Errno> {
    if offset == -1 { Ok(Where::Here) } else { place(offset) }
}
/// preadv2(2).
pub fn preadv2(
    cx: &mut Cx<'_>,
    fd: i32,
    iov: u64,
    count: u64,
    at: i64,
    _high: u64,
    flags: u32,
) -> SysResult {
    read_vector(cx, (fd, iov, count), place2(at)?, flags)
}
/// pwritev2(2).
pub fn pwritev2(
    cx: &mut Cx<'_>,
    fd: i32,
    iov: u64,
    count: u64,
    at: i64,
    _high: u64,
    flags: u32,
) -> SysResult {
    write_vector(cx, (fd, iov, count), place2(at)?, flags)
}
/// lseek(2).
pub fn lseek(cx: &mut Cx<'_>, fd: i32, offset: i64, whence: u32) -> SysResult {
    const SEEK_MAX: u32 = 4;
    let file = file(cx, fd)?;
    if whence > SEEK_MAX {
        return Err(Errno::EINVAL.into());
    }
    Ok(file.ops.seek(&file, offset, whence)?)
}

/// sendfile(2) through a buffer of the kernel's.
pub fn sendfile(cx: &mut Cx<'_>, out: i32, from: i32, offset: u64, count: usize) -> SysResult {
    let at = match offset {
        0 => None,
        addr => Some(cx.mm().read_obj::<u64>(addr)?),
    };
    let input = readable(cx, from)?;
    if at.is_some() && !input.positioned() {
        return Err(Errno::ESPIPE.into());
    }
    let start = at.unwrap_or_else(|| input.with_position(|p| *p));
    if start.cast_signed() < 0 {
        return Err(Errno::EINVAL.into());
    }
    let output = writable(cx, out)?;
    if output.flags().contains(OpenFlags::APPEND) || input.attr()?.is_dir() {
        return Err(Errno::EINVAL.into());
    }
    let moved = copy(&input, start, &output, None, count.min(MAX_RW));
    let moved = match moved {
        Err(Errno::ESPIPE) => Err(Errno::EINVAL),
        Err(Errno::EPIPE) => {
            raise(cx, number::SIGPIPE);
            Err(Errno::EPIPE)
        }
        other => other,
    };
    let moved = cx.block(moved, output.nonblock(), output.ops.queue())?;
    let end = start + moved as u64;
    match offset {
        0 => input.with_position(|p| *p = end),
        addr => cx.mm().write_obj(addr, &end)?,
    }
    Ok(moved as u64)
}

/// Copies up to `count` bytes of a file with positions; stops where the output would block.
fn copy(
    input: &OpenFile,
    from: u64,
    output: &OpenFile,
    to: Option<u64>,
    count: usize,
) -> Result<usize, Errno> {
    let mut buffer = vec![0; count.min(64 << 10)];
    let mut done = 0;
    while done < count {
        let want = buffer.len().min(count - done);
        let mut sink = Sink::kernel(&mut buffer[..want]);
        let got = match input.ops.read_at(input, &mut sink, from + done as u64) {
            Ok(0) => break,
            Ok(got) => got,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        };
        let mut source = Source::kernel(&buffer[..got]);
        let wrote = match to {
            None => output.ops.write(output, &mut source),
            Some(to) => output.ops.write_at(output, &mut source, to + done as u64),
        };
        match wrote {
            Ok(n) => {
                done += n;
                if n < got {
                    break;
                }
            }
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    if done > 0 {
        inotify::file(input, Events::ACCESS);
        inotify::file(output, Events::MODIFY);
    }
    Ok(done)
}

/// What copy_file_range(2) copies between (`generic_file_rw_checks()`).
fn copyable(input: &OpenFile, output: &OpenFile) -> Result<(), Errno> {
    let attrs = [input.attr()?, output.attr()?];
    if attrs.iter().any(Attr::is_dir) {
        return Err(Errno::EISDIR);
    }
    // The monitor's own streams keep their position on the host.
    if !attrs.iter().all(Attr::is_regular) || input.path.is_none() || output.path.is_none() {
        return Err(Errno::EINVAL);
    }
    let appends = output.flags().contains(OpenFlags::APPEND);
    if !input.readable() || !output.writable() || appends { Err(Errno::EBADF) } else { Ok(()) }
}

/// copy_file_range(2).
pub fn copy_file_range(
    cx: &mut Cx<'_>,
    from: i32,
    from_at: u64,
    to: i32,
    to_at: u64,
    count: usize,
    flags: u32,
) -> SysResult {
    let (input, output) = (file(cx, from)?, file(cx, to)?);
    let position = |cx: &Cx<'_>, file: &OpenFile, addr: u64| match addr {
        0 => Ok(file.with_position(|p| *p)),
        addr => cx.mm().read_obj::<u64>(addr),
    };
    let (start, target) = (position(cx, &input, from_at)?, position(cx, &output, to_at)?);
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    copyable(&input, &output)?;
    if [start, target].iter().any(|at| at.checked_add(count as u64).is_none()) {
        return Err(Errno::EOVERFLOW.into());
    }
    if start.cast_signed() < 0 || target.cast_signed() < 0 {
        return Err(Errno::EINVAL.into());
    }
    let same = match (&input.path, &output.path) {
        (Some(one), Some(other)) => Arc::ptr_eq(one.inode(), other.inode()),
        _ => false,
    };
    let count = count.min(MAX_RW);
    // What lies past the end is not copied, and so overlaps nothing.
    let span = (count as u64).min(input.attr()?.size.saturating_sub(start));
    if same && start < target.saturating_add(span) && target < start.saturating_add(span) {
        return Err(Errno::EINVAL.into());
    }
    // Nor is what the copy itself puts there.
    let count = if same { span.size() } else { count };
    let moved = copy(&input, start, &output, Some(target), count)? as u64;
    for (file, addr, end) in [(&input, from_at, start + moved), (&output, to_at, target + moved)] {
        match addr {
            0 => file.with_position(|p| *p = end),
            addr => cx.mm().write_obj(addr, &end)?,
        }
    }
    Ok(moved)
}

/// fsync(2).
pub fn fsync(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    let file = file(cx, fd)?;
    file.ops.sync(&file, false)?;
    Ok(0)
}
/// fdatasync(2).
pub fn fdatasync(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    let file = file(cx, fd)?;
    file.ops.sync(&file, true)?;
    Ok(0)
}
/// sync(2): passed-through files are written when they are written.
pub fn sync(_cx: &mut Cx<'_>) -> SysResult {
    Ok(0)
}
/// syncfs(2).
pub fn syncfs(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    file(cx, fd)?;
    Ok(0)
}
/// sync_file_range(2).
pub fn sync_file_range(cx: &mut Cx<'_>, fd: i32, at: i64, len: i64, flags: u32) -> SysResult {
    let file = file(cx, fd)?;
    if at < 0 || at.checked_add(len).is_none_or(|end| end < at) || flags & !7 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let attr = file.attr()?;
    if file.path.is_none() || !(attr.is_regular() || attr.is_dir()) {
        return Err(Errno::ESPIPE.into());
    }
    file.ops.sync(&file, true)?;
    Ok(0)
}
/// fadvise64(2): all advice is taken and none needed.
pub fn fadvise64(cx: &mut Cx<'_>, fd: i32, _at: i64, len: i64, advice: u32) -> SysResult {
    let file = file(cx, fd)?;
    if file.attr()?.mode & crate::fs::inode::mode::FMT == crate::fs::inode::mode::FIFO {
        return Err(Errno::ESPIPE.into());
    }
    if len < 0 || advice > 5 {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}
/// readahead(2).
pub fn readahead(cx: &mut Cx<'_>, fd: i32, _at: i64, count: usize) -> SysResult {
    let file = readable(cx, fd)?;
    let sensible = i64::try_from(count).is_ok() && file.attr()?.is_regular();
    if sensible { Ok(0) } else { Err(Errno::EINVAL.into()) }
}
/// ftruncate(2).
pub fn ftruncate(cx: &mut Cx<'_>, fd: i32, len: i64) -> SysResult {
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    let file = file(cx, fd)?;
    if !file.writable() || !file.attr()?.is_regular() {
        return Err(Errno::EINVAL.into());
    }
    check_size(cx, &file.attr()?, len)?;
    let inode = super::path::inode(&file, Errno::EINVAL)?;
    crate::fs::vfs::truncate(&Actor::of(cx.task), &inode, len)?;
    if let Some(path) = &file.path {
        inotify::changed(path, Events::MODIFY);
    }
    Ok(0)
}
/// truncate(2).
pub fn truncate(cx: &mut Cx<'_>, addr: u64, len: i64) -> SysResult {
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    let who = Actor::of(cx.task);
    let path = super::path::find(cx, &who, addr, true)?;
    let attr = path.attr()?;
    if attr.is_dir() {
        return Err(Errno::EISDIR.into());
    }
    if !attr.is_regular() {
        return Err(Errno::EINVAL.into());
    }
    path.mount.writable()?;
    perm::check(&who.creds, &attr, perm::WRITE)?;
    check_size(cx, &attr, len)?;
    if let Some((queue, until)) = path.inode().common().leases.admit(cx.kernel(), true) {
        return Err(Wait::on(queue).until(Some(until)).into());
    }
    crate::fs::vfs::truncate(&who, path.inode(), len)?;
    inotify::changed(&path, Events::MODIFY);
    Ok(0)
}
/// RLIMIT_FSIZE holds for files that grow.
fn check_size(cx: &Cx<'_>, attr: &Attr, len: u64) -> Result<(), Errno> {
    if len > attr.size && len > cx.task.process.limit(rlimit::FSIZE) {
        raise(cx, number::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(())
}
/// fallocate(2).
pub fn fallocate(cx: &mut Cx<'_>, fd: i32, mode: u32, at: i64, len: i64) -> SysResult {
    const KEEP_SIZE: u32 = 1;
    const PUNCH_HOLE: u32 = 2;
    let file = file(cx, fd)?;
    let at = u64::try_from(at).map_err(|_| Errno::EINVAL)?;
    let len = u64::try_from(len).ok().filter(|l| *l > 0).ok_or(Errno::EINVAL)?;
    // One operation at a time, and some go only with or without FALLOC_FL_KEEP_SIZE.
    let (operation, keeps) = (mode & !KEEP_SIZE, mode & KEEP_SIZE != 0);
    let consistent = match operation {
        0 | 0x10 | 0x40 => true,
        PUNCH_HOLE => keeps,
        8 | 0x20 => !keeps,
        _ => false,
    };
    if !consistent {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if !file.writable() {
        return Err(Errno::EBADF.into());
    }
    match file.attr()?.mode & crate::fs::inode::mode::FMT {
        crate::fs::inode::mode::REG => {}
        crate::fs::inode::mode::FIFO => return Err(Errno::ESPIPE.into()),
        crate::fs::inode::mode::DIR => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::ENODEV.into()),
    }
    let end = at.checked_add(len).filter(|end| *end <= MAX_SIZE).ok_or(Errno::EFBIG)?;
    if operation == 0 {
        check_size(cx, &file.attr()?, end)?;
    }
    file.ops.allocate(&file, mode, at, len)?;
    told(cx, &file, Events::MODIFY);
    Ok(0)
}
