//! connect(2) of AF_UNIX sockets.

use std::sync::{Arc, Weak};

use super::{Addr, Connect, Errno, UnixName, UnixSocket};

impl UnixSocket {
    /// The live socket of an abstract name.
    pub(super) fn find(&self, addr: &Addr) -> Result<Arc<UnixSocket>, Errno> {
        match addr {
            Addr::Unix(UnixName::Abstract(name)) => {
                self.net.unix.find(name).ok_or(Errno::ECONNREFUSED)
            }
            _ => Err(Errno::EINVAL),
        }
    }
    pub(super) fn connect_to(&self, addr: &Addr, how: &Connect) -> Result<(), Errno> {
        if *addr == Addr::Unspec && self.is_datagram() {
            self.state().peer = None;
            self.end.queue.wake();
            return Ok(());
        }
        let Addr::Unix(name) = addr else { return Err(Errno::EINVAL) };
        let target = match &how.target {
            Some(target) => target.clone(),
            None => self.find(addr)?,
        };
        if target.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        if self.end.options().pass_cred {
            self.autobind()?;
        }
        if self.is_datagram() {
            return self.connect_datagram(&target, name);
        }
        self.connect_stream(&target, name, how)
    }
    fn connect_datagram(&self, target: &Arc<UnixSocket>, name: &UnixName) -> Result<(), Errno> {
        let own = target.state().peer.clone();
        if own.is_some_and(|p| !Weak::ptr_eq(&p, &self.me)) {
            return Err(Errno::EPERM);
        }
        let mut state = self.state();
        state.peer = Some(target.me.clone());
        state.peer_name = name.clone();
        drop(state);
        self.end.queue.wake();
        Ok(())
    }
    fn connect_stream(
        &self,
        target: &Arc<UnixSocket>,
        name: &UnixName,
        how: &Connect,
    ) -> Result<(), Errno> {
        let own_name = {
            let state = self.state();
            if state.listener.is_some() {
                return Err(Errno::EINVAL);
            }
            if self.link.get().is_some() {
                return Err(Errno::EISCONN);
            }
            state.name.clone()
        };
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        let mut state = target.state();
        let target_name = state.name.clone();
        let listener = state.listener.as_mut().ok_or(Errno::ECONNREFUSED)?;
        if target.inbox.has_ended() {
            return Err(Errno::ECONNREFUSED);
        }
        if listener.ready.len() > listener.backlog {
            if !how.nonblock {
                listener.blocked.push(self.end.queue.clone());
            }
            return Err(Errno::EAGAIN);
        }
        let child = UnixSocket::new(&self.net, self.kind, listener.who);
        child.end.options().pass_cred = target.end.options().pass_cred;
        child.state().name = target_name;
        child.join(&me, own_name, how.who);
        self.join(&child, name.clone(), listener.who);
        listener.ready.push_back(child);
        drop(state);
        target.end.queue.wake();
        self.end.queue.wake();
        Ok(())
    }
}
