//! Socket addresses, free of any layout.

use std::sync::Arc;

use super::unix::UnixSocket;
use crate::fs::file::OpenFile;

/// An IPv6 address, or an IPv4 one in its mapped form (RFC 4291, 2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ip(pub [u8; 16]);

const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl Ip {
    /// `::`, any address of either family.
    pub const ANY6: Ip = Ip([0; 16]);
    /// `::1`.
    pub const LOOPBACK6: Ip = Ip([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    /// `0.0.0.0`.
    pub const ANY4: Ip = Ip::v4([0; 4]);
    /// `127.0.0.1`.
    pub const LOOPBACK4: Ip = Ip::v4([127, 0, 0, 1]);

    /// An IPv4 address.
    #[must_use]
    pub const fn v4(ip: [u8; 4]) -> Ip {
        let mut bytes = [0; 16];
        bytes[10] = 0xff;
        bytes[11] = 0xff;
        bytes[12] = ip[0];
        bytes[13] = ip[1];
        bytes[14] = ip[2];
        bytes[15] = ip[3];
        Ip(bytes)
    }
    /// The IPv4 address, if it is one.
    #[must_use]
    pub fn as_v4(self) -> Option<[u8; 4]> {
        let [.., a, b, c, d] = self.0;
        (self.0[..12] == MAPPED).then_some([a, b, c, d])
    }
    /// `0.0.0.0` or `::`.
    #[must_use]
    pub fn is_any(self) -> bool {
        self == Ip::ANY4 || self == Ip::ANY6
    }
    /// 127.0.0.0/8 or `::1`: all that can be reached.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        match self.as_v4() {
            Some(ip) => ip[0] == 127,
            None => self == Ip::LOOPBACK6,
        }
    }
    /// 224.0.0.0/4 or ff00::/8.
    #[must_use]
    pub fn is_multicast(self) -> bool {
        match self.as_v4() {
            Some(ip) => ip[0] & 0xf0 == 0xe0,
            None => self.0[0] == 0xff,
        }
    }
}

/// An address and a port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Host {
    /// The address.
    pub ip: Ip,
    /// The port.
    pub port: u16,
}

/// A name in AF_UNIX (unix(7)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UnixName {
    /// Not bound.
    Unnamed,
    /// A path, as given to bind(2).
    Path(Vec<u8>),
    /// A name without a file, after its leading NUL.
    Abstract(Vec<u8>),
}

/// An address of any family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Addr {
    /// AF_UNSPEC: dissolves an association.
    Unspec,
    /// AF_UNIX.
    Unix(UnixName),
    /// AF_INET.
    V4(Host),
    /// AF_INET6.
    V6(Host),
    /// AF_NETLINK.
    Netlink {
        /// Port id; 0 is the kernel.
        pid: u32,
        /// Multicast groups.
        groups: u32,
    },
}

/// Who sent or opened something (SCM_CREDENTIALS, SO_PEERCRED of unix(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "unix(7) names them")]
pub struct Ucred {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

/// What goes with the bytes of a send.
#[derive(Default)]
pub struct Outgoing {
    /// Destination, where it is not the connected peer.
    pub to: Option<Addr>,
    /// The socket a destination path leads to.
    pub target: Option<Arc<UnixSocket>>,
    /// SCM_RIGHTS.
    pub files: Vec<Arc<OpenFile>>,
    /// Who sends.
    pub creds: Option<Ucred>,
    /// MSG_OOB.
    pub urgent: bool,
}

/// A connect(2) in one of its tries.
pub struct Connect {
    /// Do not wait.
    pub nonblock: bool,
    /// An earlier try of the same call has begun it.
    pub started: bool,
    /// Who connects.
    pub who: Ucred,
    /// The socket a path leads to.
    pub target: Option<Arc<UnixSocket>>,
}

/// How to receive.
#[derive(Clone, Copy, Default)]
pub struct Receive {
    /// MSG_PEEK.
    pub peek: bool,
    /// MSG_OOB.
    pub urgent: bool,
    /// Nobody waits: the end of datagrams, which is none on the wire, is told to who does.
    pub nonblock: bool,
    /// The receiver wants credentials: do not merge bytes of different senders.
    pub creds: bool,
}

/// What a receive found besides the bytes it stored.
#[derive(Default)]
pub struct Received {
    /// Bytes stored.
    pub stored: usize,
    /// Bytes the message had.
    pub full: usize,
    /// Who sent it, where the protocol says so.
    pub from: Option<Addr>,
    /// SCM_RIGHTS.
    pub files: Vec<Arc<OpenFile>>,
    /// SCM_CREDENTIALS.
    pub creds: Option<Ucred>,
    /// Where it was sent to (IP_PKTINFO).
    pub to: Option<Host>,
    /// The message ended here and was one record (SOCK_SEQPACKET).
    pub record: bool,
    /// Out-of-band byte.
    pub urgent: bool,
}
