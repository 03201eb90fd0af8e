//! Sockets (socket(7)): the kind of file they are, and what a protocol implements.
//!
//! There is no wire: AF_INET and AF_INET6 reach loopback addresses only, and a connection is two
//! [`channel::Channel`]s between two sockets (docs/net.md says why no TCP/IP stack is used for that).
//! Neighbours: `unix`, `inet`, `netlink` are the protocols; `linux::sys::socket` decodes calls.
//!
//! Lock order: a socket's own state, then port and name tables, then a channel. No socket's state is
//! locked while another's is, but a listener's queue under a connecting socket's.

pub mod addr;
pub mod channel;
pub mod inet;
pub mod netlink;
pub mod options;
pub mod ring;
pub mod unix;

use std::{any::Any, sync::Arc, time::Duration};

use self::{
    addr::{Addr, Connect, Outgoing, Receive, Received, Ucred},
    options::Endpoint,
};
use crate::{
    call::Cx,
    error::{Errno, SysResult},
    fs::{
        buf::{Sink, Source},
        file::{FileOps, OpenFile, Ready},
        nameless::Nameless,
    },
    wait::WaitQueue,
};

/// The address family a socket was made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// AF_UNIX.
    Unix,
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
    /// AF_NETLINK.
    Netlink,
}

/// The type of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// SOCK_STREAM.
    Stream,
    /// SOCK_DGRAM.
    Datagram,
    /// SOCK_SEQPACKET.
    SeqPacket,
    /// SOCK_RAW (netlink only).
    Raw,
}

/// What a protocol does. Operations never block: EAGAIN is for the caller to wait on
/// `endpoint().queue`.
pub trait Protocol: Send + Sync + Any {
    /// The protocol-independent half.
    fn endpoint(&self) -> &Arc<Endpoint>;
    /// bind(2). Paths are bound by the caller, who makes the node (`unix::bind_node`).
    ///
    /// # Errors
    /// As bind(2).
    fn bind(&self, addr: &Addr, privileged: bool) -> Result<(), Errno>;
    /// listen(2).
    ///
    /// # Errors
    /// As listen(2).
    fn listen(&self, _backlog: usize, _who: Ucred) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// accept(2): the new socket and its peer's address.
    ///
    /// # Errors
    /// As accept(2).
    fn accept(&self) -> Result<(Arc<dyn Protocol>, Addr), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// connect(2). EAGAIN waits; EINPROGRESS is for non-blocking sockets.
    ///
    /// # Errors
    /// As connect(2).
    fn connect(&self, addr: &Addr, how: &Connect) -> Result<(), Errno>;
    /// Whether a send of `len` bytes, `urgent` or not, is refused whatever its destination.
    ///
    /// # Errors
    /// EOPNOTSUPP, EMSGSIZE, EPIPE.
    fn admits(&self, _len: usize, _urgent: bool) -> Result<(), Errno> {
        Ok(())
    }
    /// send(2).
    ///
    /// # Errors
    /// As send(2).
    fn send(&self, src: &mut Source<'_>, out: &mut Outgoing) -> Result<usize, Errno>;
    /// recv(2).
    ///
    /// # Errors
    /// As recv(2).
    fn recv(&self, dst: &mut Sink<'_>, how: Receive) -> Result<Received, Errno>;
    /// shutdown(2).
    ///
    /// # Errors
    /// ENOTCONN.
    fn shutdown(&self, _read: bool, _write: bool) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// getsockname(2).
    fn local(&self) -> Addr;
    /// getpeername(2).
    ///
    /// # Errors
    /// ENOTCONN.
    fn peer(&self) -> Result<Addr, Errno>;
    /// poll(2).
    fn poll(&self) -> Ready;
    /// Who is at the other end (SO_PEERCRED).
    ///
    /// # Errors
    /// ENOPROTOOPT where the protocol does not know.
    fn peer_creds(&self) -> Result<Ucred, Errno> {
        Ok(Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX })
    }
    /// Bytes to be read (SIOCINQ).
    ///
    /// # Errors
    /// EINVAL for a listening socket.
    fn readable_bytes(&self) -> Result<usize, Errno> {
        Ok(0)
    }
    /// Bytes sent but not yet read (SIOCOUTQ).
    fn unsent_bytes(&self) -> usize {
        0
    }
    /// SIOCATMARK.
    fn at_mark(&self) -> bool {
        false
    }
    /// It listens (SO_ACCEPTCONN).
    fn is_listening(&self) -> bool {
        false
    }
    /// Buffer sizes or other options changed.
    fn options_changed(&self) {}
    /// The last descriptor is gone.
    fn close(&self);
    /// For protocols to find their own type again.
    fn as_any(&self) -> &dyn Any;
}

/// A socket as a file.
pub struct Socket {
    /// A number for fstat(2) and `/proc/PID/fd`.
    pub id: u64,
    /// Mode and owner.
    pub nameless: Nameless,
    /// Its family.
    pub family: Family,
    /// Its type.
    pub kind: Kind,
    /// SO_PROTOCOL.
    pub protocol: i32,
    /// Its protocol.
    pub ops: Arc<dyn Protocol>,
}

impl Socket {
    /// What Linux calls the protocol (`struct proto`), with a NUL.
    #[must_use]
    pub fn protocol_name(&self) -> &'static [u8] {
        match (self.family, self.kind) {
            (Family::Unix, Kind::Stream) => b"UNIX-STREAM\0",
            (Family::Unix, _) => b"UNIX\0",
            (Family::V4, Kind::Stream) => b"TCP\0",
            (Family::V4, _) => b"UDP\0",
            (Family::V6, Kind::Stream) => b"TCPv6\0",
            (Family::V6, _) => b"UDPv6\0",
            (Family::Netlink, _) => b"NETLINK\0",
        }
    }
    /// Bounds of blocking operations: receive, send.
    #[must_use]
    pub fn timeouts(&self) -> (Option<Duration>, Option<Duration>) {
        let options = self.ops.endpoint().options();
        (options.recv_timeout, options.send_timeout)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.ops.close();
    }
}

impl Socket {
    /// write(2) by `who`.
    ///
    /// # Errors
    /// As send(2).
    pub fn write_by(&self, who: Ucred, src: &mut Source<'_>) -> Result<usize, Errno> {
        self.ops.admits(src.left(), false)?;
        let creds = (self.family == Family::Unix).then_some(who);
        self.ops.send(src, &mut Outgoing { creds, ..Outgoing::default() })
    }
}

impl FileOps for Socket {
    fn positioned(&self) -> bool {
        false
    }
    fn read(&self, file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        // Not even a message is taken (`sock_read_iter()`).
        if dst.left() == 0 {
            return Ok(0);
        }
        let how = Receive { nonblock: file.nonblock(), ..Receive::default() };
        self.ops.recv(dst, how).map(|got| got.stored)
    }
    fn write(&self, _file: &OpenFile, src: &mut Source<'_>) -> Result<usize, Errno> {
        self.write_by(self.ops.endpoint().owner, src)
    }
    fn poll(&self, _file: &OpenFile) -> Ready {
        self.ops.poll()
    }
    fn queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.ops.endpoint().queue.clone())
    }
    fn nameless(&self) -> Option<&Nameless> {
        Some(&self.nameless)
    }
    fn describe(&self) -> String {
        format!("socket:[{}]", self.id)
    }
    fn ioctl(&self, cx: &mut Cx<'_>, _file: &OpenFile, command: u32, arg: u64) -> SysResult {
        crate::linux::sys::netdev::ioctl(cx, self, command, arg)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The VM's network: what names and ports lead to.
#[derive(Default)]
pub struct Net {
    /// Abstract AF_UNIX names.
    pub unix: unix::Names,
    /// Netlink ports.
    pub netlink: netlink::Ports,
    /// TCP ports.
    pub tcp: inet::ports::Ports<inet::tcp::TcpSocket>,
    /// UDP ports.
    pub udp: inet::ports::Ports<inet::udp::UdpSocket>,
}
