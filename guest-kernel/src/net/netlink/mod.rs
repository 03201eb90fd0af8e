//! AF_NETLINK (netlink(7)): sockets that talk to the kernel, NETLINK_ROUTE only; NETLINK_KOBJECT_UEVENT
//! can be opened and stays silent.
//!
//! A request is answered while it is sent: the answer lies in the socket's inbox when send returns.
//! Neighbour: `route` makes the answers. Every byte of a request is the guest's: `message` takes it
//! apart with checked lengths.

pub mod message;
mod route;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::message::{Message, messages};
use super::{
    Net, Protocol,
    addr::{Addr, Connect, Outgoing, Receive, Received, Ucred},
    options::{Endpoint, Options},
};
use crate::{
    error::Errno,
    fs::{
        buf::{Sink, Source},
        file::Ready,
    },
};

/// NETLINK_ROUTE.
pub const ROUTE: i32 = 0;
/// NETLINK_KOBJECT_UEVENT.
pub const UEVENT: i32 = 15;
/// Ports given to sockets of a process beyond its first lie below this (`netlink_autobind()`).
const SPARE_PORTS: u32 = 0xffff_efff;
/// What a socket's buffer holds besides the bytes of a message.
const OVERHEAD: usize = 32;

/// Ports in use, by protocol.
#[derive(Default)]
pub struct Ports(Mutex<HashSet<(i32, u32)>>);

impl Ports {
    fn set(&self) -> MutexGuard<'_, HashSet<(i32, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Takes `port`, or, for 0, `wanted` or a spare one.
    fn claim(&self, protocol: i32, port: u32, wanted: u32) -> Result<u32, Errno> {
        let mut set = self.set();
        if port != 0 {
            return if set.insert((protocol, port)) { Ok(port) } else { Err(Errno::EADDRINUSE) };
        }
        let mut candidates = std::iter::once(wanted).chain((1..=SPARE_PORTS).rev());
        candidates.find(|port| set.insert((protocol, *port))).ok_or(Errno::EADDRINUSE)
    }
}

#[derive(Default)]
struct State {
    /// 0 until bound.
    port: u32,
    groups: u32,
    peer: Option<(u32, u32)>,
    inbox: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// A netlink socket.
pub struct NetlinkSocket {
    net: Arc<Net>,
    protocol: i32,
    end: Arc<Endpoint>,
    state: Mutex<State>,
}

impl NetlinkSocket {
    /// An unbound socket.
    ///
    /// # Errors
    /// EPROTONOSUPPORT for families of messages there are none of.
    pub fn new(net: &Arc<Net>, protocol: i32, owner: Ucred) -> Result<Arc<NetlinkSocket>, Errno> {
        if protocol != ROUTE && protocol != UEVENT {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let end = Endpoint::new(owner, Options::default());
        Ok(Arc::new(NetlinkSocket { net: net.clone(), protocol, end, state: Mutex::default() }))
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn bind_locked(&self, state: &mut State, port: u32) -> Result<(), Errno> {
        if state.port == 0 {
            let wanted = self.end.owner.pid.cast_unsigned();
            state.port = self.net.netlink.claim(self.protocol, port, wanted)?;
        } else if port != 0 && port != state.port {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }
    /// Queues what the kernel answers; what does not fit is lost, and the program told so.
    fn answer(&self, state: &mut State, datagrams: Vec<Vec<u8>>) {
        let limit = self.end.options().recv_buffer;
        for datagram in datagrams {
            if state.bytes.saturating_add(datagram.len()) > limit {
                self.end.fail(Errno::ENOBUFS);
                return;
            }
            state.bytes += datagram.len();
            state.inbox.push_back(datagram);
        }
    }
    fn handle(&self, request: &Message<'_>, port: u32) -> Vec<Vec<u8>> {
        if !request.is_request() || request.is_control() {
            return request.acknowledge(port, None);
        }
        match route::answer(request, port) {
            Ok(mut answer) => {
                if !request.is_dump() {
                    answer.extend(request.acknowledge(port, None));
                }
                answer
            }
            Err(errno) => request.acknowledge(port, Some(errno)),
        }
    }
}

impl Protocol for NetlinkSocket {
    fn endpoint(&self) -> &Arc<Endpoint> {
        &self.end
    }
    fn bind(&self, addr: &Addr, _privileged: bool) -> Result<(), Errno> {
        let Addr::Netlink { pid, groups } = addr else { return Err(Errno::EINVAL) };
        let mut state = self.state();
        self.bind_locked(&mut state, *pid)?;
        state.groups = *groups;
        Ok(())
    }
    fn connect(&self, addr: &Addr, _how: &Connect) -> Result<(), Errno> {
        let mut state = self.state();
        match addr {
            Addr::Unspec => state.peer = None,
            Addr::Netlink { groups, .. } if *groups != 0 => return Err(Errno::EPERM),
            Addr::Netlink { pid, groups } => {
                self.bind_locked(&mut state, 0)?;
                state.peer = Some((*pid, *groups));
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
    fn admits(&self, len: usize, urgent: bool) -> Result<(), Errno> {
        match (urgent, len) {
            (true, _) => Err(Errno::EOPNOTSUPP),
            (_, 0) => Err(Errno::ENODATA),
            _ => Ok(()),
        }
    }
    fn send(&self, src: &mut Source<'_>, out: &mut Outgoing) -> Result<usize, Errno> {
        let named = match &out.to {
            None => None,
            Some(Addr::Netlink { pid, groups }) => Some((*pid, *groups)),
            Some(_) => return Err(Errno::EINVAL),
        };
        let mut state = self.state();
        let (to, groups) = named.or(state.peer).unwrap_or_default();
        if groups != 0 {
            return Err(Errno::EPERM);
        }
        self.bind_locked(&mut state, 0)?;
        let len = src.left();
        if len > self.end.options().send_buffer.saturating_sub(OVERHEAD) {
            return Err(Errno::EMSGSIZE);
        }
        let port = state.port;
        // Guest memory is not touched under a lock.
        drop(state);
        let mut bytes = vec![0; len];
        if src.take(&mut bytes)? < len {
            return Err(Errno::EFAULT);
        }
        if to != 0 || self.protocol != ROUTE {
            return Err(Errno::ECONNREFUSED);
        }
        for request in messages(&bytes) {
            let answer = self.handle(&request, port);
            self.answer(&mut self.state(), answer);
        }
        self.end.queue.wake();
        Ok(len)
    }
    fn recv(&self, dst: &mut Sink<'_>, how: Receive) -> Result<Received, Errno> {
        if how.urgent {
            return Err(Errno::EOPNOTSUPP);
        }
        self.end.check()?;
        let datagram = {
            let mut state = self.state();
            if how.peek {
                state.inbox.front().cloned()
            } else {
                let taken = state.inbox.pop_front();
                state.bytes -= taken.as_ref().map_or(0, Vec::len);
                taken
            }
        };
        let datagram = datagram.ok_or(Errno::EAGAIN)?;
        let stored = dst.put(&datagram)?;
        Ok(Received {
            stored,
            full: datagram.len(),
            from: Some(Addr::Netlink { pid: 0, groups: 0 }),
            creds: Some(Ucred { pid: 0, uid: 0, gid: 0 }),
            ..Received::default()
        })
    }
    fn local(&self) -> Addr {
        let state = self.state();
        Addr::Netlink { pid: state.port, groups: state.groups }
    }
    fn peer(&self) -> Result<Addr, Errno> {
        let (pid, groups) = self.state().peer.unwrap_or_default();
        Ok(Addr::Netlink { pid, groups })
    }
    fn poll(&self) -> Ready {
        let mut ready = Ready::OUT | Ready::WRNORM | Ready::WRBAND;
        if self.end.has_error() {
            ready |= Ready::ERR;
        }
        if !self.state().inbox.is_empty() {
            ready |= Ready::IN | Ready::RDNORM;
        }
        ready
    }
    fn readable_bytes(&self) -> Result<usize, Errno> {
        Ok(self.state().inbox.front().map_or(0, Vec::len))
    }
    fn close(&self) {
        let mut state = self.state();
        if state.port != 0 {
            self.net.netlink.set().remove(&(self.protocol, state.port));
            state.port = 0;
        }
        state.inbox.clear();
        state.bytes = 0;
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
