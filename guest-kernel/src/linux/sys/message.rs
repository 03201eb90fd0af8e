//! send(2) and recv(2) in all their forms.

use std::sync::Arc;

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    poll::read_timespec,
    signal::raise,
    socket::{file_of, find_path, socket_of, wait, who},
};
use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    fs::{
        buf::{Sink, Source},
        file::OpenFile,
    },
    linux::{
        cmsg::{self, Control, Messages, SCM_CREDENTIALS, SCM_RIGHTS, SOL_SOCKET},
        sockaddr,
    },
    mm::Mm,
    net::{
        Family, Kind, Socket,
        addr::{Addr, Outgoing, Receive, Received, Ucred, UnixName},
    },
    num::Word,
    signal::number::SIGPIPE,
};

bitflags! {
    /// MSG_* of send(2) and recv(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Flags: u32 {
        const OOB = 1;
        const PEEK = 2;
        const DONTROUTE = 4;
        const CTRUNC = 8;
        const TRUNC = 0x20;
        const DONTWAIT = 0x40;
        const EOR = 0x80;
        const WAITALL = 0x100;
        const CONFIRM = 0x800;
        const ERRQUEUE = 0x2000;
        const NOSIGNAL = 0x4000;
        const MORE = 0x8000;
        const WAITFORONE = 0x10000;
        const CMSG_CLOEXEC = 0x4000_0000;
    }
}

/// `struct msghdr` of recvmsg(2).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct MsgHdr {
    name: u64,
    name_len: i32,
    pad: u32,
    iov: u64,
    iov_len: u64,
    control: u64,
    control_len: u64,
    flags: u32,
    pad2: u32,
}

/// MSG_CMSG_COMPAT: the kernel's own, which programs may not pass to the calls that take a `msghdr`.
const COMPAT: u32 = 0x8000_0000;
/// `sizeof(struct mmsghdr)`: a msghdr, an `unsigned int`, padding.
const MMSG: u64 = 64;
/// UIO_MAXIOV.
const IOV_MAX: u64 = 1024;
/// SCM_MAX_FD.
const MAX_FDS: usize = 253;
/// Largest control buffer of a send (net.core.optmem_max).
const MAX_CONTROL: u64 = 131_072;
/// The most one call moves (MAX_RW_COUNT).
const MAX_COUNT: u64 = 0x7fff_f000;

fn segments(mm: &Mm, iov: u64, count: u64) -> Result<Vec<(u64, usize)>, Errno> {
    if count > IOV_MAX {
        return Err(Errno::EMSGSIZE);
    }
    let mut out = Vec::new();
    let mut left = MAX_COUNT;
    for nth in 0..count {
        let at = iov.checked_add(nth * 16).ok_or(Errno::EFAULT)?;
        let [base, len]: [u64; 2] = mm.read_obj(at)?;
        if len > i64::MAX.cast_unsigned() {
            return Err(Errno::EINVAL);
        }
        let len = len.min(left);
        left -= len;
        if len > 0 && base.checked_add(len).is_none_or(|end| end > crate::platform::USER_END) {
            return Err(Errno::EFAULT);
        }
        out.push((base, len.size()));
    }
    Ok(out)
}

fn segment(buf: u64, len: u64) -> Result<Vec<(u64, usize)>, Errno> {
    let len = len.min(MAX_COUNT);
    if len > 0 && buf.checked_add(len).is_none_or(|end| end > crate::platform::USER_END) {
        return Err(Errno::EFAULT);
    }
    Ok(vec![(buf, len.size())])
}

fn total(list: &[(u64, usize)]) -> usize {
    list.iter().map(|segment| segment.1).sum()
}

/// A send's control messages as they lie in the caller's memory.
fn read_control(cx: &Cx<'_>, at: u64, len: u64) -> Result<Vec<u8>, Errno> {
    if len > MAX_CONTROL {
        return Err(Errno::ENOBUFS);
    }
    let mut bytes = vec![0; len.size()];
    cx.mm().read_bytes(at, &mut bytes)?;
    Ok(bytes)
}

/// SCM_RIGHTS and SCM_CREDENTIALS (`scm_send()`).
fn scm(cx: &Cx<'_>, control: &[u8], family: Family, out: &mut Outgoing) -> Result<(), Errno> {
    for message in Messages::new(control) {
        let message = message?;
        match (message.level, message.kind) {
            (SOL_SOCKET, SCM_RIGHTS) if family == Family::Unix => {
                let given = cmsg::descriptors(message.data);
                if given.len() + out.files.len() > MAX_FDS {
                    return Err(Errno::EINVAL);
                }
                for fd in given {
                    out.files.push(cx.files().get(fd)?);
                }
            }
            (SOL_SOCKET, SCM_CREDENTIALS) => {
                let given = cmsg::credentials(message.data).ok_or(Errno::EINVAL)?;
                let creds = cx.task.creds();
                let own_uid = [creds.uid, creds.euid, creds.suid].contains(&given.uid);
                let own_gid = [creds.gid, creds.egid, creds.sgid].contains(&given.gid);
                let allowed = (given.pid == cx.task.process.pid || creds.capable(cap::SYS_ADMIN))
                    && (own_uid || creds.capable(cap::SETUID))
                    && (own_gid || creds.capable(cap::SETGID));
                if !allowed {
                    return Err(Errno::EPERM);
                }
                out.creds = Some(given);
            }
            (SOL_SOCKET, _) => return Err(Errno::EINVAL),
            _ => {}
        }
    }
    Ok(())
}

/// What the Internet's protocols say of control messages; none that they take has an effect here.
fn check_inet_control(control: &[u8]) -> Result<(), Errno> {
    for message in Messages::new(control) {
        let message = message?;
        match (message.level, message.kind) {
            // These two belong to AF_UNIX.
            (SOL_SOCKET, SCM_RIGHTS | SCM_CREDENTIALS) => {}
            (SOL_SOCKET, _) => return Err(Errno::EINVAL),
            _ => {}
        }
    }
    Ok(())
}

/// What a send says besides its bytes, each family looking at it in its own order. `name` and
/// `control` are as the caller gave them, `len` is how much it sends.
fn outgoing(
    cx: &Cx<'_>,
    socket: &Socket,
    name: Option<&[u8]>,
    control: &[u8],
    flags: u32,
    len: usize,
) -> Result<Outgoing, Errno> {
    let mut out = Outgoing { urgent: flags & Flags::OOB.bits() != 0, ..Outgoing::default() };
    let inet = matches!(socket.family, Family::V4 | Family::V6);
    let lonely = socket.ops.peer().is_err();
    if socket.family == Family::Unix {
        out.creds = Some(who(cx));
    }
    // A sequenced socket that has no peer says so first.
    if !(inet || socket.kind == Kind::SeqPacket && lonely) {
        scm(cx, control, socket.family, &mut out)?;
    }
    socket.ops.admits(len, out.urgent)?;
    if let Some(name) = name {
        out.to = sockaddr::decode_destination(name, socket)?;
    }
    if inet && !(out.to.is_none() && lonely) {
        check_inet_control(control)?;
    }
    Ok(out)
}

/// One send, in as many tries as it takes.
fn send(
    cx: &mut Cx<'_>,
    file: &Arc<OpenFile>,
    list: Vec<(u64, usize)>,
    flags: u32,
    mut out: Outgoing,
) -> SysResult {
    let flags = Flags::from_bits_truncate(flags);
    let socket = socket_of(file)?;
    if let Some(Addr::Unix(UnixName::Path(path))) = &out.to
        && socket.kind == Kind::Datagram
    {
        out.target = Some(find_path(cx, path)?);
    }
    if cx.call.done > 0 {
        out.files.clear();
    }
    let mm = cx.mm();
    let mut src = Source::user(&mm, list);
    src.skip(cx.call.done);
    let attempt = match socket.ops.send(&mut src, &mut out) {
        Ok(n) if socket.kind == Kind::Stream => {
            cx.call.done += n;
            if src.left() > 0 { Err(Errno::EAGAIN) } else { Ok(cx.call.done) }
        }
        other => other,
    };
    let nonblock = file.nonblock() || flags.contains(Flags::DONTWAIT);
    let done = cx.call.done;
    let attempt = match attempt {
        Err(Errno::EAGAIN) if nonblock && done > 0 => Ok(done),
        Err(Errno::EPIPE) if socket.kind == Kind::Stream && done == 0 => {
            if !flags.contains(Flags::NOSIGNAL) {
                raise(cx, SIGPIPE);
            }
            Err(Errno::EPIPE)
        }
        Err(e) if e != Errno::EAGAIN && done > 0 => Ok(done),
        other => other,
    };
    Ok(wait(cx, socket, attempt, nonblock, socket.timeouts().1)? as u64)
}

/// sendto(2).
pub fn sendto(
    cx: &mut Cx<'_>,
    fd: i32,
    buf: u64,
    len: u64,
    flags: u32,
    addr: u64,
    addr_len: i32,
) -> SysResult {
    let list = segment(buf, len)?;
    let file = file_of(cx, fd)?;
    let socket = socket_of(&file)?;
    let name = if addr == 0 { None } else { Some(sockaddr::read(cx, addr, addr_len)?) };
    let out = outgoing(cx, socket, name.as_deref(), &[], flags, total(&list))?;
    send(cx, &file, list, flags, out)
}

fn send_one(cx: &mut Cx<'_>, file: &Arc<OpenFile>, header: u64, flags: u32) -> SysResult {
    let msg: MsgHdr = cx.mm().read_obj(header)?;
    let socket = socket_of(file)?;
    let name = if msg.name != 0 && msg.name_len != 0 {
        // Unlike sendto(2), what is too long is cut.
        Some(sockaddr::read(cx, msg.name, msg.name_len.min(sockaddr::STORAGE))?)
    } else {
        None
    };
    let list = segments(&cx.mm(), msg.iov, msg.iov_len)?;
    let control = read_control(cx, msg.control, msg.control_len)?;
    let out = outgoing(cx, socket, name.as_deref(), &control, flags, total(&list))?;
    send(cx, file, list, flags, out)
}

fn no_compat(flags: u32) -> Result<(), Errno> {
    if flags & COMPAT == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

/// sendmsg(2).
pub fn sendmsg(cx: &mut Cx<'_>, fd: i32, header: u64, flags: u32) -> SysResult {
    no_compat(flags)?;
    let file = file_of(cx, fd)?;
    send_one(cx, &file, header, flags)
}

/// How many messages of a sendmmsg or recvmmsg earlier tries have dealt with.
#[derive(Default)]
struct Batch(u32);

fn batch_done(cx: &mut Cx<'_>) -> u32 {
    cx.call.slot.as_ref().and_then(|s| s.downcast_ref::<Batch>()).map_or(0, |b| b.0)
}

/// sendmmsg(2).
pub fn sendmmsg(cx: &mut Cx<'_>, fd: i32, headers: u64, count: u32, flags: u32) -> SysResult {
    no_compat(flags)?;
    let file = file_of(cx, fd)?;
    let count = count.min(1024);
    for nth in batch_done(cx)..count {
        let at = headers.checked_add(u64::from(nth) * MMSG).ok_or(Errno::EFAULT)?;
        match send_one(cx, &file, at, flags) {
            Ok(n) => cx.mm().write_obj(at + 56, &n.low_u32())?,
            Err(_) if nth > 0 => return Ok(u64::from(nth)),
            Err(e) => return Err(e),
        }
        cx.call.done = 0;
        cx.call.slot = Some(Box::new(Batch(nth + 1)));
    }
    Ok(u64::from(count))
}

/// One receive, in as many tries as it takes.
fn receive(
    cx: &mut Cx<'_>,
    file: &Arc<OpenFile>,
    list: Vec<(u64, usize)>,
    flags: Flags,
) -> Result<Received, crate::error::Stop> {
    let socket = socket_of(file)?;
    let inet = matches!(socket.family, Family::V4 | Family::V6);
    if inet && flags.contains(Flags::ERRQUEUE) {
        return Err(Errno::EAGAIN.into());
    }
    let nonblock = file.nonblock() || flags.contains(Flags::DONTWAIT);
    let how = Receive {
        nonblock,
        peek: flags.contains(Flags::PEEK),
        urgent: flags.contains(Flags::OOB),
        creds: false,
    };
    let mm = cx.mm();
    let mut dst = Sink::user(&mm, list);
    dst.skip(cx.call.done);
    let all = flags.contains(Flags::WAITALL) && socket.kind == Kind::Stream && !how.peek;
    let attempt = match socket.ops.recv(&mut dst, how) {
        Ok(mut got) => {
            let ended = got.stored == 0;
            if socket.kind == Kind::Stream {
                got.stored += cx.call.done;
                got.full = got.stored;
            }
            let plain = got.files.is_empty() && !got.urgent;
            if all && plain && !ended && dst.left() > 0 && !nonblock {
                cx.call.done = got.stored;
                Err(Errno::EAGAIN)
            } else {
                Ok(got)
            }
        }
        Err(Errno::EAGAIN) if nonblock && cx.call.done > 0 => {
            Ok(Received { stored: cx.call.done, full: cx.call.done, ..Received::default() })
        }
        Err(e) => Err(e),
    };
    wait(cx, socket, attempt, nonblock || how.urgent, socket.timeouts().0)
}

/// recvfrom(2).
pub fn recvfrom(
    cx: &mut Cx<'_>,
    fd: i32,
    buf: u64,
    len: u64,
    flags: u32,
    addr: u64,
    addr_len: u64,
) -> SysResult {
    let list = segment(buf, len)?;
    let file = file_of(cx, fd)?;
    let flags = Flags::from_bits_truncate(flags);
    let got = receive(cx, &file, list, flags)?;
    if addr != 0 {
        sockaddr::write(cx, got.from.as_ref(), addr, addr_len)?;
    }
    Ok(result(&got, flags))
}

/// What the call returns: with MSG_TRUNC the true length of a packet.
fn result(got: &Received, flags: Flags) -> u64 {
    if flags.contains(Flags::TRUNC) { got.full as u64 } else { got.stored as u64 }
}

fn write_control(
    cx: &Cx<'_>,
    socket: &Socket,
    got: &mut Received,
    room: u64,
    cloexec: bool,
) -> Result<Control, Errno> {
    let mut control = Control::new(room.size());
    let (pass_cred, packet_info, stored) = {
        let options = socket.ops.endpoint().options();
        (options.pass_cred, options.packet_info, options.stored.clone())
    };
    if pass_cred && matches!(socket.family, Family::Unix | Family::Netlink) {
        let creds = got.creds.unwrap_or(Ucred { pid: 0, uid: 65534, gid: 65534 });
        control.put(SOL_SOCKET, SCM_CREDENTIALS, &cmsg::ucred(creds));
    }
    if let (true, Some(to)) = (packet_info, got.to) {
        match to.ip.as_v4() {
            Some(ip) => {
                let data = [1i32.to_ne_bytes(), ip, ip].concat();
                control.put(0, 8, &data);
            }
            None => {
                let mut data = to.ip.0.to_vec();
                data.extend(1i32.to_ne_bytes());
                control.put(41, 50, &data);
            }
        }
    }
    if socket.kind == Kind::Datagram {
        // Every datagram came by loopback with a fresh TTL and no class.
        let asked = |level, name| stored.get(&(level, name)).is_some_and(|v| *v != 0);
        const TTL: i32 = 64;
        // IP_RECVTTL, IP_RECVTOS; IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS.
        if asked(0, 12) && socket.family == Family::V4 {
            control.put(0, 2, &TTL.to_ne_bytes());
        }
        if asked(0, 13) && socket.family == Family::V4 {
            control.put(0, 1, &[0]);
        }
        if asked(41, 51) && socket.family == Family::V6 {
            control.put(41, 52, &TTL.to_ne_bytes());
        }
        if asked(41, 66) && socket.family == Family::V6 {
            control.put(41, 67, &0i32.to_ne_bytes());
        }
    }
    if !got.files.is_empty() {
        let mut data = Vec::new();
        let room = control.descriptors();
        control.truncated |= got.files.len() > room;
        for file in got.files.drain(..).take(room) {
            match cx.install(file, cloexec) {
                Ok(fd) => data.extend(fd.to_ne_bytes()),
                Err(_) => {
                    control.truncated = true;
                    break;
                }
            }
        }
        if !data.is_empty() {
            control.put(SOL_SOCKET, SCM_RIGHTS, &data);
        }
    }
    Ok(control)
}

fn recv_one(cx: &mut Cx<'_>, file: &Arc<OpenFile>, header: u64, flags: Flags) -> SysResult {
    let mm = cx.mm();
    let mut msg: MsgHdr = mm.read_obj(header)?;
    if msg.name != 0 && msg.name_len < 0 {
        return Err(Errno::EINVAL.into());
    }
    let list = segments(&mm, msg.iov, msg.iov_len)?;
    let socket = socket_of(file)?;
    let mut got = receive(cx, file, list, flags)?;
    let cloexec = flags.contains(Flags::CMSG_CLOEXEC);
    let room = if msg.control == 0 { 0 } else { msg.control_len.min(1 << 20) };
    let control = write_control(cx, socket, &mut got, room, cloexec)?;
    mm.write_bytes(msg.control, &control.bytes)?;
    msg.control_len = control.bytes.len() as u64;
    if msg.name != 0 {
        let bytes = got.from.as_ref().map(sockaddr::encode).unwrap_or_default();
        let room = usize::try_from(msg.name_len).map_err(|_| Errno::EINVAL)?;
        mm.write_bytes(msg.name, &bytes[..bytes.len().min(room)])?;
        msg.name_len = bytes.len().low_i32();
    }
    let mut out = flags & Flags::CMSG_CLOEXEC;
    out.set(Flags::TRUNC, got.stored < got.full);
    out.set(Flags::CTRUNC, control.truncated);
    out.set(Flags::EOR, got.record && socket.kind == Kind::SeqPacket);
    out.set(Flags::OOB, got.urgent);
    msg.flags = out.bits();
    mm.write_obj(header, &msg)?;
    Ok(result(&got, flags))
}

/// recvmsg(2).
pub fn recvmsg(cx: &mut Cx<'_>, fd: i32, header: u64, flags: u32) -> SysResult {
    no_compat(flags)?;
    let file = file_of(cx, fd)?;
    recv_one(cx, &file, header, Flags::from_bits_truncate(flags))
}

/// recvmmsg(2).
pub fn recvmmsg(
    cx: &mut Cx<'_>,
    fd: i32,
    headers: u64,
    count: u32,
    flags: u32,
    timeout: u64,
) -> SysResult {
    no_compat(flags)?;
    let limit = if timeout == 0 { None } else { Some(read_timespec(cx, timeout)?) };
    let file = file_of(cx, fd)?;
    let mut flags = Flags::from_bits_truncate(flags);
    let count = count.min(1024);
    let deadline = limit.map(|t| cx.started().saturating_add(t));
    for nth in batch_done(cx)..count {
        if nth > 0 && flags.contains(Flags::WAITFORONE) {
            flags |= Flags::DONTWAIT;
        }
        let at = headers.checked_add(u64::from(nth) * MMSG).ok_or(Errno::EFAULT)?;
        match recv_one(cx, &file, at, flags) {
            Ok(n) => cx.mm().write_obj(at + 56, &n.low_u32())?,
            Err(crate::error::Stop::Errno(_)) if nth > 0 => return Ok(u64::from(nth)),
            Err(e) => return Err(e),
        }
        cx.call.done = 0;
        cx.call.slot = Some(Box::new(Batch(nth + 1)));
        if deadline.is_some_and(|d| cx.now() >= d) {
            return Ok(u64::from(nth + 1));
        }
    }
    Ok(u64::from(count))
}
