//! What `/proc/PID` and the limits tell of an address space, and futex identities.

use super::{Mm, vma::Vma};
use crate::{
    error::Errno,
    platform::{PAGE_SHIFT, PAGE_SIZE, Prot},
};

/// Identity of a futex word (futex(2)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FutexKey {
    /// Private to an address space.
    Private {
        /// [`Mm::id`].
        mm: u64,
        /// Its address.
        addr: u64,
        /// The caller says so (FUTEX_PRIVATE_FLAG). Who does not say so is another waiter on the
        /// same word.
        declared: bool,
    },
    /// In memory that several address spaces may map.
    Shared {
        /// The object's id.
        object: u64,
        /// Byte offset in the object.
        offset: u64,
    },
}

/// Sizes in bytes, as `/proc/PID/status` wants them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// VmSize.
    pub total: u64,
    /// VmRSS.
    pub resident: u64,
    /// RssAnon.
    pub anon: u64,
    /// VmData.
    pub data: u64,
    /// VmLck.
    pub locked: u64,
    /// VmStk.
    pub stack: u64,
    /// VmExe and VmLib: executable file mappings.
    pub text: u64,
}

impl Mm {
    /// The futex at `addr`; `shared` unless FUTEX_PRIVATE_FLAG was given.
    ///
    /// # Errors
    /// EFAULT if nothing is mapped there.
    pub fn futex_key(&self, addr: u64, shared: bool) -> Result<FutexKey, Errno> {
        if addr >= self.user_end() {
            return Err(Errno::EFAULT);
        }
        let private = FutexKey::Private { mm: self.id(), addr, declared: !shared };
        if !shared {
            return Ok(private);
        }
        let inner = self.read();
        let vma = inner.vmas.find(addr).ok_or(Errno::EFAULT)?;
        if vma.prot.is_empty() {
            return Err(Errno::EFAULT);
        }
        match vma.object_page(addr) {
            Some((object, page)) if vma.is_shared() => Ok(FutexKey::Shared {
                object: object.id(),
                offset: (page << PAGE_SHIFT) + addr % PAGE_SIZE,
            }),
            _ => Ok(private),
        }
    }
    /// Sizes.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let inner = self.read();
        let mut usage = Usage {
            total: inner.vmas.total_pages() << PAGE_SHIFT,
            resident: inner.pages.pages() << PAGE_SHIFT,
            anon: inner.pages.anon_pages() << PAGE_SHIFT,
            data: inner.vmas.data_pages() << PAGE_SHIFT,
            locked: inner.vmas.locked_pages() << PAGE_SHIFT,
            ..Usage::default()
        };
        for vma in inner.vmas.iter() {
            if vma.flags.contains(super::vma::VmaFlags::GROWSDOWN) {
                usage.stack += vma.len();
            }
            if vma.prot.contains(Prot::EXEC) && vma.file.is_some() {
                usage.text += vma.len();
            }
        }
        usage
    }
    /// Visits the mappings in order, each with the bytes of it that are resident; no lock of the
    /// space is held, so `visit` may use files.
    pub fn each_mapping(&self, mut visit: impl FnMut(&Vma, u64)) {
        let list: Vec<(Vma, u64)> = {
            let inner = self.read();
            inner
                .vmas
                .iter()
                .map(|v| (v.clone(), inner.pages.count(v.start, v.end) << PAGE_SHIFT))
                .collect()
        };
        for (vma, resident) in &list {
            visit(vma, *resident);
        }
    }
    /// A shared mapping of object `id` may be stored to, now or after mprotect.
    #[must_use]
    pub fn maps_writable(&self, id: u64) -> bool {
        self.read().vmas.iter().any(|vma| {
            vma.is_shared()
                && vma.max_prot.contains(Prot::WRITE)
                && vma.object_page(vma.start).is_some_and(|(object, _)| object.id() == id)
        })
    }
    /// The mapping that holds `addr`.
    #[must_use]
    pub fn mapping(&self, addr: u64) -> Option<Vma> {
        self.read().vmas.find(addr).cloned()
    }
    /// A page's frame number, for `/proc/PID/pagemap`: present or not is all it tells.
    #[must_use]
    pub fn is_present(&self, addr: u64) -> bool {
        self.read().pages.get(addr).is_some()
    }
}
