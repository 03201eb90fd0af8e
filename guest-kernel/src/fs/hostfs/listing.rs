//! Positions in a host directory that stay right while entries come and go.
//!
//! A name keeps the number it got when it was first listed; reading from the start asks the host
//! again, drops what has gone and appends what is new.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use crate::host::HostDirEntry;

/// A directory's listing.
#[derive(Default)]
pub(super) struct Listing {
    numbers: HashMap<Arc<[u8]>, u64>,
    entries: BTreeMap<u64, (Arc<[u8]>, u64, u8)>,
    next: u64,
}

impl Listing {
    /// Takes over what the host lists now.
    pub(super) fn refresh(&mut self, found: &[HostDirEntry]) {
        let names: HashSet<&[u8]> = found.iter().map(|e| e.name.as_slice()).collect();
        self.entries.retain(|_, (name, ..)| names.contains(&name[..]));
        self.numbers.retain(|name, _| names.contains(&name[..]));
        for entry in found {
            let number = self.numbers.get(entry.name.as_slice()).copied().unwrap_or_else(|| {
                self.next += 1;
                self.numbers.insert(Arc::from(entry.name.as_slice()), self.next);
                self.next
            });
            let name = Arc::from(entry.name.as_slice());
            self.entries.insert(number, (name, entry.ino, entry.kind));
        }
    }
    /// Entries after `from`: position, name, inode number, `DT_*`.
    pub(super) fn after(&self, from: u64) -> impl Iterator<Item = (u64, &[u8], u64, u8)> {
        self.entries.range(from + 1..).map(|(n, (name, ino, kind))| (*n, &name[..], *ino, *kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> Vec<HostDirEntry> {
        names
            .iter()
            .map(|n| HostDirEntry { name: n.as_bytes().to_vec(), ino: 1, kind: 8 })
            .collect()
    }

    #[test]
    fn positions_outlive_changes() {
        let mut listing = Listing::default();
        listing.refresh(&found(&["a", "b", "c"]));
        let (second, ..) = listing.after(1).next().expect("b");
        listing.refresh(&found(&["c", "b", "d"]));
        let rest: Vec<_> = listing.after(second).map(|(_, name, ..)| name.to_vec()).collect();
        assert_eq!(rest, [b"c".to_vec(), b"d".to_vec()]);
    }
}
