//! socket(2), bind(2), listen(2), accept(2), connect(2) and their kin.

use std::sync::Arc;

use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, Restart, Stop, SysResult, Wait},
    fs::{
        file::{OpenFile, OpenFlags},
        inode::{Actor, mode},
        nameless::Nameless,
        perm, vfs,
    },
    linux::sockaddr,
    net::{
        Family, Kind, Protocol, Socket,
        addr::{Addr, Connect, Ucred, UnixName},
        inet::{tcp::TcpSocket, udp::UdpSocket},
        netlink::NetlinkSocket,
        unix::UnixSocket,
    },
    num::ret_i32,
};

/// SOCK_NONBLOCK and SOCK_CLOEXEC.
const TYPE_FLAGS: u32 = OpenFlags::NONBLOCK.bits() | OpenFlags::CLOEXEC.bits();

/// Who the caller is to a peer.
pub(super) fn who(cx: &Cx<'_>) -> Ucred {
    let creds = cx.task.creds();
    Ucred { pid: cx.task.process.pid, uid: creds.euid, gid: creds.egid }
}

/// The description behind `fd`, which must be a socket.
///
/// # Errors
/// EBADF, ENOTSOCK.
pub(super) fn file_of(cx: &Cx<'_>, fd: i32) -> Result<Arc<OpenFile>, Errno> {
    let file = cx.files().get(fd)?;
    if file.downcast::<Socket>().is_none() {
        return Err(Errno::ENOTSOCK);
    }
    Ok(file)
}

/// The socket behind a description that [`file_of`] returned.
pub(super) fn socket_of(file: &OpenFile) -> Result<&Socket, Errno> {
    file.downcast::<Socket>().ok_or(Errno::ENOTSOCK)
}

fn family_of(domain: i32) -> Result<Family, Errno> {
    match domain {
        1 => Ok(Family::Unix),
        2 => Ok(Family::V4),
        10 => Ok(Family::V6),
        16 => Ok(Family::Netlink),
        17 => Err(Errno::EPERM),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

fn kind_of(kind: u32) -> Result<Kind, Errno> {
    match kind & !TYPE_FLAGS {
        1 => Ok(Kind::Stream),
        2 => Ok(Kind::Datagram),
        3 => Ok(Kind::Raw),
        5 => Ok(Kind::SeqPacket),
        0 | 4 | 6 | 10 => Err(Errno::ESOCKTNOSUPPORT),
        _ => Err(Errno::EINVAL),
    }
}

fn install(
    cx: &Cx<'_>,
    family: Family,
    kind: Kind,
    protocol: i32,
    ops: Arc<dyn Protocol>,
    flags: u32,
) -> Result<i32, Errno> {
    let (id, creds) = (cx.kernel().fresh_id(), cx.task.creds());
    let nameless = Nameless::new(id, mode::SOCK | 0o777, (creds.fsuid, creds.fsgid));
    let socket = Socket { id, nameless, family, kind, protocol, ops };
    let flags = OpenFlags::from_bits_truncate(flags & TYPE_FLAGS);
    let file = OpenFile::new(Arc::new(socket), flags | OpenFlags::RDWR);
    cx.install(file, flags.contains(OpenFlags::CLOEXEC))
}

/// socket(2).
pub fn socket(cx: &mut Cx<'_>, domain: i32, kind: u32, protocol: i32) -> SysResult {
    let flags = kind & TYPE_FLAGS;
    let family = family_of(domain)?;
    let kind = kind_of(kind)?;
    let net = &cx.kernel().net;
    let owner = who(cx);
    let (kind, protocol, ops): (Kind, i32, Arc<dyn Protocol>) = match (family, kind, protocol) {
        (Family::Unix, _, p) if p != 0 && p != 1 => return Err(Errno::EPROTONOSUPPORT.into()),
        (Family::Unix, kind, _) => {
            let kind = if kind == Kind::Raw { Kind::Datagram } else { kind };
            (kind, 0, UnixSocket::new(net, kind, owner))
        }
        (Family::Netlink, Kind::Raw | Kind::Datagram, p) => {
            (kind, p, NetlinkSocket::new(net, p, owner)?)
        }
        (Family::Netlink, ..) => return Err(Errno::ESOCKTNOSUPPORT.into()),
        (_, Kind::Stream, 0 | 6) => {
            (Kind::Stream, 6, TcpSocket::new(net, family == Family::V6, owner))
        }
        (_, Kind::Datagram, 0 | 17) => {
            (Kind::Datagram, 17, UdpSocket::new(net, family == Family::V6, owner))
        }
        (_, Kind::Raw, p) if p != 0 => return Err(Errno::EPERM.into()),
        (_, Kind::SeqPacket, _) => return Err(Errno::ESOCKTNOSUPPORT.into()),
        _ => return Err(Errno::EPROTONOSUPPORT.into()),
    };
    Ok(ret_i32(install(cx, family, kind, protocol, ops, flags)?))
}

/// socketpair(2).
pub fn socketpair(cx: &mut Cx<'_>, domain: i32, kind: u32, protocol: i32, fds: u64) -> SysResult {
    let flags = kind & TYPE_FLAGS;
    let family = family_of(domain)?;
    let kind = kind_of(kind)?;
    if family != Family::Unix {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if protocol != 0 && protocol != 1 {
        return Err(Errno::EPROTONOSUPPORT.into());
    }
    let kind = if kind == Kind::Raw { Kind::Datagram } else { kind };
    let [one, other] = UnixSocket::pair(&cx.kernel().net, kind, who(cx));
    let first = install(cx, family, kind, 0, one, flags)?;
    let done = install(cx, family, kind, 0, other, flags).and_then(|second| {
        cx.mm().write_obj(fds, &[first, second]).inspect_err(|_| {
            drop(cx.files().close(second));
        })
    });
    if let Err(e) = done {
        drop(cx.files().close(first));
        return Err(e.into());
    }
    Ok(0)
}

/// bind(2).
pub fn bind(cx: &mut Cx<'_>, fd: i32, addr: u64, len: i32) -> SysResult {
    let file = file_of(cx, fd)?;
    let socket = socket_of(&file)?;
    let mut addr = sockaddr::read(cx, addr, len, socket.family)?;
    if addr == Addr::Unspec {
        addr = match socket.family {
            // ip(7): AF_UNSPEC is let through for 0.0.0.0, as old programs pass it.
            Family::V4 => {
                Addr::V4(crate::net::addr::Host { ip: crate::net::addr::Ip::ANY4, port: 0 })
            }
            Family::V6 => return Err(Errno::EAFNOSUPPORT.into()),
            _ => return Err(Errno::EINVAL.into()),
        };
    }
    if let Addr::Unix(UnixName::Path(path)) = &addr {
        let unix = socket.ops.as_any().downcast_ref::<UnixSocket>().ok_or(Errno::EINVAL)?;
        if !matches!(unix.local(), Addr::Unix(UnixName::Unnamed)) {
            return Err(Errno::EINVAL.into());
        }
        let actor = Actor::of(cx.task);
        let node = vfs::create(&actor, &actor.fs.cwd(), path, mode::SOCK | 0o777, 0, b"");
        let node = node.map_err(|e| if e == Errno::EEXIST { Errno::EADDRINUSE } else { e })?;
        unix.bind_node(path, node.inode())?;
        return Ok(0);
    }
    let privileged = cx.task.creds().capable(cap::NET_BIND_SERVICE);
    socket.ops.bind(&addr, privileged)?;
    Ok(0)
}

/// listen(2).
pub fn listen(cx: &mut Cx<'_>, fd: i32, backlog: u32) -> SysResult {
    let file = file_of(cx, fd)?;
    let backlog = usize::try_from(backlog).unwrap_or(usize::MAX);
    socket_of(&file)?.ops.listen(backlog, who(cx))?;
    Ok(0)
}

/// Turns EAGAIN into a wait on the socket, bounded by `timeout` (SO_RCVTIMEO, SO_SNDTIMEO).
pub(super) fn wait<T>(
    cx: &mut Cx<'_>,
    socket: &Socket,
    attempt: Result<T, Errno>,
    nonblock: bool,
    timeout: Option<std::time::Duration>,
) -> Result<T, Stop> {
    match attempt {
        Err(Errno::EAGAIN) if !nonblock => {
            let deadline = cx.deadline_after(timeout);
            if deadline.is_some_and(|d| cx.now() >= d) {
                return Err(Errno::EAGAIN.into());
            }
            let restart = if timeout.is_some() { Restart::Never } else { Restart::IfSaRestart };
            let queue = socket.ops.endpoint().queue.clone();
            Err(Wait::on(queue).until(deadline).restart(restart).into())
        }
        other => other.map_err(Stop::Errno),
    }
}

/// accept(2).
pub fn accept(cx: &mut Cx<'_>, fd: i32, addr: u64, len: u64) -> SysResult {
    accept4(cx, fd, addr, len, 0)
}

/// accept4(2).
pub fn accept4(cx: &mut Cx<'_>, fd: i32, addr: u64, len: u64, flags: u32) -> SysResult {
    if flags & !TYPE_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = file_of(cx, fd)?;
    let socket = socket_of(&file)?;
    let attempt = socket.ops.accept();
    let (child, peer) = wait(cx, socket, attempt, file.nonblock(), socket.timeouts().0)?;
    let new = install(cx, socket.family, socket.kind, socket.protocol, child, flags)?;
    if addr != 0
        && let Err(e) = sockaddr::write(cx, &peer, addr, len)
    {
        drop(cx.files().close(new));
        return Err(e.into());
    }
    Ok(ret_i32(new))
}

/// The socket a path leads to.
///
/// # Errors
/// ECONNREFUSED if there is none; EACCES without write permission.
pub(super) fn find_path(cx: &Cx<'_>, path: &[u8]) -> Result<Arc<UnixSocket>, Errno> {
    let actor = Actor::of(cx.task);
    let found = vfs::find(&actor, &actor.fs.cwd(), path, true)?;
    let attr = found.attr()?;
    perm::check(&actor.creds, &attr, 2)?;
    if attr.mode & mode::FMT != mode::SOCK {
        return Err(Errno::ECONNREFUSED);
    }
    UnixSocket::at_node(found.inode())
}

/// Marks in a call that its connect has begun.
struct Started;

/// connect(2).
pub fn connect(cx: &mut Cx<'_>, fd: i32, addr: u64, len: i32) -> SysResult {
    let file = file_of(cx, fd)?;
    let socket = socket_of(&file)?;
    let addr = sockaddr::read(cx, addr, len, socket.family)?;
    let target = match &addr {
        Addr::Unix(UnixName::Path(path)) => Some(find_path(cx, path)?),
        _ => None,
    };
    let nonblock = file.nonblock();
    let started = cx.call.slot.is_some();
    let how = Connect { nonblock, started, who: who(cx), target };
    let attempt = socket.ops.connect(&addr, &how);
    if attempt.is_err() {
        cx.call.slot.get_or_insert_with(|| Box::new(Started));
    }
    wait(cx, socket, attempt, nonblock, socket.timeouts().1)?;
    Ok(0)
}

/// getsockname(2).
pub fn getsockname(cx: &mut Cx<'_>, fd: i32, addr: u64, len: u64) -> SysResult {
    let file = file_of(cx, fd)?;
    sockaddr::write(cx, &socket_of(&file)?.ops.local(), addr, len)?;
    Ok(0)
}

/// getpeername(2).
pub fn getpeername(cx: &mut Cx<'_>, fd: i32, addr: u64, len: u64) -> SysResult {
    let file = file_of(cx, fd)?;
    let peer = socket_of(&file)?.ops.peer()?;
    sockaddr::write(cx, &peer, addr, len)?;
    Ok(0)
}

/// shutdown(2).
pub fn shutdown(cx: &mut Cx<'_>, fd: i32, how: i32) -> SysResult {
    let file = file_of(cx, fd)?;
    let (read, write) = match how {
        0 => (true, false),
        1 => (false, true),
        2 => (true, true),
        _ => return Err(Errno::EINVAL.into()),
    };
    socket_of(&file)?.ops.shutdown(read, write)?;
    Ok(0)
}
