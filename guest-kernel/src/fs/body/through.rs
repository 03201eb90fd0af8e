//! Passed-through files: writes reach the host at once, stores through mappings when they are written
//! back, and what others change on the host is taken over.

use super::{Body, PAGE};
use crate::{
    error::Errno,
    fs::buf::Source,
    host::HostStat,
    num::Word,
    platform::{PAGE_SHIFT, PAGE_SIZE},
};

impl Body {
    /// Writes to the host file so far; `None` while one is under way. What was read from the host
    /// is right if this has not changed meanwhile.
    #[must_use]
    pub fn edits(&self) -> Option<u64> {
        let state = self.state();
        (state.writing == 0).then_some(state.edits)
    }
    /// Changes the host file.
    pub(super) fn edit<T>(&self, body: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        self.state().writing += 1;
        let result = body();
        let mut state = self.state();
        state.writing -= 1;
        state.edits += 1;
        result
    }
    /// Whoever else changed a passed-through file on the host: takes over its length, and forgets
    /// pages that nobody maps and that hold nothing of ours. `stat` was read after [`Body::edits`]
    /// had said `since`.
    pub fn host_changed(&self, stat: &HostStat, since: Option<u64>) {
        if !self.through {
            return;
        }
        let mut cut = Vec::new();
        let first = stat.size.div_ceil(PAGE_SIZE);
        let shrinks = {
            let mut state = self.state();
            let version = (stat.mtime, stat.ctime, stat.size);
            let stale = state.writing > 0 || since != Some(state.edits);
            if stale || state.dirty > 0 || state.version == Some(version) {
                return;
            }
            let known = state.version.replace(version).is_some();
            let shrinks = stat.size < state.size;
            (state.size, state.lower_len) = (stat.size, stat.size);
            if shrinks {
                cut = self.take_pages(&mut state, first, u64::MAX);
            }
            if known {
                let frames = &self.frames;
                state.pages.retain(|_, page| page.dirty || frames.owners(page.frame.gpa()) > 1);
            }
            shrinks
        };
        if shrinks {
            self.mappers.invalidate(self.id, first, u64::MAX);
        }
        drop(cut);
    }
    pub(super) fn write_through(
        &self,
        src: &mut Source<'_>,
        at: u64,
        cap: usize,
        buffer: &mut [u8],
    ) -> Result<(usize, bool), Errno> {
        let want = buffer.len().min(src.left()).min(cap);
        let got = src.take(&mut buffer[..want])?;
        let handle = self.handle()?;
        self.edit(|| {
            let wrote = handle.write_at(&buffer[..got], at)?;
            self.show(&buffer[..wrote], at);
            Ok((wrote, wrote == want))
        })
    }
    /// Takes over what was written to the host file.
    fn show(&self, buffer: &[u8], at: u64) {
        let wrote = buffer.len();
        let mut state = self.state();
        state.size = state.size.max(at + wrote as u64);
        state.lower_len = state.size;
        // Mapped pages must show what was written.
        let mut pos = at;
        let end = at + wrote as u64;
        while pos < end {
            let step = (PAGE_SIZE - pos % PAGE_SIZE).min(end - pos);
            if let Some(page) = state.pages.get(&(pos >> PAGE_SHIFT)) {
                let from = (pos - at).size();
                page.frame.write((pos % PAGE_SIZE).size(), &buffer[from..from + step.size()]);
            }
            pos += step;
        }
    }
    /// Writes dirty pages back to the host (passed-through files only).
    ///
    /// # Errors
    /// The host's errno.
    pub fn write_back(&self, first: u64, last: u64) -> Result<(), Errno> {
        if !self.through || first >= last {
            return Ok(());
        }
        let (due, size) = {
            let mut state = self.state();
            let size = state.size;
            let mut due = Vec::new();
            for (index, page) in state.pages.range_mut(first..last) {
                // A mapped page may be stored to at any time: it stays dirty while it is mapped.
                if page.dirty {
                    page.dirty = self.frames.owners(page.frame.gpa()) > 1;
                    due.push((*index, page.frame.clone(), !page.dirty));
                }
            }
            state.dirty -= due.iter().filter(|d| d.2).count() as u64;
            (due, size)
        };
        if due.is_empty() {
            return Ok(());
        }
        let handle = self.handle()?;
        for (index, frame, _) in due {
            let start = index << PAGE_SHIFT;
            let len = size.saturating_sub(start).min(PAGE_SIZE).size();
            let mut page = [0; PAGE];
            frame.read(0, &mut page[..len]);
            let mut done = 0;
            while done < len {
                match handle.write_at(&page[done..len], start + done as u64)? {
                    0 => return Err(Errno::EIO),
                    n => done += n,
                }
            }
        }
        Ok(())
    }
}
