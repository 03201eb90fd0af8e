//! UDP on loopback (udp(7)).

use std::{
    any::Any,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{addr_of, host_of, ports::Claim, route, source_for};
use crate::{
    error::Errno,
    fs::{
        buf::{Sink, Source},
        file::Ready,
    },
    net::{
        Net, Protocol,
        addr::{Addr, Connect, Host, Ip, Outgoing, Receive, Received, Ucred},
        channel::Channel,
        options::{BUFFER, Endpoint, Options},
    },
    wait::WaitQueue,
};

/// Largest payload over IPv4: 65,535 less the IP and UDP headers.
const MAX_PAYLOAD: usize = 65_507;
/// Most datagrams in an inbox whatever their size.
const MAX_DATAGRAMS: usize = 4096;

#[derive(Default)]
struct State {
    local: Option<Host>,
    peer: Option<Host>,
    read_shut: bool,
    write_shut: bool,
}

/// A UDP socket.
pub struct UdpSocket {
    me: Weak<UdpSocket>,
    net: Arc<Net>,
    v6: bool,
    end: Arc<Endpoint>,
    inbox: Arc<Channel>,
    state: Mutex<State>,
    /// Full inboxes drop; nobody ever waits for room in one.
    nobody: Arc<WaitQueue>,
}

impl UdpSocket {
    /// An unbound socket of AF_INET6 if `v6`, else AF_INET.
    #[must_use]
    pub fn new(net: &Arc<Net>, v6: bool, owner: Ucred) -> Arc<UdpSocket> {
        let end = Endpoint::new(owner, Options::default());
        Arc::new_cyclic(|me| UdpSocket {
            me: me.clone(),
            net: net.clone(),
            v6,
            inbox: Channel::packets(&end.queue, BUFFER, MAX_DATAGRAMS),
            end,
            state: Mutex::default(),
            nobody: WaitQueue::new(),
        })
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn any(&self) -> Ip {
        if self.v6 { Ip::ANY6 } else { Ip::ANY4 }
    }
    fn bind_locked(&self, state: &mut State, host: Host) -> Result<(), Errno> {
        let claim = {
            let options = self.end.options();
            Claim {
                ip: host.ip,
                v6_only: options.v6_only,
                reuse_addr: options.reuse_addr,
                reuse_port: options.reuse_port,
                uid: self.end.owner.uid,
            }
        };
        let port = self.net.udp.bind(host.port, claim, &self.me)?;
        state.local = Some(Host { ip: host.ip, port });
        Ok(())
    }
    /// Whether a datagram from `from` may come in here.
    fn accepts(&self, from: Host) -> bool {
        let state = self.state();
        !state.read_shut && state.peer.is_none_or(|peer| peer == from)
    }
    fn destination(&self, addr: &Addr) -> Result<Host, Errno> {
        let host = match (addr, self.v6) {
            (Addr::V4(host), true) => *host,
            _ => host_of(addr, self.v6)?,
        };
        if host.port == 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Host { ip: route(host.ip)?, port: host.port })
    }
}

impl Protocol for UdpSocket {
    fn endpoint(&self) -> &Arc<Endpoint> {
        &self.end
    }
    fn bind(&self, addr: &Addr, privileged: bool) -> Result<(), Errno> {
        let host = host_of(addr, self.v6)?;
        if !host.ip.is_any() && !host.ip.is_loopback() && !host.ip.is_multicast() {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if (1..1024).contains(&host.port) && !privileged {
            return Err(Errno::EACCES);
        }
        let mut state = self.state();
        if state.local.is_some() {
            return Err(Errno::EINVAL);
        }
        self.bind_locked(&mut state, host)
    }
    fn connect(&self, addr: &Addr, _how: &Connect) -> Result<(), Errno> {
        if *addr == Addr::Unspec {
            self.state().peer = None;
            return Ok(());
        }
        let host = host_of(addr, self.v6)?;
        let to = Host { ip: route(host.ip)?, port: host.port };
        let mut state = self.state();
        if state.local.is_none() {
            self.bind_locked(&mut state, Host { ip: self.any(), port: 0 })?;
        }
        if let Some(local) = &mut state.local
            && local.ip.is_any()
        {
            local.ip = source_for(to.ip);
        }
        state.peer = Some(to);
        drop(state);
        self.end.queue.wake();
        Ok(())
    }
    fn admits(&self, len: usize, urgent: bool) -> Result<(), Errno> {
        match urgent {
            // As on Linux IPv6 does not mind.
            true if !self.v6 && len <= usize::from(u16::MAX) => Err(Errno::EOPNOTSUPP),
            _ => Ok(()),
        }
    }
    fn send(&self, src: &mut Source<'_>, out: &mut Outgoing) -> Result<usize, Errno> {
        self.end.check()?;
        let len = src.left();
        if len > MAX_PAYLOAD {
            return Err(Errno::EMSGSIZE);
        }
        let named = match &out.to {
            Some(addr) => Some(self.destination(addr)?),
            None => None,
        };
        let (from, to, connected) = {
            let mut state = self.state();
            if state.write_shut {
                return Err(Errno::EPIPE);
            }
            let to = named.or(state.peer).ok_or(Errno::EDESTADDRREQ)?;
            if state.local.is_none() {
                self.bind_locked(&mut state, Host { ip: self.any(), port: 0 })?;
            }
            let mut from = state.local.unwrap_or_default();
            if from.ip.is_any() {
                from.ip = source_for(to.ip);
            }
            (from, to, state.peer == Some(to))
        };
        // A connected socket is more specific than any other on the port.
        let found = self.net.udp.find(to);
        let target = found
            .iter()
            .find(|s| s.state().peer == Some(from))
            .or_else(|| found.iter().find(|s| s.accepts(from)));
        let Some(target) = target else {
            src.skip(len);
            if connected {
                self.end.fail(Errno::ECONNREFUSED);
            }
            return Ok(len);
        };
        let shown = addr_of(from, target.v6);
        let mut plain = Outgoing::default();
        match target.inbox.send(src, &mut plain, Some(shown), Some(to), &self.nobody) {
            Err(Errno::EAGAIN | Errno::EPIPE) => Ok(len),
            other => other,
        }
    }
    fn recv(&self, dst: &mut Sink<'_>, how: Receive) -> Result<Received, Errno> {
        // MSG_OOB is not looked at.
        self.end.check()?;
        let got = self.inbox.recv(dst, how);
        if matches!(got, Err(Errno::EAGAIN)) && !how.nonblock && self.state().read_shut {
            return Ok(Received::default());
        }
        got.map(|got| Received { record: false, ..got })
    }
    fn shutdown(&self, read: bool, write: bool) -> Result<(), Errno> {
        let mut state = self.state();
        if state.peer.is_none() {
            return Err(Errno::ENOTCONN);
        }
        state.read_shut |= read;
        state.write_shut |= write;
        drop(state);
        self.end.queue.wake();
        Ok(())
    }
    fn local(&self) -> Addr {
        addr_of(self.state().local.unwrap_or(Host { ip: self.any(), port: 0 }), self.v6)
    }
    fn peer(&self) -> Result<Addr, Errno> {
        Ok(addr_of(self.state().peer.ok_or(Errno::ENOTCONN)?, self.v6))
    }
    fn poll(&self) -> Ready {
        let state = self.state();
        let mut ready = Ready::OUT | Ready::WRNORM | Ready::WRBAND;
        if self.end.has_error() {
            ready |= Ready::ERR;
        }
        if state.read_shut {
            ready |= Ready::IN | Ready::RDNORM | Ready::RDHUP;
            if state.write_shut {
                ready |= Ready::HUP;
            }
        }
        if self.inbox.has_data() {
            ready |= Ready::IN | Ready::RDNORM;
        }
        ready
    }
    fn readable_bytes(&self) -> Result<usize, Errno> {
        Ok(self.inbox.readable_bytes())
    }
    fn options_changed(&self) {
        self.inbox.set_limit(self.end.options().recv_buffer);
    }
    fn close(&self) {
        if let Some(local) = self.state().local {
            self.net.udp.release(local.port, &self.me);
        }
        self.inbox.deafen();
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
