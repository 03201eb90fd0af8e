//! Port tables: who is bound to what, and whom a destination reaches (bind(2), ip(7), ipv6(7)).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    error::Errno,
    net::addr::{Host, Ip},
};

/// Ephemeral ports (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

/// How a socket shares its port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The address; any address takes every one of its family.
    pub ip: Ip,
    /// An IPv6 wildcard that leaves IPv4 alone.
    pub v6_only: bool,
    /// SO_REUSEADDR.
    pub reuse_addr: bool,
    /// SO_REUSEPORT.
    pub reuse_port: bool,
    /// Who binds; SO_REUSEPORT is for one user's sockets.
    pub uid: u32,
}

struct Bound<S> {
    claim: Claim,
    listening: bool,
    socket: Weak<S>,
}

/// One protocol's ports.
pub struct Ports<S> {
    bound: Mutex<BTreeMap<u16, Vec<Bound<S>>>>,
    next: AtomicU32,
}

impl<S> Default for Ports<S> {
    fn default() -> Ports<S> {
        Ports { bound: Mutex::default(), next: AtomicU32::new(0) }
    }
}

/// Whether the two address sets meet.
fn overlap(a: &Claim, b: &Claim) -> bool {
    let covers = |wild: &Claim, other: &Claim| match wild.ip {
        Ip::ANY4 => other.ip.as_v4().is_some(),
        Ip::ANY6 => !wild.v6_only || other.ip.as_v4().is_none(),
        _ => false,
    };
    a.ip == b.ip || covers(a, b) || covers(b, a)
}

impl<S> Ports<S> {
    fn bound(&self) -> MutexGuard<'_, BTreeMap<u16, Vec<Bound<S>>>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn conflicts(list: &[Bound<S>], claim: &Claim, listeners_only: bool) -> bool {
        list.iter().filter(|b| b.socket.strong_count() > 0).any(|b| {
            let by_port = b.claim.reuse_port && claim.reuse_port && b.claim.uid == claim.uid;
            let by_addr = b.claim.reuse_addr && claim.reuse_addr && !b.listening;
            let counts = !listeners_only || b.listening;
            counts && overlap(&b.claim, claim) && !by_port && !by_addr
        })
    }
    /// Binds `socket` to `port`, or to a free ephemeral port if that is 0; the port.
    ///
    /// # Errors
    /// EADDRINUSE.
    pub fn bind(&self, port: u16, claim: Claim, socket: &Weak<S>) -> Result<u16, Errno> {
        let mut bound = self.bound();
        let mut try_at = |port: u16, fresh: bool| {
            let list = bound.entry(port).or_default();
            list.retain(|b| b.socket.strong_count() > 0);
            let taken = if fresh { !list.is_empty() } else { Self::conflicts(list, &claim, false) };
            if !taken {
                list.push(Bound { claim, listening: false, socket: socket.clone() });
            }
            !taken
        };
        if port != 0 {
            return if try_at(port, false) { Ok(port) } else { Err(Errno::EADDRINUSE) };
        }
        let count = u32::from(*EPHEMERAL.end() - *EPHEMERAL.start()) + 1;
        for _ in 0..count {
            let n = self.next.fetch_add(1, Ordering::Relaxed) % count;
            // A stride coprime to the count spreads the ports over the whole range.
            let offset = u16::try_from(u64::from(n) * 7919 % u64::from(count)).unwrap_or(0);
            let port = EPHEMERAL.start() + offset;
            if try_at(port, true) {
                return Ok(port);
            }
        }
        Err(Errno::EADDRINUSE)
    }
    /// Marks `socket` as listening on `port`.
    ///
    /// # Errors
    /// EADDRINUSE if another socket that shares the port listens already.
    pub fn listen(&self, port: u16, socket: &Weak<S>) -> Result<(), Errno> {
        let mut bound = self.bound();
        let list = bound.entry(port).or_default();
        let own = |b: &Bound<S>| Weak::ptr_eq(&b.socket, socket);
        let Some(at) = list.iter().position(own) else { return Err(Errno::EINVAL) };
        let me = list.swap_remove(at);
        let taken = Self::conflicts(list, &Claim { reuse_addr: false, ..me.claim }, true);
        list.push(Bound { listening: me.listening || !taken, ..me });
        if taken { Err(Errno::EADDRINUSE) } else { Ok(()) }
    }
    /// Gives `port` up.
    pub fn release(&self, port: u16, socket: &Weak<S>) {
        let mut bound = self.bound();
        if let Some(list) = bound.get_mut(&port) {
            list.retain(|b| !Weak::ptr_eq(&b.socket, socket));
            if list.is_empty() {
                bound.remove(&port);
            }
        }
    }
    /// The sockets `to` may reach, those bound to exactly its address first.
    pub fn find(&self, to: Host) -> Vec<Arc<S>> {
        let bound = self.bound();
        let Some(list) = bound.get(&to.port) else { return Vec::new() };
        let exact =
            Claim { ip: to.ip, v6_only: true, reuse_addr: false, reuse_port: false, uid: 0 };
        let mut found: Vec<_> = list
            .iter()
            .filter(|b| overlap(&b.claim, &exact))
            .filter_map(|b| {
                Some((b.claim.ip != to.ip, b.claim.ip == Ip::ANY6, b.socket.upgrade()?))
            })
            .collect();
        found.sort_by_key(|f| (f.0, f.1));
        let best = found.first().map(|f| (f.0, f.1));
        let mut best_ones: Vec<_> =
            found.into_iter().filter(|f| Some((f.0, f.1)) == best).map(|f| f.2).collect();
        // Sockets that share the port by SO_REUSEPORT take turns.
        if best_ones.len() > 1 {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let len = best_ones.len();
            best_ones.rotate_left(usize::try_from(turn).unwrap_or(0) % len);
        }
        best_ones
    }
}
