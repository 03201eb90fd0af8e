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
    task::process::rlimit,
};

/// SOCK_NONBLOCK and SOCK_CLOEXEC.
const TYPE_FLAGS: u32 = OpenFlags::NONBLOCK.bits() | OpenFlags::CLOEXEC.bits();

/// AF_MAX.
const AF_MAX: i32 = 46;
const AF_PACKET: i32 = 17;
/// SOCK_MAX.
const SOCK_MAX: u32 = 11;
const SOCK_PACKET: u32 = 10;

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

/// The families Linux numbers (AF_MAX), and those of them that are here; AF_PACKET is there to be
/// refused.
fn family_of(domain: i32) -> Result<Family, Errno> {
    match domain {
        1 => Ok(Family::Unix),
        2 => Ok(Family::V4),
        10 => Ok(Family::V6),
        16 => Ok(Family::Netlink),
        AF_PACKET => Err(Errno::EPERM),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// The type alone, once its flags are known to be good.
fn type_of(kind: u32) -> Result<(u32, u32), Errno> {
    /// SOCK_TYPE_MASK.
    const MASK: u32 = 0xf;
    if kind & !MASK & !TYPE_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    Ok((kind & MASK, kind & TYPE_FLAGS))
}

fn kind_of(kind: u32) -> Result<Kind, Errno> {
    match kind {
        1 => Ok(Kind::Stream),
        2 => Ok(Kind::Datagram),
        3 => Ok(Kind::Raw),
        5 => Ok(Kind::SeqPacket),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// A socket that no descriptor refers to yet.
struct Made {
    family: Family,
    kind: Kind,
    protocol: i32,
    ops: Arc<dyn Protocol>,
}

impl Made {
    fn install(self, cx: &Cx<'_>, flags: u32) -> Result<i32, Errno> {
        let Made { family, kind, protocol, ops } = self;
        let (id, creds) = (cx.kernel().fresh_id(), cx.task.creds());
        let nameless = Nameless::new(id, mode::SOCK | 0o777, (creds.fsuid, creds.fsgid));
        let socket = Socket { id, nameless, family, kind, protocol, ops };
        let flags = OpenFlags::from_bits_truncate(flags & TYPE_FLAGS);
        let file = OpenFile::new(Arc::new(socket), flags | OpenFlags::RDWR);
        cx.install(file, flags.contains(OpenFlags::CLOEXEC))
    }
}

/// Makes a socket as `__sock_create()` does: the family's number, the type's, then what the family
/// says of both and the protocol.
fn create(cx: &Cx<'_>, domain: i32, kind: u32, protocol: i32) -> Result<Made, Errno> {
    if !(0..AF_MAX).contains(&domain) {
        return Err(Errno::EAFNOSUPPORT);
    }
    if kind >= SOCK_MAX {
        return Err(Errno::EINVAL);
    }
    let domain = if domain == 2 && kind == SOCK_PACKET { AF_PACKET } else { domain };
    let family = family_of(domain)?;
    match family {
        Family::Unix => create_unix(cx, kind, protocol),
        Family::Netlink => create_netlink(cx, kind, protocol),
        Family::V4 | Family::V6 => create_inet(cx, family, kind, protocol),
    }
}

fn create_unix(cx: &Cx<'_>, kind: u32, protocol: i32) -> Result<Made, Errno> {
    if protocol != 0 && protocol != 1 {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let kind = match kind_of(kind)? {
        Kind::Raw => Kind::Datagram,
        kind => kind,
    };
    let ops = UnixSocket::new(&cx.kernel().net, kind, who(cx));
    Ok(Made { family: Family::Unix, kind, protocol: 0, ops })
}

fn create_netlink(cx: &Cx<'_>, kind: u32, protocol: i32) -> Result<Made, Errno> {
    let kind = kind_of(kind)?;
    if !matches!(kind, Kind::Raw | Kind::Datagram) {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    let ops = NetlinkSocket::new(&cx.kernel().net, protocol, who(cx))?;
    Ok(Made { family: Family::Netlink, kind, protocol, ops })
}

fn create_inet(cx: &Cx<'_>, family: Family, kind: u32, protocol: i32) -> Result<Made, Errno> {
    /// IPPROTO_MAX.
    const MOST: i32 = 263;
    let v6 = family == Family::V6;
    let ping = if v6 { 58 } else { 1 };
    if !(0..MOST).contains(&protocol) {
        return Err(Errno::EINVAL);
    }
    let (net, owner) = (&cx.kernel().net, who(cx));
    let (kind, protocol, ops): (Kind, i32, Arc<dyn Protocol>) = match (kind_of(kind)?, protocol) {
        (Kind::Stream, 0 | 6) => (Kind::Stream, 6, TcpSocket::new(net, v6, owner)),
        (Kind::Datagram, 0 | 17) => (Kind::Datagram, 17, UdpSocket::new(net, v6, owner)),
        // Nobody is in net.ipv4.ping_group_range.
        (Kind::Datagram, p) if p == ping => return Err(Errno::EACCES),
        (Kind::Raw, p) if p != 0 => return Err(Errno::EPERM),
        (Kind::SeqPacket, _) => return Err(Errno::ESOCKTNOSUPPORT),
        _ => return Err(Errno::EPROTONOSUPPORT),
    };
    Ok(Made { family, kind, protocol, ops })
}

/// socket(2).
pub fn socket(cx: &mut Cx<'_>, domain: i32, kind: u32, protocol: i32) -> SysResult {
    let (kind, flags) = type_of(kind)?;
    Ok(ret_i32(create(cx, domain, kind, protocol)?.install(cx, flags)?))
}

/// socketpair(2). As on Linux the numbers are stored before the sockets are made.
pub fn socketpair(cx: &mut Cx<'_>, domain: i32, kind: u32, protocol: i32, fds: u64) -> SysResult {
    let (kind, flags) = type_of(kind)?;
    let limit = cx.task.process.limit(rlimit::NOFILE);
    let expected = cx.files().free_pair(limit)?;
    cx.mm().write_obj(fds, &expected)?;
    let Made { family, kind, .. } = create(cx, domain, kind, protocol)?;
    if family != Family::Unix {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let [one, other] = UnixSocket::pair(&cx.kernel().net, kind, who(cx));
    let first = Made { family, kind, protocol: 0, ops: one }.install(cx, flags)?;
    let second = Made { family, kind, protocol: 0, ops: other }.install(cx, flags);
    let second = second.inspect_err(|_| drop(cx.files().close(first)))?;
    if [first, second] != expected {
        // Another thread took one of the numbers meanwhile.
        cx.mm().write_obj(fds, &[first, second])?;
    }
    Ok(0)
}

/// bind(2).
pub fn bind(cx: &mut Cx<'_>, fd: i32, addr: u64, len: i32) -> SysResult {
    let file = file_of(cx, fd)?;
    let socket = socket_of(&file)?;
    let addr = sockaddr::decode_local(&sockaddr::read(cx, addr, len)?, socket.family)?;
    if let Addr::Unix(UnixName::Path(path)) = &addr {
        let unix = socket.ops.as_any().downcast_ref::<UnixSocket>().ok_or(Errno::EINVAL)?;
        let actor = Actor::of(cx.task);
        if !matches!(unix.local(), Addr::Unix(UnixName::Unnamed)) {
            // Linux makes the node before it finds the socket to have a name.
            let taken = vfs::find(&actor, &actor.fs.cwd(), path, false).is_ok();
            return Err(if taken { Errno::EADDRINUSE } else { Errno::EINVAL }.into());
        }
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
    let file = cx.files().get(fd)?;
    if flags & !TYPE_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    let socket = socket_of(&file)?;
    let attempt = socket.ops.accept();
    let (child, peer) = wait(cx, socket, attempt, file.nonblock(), socket.timeouts().0)?;
    let Socket { family, kind, protocol, .. } = *socket;
    let new = Made { family, kind, protocol, ops: child }.install(cx, flags)?;
    if addr != 0
        && let Err(e) = sockaddr::write(cx, Some(&peer), addr, len)
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
    let file = cx.files().get(fd)?;
    let addr = sockaddr::read(cx, addr, len)?;
    let socket = socket_of(&file)?;
    let addr = sockaddr::decode(&addr, socket.family)?;
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
    sockaddr::write(cx, Some(&socket_of(&file)?.ops.local()), addr, len)?;
    Ok(0)
}

/// getpeername(2).
pub fn getpeername(cx: &mut Cx<'_>, fd: i32, addr: u64, len: u64) -> SysResult {
    let file = file_of(cx, fd)?;
    let peer = socket_of(&file)?.ops.peer()?;
    sockaddr::write(cx, Some(&peer), addr, len)?;
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
