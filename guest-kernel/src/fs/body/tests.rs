//! Reading ahead from a host file that changes and reads short.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicUsize,
};

use vm_memory::VolatileSlice;

use super::*;
use crate::{
    host::{HostDirEntry, HostStat, HostTree},
    testing,
};

/// A directory without anything in it.
struct Nothing;

impl HostTree for Nothing {
    fn below(&self, _: &Path) -> Result<Arc<dyn HostTree>, Errno> {
        Err(Errno::ENOENT)
    }
    fn stat(&self, _: &Path) -> Result<HostStat, Errno> {
        Err(Errno::ENOENT)
    }
    fn read_link(&self, _: &Path) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOENT)
    }
    fn read_dir(&self, _: &Path) -> Result<Vec<HostDirEntry>, Errno> {
        Err(Errno::ENOENT)
    }
    fn open(&self, _: &Path, _: bool) -> Result<Arc<dyn HostFile>, Errno> {
        Err(Errno::ENOENT)
    }
    fn create(&self, _: &Path, _: u32) -> Result<Arc<dyn HostFile>, Errno> {
        Err(Errno::ENOENT)
    }
    fn mkdir(&self, _: &Path, _: u32) -> Result<(), Errno> {
        Err(Errno::ENOENT)
    }
    fn symlink(&self, _: &[u8], _: &Path) -> Result<(), Errno> {
        Err(Errno::ENOENT)
    }
    fn link(&self, _: &Path, _: &Path) -> Result<(), Errno> {
        Err(Errno::ENOENT)
    }
    fn rename(&self, _: &Path, _: &Path, _: u32) -> Result<(), Errno> {
        Err(Errno::ENOENT)
    }
    fn unlink(&self, _: &Path, _: bool) -> Result<(), Errno> {
        Err(Errno::ENOENT)
    }
    fn set_attr(
        &self,
        _: &Path,
        _: Option<u32>,
        _: Option<(u32, u32)>,
        _: Option<(Duration, Duration)>,
    ) -> Result<(), Errno> {
        Err(Errno::ENOENT)
    }
    fn statfs(&self) -> Result<[u64; 6], Errno> {
        Err(Errno::ENOENT)
    }
}

/// A host file of `len` bytes, each its offset's page number and 1; it gives at most `most` bytes at a time.
struct Counting {
    len: u64,
    most: u64,
    calls: AtomicUsize,
}

impl HostFile for Counting {
    fn read_into(&self, dst: VolatileSlice<'_>, offset: u64) -> Result<usize, Errno> {
        self.read_parts(&[dst], offset)
    }
    fn read_parts(&self, dst: &[VolatileSlice<'_>], mut offset: u64) -> Result<usize, Errno> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let end = self.len.min(offset.saturating_add(self.most));
        let mut done = 0;
        for part in dst {
            let n = end.saturating_sub(offset).min(part.len() as u64).size();
            let bytes: Vec<u8> =
                (offset..offset + n as u64).map(|at| mark(at >> PAGE_SHIFT)).collect();
            part.copy_from(&bytes);
            offset += n as u64;
            done += n;
        }
        Ok(done)
    }
    fn read_at(&self, _: &mut [u8], _: u64) -> Result<usize, Errno> {
        Err(Errno::EIO)
    }
    fn write_at(&self, _: &[u8], _: u64) -> Result<usize, Errno> {
        Err(Errno::EIO)
    }
    fn set_len(&self, _: u64) -> Result<(), Errno> {
        Ok(())
    }
    fn sync(&self) -> Result<(), Errno> {
        Ok(())
    }
    fn stat(&self) -> Result<HostStat, Errno> {
        Err(Errno::EIO)
    }
}

/// What fills a page.
fn mark(page: u64) -> u8 {
    u8::try_from(page + 1).unwrap()
}
fn body(len: u64, most: u64) -> (Arc<Body>, Arc<Counting>) {
    let kernel = testing::kernel(8);
    let file = Arc::new(Counting { len, most, calls: AtomicUsize::new(0) });
    let lower = Lower::opened(Arc::new(Nothing), PathBuf::from("f"), file.clone(), false);
    let pool = Pool { frames: kernel.frames.clone(), quota: None, caches: None };
    (Body::over(1, &pool, lower, len), file)
}
fn bytes(body: &Body, page: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; PAGE];
    body.resident(page)?.read(0, &mut bytes);
    Some(bytes)
}

#[test]
fn pages_in_a_row_are_read_at_once() {
    let (body, file) = body(10 * PAGE_SIZE + 100, u64::MAX);
    body.page(3, false).unwrap();
    body.prefetch(1, 64);
    // One page by itself, and the rows before and after it.
    assert_eq!(file.calls.load(Ordering::Relaxed), 3);
    assert!(body.resident(0).is_none());
    for page in 1..10 {
        assert_eq!(bytes(&body, page).unwrap(), [mark(page); PAGE], "page {page}");
    }
    let tail = bytes(&body, 10).unwrap();
    assert_eq!((&tail[..100], &tail[100..]), (&[11; 100][..], &[0; PAGE - 100][..]));
    body.prefetch(0, 64);
    body.prefetch(0, 64);
    assert_eq!(file.calls.load(Ordering::Relaxed), 4);
}
#[test]
fn what_a_cut_hid_stays_hidden() {
    let (body, _) = body(8 * PAGE_SIZE, u64::MAX);
    body.set_size(2 * PAGE_SIZE + 10).unwrap();
    body.set_size(8 * PAGE_SIZE).unwrap();
    body.prefetch(0, 64);
    let tail = bytes(&body, 2).unwrap();
    assert_eq!((&tail[..10], &tail[10..]), (&[3; 10][..], &[0; PAGE - 10][..]));
    let frame = body.page(5, false).unwrap();
    let mut hidden = vec![1; PAGE];
    frame.read(0, &mut hidden);
    assert_eq!(hidden, [0; PAGE]);
}
#[test]
fn a_short_read_leaves_the_rest_to_be_asked_for() {
    let (body, _) = body(8 * PAGE_SIZE, 2 * PAGE_SIZE + 1);
    body.prefetch(0, 8);
    assert_eq!(bytes(&body, 1).unwrap(), [2; PAGE]);
    assert!(body.resident(2).is_none() && body.resident(3).is_none());
    body.page(2, false).unwrap();
    assert_eq!(bytes(&body, 2).unwrap(), [3; PAGE]);
}
