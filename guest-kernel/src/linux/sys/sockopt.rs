//! getsockopt(2) and setsockopt(2): socket(7), ip(7), ipv6(7), tcp(7), udp(7), netlink(7).

use std::time::Duration;

use super::{
    socket::{file_of, socket_of},
    sockopt_known::{Setting, is_privileged, readable, setting},
};
use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    net::{
        Family, Kind, Socket,
        options::{BUFFER_MAX, Options},
    },
    num::Word,
};

pub(super) const SOL_SOCKET: i32 = 1;
const SOL_NETLINK: i32 = 270;
pub(super) const IPPROTO_IP: i32 = 0;
pub(super) const IPPROTO_TCP: i32 = 6;
pub(super) const IPPROTO_UDP: i32 = 17;
pub(super) const IPPROTO_IPV6: i32 = 41;

/// SO_* numbers of SOL_SOCKET.
mod so {
    pub const DEBUG: i32 = 1;
    pub const REUSEADDR: i32 = 2;
    pub const TYPE: i32 = 3;
    pub const ERROR: i32 = 4;
    pub const DONTROUTE: i32 = 5;
    pub const BROADCAST: i32 = 6;
    pub const SNDBUF: i32 = 7;
    pub const RCVBUF: i32 = 8;
    pub const KEEPALIVE: i32 = 9;
    pub const OOBINLINE: i32 = 10;
    pub const NO_CHECK: i32 = 11;
    pub const PRIORITY: i32 = 12;
    pub const LINGER: i32 = 13;
    pub const REUSEPORT: i32 = 15;
    pub const PASSCRED: i32 = 16;
    pub const PEERCRED: i32 = 17;
    pub const RCVLOWAT: i32 = 18;
    pub const SNDLOWAT: i32 = 19;
    pub const RCVTIMEO: i32 = 20;
    pub const SNDTIMEO: i32 = 21;
    pub const BINDTODEVICE: i32 = 25;
    pub const ATTACH_FILTER: i32 = 26;
    pub const TIMESTAMP: i32 = 29;
    pub const ACCEPTCONN: i32 = 30;
    pub const SNDBUFFORCE: i32 = 32;
    pub const RCVBUFFORCE: i32 = 33;
    pub const MARK: i32 = 36;
    pub const PROTOCOL: i32 = 38;
    pub const DOMAIN: i32 = 39;
}

/// setsockopt(2).
pub fn setsockopt(
    cx: &mut Cx<'_>,
    fd: i32,
    level: i32,
    name: i32,
    value: u64,
    len: i32,
) -> SysResult {
    let file = file_of(cx, fd)?;
    let socket = socket_of(&file)?;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    check_level(socket, level)?;
    let mut bytes = vec![0; len.min(value_size(level, name, len)?)];
    cx.mm().read_bytes(value, &mut bytes)?;
    let int = bytes.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    match level {
        SOL_SOCKET => set_socket(cx, socket, name, int, &bytes)?,
        SOL_NETLINK => set_netlink(socket, name, int)?,
        _ => set_inet(cx, socket, level, name, int, &bytes)?,
    }
    socket.ops.options_changed();
    Ok(0)
}

/// How much of a value of `len` bytes is read. TCP's and UDP's options and most of SOL_SOCKET's are
/// integers, and that they are too short is told before that they cannot be read.
fn value_size(level: i32, name: i32, len: usize) -> Result<usize, Errno> {
    /// TCP_CONGESTION, TCP_ULP, TCP_FASTOPEN_KEY.
    const TCP_TEXT: [i32; 3] = [13, 31, 33];
    /// More than any option has.
    const MOST: usize = 256;
    let (least, most) = match (level, name) {
        (SOL_SOCKET, so::BINDTODEVICE) => (0, 15),
        (SOL_SOCKET, so::LINGER) => (4, 8),
        (SOL_SOCKET, so::RCVTIMEO | so::SNDTIMEO | so::ATTACH_FILTER) => (4, 16),
        (IPPROTO_TCP, name) if TCP_TEXT.contains(&name) => (1, MOST),
        (IPPROTO_TCP, _) => (4, MOST),
        (SOL_SOCKET | IPPROTO_UDP, _) => (4, 4),
        (SOL_NETLINK, _) if len < 4 => (0, 0),
        _ => (0, MOST),
    };
    if len < least { Err(Errno::EINVAL) } else { Ok(most) }
}

fn set_socket(
    cx: &Cx<'_>,
    socket: &Socket,
    name: i32,
    int: Option<i32>,
    bytes: &[u8],
) -> Result<(), Errno> {
    let value = match int {
        // A name, which may be short.
        None if name == so::BINDTODEVICE => 0,
        int => int.ok_or(Errno::EINVAL)?,
    };
    let on = value != 0;
    let buffer = |value: i32| usize::try_from(value).unwrap_or(BUFFER_MAX).min(BUFFER_MAX) * 2;
    let mut options = socket.ops.endpoint().options();
    match name {
        so::REUSEADDR => options.reuse_addr = on,
        so::REUSEPORT if on && !matches!(socket.family, Family::V4 | Family::V6) => {
            return Err(Errno::EOPNOTSUPP);
        }
        so::REUSEPORT => options.reuse_port = on,
        so::KEEPALIVE => options.keep_alive = on,
        so::BROADCAST => options.broadcast = on,
        so::TIMESTAMP => options.timestamp = on,
        so::PASSCRED if matches!(socket.family, Family::Unix | Family::Netlink) => {
            options.pass_cred = on
        }
        so::PASSCRED => return Err(Errno::EOPNOTSUPP),
        so::SNDBUF | so::SNDBUFFORCE => {
            options.send_buffer = buffer(value).max(4608);
            options.send_buffer_set = true;
        }
        so::RCVBUF | so::RCVBUFFORCE => {
            options.recv_buffer = buffer(value).max(2304);
            options.recv_buffer_set = true;
        }
        so::RCVLOWAT => options.recv_low = if value < 0 { i32::MAX } else { value.max(1) },
        so::LINGER => {
            let seconds = bytes.get(4..8).and_then(|b| b.try_into().ok()).ok_or(Errno::EINVAL)?;
            options.linger = on.then(|| u32::from_ne_bytes(seconds));
        }
        so::RCVTIMEO => options.recv_timeout = time(bytes)?,
        so::SNDTIMEO => options.send_timeout = time(bytes)?,
        so::PRIORITY if !(0..=6).contains(&value) => {
            if !cx.task.creds().capable(cap::NET_ADMIN) {
                return Err(Errno::EPERM);
            }
            options.stored.insert((SOL_SOCKET, name), value);
        }
        so::MARK if !cx.task.creds().capable(cap::NET_ADMIN) => {
            return Err(Errno::EPERM);
        }
        so::TYPE
        | so::ERROR
        | so::PEERCRED
        | so::ACCEPTCONN
        | so::PROTOCOL
        | so::DOMAIN
        | so::SNDLOWAT => return Err(Errno::ENOPROTOOPT),
        so::DEBUG | so::DONTROUTE | so::OOBINLINE | so::NO_CHECK => {
            options.stored.insert((SOL_SOCKET, name), i32::from(on));
        }
        so::MARK => {
            options.stored.insert((SOL_SOCKET, name), value);
        }
        so::PRIORITY => {
            options.stored.insert((SOL_SOCKET, name), value);
        }
        _ => other(&mut options, SOL_SOCKET, name, int, bytes)?,
    }
    Ok(())
}

/// An option without effect.
fn other(
    options: &mut Options,
    level: i32,
    name: i32,
    value: Option<i32>,
    bytes: &[u8],
) -> Result<(), Errno> {
    match setting(level, name, bytes)? {
        Setting::Nothing => {}
        Setting::Store => {
            options.stored.insert((level, name), value.ok_or(Errno::EINVAL)?);
        }
        Setting::Join(group) => *options.stored.entry((level, group)).or_default() += 1,
        Setting::Leave(group) => {
            let joined = options.stored.get_mut(&(level, group)).filter(|n| **n > 0);
            *joined.ok_or(Errno::EADDRNOTAVAIL)? -= 1;
        }
    }
    Ok(())
}

/// NETLINK_PKTINFO, BROADCAST_ERROR, NO_ENOBUFS, LISTEN_ALL_NSID, CAP_ACK, EXT_ACK, GET_STRICT_CHK.
const NETLINK_FLAGS: [i32; 7] = [3, 4, 5, 8, 10, 11, 12];

/// Options of netlink(7): kept, and without effect, since nothing is ever announced to a group and
/// acknowledgements explain nothing.
fn set_netlink(socket: &Socket, name: i32, int: Option<i32>) -> Result<(), Errno> {
    /// NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP.
    const MEMBERSHIP: [i32; 2] = [1, 2];
    let value = int.ok_or(Errno::EINVAL)?;
    if MEMBERSHIP.contains(&name) {
        return if (1..=1024).contains(&value) { Ok(()) } else { Err(Errno::EINVAL) };
    }
    if !NETLINK_FLAGS.contains(&name) {
        return Err(Errno::ENOPROTOOPT);
    }
    let mut options = socket.ops.endpoint().options();
    options.stored.insert((SOL_NETLINK, name), i32::from(value != 0));
    Ok(())
}

/// A `struct timeval` of SO_RCVTIMEO; zero is none.
fn time(bytes: &[u8]) -> Result<Option<Duration>, Errno> {
    let word = |at: usize| -> Result<i64, Errno> {
        let word = bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).ok_or(Errno::EINVAL)?;
        Ok(i64::from_ne_bytes(word))
    };
    let (seconds, micros) = (word(0)?, word(8)?);
    if !(0..1_000_000).contains(&micros) {
        return Err(Errno::EDOM);
    }
    if seconds < 0 {
        return Ok(Some(Duration::ZERO));
    }
    let total =
        Duration::from_secs(seconds.unsigned_abs()) + Duration::from_micros(micros.unsigned_abs());
    Ok((!total.is_zero()).then_some(total))
}

fn set_inet(
    cx: &Cx<'_>,
    socket: &Socket,
    level: i32,
    name: i32,
    int: Option<i32>,
    bytes: &[u8],
) -> Result<(), Errno> {
    let value = int.or_else(|| bytes.first().map(|b| i32::from(*b)));
    if is_privileged(level, name, value.unwrap_or(0)) && !cx.task.creds().capable(cap::NET_ADMIN) {
        return Err(Errno::EPERM);
    }
    let mut options = socket.ops.endpoint().options();
    match (level, name) {
        // IPV6_V6ONLY, before bind only.
        (IPPROTO_IPV6, 26) => {
            drop(options);
            let bound = !matches!(
                socket.ops.local(),
                crate::net::addr::Addr::V6(host) if host.port == 0
            );
            if bound {
                return Err(Errno::EINVAL);
            }
            socket.ops.endpoint().options().v6_only = value.ok_or(Errno::EINVAL)? != 0;
        }
        // IP_PKTINFO, IPV6_RECVPKTINFO.
        (IPPROTO_IP, 8) | (IPPROTO_IPV6, 49) => {
            options.packet_info = value.ok_or(Errno::EINVAL)? != 0;
        }
        _ => other(&mut options, level, name, value, bytes)?,
    }
    Ok(())
}

/// Options of a protocol exist on its sockets only.
fn check_level(socket: &Socket, level: i32) -> Result<(), Errno> {
    let fits = match level {
        SOL_SOCKET => true,
        SOL_NETLINK => socket.family == Family::Netlink,
        IPPROTO_IP => matches!(socket.family, Family::V4 | Family::V6),
        IPPROTO_IPV6 => socket.family == Family::V6,
        IPPROTO_TCP => socket.protocol == 6,
        IPPROTO_UDP => socket.protocol == 17,
        _ => false,
    };
    if fits {
        Ok(())
    } else if socket.family == Family::Unix {
        Err(Errno::EOPNOTSUPP)
    } else {
        Err(Errno::ENOPROTOOPT)
    }
}

/// getsockopt(2).
pub fn getsockopt(
    cx: &mut Cx<'_>,
    fd: i32,
    level: i32,
    name: i32,
    value: u64,
    len_at: u64,
) -> SysResult {
    let file = file_of(cx, fd)?;
    let socket = socket_of(&file)?;
    match check_level(socket, level) {
        // Unlike setsockopt(2), IPv4's answer for another protocol's option.
        Err(_) if socket.family == Family::V4 => return Err(Errno::EOPNOTSUPP.into()),
        checked => checked?,
    }
    let mm = cx.mm();
    let room: i32 = mm.read_obj(len_at)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let bytes = match level {
        SOL_SOCKET => get_socket(socket, name)?,
        SOL_NETLINK => {
            let options = socket.ops.endpoint().options();
            let value = options.stored.get(&(SOL_NETLINK, name)).copied();
            let known = NETLINK_FLAGS.contains(&name).then_some(0);
            let value = value.or(known).ok_or(Errno::ENOPROTOOPT)?;
            if room < 4 {
                return Err(Errno::EINVAL.into());
            }
            value.to_ne_bytes().to_vec()
        }
        _ => get_inet(socket, level, name)?,
    };
    let count = bytes.len().min(room);
    mm.write_bytes(value, &bytes[..count])?;
    mm.write_obj(len_at, &count.low_i32())?;
    Ok(0)
}

fn get_socket(socket: &Socket, name: i32) -> Result<Vec<u8>, Errno> {
    let end = socket.ops.endpoint();
    if name == so::ERROR {
        let error = end.take_error().map_or(0, |e| i32::from(e.raw()));
        return Ok(error.to_ne_bytes().to_vec());
    }
    let options = end.options();
    let timeval = |time: Option<Duration>| {
        let time = time.unwrap_or_default();
        let mut out = time.as_secs().to_ne_bytes().to_vec();
        out.extend(u64::from(time.subsec_micros()).to_ne_bytes());
        out
    };
    let value = match name {
        so::REUSEADDR => i32::from(options.reuse_addr),
        so::REUSEPORT => i32::from(options.reuse_port),
        so::KEEPALIVE => i32::from(options.keep_alive),
        so::BROADCAST => i32::from(options.broadcast),
        so::TIMESTAMP => i32::from(options.timestamp),
        so::PASSCRED if matches!(socket.family, Family::V4 | Family::V6) => {
            return Err(Errno::EOPNOTSUPP);
        }
        so::PASSCRED => i32::from(options.pass_cred),
        so::SNDBUF => options.send_buffer.low_i32(),
        so::RCVBUF => options.recv_buffer.low_i32(),
        so::RCVLOWAT => options.recv_low,
        so::SNDLOWAT => 1,
        so::LINGER => {
            let on = i32::from(options.linger.is_some());
            let mut out = on.to_ne_bytes().to_vec();
            out.extend(options.linger.unwrap_or(0).to_ne_bytes());
            return Ok(out);
        }
        so::RCVTIMEO => return Ok(timeval(options.recv_timeout)),
        so::SNDTIMEO => return Ok(timeval(options.send_timeout)),
        so::TYPE => match socket.kind {
            Kind::Stream => 1,
            Kind::Datagram => 2,
            Kind::Raw => 3,
            Kind::SeqPacket => 5,
        },
        so::ACCEPTCONN => {
            drop(options);
            i32::from(socket.ops.is_listening())
        }
        so::PROTOCOL => socket.protocol,
        so::DOMAIN => match socket.family {
            Family::Unix => 1,
            Family::V4 => 2,
            Family::V6 => 10,
            Family::Netlink => 16,
        },
        so::PEERCRED => {
            drop(options);
            let creds = socket.ops.peer_creds()?;
            let mut out = creds.pid.to_ne_bytes().to_vec();
            out.extend(creds.uid.to_ne_bytes());
            out.extend(creds.gid.to_ne_bytes());
            return Ok(out);
        }
        so::DEBUG | so::DONTROUTE | so::OOBINLINE | so::NO_CHECK | so::PRIORITY | so::MARK => {
            options.stored.get(&(SOL_SOCKET, name)).copied().unwrap_or(0)
        }
        _ => {
            readable(SOL_SOCKET, name)?;
            options.stored.get(&(SOL_SOCKET, name)).copied().unwrap_or(0)
        }
    };
    Ok(value.to_ne_bytes().to_vec())
}

fn get_inet(socket: &Socket, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
    let options = socket.ops.endpoint().options();
    let default = match (level, name) {
        (IPPROTO_IPV6, 26) => i32::from(options.v6_only),
        (IPPROTO_IP, 8) | (IPPROTO_IPV6, 49) => i32::from(options.packet_info),
        // IP_TTL, IPV6_UNICAST_HOPS, multicast TTL, loop.
        (IPPROTO_IP, 2) | (IPPROTO_IPV6, 16) => 64,
        (IPPROTO_IP, 33 | 34) | (IPPROTO_IPV6, 18 | 19) => 1,
        // TCP_MAXSEG, KEEPIDLE, KEEPINTVL, KEEPCNT, SYNCNT.
        (IPPROTO_TCP, 2) => 32_768,
        (IPPROTO_TCP, 4) => 7200,
        (IPPROTO_TCP, 5) => 75,
        (IPPROTO_TCP, 6) => 9,
        (IPPROTO_TCP, 7) => 6,
        // TCP_INFO: the state and nothing else.
        (IPPROTO_TCP, 11) => {
            drop(options);
            let state = match (socket.ops.is_listening(), socket.ops.peer()) {
                (true, _) => 10,
                (_, Ok(_)) => 1,
                _ => 7,
            };
            let mut info = vec![0; 104];
            info[0] = state;
            return Ok(info);
        }
        // TCP_CONGESTION.
        (IPPROTO_TCP, 13) => return Ok(b"cubic\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
        _ => {
            readable(level, name)?;
            0
        }
    };
    let value = options.stored.get(&(level, name)).copied().unwrap_or(default);
    Ok(value.to_ne_bytes().to_vec())
}
