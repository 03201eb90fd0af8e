//! `struct sockaddr` and its kin (unix(7), ip(7), ipv6(7)).

use crate::{
    call::Cx,
    error::Errno,
    net::{
        Family, Kind, Socket,
        addr::{Addr, Host, Ip, UnixName},
    },
    num::Word,
};

/// AF_UNIX, AF_INET, AF_INET6, AF_NETLINK.
pub const AF_UNIX: u16 = 1;
/// See [`AF_UNIX`].
pub const AF_INET: u16 = 2;
/// See [`AF_UNIX`].
pub const AF_INET6: u16 = 10;
/// See [`AF_UNIX`].
pub const AF_NETLINK: u16 = 16;
/// `sizeof(struct sockaddr_storage)`.
pub const STORAGE: i32 = 128;
/// `sizeof(struct sockaddr_un)`.
pub const UN_SIZE: usize = 110;

fn word<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Errno> {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).ok_or(Errno::EINVAL)
}

/// Reads an address of `len` bytes.
///
/// # Errors
/// EFAULT, EINVAL.
pub fn read(cx: &Cx<'_>, addr: u64, len: i32) -> Result<Vec<u8>, Errno> {
    if len > STORAGE {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| Errno::EINVAL)?];
    cx.mm().read_bytes(addr, &mut bytes)?;
    Ok(bytes)
}

/// The least a family's sockets take for an address that is not AF_UNSPEC.
fn least(family: Family) -> usize {
    match family {
        Family::Unix => 3,
        Family::V4 => 16,
        // SIN6_LEN_RFC2133.
        Family::V6 => 24,
        Family::Netlink => 12,
    }
}

/// Decodes an address to connect or send to.
///
/// # Errors
/// EINVAL for a wrong length, EAFNOSUPPORT for an unknown family.
pub fn decode(bytes: &[u8], family: Family) -> Result<Addr, Errno> {
    let kind = u16::from_ne_bytes(word(bytes, 0)?);
    match kind {
        0 => Ok(Addr::Unspec),
        AF_UNIX if family == Family::Unix => {
            if bytes.len() > UN_SIZE {
                return Err(Errno::EINVAL);
            }
            let name = &bytes[2..];
            Ok(Addr::Unix(match name.first() {
                None => UnixName::Unnamed,
                Some(0) => UnixName::Abstract(name[1..].to_vec()),
                Some(_) => {
                    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
                    UnixName::Path(name[..end].to_vec())
                }
            }))
        }
        AF_NETLINK if family == Family::Netlink && bytes.len() >= least(family) => {
            let (pid, groups) = (word(bytes, 4)?, word(bytes, 8)?);
            let (pid, groups) = (u32::from_ne_bytes(pid), u32::from_ne_bytes(groups));
            Ok(Addr::Netlink { pid, groups })
        }
        _ if matches!(family, Family::Netlink | Family::Unix) => Err(Errno::EINVAL),
        AF_INET if bytes.len() >= least(Family::V4) => Ok(Addr::V4(host4(bytes)?)),
        AF_INET6 if family == Family::V6 && bytes.len() >= least(family) => {
            let port = u16::from_be_bytes(word(bytes, 2)?);
            Ok(Addr::V6(Host { ip: Ip(word(bytes, 8)?), port }))
        }
        _ if bytes.len() < least(family) => Err(Errno::EINVAL),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

fn host4(bytes: &[u8]) -> Result<Host, Errno> {
    Ok(Host { ip: Ip::v4(word(bytes, 4)?), port: u16::from_be_bytes(word(bytes, 2)?) })
}

/// Decodes an address to bind to.
///
/// # Errors
/// EINVAL for a wrong length, EAFNOSUPPORT for an unknown family.
pub fn decode_local(bytes: &[u8], family: Family) -> Result<Addr, Errno> {
    let inet = matches!(family, Family::V4 | Family::V6);
    if inet && bytes.len() < least(family) {
        return Err(Errno::EINVAL);
    }
    match decode(bytes, family)? {
        // ip(7): AF_UNSPEC is let through for 0.0.0.0, as old programs pass it.
        Addr::Unspec if family == Family::V4 => match host4(bytes)? {
            host if host.ip.is_any() => Ok(Addr::V4(host)),
            _ => Err(Errno::EAFNOSUPPORT),
        },
        Addr::Unspec if inet => Err(Errno::EAFNOSUPPORT),
        Addr::Unspec => Err(Errno::EINVAL),
        addr => Ok(addr),
    }
}

/// Decodes the destination of a send, if the protocol looks at one. A stream of AF_UNIX only looks
/// at there being one.
///
/// # Errors
/// EINVAL for a wrong length, EAFNOSUPPORT for an unknown family.
pub fn decode_destination(bytes: &[u8], socket: &Socket) -> Result<Option<Addr>, Errno> {
    match (socket.family, socket.kind) {
        (Family::V4 | Family::V6, Kind::Stream) | (_, Kind::SeqPacket) => Ok(None),
        (Family::Unix | Family::Netlink, _) if bytes.is_empty() => Ok(None),
        (Family::Unix, Kind::Stream) => Ok(Some(Addr::Unspec)),
        // udp(7): here AF_UNSPEC is another name of AF_INET.
        (Family::V4, _) if bytes.len() >= least(Family::V4) && bytes[..2] == [0, 0] => {
            Ok(Some(Addr::V4(host4(bytes)?)))
        }
        (Family::V4, _) if bytes.len() < least(Family::V4) => Err(Errno::EINVAL),
        (family, _) => match decode(bytes, family) {
            Ok(Addr::Unspec) if family == Family::V6 => Ok(None),
            Ok(Addr::Unspec) => Err(Errno::EINVAL),
            Err(Errno::EAFNOSUPPORT) if family == Family::V6 => Err(Errno::EINVAL),
            other => other.map(Some),
        },
    }
}

/// Encodes an address.
#[must_use]
pub fn encode(addr: &Addr) -> Vec<u8> {
    let mut out = Vec::new();
    match addr {
        Addr::Unspec => out.extend(0u16.to_ne_bytes()),
        Addr::Unix(name) => {
            out.extend(AF_UNIX.to_ne_bytes());
            match name {
                UnixName::Unnamed => {}
                UnixName::Path(path) => {
                    out.extend(path);
                    out.push(0);
                }
                UnixName::Abstract(name) => {
                    out.push(0);
                    out.extend(name);
                }
            }
        }
        Addr::V4(host) => {
            out.extend(AF_INET.to_ne_bytes());
            out.extend(host.port.to_be_bytes());
            out.extend(host.ip.as_v4().unwrap_or_default());
            out.extend([0; 8]);
        }
        Addr::V6(host) => {
            out.extend(AF_INET6.to_ne_bytes());
            out.extend(host.port.to_be_bytes());
            out.extend([0; 4]);
            out.extend(host.ip.0);
            out.extend([0; 4]);
        }
        Addr::Netlink { pid, groups } => {
            out.extend(AF_NETLINK.to_ne_bytes());
            out.extend([0; 2]);
            out.extend(pid.to_ne_bytes());
            out.extend(groups.to_ne_bytes());
        }
    }
    out
}

/// Writes `addr`, or that there is none, to the caller's buffer as accept(2) does: cut to the room
/// named at `len_at`, which then says the true length.
///
/// # Errors
/// EFAULT; EINVAL for a negative room.
pub fn write(cx: &Cx<'_>, addr: Option<&Addr>, at: u64, len_at: u64) -> Result<(), Errno> {
    let mm = cx.mm();
    let room: i32 = mm.read_obj(len_at)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let bytes = addr.map(encode).unwrap_or_default();
    mm.write_obj(len_at, &bytes.len().low_i32())?;
    mm.write_bytes(at, &bytes[..bytes.len().min(room)])
}
