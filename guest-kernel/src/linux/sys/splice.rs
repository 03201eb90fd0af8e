//! splice(2), tee(2), vmsplice(2): pipes filled and emptied without the program's buffers.

use std::sync::Arc;

use super::{
    io::{Where, iovec, read_to, readable, told, writable, write_from, write_here},
    path::file,
    signal::raise,
};
use crate::{
    call::Cx,
    error::{Errno, Stop, SysResult},
    fs::{
        buf::{Sink, Source},
        file::{FileOps as _, OpenFile, OpenFlags, Ready},
        inotify::Events,
    },
    pipe::PipeEnd,
    signal::number,
};

/// SPLICE_F_NONBLOCK.
const NONBLOCK: u32 = 2;
/// SPLICE_F_ALL.
const KNOWN: u32 = 15;

/// Both are ends of one pipe.
fn same_pipe(one: &OpenFile, other: &OpenFile) -> bool {
    match (PipeEnd::of(one), PipeEnd::of(other)) {
        (Some(one), Some(other)) => Arc::ptr_eq(&one.pipe, &other.pipe),
        _ => false,
    }
}

/// EPIPE raises SIGPIPE.
fn broken(cx: &Cx<'_>, errno: Errno) -> Stop {
    if errno == Errno::EPIPE {
        raise(cx, number::SIGPIPE);
    }
    Stop::Errno(errno)
}

/// splice(2) through a buffer of the kernel's: no more is taken from a pipe than the other side
/// surely takes.
pub fn splice(
    cx: &mut Cx<'_>,
    from: i32,
    from_at: u64,
    to: i32,
    to_at: u64,
    count: usize,
    flags: u32,
) -> SysResult {
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL.into());
    }
    if count == 0 {
        return Ok(0);
    }
    let (input, output) = (file(cx, from)?, file(cx, to)?);
    let (pipe_in, pipe_out) = (PipeEnd::of(&input).is_some(), PipeEnd::of(&output).is_some());
    if (pipe_in && from_at != 0) || (pipe_out && to_at != 0) {
        return Err(Errno::ESPIPE.into());
    }
    let write_at = if to_at == 0 { None } else { Some(cx.mm().read_obj::<u64>(to_at)?) };
    let read_at = if from_at == 0 { None } else { Some(cx.mm().read_obj::<u64>(from_at)?) };
    if !input.readable() || !output.writable() {
        return Err(Errno::EBADF.into());
    }
    let placeless =
        (read_at.is_some() && !input.positioned()) || (write_at.is_some() && !output.positioned());
    let negative = read_at.into_iter().chain(write_at).any(|at| at.cast_signed() < 0);
    if placeless
        || negative
        || (!pipe_in && !pipe_out)
        || input.attr()?.is_dir()
        || same_pipe(&input, &output)
        || (!pipe_out && output.flags().contains(OpenFlags::APPEND))
    {
        return Err(Errno::EINVAL.into());
    }
    let nonblock = flags & NONBLOCK != 0;
    if pipe_out && output.ops.poll(&output).contains(Ready::ERR) {
        // Nobody reads: what there is stays where it is.
        return Err(broken(cx, Errno::EPIPE));
    }
    if output.ops.queue().is_some() && !output.ops.poll(&output).intersects(Ready::OUT | Ready::ERR)
    {
        let quiet = nonblock || output.nonblock();
        return cx.block(Err::<u64, _>(Errno::EAGAIN), quiet, output.ops.queue());
    }
    // A pipe or socket that is ready takes PIPE_BUF bytes.
    let cap = if output.ops.queue().is_some() { 4096 } else { 64 << 10 };
    let mut buffer = vec![0; count.min(cap)];
    let mut sink = Sink::kernel(&mut buffer);
    let attempt = match read_at {
        None => input.ops.read(&input, &mut sink),
        Some(at) => input.ops.read_at(&input, &mut sink, at),
    };
    let got = cx.block(attempt, nonblock || input.nonblock(), input.ops.queue())?;
    let mut source = Source::kernel(&buffer[..got]);
    let wrote = match write_at {
        None => write_here(cx, &output, &mut source),
        Some(at) => output.ops.write_at(&output, &mut source, at),
    };
    let wrote = wrote.map_err(|errno| broken(cx, errno))? as u64;
    told(cx, &input, Events::ACCESS);
    told(cx, &output, Events::MODIFY);
    if let Some(at) = read_at {
        cx.mm().write_obj(from_at, &(at + wrote))?;
    }
    if let Some(at) = write_at {
        cx.mm().write_obj(to_at, &(at + wrote))?;
    }
    Ok(wrote)
}

/// tee(2): copies, and takes nothing out of the pipe it reads.
pub fn tee(cx: &mut Cx<'_>, from: i32, to: i32, count: usize, flags: u32) -> SysResult {
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL.into());
    }
    if count == 0 {
        return Ok(0);
    }
    let (input, output) = (readable(cx, from)?, writable(cx, to)?);
    let (Some(source), Some(target)) = (PipeEnd::of(&input), PipeEnd::of(&output)) else {
        return Err(Errno::EINVAL.into());
    };
    if same_pipe(&input, &output) {
        return Err(Errno::EINVAL.into());
    }
    let quiet = flags & NONBLOCK != 0;
    let bytes = cx.block(source.peek(count), quiet || input.nonblock(), input.ops.queue())?;
    if bytes.is_empty() {
        return Ok(0);
    }
    let wrote = target.write(&output, &mut Source::kernel(&bytes));
    if wrote == Err(Errno::EPIPE) {
        return Err(broken(cx, Errno::EPIPE));
    }
    Ok(cx.block(wrote, quiet || output.nonblock(), output.ops.queue())? as u64)
}

/// vmsplice(2): copies, where Linux may lend the pages.
pub fn vmsplice(cx: &mut Cx<'_>, fd: i32, iov: u64, count: u64, flags: u32) -> SysResult {
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = file(cx, fd)?;
    if !file.readable() && !file.writable() {
        return Err(Errno::EBADF.into());
    }
    let segments = iovec(&cx.mm(), iov, count)?;
    if segments.iter().all(|segment| segment.1 == 0) {
        return Ok(0);
    }
    if PipeEnd::of(&file).is_none() {
        return Err(Errno::EBADF.into());
    }
    let quiet = flags & NONBLOCK != 0;
    if file.writable() {
        write_from(cx, &file, segments, Where::Here, quiet)
    } else {
        read_to(cx, &file, segments, Where::Here, quiet)
    }
}
