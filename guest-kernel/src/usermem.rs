//! The single door to guest memory: every byte a handler reads from or writes to a program passes
//! here, is bounds-checked, faulted in and copied once.

use std::sync::atomic::{AtomicU32, Ordering};

use vm_memory::{VolatileMemory, VolatileSlice};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    error::Errno,
    mm::Mm,
    num::Word,
    platform::{Access, Gpa, PAGE_SIZE, Prot, USER_END},
};

impl Mm {
    /// Runs `body` on the part of `[addr, addr+len)` that lies in its first page, once that page
    /// grants `access`. The space stays locked against edits meanwhile; `None` on a fault.
    fn with_page<T>(
        &self,
        addr: u64,
        len: usize,
        access: Access,
        body: impl FnOnce(VolatileSlice<'_>) -> T,
    ) -> Option<T> {
        let need = if access == Access::Write { Prot::WRITE } else { Prot::READ };
        let offset = (addr % PAGE_SIZE).size();
        let page = addr - addr % PAGE_SIZE;
        let len = len.min(PAGE_SIZE.size() - offset);
        loop {
            {
                let inner = self.read();
                if let Some(pte) = inner.pages.get(page)
                    && pte.prot().contains(need)
                {
                    let at = Gpa(pte.gpa().0 + offset as u64);
                    return Some(body(self.kernel.frames.slice(at, len)));
                }
            }
            self.fault_in(addr, access).ok()?;
        }
    }
    /// Copies from the guest until a fault; the count copied.
    pub fn read_partial(&self, addr: u64, dst: &mut [u8]) -> usize {
        let mut done = 0;
        while done < dst.len() {
            let Some(at) = addr.checked_add(done as u64) else { break };
            let rest = &mut dst[done..];
            let copied = self.with_page(at, rest.len(), Access::Read, |slice| slice.copy_to(rest));
            match copied {
                Some(n) => done += n,
                None => break,
            }
        }
        done
    }
    /// Copies to the guest until a fault; the count copied.
    pub fn write_partial(&self, addr: u64, src: &[u8]) -> usize {
        let mut done = 0;
        while done < src.len() {
            let Some(at) = addr.checked_add(done as u64) else { break };
            let rest = &src[done..];
            let copied = self.with_page(at, rest.len(), Access::Write, |slice| {
                slice.copy_from(rest);
                slice.len()
            });
            match copied {
                Some(n) => done += n,
                None => break,
            }
        }
        done
    }
    /// Zeroes guest memory.
    ///
    /// # Errors
    /// EFAULT, perhaps after part was zeroed.
    pub fn zero_bytes(&self, addr: u64, len: u64) -> Result<(), Errno> {
        const ZERO: [u8; 4096] = [0; 4096];
        let mut done = 0;
        while done < len {
            let at = addr.checked_add(done).ok_or(Errno::EFAULT)?;
            let piece = (PAGE_SIZE - at % PAGE_SIZE).min(len - done);
            self.write_bytes(at, &ZERO[..piece.size()])?;
            done += piece;
        }
        Ok(())
    }
    /// Every byte of `[addr, addr+len)` lies where a guest may have memory (`access_ok()`); says
    /// nothing of what is mapped.
    #[must_use]
    pub fn in_user_range(&self, addr: u64, len: u64) -> bool {
        addr.checked_add(len).is_some_and(|end| end <= USER_END)
    }
    /// Atomically loads an aligned word.
    ///
    /// # Errors
    /// EFAULT.
    pub fn load_u32(&self, addr: u64) -> Result<u32, Errno> {
        self.with_page(addr, 4, Access::Read, |slice| {
            let word = slice.get_atomic_ref::<AtomicU32>(0).map_err(|_| Errno::EFAULT)?;
            Ok(word.load(Ordering::SeqCst))
        })
        .unwrap_or(Err(Errno::EFAULT))
    }
    /// Atomically replaces an aligned word by what `update` makes of it, unless that is `None`; the
    /// old value.
    ///
    /// # Errors
    /// EFAULT.
    pub fn update_u32(
        &self,
        addr: u64,
        mut update: impl FnMut(u32) -> Option<u32>,
    ) -> Result<u32, Errno> {
        self.with_page(addr, 4, Access::Write, |slice| {
            let word = slice.get_atomic_ref::<AtomicU32>(0).map_err(|_| Errno::EFAULT)?;
            let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
            Ok(word.fetch_update(set, fetch, &mut update).unwrap_or_else(|old| old))
        })
        .unwrap_or(Err(Errno::EFAULT))
    }
    /// Atomic compare-and-exchange of an aligned word; the old value, `Err` inside if it was not
    /// `expected`.
    ///
    /// # Errors
    /// EFAULT.
    pub fn cas_u32(&self, addr: u64, expected: u32, new: u32) -> Result<Result<u32, u32>, Errno> {
        let old = self.update_u32(addr, |old| (old == expected).then_some(new))?;
        Ok(if old == expected { Ok(old) } else { Err(old) })
    }
    /// Copies from the guest.
    ///
    /// # Errors
    /// EFAULT.
    pub fn read_bytes(&self, addr: u64, dst: &mut [u8]) -> Result<(), Errno> {
        if self.read_partial(addr, dst) == dst.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }
    /// Copies to the guest.
    ///
    /// # Errors
    /// EFAULT, perhaps after part was written.
    pub fn write_bytes(&self, addr: u64, src: &[u8]) -> Result<(), Errno> {
        if self.write_partial(addr, src) == src.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }
    /// Copies a structure from the guest, once.
    ///
    /// # Errors
    /// EFAULT.
    pub fn read_obj<T: FromBytes + IntoBytes>(&self, addr: u64) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.read_bytes(addr, value.as_mut_bytes())?;
        Ok(value)
    }
    /// Copies a structure to the guest.
    ///
    /// # Errors
    /// EFAULT.
    pub fn write_obj<T: IntoBytes + Immutable>(&self, addr: u64, value: &T) -> Result<(), Errno> {
        self.write_bytes(addr, value.as_bytes())
    }
    /// A NUL-terminated string without its NUL.
    ///
    /// # Errors
    /// EFAULT; `too_long` if there is no NUL within `max` bytes.
    pub fn read_cstr(&self, addr: u64, max: usize, too_long: Errno) -> Result<Vec<u8>, Errno> {
        let mut out = Vec::new();
        let mut chunk = [0u8; 256];
        while out.len() < max {
            let at = addr.checked_add(out.len() as u64).ok_or(Errno::EFAULT)?;
            // Stop at page ends so that a string just before a hole is still read whole.
            let to_page_end = 4096 - crate::num::Word::size(at & 4095);
            let want = chunk.len().min(to_page_end).min(max - out.len());
            let got = self.read_partial(at, &mut chunk[..want]);
            if let Some(nul) = chunk[..got].iter().position(|b| *b == 0) {
                out.extend_from_slice(&chunk[..nul]);
                return Ok(out);
            }
            if got < want {
                return Err(Errno::EFAULT);
            }
            out.extend_from_slice(&chunk[..got]);
        }
        Err(too_long)
    }
}
