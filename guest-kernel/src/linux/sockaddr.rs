//! `struct sockaddr` and its kin (unix(7), ip(7), ipv6(7)).

use crate::{
    call::Cx,
    error::Errno,
    net::{
        Family,
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
const STORAGE: usize = 128;
/// `sizeof(struct sockaddr_un)`.
pub const UN_SIZE: usize = 110;

fn word<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Errno> {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).ok_or(Errno::EINVAL)
}

/// Reads an address of `len` bytes for a socket of `family`.
///
/// # Errors
/// EFAULT, EINVAL, EAFNOSUPPORT.
pub fn read(cx: &Cx<'_>, addr: u64, len: i32, family: Family) -> Result<Addr, Errno> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if len > STORAGE {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; len];
    cx.mm().read_bytes(addr, &mut bytes)?;
    decode(&bytes, family)
}

/// Decodes an address.
///
/// # Errors
/// EINVAL for a wrong length, EAFNOSUPPORT for an unknown family.
pub fn decode(bytes: &[u8], family: Family) -> Result<Addr, Errno> {
    let kind = u16::from_ne_bytes(word(bytes, 0)?);
    match kind {
        0 if family != Family::Unix => Ok(Addr::Unspec),
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
        AF_NETLINK if family == Family::Netlink => {
            if bytes.len() < 12 {
                return Err(Errno::EINVAL);
            }
            let (pid, groups) = (word(bytes, 4)?, word(bytes, 8)?);
            let (pid, groups) = (u32::from_ne_bytes(pid), u32::from_ne_bytes(groups));
            Ok(Addr::Netlink { pid, groups })
        }
        _ if family == Family::Netlink => Err(Errno::EINVAL),
        AF_INET => {
            if bytes.len() < 16 {
                return Err(Errno::EINVAL);
            }
            let port = u16::from_be_bytes(word(bytes, 2)?);
            Ok(Addr::V4(Host { ip: Ip::v4(word(bytes, 4)?), port }))
        }
        AF_INET6 if family == Family::V6 => {
            if bytes.len() < 24 {
                return Err(Errno::EINVAL);
            }
            let port = u16::from_be_bytes(word(bytes, 2)?);
            Ok(Addr::V6(Host { ip: Ip(word(bytes, 8)?), port }))
        }
        _ if family == Family::Unix => Err(Errno::EINVAL),
        _ => Err(Errno::EAFNOSUPPORT),
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

/// Writes `addr` to the caller's buffer as accept(2) does: cut to the room named at `len_at`, which
/// then says the true length.
///
/// # Errors
/// EFAULT; EINVAL for a negative room.
pub fn write(cx: &Cx<'_>, addr: &Addr, at: u64, len_at: u64) -> Result<(), Errno> {
    let mm = cx.mm();
    let room: i32 = mm.read_obj(len_at)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let bytes = encode(addr);
    mm.write_bytes(at, &bytes[..bytes.len().min(room)])?;
    mm.write_obj(len_at, &bytes.len().low_i32())
}
