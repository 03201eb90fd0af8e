//! NETLINK_ROUTE (rtnetlink(7)): the one interface, its addresses and its routes, to be looked at.
//!
//! Nothing can be changed: requests that would are EPERM, as for a program without CAP_NET_ADMIN.

use super::message::{Builder, MULTI, Message};
use crate::{error::Errno, net::addr::Ip};

/// RTM_* message types.
mod rtm {
    pub const BASE: u16 = 16;
    pub const NEWLINK: u16 = 16;
    pub const GETLINK: u16 = 18;
    pub const NEWADDR: u16 = 20;
    pub const GETADDR: u16 = 22;
    pub const NEWROUTE: u16 = 24;
    pub const GETROUTE: u16 = 26;
    pub const GETNEIGH: u16 = 30;
    /// The last type there is.
    pub const MAX: u16 = 123;
}
const UNSPEC: u8 = 0;
const INET: u8 = 2;
const INET6: u8 = 10;
const PACKET: u8 = 17;
/// Index of `lo`.
const LO: u32 = 1;
/// RT_SCOPE_HOST, RT_SCOPE_LINK.
const SCOPE_HOST: u8 = 254;
const SCOPE_LINK: u8 = 253;
/// RT_TABLE_LOCAL.
const TABLE_LOCAL: u8 = 255;
/// RTN_LOCAL, RTN_BROADCAST.
const LOCAL: u8 = 2;
const BROADCAST: u8 = 3;

/// The datagrams that answer `request` of the socket at `port`.
///
/// # Errors
/// What the acknowledgement is to say.
pub(super) fn answer(request: &Message<'_>, port: u32) -> Result<Vec<Vec<u8>>, Errno> {
    if request.kind > rtm::MAX {
        return Err(Errno::EOPNOTSUPP);
    }
    // Without even a family, a request is nothing (`rtnetlink_rcv_msg()`).
    if request.body.is_empty() {
        return Ok(Vec::new());
    }
    if (request.kind - rtm::BASE) % 4 != 2 {
        return Err(Errno::EPERM);
    }
    let to = Reply { sequence: request.sequence, port };
    let family = request.byte(0);
    if request.is_dump() {
        let entries = match request.kind {
            rtm::GETLINK if matches!(family, UNSPEC | PACKET | INET | INET6) => {
                vec![link(&to, MULTI)]
            }
            rtm::GETADDR => addresses(&to, family),
            rtm::GETROUTE => routes(&to, family),
            rtm::GETLINK | rtm::GETNEIGH => Vec::new(),
            _ => return Err(Errno::EOPNOTSUPP),
        };
        let mut out = Vec::new();
        if !entries.is_empty() {
            out.push(entries.concat());
        }
        out.push(request.done(port));
        return Ok(out);
    }
    match request.kind {
        rtm::GETLINK => one_link(request, &to),
        rtm::GETROUTE => one_route(request, &to, family),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// Where an answer goes.
struct Reply {
    sequence: u32,
    port: u32,
}

impl Reply {
    fn message(&self, kind: u16, flags: u16) -> Builder {
        Builder::new(kind, flags, self.sequence, self.port)
    }
}

/// RTM_NEWLINK of `lo`.
fn link(to: &Reply, flags: u16) -> Vec<u8> {
    /// IFF_UP | IFF_LOOPBACK | IFF_RUNNING | IFF_LOWER_UP.
    const FLAGS: u32 = 0x1_0049;
    /// ARPHRD_LOOPBACK.
    const LOOPBACK: u16 = 772;
    let mut out = to.message(rtm::NEWLINK, flags);
    let [low, high] = LOOPBACK.to_ne_bytes();
    out.bytes(&[UNSPEC, 0, low, high]);
    out.bytes(&LO.to_ne_bytes());
    out.bytes(&FLAGS.to_ne_bytes());
    out.bytes(&0u32.to_ne_bytes());
    out.attribute(3, b"lo\0"); // IFLA_IFNAME
    out.number(13, 1000); // IFLA_TXQLEN
    out.attribute(16, &[0]); // IFLA_OPERSTATE: unknown
    out.attribute(17, &[0]); // IFLA_LINKMODE
    out.number(4, 65536); // IFLA_MTU
    out.number(27, 0); // IFLA_GROUP
    out.number(30, 0); // IFLA_PROMISCUITY
    out.number(31, 1); // IFLA_NUM_TX_QUEUES
    out.number(32, 1); // IFLA_NUM_RX_QUEUES
    out.attribute(33, &[1]); // IFLA_CARRIER
    out.attribute(6, b"noqueue\0"); // IFLA_QDISC
    out.attribute(14, &[0; 32]); // IFLA_MAP
    out.attribute(1, &[0; 6]); // IFLA_ADDRESS
    out.attribute(2, &[0; 6]); // IFLA_BROADCAST
    out.attribute(23, &[0; 200]); // IFLA_STATS64
    out.attribute(7, &[0; 96]); // IFLA_STATS
    out.finish()
}

fn one_link(request: &Message<'_>, to: &Reply) -> Result<Vec<Vec<u8>>, Errno> {
    /// `sizeof(struct ifinfomsg)`.
    const FIXED: usize = 16;
    /// IFLA_IFNAME.
    const NAME: u16 = 3;
    let name = request.attribute(FIXED, NAME);
    let name = name.map(|name| name.split(|b| *b == 0).next().unwrap_or_default());
    match (request.word(4), name) {
        (LO, _) | (0, Some(b"lo")) => Ok(vec![link(to, 0)]),
        (0, None) => Err(Errno::EINVAL),
        _ => Err(Errno::ENODEV),
    }
}

/// RTM_NEWADDR of 127.0.0.1 and ::1.
fn addresses(to: &Reply, family: u8) -> Vec<Vec<u8>> {
    /// IFA_F_PERMANENT.
    const PERMANENT: u8 = 0x80;
    let forever = [u32::MAX.to_ne_bytes(), u32::MAX.to_ne_bytes(), [0; 4], [0; 4]].concat();
    let mut out = Vec::new();
    if matches!(family, UNSPEC | INET) {
        let mut addr = to.message(rtm::NEWADDR, MULTI);
        addr.bytes(&[INET, 8, PERMANENT, SCOPE_HOST]);
        addr.bytes(&LO.to_ne_bytes());
        addr.attribute(1, &[127, 0, 0, 1]); // IFA_ADDRESS
        addr.attribute(2, &[127, 0, 0, 1]); // IFA_LOCAL
        addr.attribute(3, b"lo\0"); // IFA_LABEL
        addr.number(8, u32::from(PERMANENT)); // IFA_FLAGS
        addr.attribute(6, &forever); // IFA_CACHEINFO
        out.push(addr.finish());
    }
    if matches!(family, UNSPEC | INET6) {
        let mut addr = to.message(rtm::NEWADDR, MULTI);
        addr.bytes(&[INET6, 128, PERMANENT, SCOPE_HOST]);
        addr.bytes(&LO.to_ne_bytes());
        addr.attribute(1, &Ip::LOOPBACK6.0);
        addr.attribute(6, &forever);
        addr.number(8, u32::from(PERMANENT));
        out.push(addr.finish());
    }
    out
}

/// A route: where to, how many bits of it, what kind, how far.
struct Route<'a> {
    family: u8,
    to: &'a [u8],
    bits: u8,
    kind: u8,
    scope: u8,
    from: &'a [u8],
    flags: u32,
}

impl Route<'_> {
    fn encode(&self, to: &Reply, flags: u16) -> Vec<u8> {
        /// RTPROT_KERNEL.
        const KERNEL: u8 = 2;
        let mut out = to.message(rtm::NEWROUTE, flags);
        out.bytes(&[self.family, self.bits, 0, 0]);
        out.bytes(&[TABLE_LOCAL, KERNEL, self.scope, self.kind]);
        out.bytes(&self.flags.to_ne_bytes());
        out.number(15, u32::from(TABLE_LOCAL)); // RTA_TABLE
        out.attribute(1, self.to); // RTA_DST
        out.attribute(7, self.from); // RTA_PREFSRC
        out.number(4, LO); // RTA_OIF
        out.finish()
    }
}

/// RTM_NEWROUTE of what is local.
fn routes(to: &Reply, family: u8) -> Vec<Vec<u8>> {
    const HOME: [u8; 4] = [127, 0, 0, 1];
    let v4 = |net: [u8; 4], bits, kind, scope| {
        Route { family: INET, to: &net, bits, kind, scope, from: &HOME, flags: 0 }.encode(to, MULTI)
    };
    let mut out = Vec::new();
    if matches!(family, UNSPEC | INET) {
        out.push(v4([127, 0, 0, 0], 8, LOCAL, SCOPE_HOST));
        out.push(v4(HOME, 32, LOCAL, SCOPE_HOST));
        out.push(v4([127, 255, 255, 255], 32, BROADCAST, SCOPE_LINK));
    }
    if matches!(family, UNSPEC | INET6) {
        let home = Ip::LOOPBACK6.0;
        let route = Route {
            family: INET6,
            to: &home,
            bits: 128,
            kind: LOCAL,
            scope: 0,
            from: &home,
            flags: 0,
        };
        out.push(route.encode(to, MULTI));
    }
    out
}

/// The route to one address (`ip route get`).
fn one_route(request: &Message<'_>, to: &Reply, family: u8) -> Result<Vec<Vec<u8>>, Errno> {
    /// `sizeof(struct rtmsg)`.
    const FIXED: usize = 12;
    /// RTA_DST.
    const DST: u16 = 1;
    /// RTM_F_CLONED.
    const CLONED: u32 = 0x200;
    let wanted = request.attribute(FIXED, DST).ok_or(Errno::EINVAL)?;
    let (ip, bits) = match (family, wanted.len()) {
        (INET, 4) => (Ip::v4(wanted.try_into().map_err(|_| Errno::EINVAL)?), 32),
        (INET6, 16) => (Ip(wanted.try_into().map_err(|_| Errno::EINVAL)?), 128),
        _ => return Err(Errno::EINVAL),
    };
    if !ip.is_loopback() {
        return Err(Errno::ENETUNREACH);
    }
    let route =
        Route { family, to: wanted, bits, kind: LOCAL, scope: 0, from: wanted, flags: CLONED };
    Ok(vec![route.encode(to, 0)])
}
