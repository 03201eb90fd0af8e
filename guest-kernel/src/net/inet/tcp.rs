//! TCP on loopback (tcp(7)): what programs see of it, without segments.
//!
//! connect(2) finds the listener and makes both ends at once; the accepting side's socket waits in
//! the listener's queue and takes bytes from then on, as after a completed handshake. FIN is the end
//! of a channel, RST an error put on the other endpoint.

use std::{
    any::Any,
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
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
        options::{Endpoint, Options},
        unix::SOMAXCONN,
    },
    wait::WaitQueue,
};

/// Bytes in flight in one direction unless the program sets buffers itself.
const WINDOW: usize = 512 * 1024;

struct Listener {
    backlog: usize,
    ready: VecDeque<Arc<TcpSocket>>,
    blocked: Vec<Arc<WaitQueue>>,
}

#[derive(Default)]
struct State {
    local: Option<Host>,
    /// The port is held in the table.
    bound: bool,
    listener: Option<Listener>,
    /// A refused non-blocking connect has not been told of yet.
    failed: bool,
    closed: bool,
}

struct Link {
    peer: Weak<TcpSocket>,
    outbox: Arc<Channel>,
    remote: Host,
}

/// A TCP socket.
pub struct TcpSocket {
    me: Weak<TcpSocket>,
    net: Arc<Net>,
    v6: bool,
    end: Arc<Endpoint>,
    inbox: Arc<Channel>,
    link: OnceLock<Link>,
    state: Mutex<State>,
    /// A non-blocking connect has succeeded, but no connect(2) has said so.
    unreported: AtomicBool,
    read_shut: AtomicBool,
}

impl TcpSocket {
    /// An unconnected socket of AF_INET6 if `v6`, else AF_INET.
    #[must_use]
    pub fn new(net: &Arc<Net>, v6: bool, owner: Ucred) -> Arc<TcpSocket> {
        let options = Options { recv_buffer: 131_072, send_buffer: 16_384, ..Options::default() };
        Self::make(net, v6, Endpoint::new(owner, options))
    }
    fn make(net: &Arc<Net>, v6: bool, end: Arc<Endpoint>) -> Arc<TcpSocket> {
        Arc::new_cyclic(|me| TcpSocket {
            me: me.clone(),
            net: net.clone(),
            v6,
            inbox: Channel::stream(&end.queue, WINDOW),
            end,
            link: OnceLock::new(),
            state: Mutex::default(),
            unreported: AtomicBool::new(false),
            read_shut: AtomicBool::new(false),
        })
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn claim(&self, ip: Ip) -> Claim {
        let options = self.end.options();
        Claim {
            ip,
            v6_only: options.v6_only,
            reuse_addr: options.reuse_addr,
            reuse_port: options.reuse_port,
            uid: self.end.owner.uid,
        }
    }
    fn any(&self) -> Ip {
        if self.v6 { Ip::ANY6 } else { Ip::ANY4 }
    }
    /// Binds, under the state's lock.
    fn bind_locked(&self, state: &mut State, host: Host) -> Result<(), Errno> {
        let port = self.net.tcp.bind(host.port, self.claim(host.ip), &self.me)?;
        state.local = Some(Host { ip: host.ip, port });
        state.bound = true;
        Ok(())
    }
    fn join(&self, peer: &Arc<TcpSocket>, remote: Host) {
        let link = Link { peer: peer.me.clone(), outbox: peer.inbox.clone(), remote };
        // A socket is joined once: connect(2) checks first.
        let _ = self.link.set(link);
        self.options_changed();
    }
    /// Connects to the listener `server` at `to`; EAGAIN if its backlog is full.
    fn join_listener(&self, server: &Arc<TcpSocket>, to: Host, local: Host) -> Result<(), Errno> {
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        let mut state = server.state();
        let listener = state.listener.as_mut().ok_or(Errno::ECONNREFUSED)?;
        if listener.ready.len() > listener.backlog {
            listener.blocked.push(self.end.queue.clone());
            return Err(Errno::EAGAIN);
        }
        let options = server.end.options().clone();
        let child = TcpSocket::make(&self.net, server.v6, Endpoint::new(server.end.owner, options));
        child.state().local = Some(to);
        child.join(&me, local);
        self.join(&child, to);
        listener.ready.push_back(child);
        drop(state);
        server.end.queue.wake();
        Ok(())
    }
    /// Forgets the connections nobody has accepted; false if it did not listen.
    fn stop_listening(&self) -> bool {
        let Some(listener) = self.state().listener.take() else { return false };
        for child in listener.ready {
            child.close();
        }
        self.end.queue.wake();
        true
    }
    /// Ends both directions at once (RST).
    fn reset(&self) {
        self.inbox.end();
        self.inbox.deafen();
        if let Some(link) = self.link.get() {
            link.outbox.end();
        }
        self.end.fail(Errno::ECONNRESET);
    }
    fn refused(&self, how: &Connect) -> Errno {
        if how.nonblock {
            self.state().failed = true;
            self.end.fail(Errno::ECONNREFUSED);
            Errno::EINPROGRESS
        } else {
            Errno::ECONNREFUSED
        }
    }
    fn write_shut(&self) -> bool {
        self.link.get().is_some_and(|link| link.outbox.has_ended())
    }
}

impl Protocol for TcpSocket {
    fn endpoint(&self) -> &Arc<Endpoint> {
        &self.end
    }
    fn bind(&self, addr: &Addr, privileged: bool) -> Result<(), Errno> {
        let host = host_of(addr, self.v6)?;
        if !host.ip.is_any() && !host.ip.is_loopback() {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if (1..1024).contains(&host.port) && !privileged {
            return Err(Errno::EACCES);
        }
        let mut state = self.state();
        if state.local.is_some() || self.link.get().is_some() {
            return Err(Errno::EINVAL);
        }
        self.bind_locked(&mut state, host)
    }
    fn listen(&self, backlog: usize, _who: Ucred) -> Result<(), Errno> {
        let mut state = self.state();
        if self.link.get().is_some() {
            return Err(Errno::EINVAL);
        }
        let backlog = backlog.min(SOMAXCONN);
        if let Some(listener) = &mut state.listener {
            listener.backlog = backlog;
            return Ok(());
        }
        if state.local.is_none() {
            self.bind_locked(&mut state, Host { ip: self.any(), port: 0 })?;
        }
        let port = state.local.map_or(0, |l| l.port);
        self.net.tcp.listen(port, &self.me)?;
        state.listener = Some(Listener { backlog, ready: VecDeque::new(), blocked: Vec::new() });
        Ok(())
    }
    fn accept(&self) -> Result<(Arc<dyn Protocol>, Addr), Errno> {
        let (child, blocked) = {
            let mut state = self.state();
            let listener = state.listener.as_mut().ok_or(Errno::EINVAL)?;
            let child = listener.ready.pop_front().ok_or(Errno::EAGAIN)?;
            (child, std::mem::take(&mut listener.blocked))
        };
        for queue in blocked {
            queue.wake();
        }
        let peer = child.peer().unwrap_or(Addr::Unspec);
        Ok((child, peer))
    }
    fn connect(&self, addr: &Addr, how: &Connect) -> Result<(), Errno> {
        if *addr == Addr::Unspec {
            self.stop_listening();
            return Ok(());
        }
        if self.link.get().is_some() {
            let first = self.unreported.swap(false, Ordering::AcqRel) || how.started;
            return if first { Ok(()) } else { Err(Errno::EISCONN) };
        }
        // An IPv6 socket reaches IPv4 by mapped addresses unless it is for IPv6 only.
        let host = host_of(addr, self.v6)?;
        if std::mem::take(&mut self.state().failed) {
            self.end.check()?;
        }
        if self.v6 && self.end.options().v6_only && host.ip.as_v4().is_some() {
            return Err(Errno::ENETUNREACH);
        }
        let to = Host { ip: route(host.ip)?, port: host.port };
        let local = {
            let mut state = self.state();
            if state.listener.is_some() {
                return Err(Errno::EISCONN);
            }
            if state.local.is_none() {
                self.bind_locked(&mut state, Host { ip: self.any(), port: 0 })?;
            }
            let mut local = state.local.unwrap_or_default();
            if local.ip.is_any() {
                local.ip = source_for(to.ip);
            }
            local
        };
        let servers = self.net.tcp.find(to);
        let Some(server) = servers.iter().find(|s| s.is_listening()) else {
            return Err(self.refused(how));
        };
        match self.join_listener(server, to, local) {
            Err(Errno::ECONNREFUSED) => return Err(self.refused(how)),
            Err(Errno::EAGAIN) if how.nonblock => return Err(Errno::EINPROGRESS),
            other => other?,
        }
        self.state().local = Some(local);
        self.end.queue.wake();
        if how.nonblock {
            // Linux answers before the reply is back, even on loopback.
            self.unreported.store(true, Ordering::Release);
            return Err(Errno::EINPROGRESS);
        }
        Ok(())
    }
    fn send(&self, src: &mut Source<'_>, out: &mut Outgoing) -> Result<usize, Errno> {
        self.end.check()?;
        let link = self.link.get().ok_or(Errno::EPIPE)?;
        if self.write_shut() {
            return Err(Errno::EPIPE);
        }
        if out.urgent {
            return link.outbox.send_with_urgent(src, &mut Outgoing::default(), &self.end.queue);
        }
        if link.outbox.is_deaf() {
            // The other end is closed: it answers this with a reset, which the next send hears of.
            let n = src.left();
            src.skip(n);
            link.outbox.end();
            self.inbox.end();
            self.end.fail(Errno::EPIPE);
            return Ok(n);
        }
        let mut plain = Outgoing::default();
        link.outbox.send(src, &mut plain, None, None, &self.end.queue)
    }
    fn recv(&self, dst: &mut Sink<'_>, how: Receive) -> Result<Received, Errno> {
        if self.link.get().is_none() {
            let listens = self.is_listening();
            if how.urgent && !listens {
                return Err(Errno::EINVAL);
            }
            self.end.check()?;
            let shut = self.read_shut.load(Ordering::Acquire) && !listens;
            return if shut { Ok(Received::default()) } else { Err(Errno::ENOTCONN) };
        }
        if how.urgent {
            return self.inbox.recv_urgent(dst, how.peek);
        }
        if !self.inbox.has_data() {
            self.end.check()?;
            if self.read_shut.load(Ordering::Acquire) {
                return Ok(Received::default());
            }
        }
        self.inbox.recv(dst, how)
    }
    fn shutdown(&self, read: bool, write: bool) -> Result<(), Errno> {
        let Some(link) = self.link.get() else {
            // A listener stops listening.
            if read && self.stop_listening() {
                return Ok(());
            }
            // It is refused, and remembered all the same.
            self.read_shut.fetch_or(read, Ordering::AcqRel);
            return Err(Errno::ENOTCONN);
        };
        if read {
            self.read_shut.store(true, Ordering::Release);
        }
        if write {
            link.outbox.end();
        }
        self.end.queue.wake();
        Ok(())
    }
    fn local(&self) -> Addr {
        let host = self.state().local.unwrap_or(Host { ip: self.any(), port: 0 });
        addr_of(host, self.v6)
    }
    fn peer(&self) -> Result<Addr, Errno> {
        let link = self.link.get().ok_or(Errno::ENOTCONN)?;
        Ok(addr_of(link.remote, self.v6))
    }
    fn poll(&self) -> Ready {
        let mut ready = Ready::empty();
        let read_ready = Ready::IN | Ready::RDNORM;
        let write_ready = Ready::OUT | Ready::WRNORM;
        if let Some(listener) = &self.state().listener {
            return if listener.ready.is_empty() { ready } else { read_ready };
        }
        if self.end.has_error() {
            ready |= Ready::ERR;
        }
        let Some(link) = self.link.get() else {
            let failed = self.state().failed;
            let more = if failed { read_ready | Ready::RDHUP } else { Ready::empty() };
            return ready | Ready::HUP | write_ready | more;
        };
        let read_closed = self.inbox.has_ended() || self.read_shut.load(Ordering::Acquire);
        if read_closed {
            ready |= read_ready | Ready::RDHUP;
        }
        if self.inbox.has_data() {
            ready |= read_ready;
        }
        if self.inbox.has_urgent() {
            ready |= Ready::PRI;
        }
        if self.write_shut() {
            ready |= write_ready;
            if read_closed {
                ready |= Ready::HUP;
            }
        } else if link.outbox.is_writable(WINDOW / 3, &self.end.queue) {
            ready |= write_ready;
        }
        ready
    }
    fn readable_bytes(&self) -> Result<usize, Errno> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        Ok(self.inbox.readable_bytes())
    }
    fn unsent_bytes(&self) -> usize {
        0
    }
    fn at_mark(&self) -> bool {
        self.inbox.at_mark()
    }
    fn is_listening(&self) -> bool {
        self.state().listener.is_some()
    }
    fn options_changed(&self) {
        let Some(link) = self.link.get() else { return };
        let Some(peer) = link.peer.upgrade() else { return };
        let send = {
            let options = self.end.options();
            options.send_buffer_set.then_some(options.send_buffer)
        };
        let receive = {
            let options = peer.end.options();
            options.recv_buffer_set.then_some(options.recv_buffer)
        };
        if send.is_some() || receive.is_some() {
            let sum = send.unwrap_or(WINDOW / 2) + receive.unwrap_or(WINDOW / 2);
            link.outbox.set_limit(sum);
        }
    }
    fn close(&self) {
        let (listener, port) = {
            let mut state = self.state();
            state.closed = true;
            (state.listener.take(), state.local.filter(|_| state.bound))
        };
        if let Some(host) = port {
            self.net.tcp.release(host.port, &self.me);
        }
        if let Some(listener) = listener {
            for child in listener.ready {
                if let Some(peer) = child.link.get().and_then(|l| l.peer.upgrade()) {
                    peer.reset();
                }
                child.close();
            }
            for queue in listener.blocked {
                queue.wake();
            }
        }
        let abort = self.end.options().linger == Some(0);
        let unread = self.inbox.deafen();
        let Some(link) = self.link.get() else { return };
        link.outbox.end();
        if (unread || abort)
            && let Some(peer) = link.peer.upgrade()
        {
            peer.reset();
        }
        if let Some(peer) = link.peer.upgrade() {
            peer.end.queue.wake();
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
