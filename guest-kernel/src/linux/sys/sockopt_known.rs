//! Which options of SOL_SOCKET, IP, IPv6, TCP and UDP exist, and as what.
//!
//! Those that have an effect are named in `sockopt`; the rest are numbers that a program may store
//! and read back. What is in neither list is ENOPROTOOPT, as on Linux.

use super::sockopt::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP, SOL_SOCKET};
use crate::error::Errno;

/// Integers that can be read; unset they are 0.
#[rustfmt::skip]
fn gets(level: i32) -> &'static [i32] {
    match level {
        SOL_SOCKET => &[
            14, 35, 37, 40, 41, 42, 43, 44, 45, 46, 47, 49, 53, 56, 60, 62, 63, 64, 65, 69, 70, 72, 74, 75,
        ],
        IPPROTO_IP => &[
            1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 18, 19, 20, 21, 22, 23, 24, 25, 26, 32, 33,
            34, 49, 50, 51,
        ],
        IPPROTO_IPV6 => &[
            2, 3, 4, 5, 8, 11, 16, 17, 18, 19, 22, 23, 25, 26, 29, 30, 31, 33, 49, 51, 53, 54, 55,
            56, 57, 58, 59, 60, 62, 66, 67, 70, 72, 73, 74, 75, 76, 77, 78,
        ],
        IPPROTO_TCP => &[
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 17, 18, 19, 23, 24, 25, 27, 30, 34, 36, 37,
        ],
        IPPROTO_UDP => &[1, 100, 101, 102, 103, 104],
        _ => &[],
    }
}

/// Integers that can be read and not set.
fn read_only(level: i32, name: i32) -> bool {
    match level {
        SOL_SOCKET => matches!(name, 56),
        IPPROTO_IP => matches!(name, 3 | 22),
        IPPROTO_IPV6 => matches!(name, 22),
        _ => false,
    }
}

/// The option can be read as an integer.
///
/// # Errors
/// ENOPROTOOPT; ENOTCONN for the path's MTU, which only a connected socket has.
pub fn readable(level: i32, name: i32) -> Result<(), Errno> {
    match (level, name) {
        (IPPROTO_IP, 14) | (IPPROTO_IPV6, 24) => Err(Errno::ENOTCONN),
        _ if gets(level).contains(&name) => Ok(()),
        _ => Err(Errno::ENOPROTOOPT),
    }
}

/// Setting the option `name` takes CAP_NET_ADMIN.
pub fn is_privileged(level: i32, name: i32, value: i32) -> bool {
    match (level, name) {
        // IP_IPSEC_POLICY, IP_XFRM_POLICY, IPV6_IPSEC_POLICY, IPV6_XFRM_POLICY.
        (IPPROTO_IP, 16 | 17) | (IPPROTO_IPV6, 34 | 35) => true,
        // IP_TRANSPARENT, IPV6_TRANSPARENT.
        (IPPROTO_IP, 19) | (IPPROTO_IPV6, 75) => value != 0,
        _ => false,
    }
}

/// What setting an option that has no effect means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    /// Keep the integer.
    Store,
    /// A multicast membership, kept under this number.
    Join(i32),
    /// The membership of this number goes.
    Leave(i32),
    /// Accepted.
    Nothing,
}

/// How the option `name` is set with these bytes.
///
/// # Errors
/// ENOPROTOOPT for one that does not exist; what Linux says of the value.
pub fn setting(level: i32, name: i32, bytes: &[u8]) -> Result<Setting, Errno> {
    /// `struct group_req`.
    const GROUP: usize = 136;
    let at_least = |len: usize, what| if bytes.len() < len { Err(Errno::EINVAL) } else { Ok(what) };
    let text = || bytes.split(|b| *b == 0).next().unwrap_or_default();
    match (level, name) {
        // SO_BINDTODEVICE, SO_ATTACH_FILTER, SO_DETACH_FILTER.
        (SOL_SOCKET, 25) => match text() {
            b"" | b"lo" => Ok(Setting::Nothing),
            _ => Err(Errno::ENODEV),
        },
        (SOL_SOCKET, 26) if bytes.len() != 16 => Err(Errno::EINVAL),
        (SOL_SOCKET, 27) => Err(Errno::ENOENT),
        // SO_ZEROCOPY.
        (SOL_SOCKET, 60) if !matches!(bytes, [0 | 1, 0, 0, 0, ..]) => Err(Errno::EINVAL),
        // IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP, MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP.
        (IPPROTO_IP, 35) => at_least(8, Setting::Join(35)),
        (IPPROTO_IP, 36) => at_least(8, Setting::Leave(35)),
        (IPPROTO_IP | IPPROTO_IPV6, 42) => at_least(GROUP, Setting::Join(42)),
        (IPPROTO_IP | IPPROTO_IPV6, 45) => at_least(GROUP, Setting::Leave(42)),
        (IPPROTO_IPV6, 20) => at_least(20, Setting::Join(20)),
        (IPPROTO_IPV6, 21) => at_least(20, Setting::Leave(20)),
        // IP_ROUTER_ALERT, for raw sockets.
        (IPPROTO_IP, 5) => Err(Errno::EINVAL),
        // IP_OPTIONS, IP_UNBLOCK_SOURCE to MCAST_MSFILTER.
        (IPPROTO_IP, 4) => Ok(Setting::Store),
        (IPPROTO_IP, 37..=48) | (IPPROTO_IPV6, 43..=48) => Err(Errno::EINVAL),
        // IP_TTL, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_SYNCNT.
        (IPPROTO_IP, 2) => within(bytes, -1, 255),
        (IPPROTO_TCP, 4 | 5) => within(bytes, 1, 32767),
        (IPPROTO_TCP, 6 | 7) => within(bytes, 1, 127),
        // TCP_CONGESTION, TCP_ULP.
        (IPPROTO_TCP, 13) => match text() {
            b"cubic" | b"reno" => Ok(Setting::Nothing),
            _ => Err(Errno::ENOENT),
        },
        (IPPROTO_TCP, 31) => Err(Errno::ENOENT),
        (IPPROTO_TCP, 20 | 21) => Ok(Setting::Store),
        _ if read_only(level, name) || !gets(level).contains(&name) => Err(Errno::ENOPROTOOPT),
        _ => Ok(Setting::Store),
    }
}

/// An integer of a range, which may be given as one byte; -1 is the default.
fn within(bytes: &[u8], low: i32, high: i32) -> Result<Setting, Errno> {
    let value = match bytes {
        [a, b, c, d, ..] => i32::from_ne_bytes([*a, *b, *c, *d]),
        [byte, ..] => i32::from(*byte),
        [] => return Err(Errno::EINVAL),
    };
    if value != 0 && (low..=high).contains(&value) {
        Ok(Setting::Store)
    } else {
        Err(Errno::EINVAL)
    }
}
