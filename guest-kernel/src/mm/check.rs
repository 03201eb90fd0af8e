//! Consistency of an address space, for tests and fuzzers (`--audit`).

use super::Mm;
use crate::platform::{Prot, USER_END};

impl Mm {
    /// Compares the page map with the VMAs, the frames' owners and what the platform lets processors use.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let inner = self.read();
        let mut end = 0;
        let (mut total, mut data) = (0, 0);
        for vma in inner.vmas.iter() {
            if vma.start < end || vma.start >= vma.end || (vma.start | vma.end) % 4096 != 0 {
                return Err(format!("mapping {:#x}-{:#x} is out of order", vma.start, vma.end));
            }
            end = vma.end;
            total += vma.pages();
            data += if vma.is_data() { vma.pages() } else { 0 };
        }
        if end > self.user_end() {
            return Err(format!("a mapping ends at {end:#x}"));
        }
        if (total, data) != (inner.vmas.total_pages(), inner.vmas.data_pages()) {
            return Err("page counters are off".into());
        }
        let mut result = Ok(());
        let mut pages = 0;
        inner.pages.each(0, USER_END, |va, pte| {
            pages += 1;
            let fail = |what: &str| Err(format!("page {va:#x}: {what} ({pte:?})"));
            let owners = self.frames().owners(pte.gpa());
            let Some(vma) = inner.vmas.find(va) else {
                result = fail("no mapping");
                return;
            };
            if !vma.access().contains(pte.prot()) {
                result = fail("more is granted than mapped");
            } else if owners == 0 {
                result = fail("its frame is free");
            } else if !vma.is_shared()
                && pte.prot().contains(Prot::WRITE)
                && (owners != 1 || !pte.is_anon())
            {
                result = fail("a private page with stores granted is shared");
            } else if vma.is_private_anon() != pte.is_anon() && vma.is_private_anon() {
                result = fail("an object's page in anonymous memory");
            }
        });
        if pages != inner.pages.pages() {
            return Err("the page map's count is off".into());
        }
        result?;
        self.space().check(&|va| inner.pages.get(va).map(|pte| (pte.gpa(), pte.prot())))
    }
}
