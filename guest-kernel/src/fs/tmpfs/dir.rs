//! A directory's entries: what was made here, and what the host's directory below has.
//!
//! Until the host's listing is needed (readdir, a change, a second miss) only names that were asked
//! for are known; from then on this table is the truth and the host is not asked again. Entries keep
//! the host's order, new ones follow; a position is an entry's sequence number, so that reading goes
//! on rightly while entries come and go.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use super::node::Node;
use crate::{error::Errno, host::HostTree};

/// What a name stands for.
#[derive(Clone)]
pub(super) enum Entry {
    /// On the host, not looked at yet: inode number and `DT_*`.
    Lower(u64, u8),
    /// A node.
    Node(Arc<Node>),
}

struct Slot {
    sequence: u64,
    entry: Entry,
}

/// The entries.
#[derive(Default)]
pub(super) struct Entries {
    slots: HashMap<Arc<[u8]>, Slot>,
    order: BTreeMap<u64, Arc<[u8]>>,
    next: u64,
    /// The host directory below, until it was listed.
    unlisted: Option<PathBuf>,
    misses: u32,
    /// rmdir has removed the directory: nothing may be made in it.
    pub(super) dead: bool,
}

/// What a look at the table alone tells.
pub(super) enum Look {
    Found(Entry),
    Absent,
    /// Ask the host for this one name.
    AskHost,
}

impl Entries {
    pub(super) fn over(path: PathBuf) -> Entries {
        Entries { unlisted: Some(path), ..Entries::default() }
    }
    pub(super) fn look(&self, name: &[u8]) -> Look {
        match self.slots.get(name) {
            Some(slot) => Look::Found(slot.entry.clone()),
            None if self.unlisted.is_some() => Look::AskHost,
            None => Look::Absent,
        }
    }
    /// Counts a name the host does not have; true once listing the directory is the cheaper way.
    pub(super) fn missed(&mut self) -> bool {
        self.misses += 1;
        self.misses > 4
    }
    /// Reads the host's listing if that is still to be done.
    pub(super) fn list_lower(&mut self, tree: Option<&Arc<dyn HostTree>>) -> Result<(), Errno> {
        let (Some(path), Some(tree)) = (&self.unlisted, tree) else { return Ok(()) };
        let listing = tree.read_dir(path)?;
        self.unlisted = None;
        let mut known = std::mem::take(&mut self.slots);
        self.order.clear();
        self.next = 0;
        for found in listing {
            let entry = match known.remove(found.name.as_slice()) {
                Some(slot) => slot.entry,
                None => Entry::Lower(found.ino, found.kind),
            };
            self.insert(&found.name, entry);
        }
        for (name, slot) in known {
            self.insert(&name, slot.entry);
        }
        Ok(())
    }
    /// Adds or replaces; a replaced entry keeps its place.
    pub(super) fn insert(&mut self, name: &[u8], entry: Entry) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.entry = entry;
            return;
        }
        let name: Arc<[u8]> = Arc::from(name);
        self.next += 1;
        self.order.insert(self.next, name.clone());
        self.slots.insert(name, Slot { sequence: self.next, entry });
    }
    pub(super) fn remove(&mut self, name: &[u8]) {
        if let Some(slot) = self.slots.remove(name) {
            self.order.remove(&slot.sequence);
        }
    }
    /// Entries after `from`: position, name, entry.
    pub(super) fn after(&self, from: u64) -> impl Iterator<Item = (u64, &[u8], &Entry)> {
        self.order.range(from + 1..).filter_map(|(sequence, name)| {
            Some((*sequence, &name[..], &self.slots.get(name)?.entry))
        })
    }
    /// The listing is known and empty.
    pub(super) fn is_empty(&self) -> bool {
        self.unlisted.is_none() && self.slots.is_empty()
    }
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}
