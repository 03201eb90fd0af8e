//! AF_INET and AF_INET6 on loopback: ports, TCP's byte streams, UDP's datagrams.

pub mod ports;
pub mod tcp;
pub mod udp;

#[cfg(test)]
mod tests;

use super::addr::{Addr, Host, Ip};
use crate::error::Errno;

/// The address of a socket of the family `v6` within `addr`, as a mapped one for IPv4.
///
/// # Errors
/// EAFNOSUPPORT for another family's.
pub(super) fn host_of(addr: &Addr, v6: bool) -> Result<Host, Errno> {
    match addr {
        Addr::V4(host) if !v6 => Ok(*host),
        Addr::V6(host) if v6 => Ok(*host),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// `host` as a socket of the family `v6` shows it.
pub(super) fn addr_of(host: Host, v6: bool) -> Addr {
    if v6 { Addr::V6(host) } else { Addr::V4(host) }
}

/// What a destination means: any address is this host; only loopback can be reached.
///
/// # Errors
/// ENETUNREACH.
pub(super) fn route(ip: Ip) -> Result<Ip, Errno> {
    match ip {
        Ip::ANY4 => Ok(Ip::LOOPBACK4),
        Ip::ANY6 => Ok(Ip::LOOPBACK6),
        ip if ip.is_loopback() => Ok(ip),
        _ => Err(Errno::ENETUNREACH),
    }
}

/// The source address towards `destination` of a socket that is not bound to one.
pub(super) fn source_for(destination: Ip) -> Ip {
    if destination.as_v4().is_some() { Ip::LOOPBACK4 } else { Ip::LOOPBACK6 }
}
