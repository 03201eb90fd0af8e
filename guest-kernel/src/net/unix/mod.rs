//! AF_UNIX sockets (unix(7)): streams, sequenced packets and datagrams between local names.
//!
//! Every socket has an inbox; sending puts into the inbox of the other. The two ends of a connection
//! know each other weakly, so that dropping one's file ends it. A name that is a path lives in the
//! inode it was bound to ([`Node`]), an abstract one in [`Names`].

mod connect;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use super::{
    Kind, Net, Protocol,
    addr::{Addr, Connect, Outgoing, Receive, Received, Ucred, UnixName},
    channel::Channel,
    options::{Endpoint, Options},
};
use crate::{
    error::Errno,
    fs::{
        buf::{Sink, Source},
        file::Ready,
        inode::Inode,
    },
    wait::WaitQueue,
};

/// Datagrams an inbox holds (`net.unix.max_dgram_qlen` as distributions set it).
const MAX_DATAGRAMS: usize = 512;
/// Packets of a SOCK_SEQPACKET connection: only the buffer bounds them.
const MAX_RECORDS: usize = 4096;
/// Largest backlog (`net.core.somaxconn`).
pub const SOMAXCONN: usize = 4096;

/// What a bound path's inode holds: the socket, while it lives.
pub struct Node(pub Weak<UnixSocket>);

/// Abstract names.
#[derive(Default)]
pub struct Names {
    map: Mutex<HashMap<Vec<u8>, Weak<UnixSocket>>>,
    next: std::sync::atomic::AtomicU32,
}

impl Names {
    fn map(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Weak<UnixSocket>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn find(&self, name: &[u8]) -> Option<Arc<UnixSocket>> {
        self.map().get(name).and_then(Weak::upgrade)
    }
    fn claim(&self, name: &[u8], socket: &Weak<UnixSocket>) -> Result<(), Errno> {
        let mut map = self.map();
        if map.get(name).is_some_and(|s| s.strong_count() > 0) {
            return Err(Errno::EADDRINUSE);
        }
        map.insert(name.to_vec(), socket.clone());
        Ok(())
    }
}

/// Connections that wait for accept(2).
struct Listener {
    backlog: usize,
    ready: VecDeque<Arc<UnixSocket>>,
    /// Connecting sockets that found the backlog full.
    blocked: Vec<Arc<WaitQueue>>,
    who: Ucred,
}

struct State {
    name: UnixName,
    inode: Option<Arc<dyn Inode>>,
    listener: Option<Listener>,
    /// A datagram socket's connected peer.
    peer: Option<Weak<UnixSocket>>,
    peer_name: UnixName,
    /// A datagram socket sends no more.
    write_shut: bool,
    closed: bool,
}

/// The other end of a connection.
struct Link {
    peer: Weak<UnixSocket>,
    /// The peer's inbox.
    outbox: Arc<Channel>,
    name: UnixName,
    creds: Ucred,
}

/// An AF_UNIX socket.
pub struct UnixSocket {
    me: Weak<UnixSocket>,
    net: Arc<Net>,
    kind: Kind,
    end: Arc<Endpoint>,
    inbox: Arc<Channel>,
    link: OnceLock<Link>,
    state: Mutex<State>,
}

impl UnixSocket {
    /// An unconnected socket.
    #[must_use]
    pub fn new(net: &Arc<Net>, kind: Kind, owner: Ucred) -> Arc<UnixSocket> {
        let end = Endpoint::new(owner, Options::default());
        let limit = end.options().send_buffer;
        let inbox = match kind {
            Kind::Stream => Channel::stream(&end.queue, limit),
            Kind::SeqPacket => Channel::packets(&end.queue, limit, MAX_RECORDS),
            _ => Channel::packets(&end.queue, usize::MAX / 2, MAX_DATAGRAMS),
        };
        Arc::new_cyclic(|me| UnixSocket {
            me: me.clone(),
            net: net.clone(),
            kind,
            end,
            inbox,
            link: OnceLock::new(),
            state: Mutex::new(State {
                name: UnixName::Unnamed,
                inode: None,
                listener: None,
                peer: None,
                peer_name: UnixName::Unnamed,
                write_shut: false,
                closed: false,
            }),
        })
    }
    /// socketpair(2).
    #[must_use]
    pub fn pair(net: &Arc<Net>, kind: Kind, owner: Ucred) -> [Arc<UnixSocket>; 2] {
        let pair = [Self::new(net, kind, owner), Self::new(net, kind, owner)];
        if kind == Kind::Datagram {
            for (one, other) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                one.state().peer = Some(other.me.clone());
            }
        } else {
            pair[0].join(&pair[1], UnixName::Unnamed, owner);
            pair[1].join(&pair[0], UnixName::Unnamed, owner);
        }
        pair
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Makes `peer` the other end.
    fn join(&self, peer: &Arc<UnixSocket>, name: UnixName, creds: Ucred) {
        let outbox = peer.inbox.clone();
        outbox.set_limit(self.end.options().send_buffer);
        let link = Link { peer: peer.me.clone(), outbox, name, creds };
        // A socket is joined once: connect(2) checks under its state's lock.
        let _ = self.link.set(link);
    }
    fn is_datagram(&self) -> bool {
        self.kind == Kind::Datagram
    }
    /// Names the socket after the node just made for it.
    ///
    /// # Errors
    /// EINVAL if it has a name.
    pub fn bind_node(&self, path: &[u8], inode: &Arc<dyn Inode>) -> Result<(), Errno> {
        let mut state = self.state();
        if state.name != UnixName::Unnamed {
            return Err(Errno::EINVAL);
        }
        inode.common().attach(Some(Arc::new(Node(self.me.clone()))));
        state.name = UnixName::Path(path.to_vec());
        state.inode = Some(inode.clone());
        Ok(())
    }
    /// The socket bound to `inode`.
    ///
    /// # Errors
    /// ECONNREFUSED if none is any more.
    pub fn at_node(inode: &Arc<dyn Inode>) -> Result<Arc<UnixSocket>, Errno> {
        let object = inode.common().attached().ok_or(Errno::ECONNREFUSED)?;
        let node = object.downcast_ref::<Node>().ok_or(Errno::ECONNREFUSED)?;
        node.0.upgrade().ok_or(Errno::ECONNREFUSED)
    }
    /// Gives an unnamed socket an abstract name (unix(7), Autobind feature).
    fn autobind(&self) -> Result<(), Errno> {
        let mut state = self.state();
        if state.name != UnixName::Unnamed {
            return Ok(());
        }
        for _ in 0..0x10_0000 {
            let n =
                self.net.unix.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) & 0xf_ffff;
            let name = format!("{n:05x}").into_bytes();
            if self.net.unix.claim(&name, &self.me).is_ok() {
                state.name = UnixName::Abstract(name);
                return Ok(());
            }
        }
        Err(Errno::ENOSPC)
    }
    /// Sends a datagram.
    fn send_datagram(&self, src: &mut Source<'_>, out: &mut Outgoing) -> Result<usize, Errno> {
        let named = out.to.is_some();
        let target = match (&out.to, out.target.take()) {
            (_, Some(target)) => target,
            (Some(addr), None) => self.find(addr)?,
            (None, None) => {
                let mut state = self.state();
                let peer = state.peer.clone().ok_or(Errno::ENOTCONN)?;
                match peer.upgrade().filter(|p| !p.state_closed()) {
                    Some(peer) => peer,
                    None => {
                        state.peer = None;
                        return Err(Errno::ECONNREFUSED);
                    }
                }
            }
        };
        if target.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        let from = {
            let own = target.state().peer.clone();
            if own.is_some_and(|p| !Weak::ptr_eq(&p, &self.me)) {
                return Err(Errno::EPERM);
            }
            self.state().name.clone()
        };
        if src.left() > self.end.options().send_buffer.saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        if target.state_closed() {
            return Err(Errno::ECONNREFUSED);
        }
        let sent = target.inbox.send(src, out, Some(Addr::Unix(from)), None, &self.end.queue);
        match sent {
            Err(Errno::EPIPE) if named => Err(Errno::EPIPE),
            other => other,
        }
    }
    fn state_closed(&self) -> bool {
        self.state().closed
    }
    fn send_closed(&self) -> bool {
        self.link.get().is_some_and(|l| l.outbox.has_ended() || l.outbox.is_deaf())
    }
}

impl Protocol for UnixSocket {
    fn endpoint(&self) -> &Arc<Endpoint> {
        &self.end
    }
    fn bind(&self, addr: &Addr, _privileged: bool) -> Result<(), Errno> {
        match addr {
            Addr::Unix(UnixName::Unnamed) => self.autobind(),
            Addr::Unix(UnixName::Abstract(name)) => {
                let mut state = self.state();
                if state.name != UnixName::Unnamed {
                    return Err(Errno::EINVAL);
                }
                self.net.unix.claim(name, &self.me)?;
                state.name = UnixName::Abstract(name.clone());
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }
    fn listen(&self, backlog: usize, who: Ucred) -> Result<(), Errno> {
        if self.is_datagram() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state();
        if state.name == UnixName::Unnamed || self.link.get().is_some() {
            return Err(Errno::EINVAL);
        }
        let backlog = backlog.min(SOMAXCONN);
        match &mut state.listener {
            Some(listener) => {
                listener.backlog = backlog;
                listener.who = who;
            }
            None => {
                let ready = VecDeque::new();
                state.listener = Some(Listener { backlog, ready, blocked: Vec::new(), who });
            }
        }
        Ok(())
    }
    fn accept(&self) -> Result<(Arc<dyn Protocol>, Addr), Errno> {
        if self.is_datagram() {
            return Err(Errno::EOPNOTSUPP);
        }
        let (child, blocked) = {
            let mut state = self.state();
            let listener = state.listener.as_mut().ok_or(Errno::EINVAL)?;
            let child = listener.ready.pop_front();
            if child.is_none() && self.inbox.has_ended() {
                return Err(Errno::EINVAL);
            }
            (child.ok_or(Errno::EAGAIN)?, std::mem::take(&mut listener.blocked))
        };
        for queue in blocked {
            queue.wake();
        }
        let name = child.link.get().map_or(UnixName::Unnamed, |link| link.name.clone());
        Ok((child, Addr::Unix(name)))
    }
    fn connect(&self, addr: &Addr, how: &Connect) -> Result<(), Errno> {
        self.connect_to(addr, how)
    }
    fn admits(&self, len: usize, urgent: bool) -> Result<(), Errno> {
        match self.kind {
            Kind::Stream if urgent && len == 0 => Err(Errno::EOPNOTSUPP),
            Kind::Stream => Ok(()),
            Kind::SeqPacket if self.link.get().is_none() => Err(Errno::ENOTCONN),
            _ if urgent => Err(Errno::EOPNOTSUPP),
            _ if len > self.end.options().send_buffer.saturating_sub(32) => Err(Errno::EMSGSIZE),
            _ if self.state().write_shut => Err(Errno::EPIPE),
            _ => Ok(()),
        }
    }
    fn send(&self, src: &mut Source<'_>, out: &mut Outgoing) -> Result<usize, Errno> {
        if self.is_datagram() {
            return self.send_datagram(src, out);
        }
        let link = self.link.get().ok_or(Errno::ENOTCONN);
        if out.to.is_some() && self.kind == Kind::Stream {
            return Err(if link.is_ok() { Errno::EISCONN } else { Errno::EOPNOTSUPP });
        }
        let link = link?;
        if self.kind == Kind::SeqPacket && src.left() > self.end.options().send_buffer - 32 {
            return Err(Errno::EMSGSIZE);
        }
        if out.urgent {
            return link.outbox.send_with_urgent(src, out, &self.end.queue);
        }
        link.outbox.send(src, out, None, None, &self.end.queue)
    }
    fn recv(&self, dst: &mut Sink<'_>, mut how: Receive) -> Result<Received, Errno> {
        if !self.is_datagram() && self.link.get().is_none() {
            return Err(if self.kind == Kind::Stream { Errno::EINVAL } else { Errno::ENOTCONN });
        }
        if how.urgent {
            return match self.kind {
                Kind::Stream => self.inbox.recv_urgent(dst, how.peek),
                _ => Err(Errno::EOPNOTSUPP),
            };
        }
        how.creds |= self.end.options().pass_cred;
        if !self.inbox.has_data() {
            self.end.check()?;
            if self.is_datagram() && how.nonblock {
                return Err(Errno::EAGAIN);
            }
        }
        let mut got = self.inbox.recv(dst, how)?;
        if let Some(link) = self.link.get()
            && link.name != UnixName::Unnamed
        {
            got.from = Some(Addr::Unix(link.name.clone()));
        }
        // An unnamed sender has no address at all.
        got.from = got.from.filter(|from| *from != Addr::Unix(UnixName::Unnamed));
        Ok(got)
    }
    fn shutdown(&self, read: bool, write: bool) -> Result<(), Errno> {
        if self.is_datagram() {
            if read {
                self.inbox.end();
            }
            self.state().write_shut |= write;
            self.end.queue.wake();
            return Ok(());
        }
        if read {
            self.inbox.end();
        }
        if let Some(link) = self.link.get() {
            if write {
                link.outbox.end();
            }
            if let Some(peer) = link.peer.upgrade() {
                peer.end.queue.wake();
            }
        }
        self.end.queue.wake();
        Ok(())
    }
    fn local(&self) -> Addr {
        Addr::Unix(self.state().name.clone())
    }
    fn peer(&self) -> Result<Addr, Errno> {
        if let Some(link) = self.link.get() {
            return Ok(Addr::Unix(link.name.clone()));
        }
        let state = self.state();
        match &state.peer {
            Some(_) => Ok(Addr::Unix(state.peer_name.clone())),
            None => Err(Errno::ENOTCONN),
        }
    }
    fn poll(&self) -> Ready {
        let mut ready = Ready::empty();
        if self.end.has_error() {
            ready |= Ready::ERR;
        }
        let read_ready = Ready::IN | Ready::RDNORM;
        let write_ready = Ready::OUT | Ready::WRNORM | Ready::WRBAND;
        if let Some(listener) = &self.state().listener {
            if !listener.ready.is_empty() {
                ready |= read_ready;
            }
            return ready;
        }
        let ended = self.inbox.has_ended();
        if ended {
            ready |= read_ready | Ready::RDHUP;
        }
        if self.inbox.has_data() {
            ready |= read_ready;
        }
        if self.inbox.has_urgent() {
            ready |= Ready::PRI;
        }
        if self.is_datagram() {
            let peer = self.state().peer.clone().and_then(|p| p.upgrade());
            if peer.is_none_or(|p| p.inbox.is_writable(1, &self.end.queue)) {
                ready |= write_ready;
            }
            return ready;
        }
        match self.link.get() {
            None => ready |= Ready::HUP | write_ready,
            Some(link) => {
                let send_closed = self.send_closed();
                if ended && send_closed {
                    ready |= Ready::HUP;
                }
                // unix_writable: no more than a quarter of the buffer is in use.
                let least = self.end.options().send_buffer / 4 * 3;
                if send_closed || link.outbox.is_writable(least, &self.end.queue) {
                    ready |= write_ready;
                }
            }
        }
        ready
    }
    fn peer_creds(&self) -> Result<Ucred, Errno> {
        let none = Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        Ok(self.link.get().map_or(none, |link| link.creds))
    }
    fn readable_bytes(&self) -> Result<usize, Errno> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        Ok(self.inbox.readable_bytes())
    }
    fn unsent_bytes(&self) -> usize {
        self.link.get().map_or(0, |link| link.outbox.bytes())
    }
    fn at_mark(&self) -> bool {
        self.inbox.at_mark()
    }
    fn is_listening(&self) -> bool {
        self.state().listener.is_some()
    }
    fn options_changed(&self) {
        if let Some(link) = self.link.get() {
            link.outbox.set_limit(self.end.options().send_buffer);
        }
    }
    fn close(&self) {
        let (listener, inode, name) = {
            let mut state = self.state();
            state.closed = true;
            (state.listener.take(), state.inode.take(), state.name.clone())
        };
        if let UnixName::Abstract(name) = name {
            let mut map = self.net.unix.map();
            if map.get(&name).is_some_and(|s| Weak::ptr_eq(s, &self.me)) {
                map.remove(&name);
            }
        }
        if let Some(inode) = inode {
            inode.common().attach(None);
        }
        if let Some(listener) = listener {
            for child in listener.ready {
                // What was sent before the accept that never came is lost: the peer hears of it.
                let peer = child.link.get().and_then(|link| link.peer.upgrade());
                child.close();
                if let Some(peer) = peer {
                    peer.end.fail(Errno::ECONNRESET);
                }
            }
            for queue in listener.blocked {
                queue.wake();
            }
        }
        self.inbox.end();
        let unread = self.inbox.deafen();
        if let Some(link) = self.link.get() {
            link.outbox.end();
            if let Some(peer) = link.peer.upgrade() {
                if unread {
                    peer.end.fail(Errno::ECONNRESET);
                }
                peer.end.queue.wake();
            }
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
