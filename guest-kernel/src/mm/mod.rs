//! Address spaces: VMAs, the pages behind them, faults, copy on write.

pub mod batch;
pub mod object;
pub mod pagemap;
pub mod store;
pub mod vma;

use std::sync::Arc;

use crate::{
    error::Errno,
    kernel::Kernel,
    platform::{AddressSpace, Fault},
};

/// A fault the program must hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemFault {
    /// SIGSEGV, SEGV_MAPERR.
    Unmapped,
    /// SIGSEGV, SEGV_ACCERR.
    Protected,
    /// SIGBUS, BUS_ADRERR: past the end of the mapped file.
    Bus,
    /// Memory is exhausted: the process is killed.
    OutOfMemory,
}

/// One guest address space.
pub struct Mm {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    space: Arc<dyn AddressSpace>,
}

impl Mm {
    /// An empty address space.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(kernel: &Arc<Kernel>) -> Result<Arc<Mm>, Errno> {
        let space = kernel.platform.new_space().map_err(|_| Errno::ENOMEM)?;
        Ok(Arc::new(Mm { kernel: kernel.clone(), space }))
    }
    /// The platform's side.
    #[must_use]
    pub fn space(&self) -> &Arc<dyn AddressSpace> {
        &self.space
    }
    /// Takes pages `[first, last)` of object `id` out of this space.
    pub fn invalidate(&self, _id: u64, _first: u64, _last: u64) {}
    /// Resolves a page fault of the guest, or says what signal it is.
    ///
    /// # Errors
    /// The fault the program must hear of.
    pub fn fault(&self, _fault: &Fault) -> Result<(), MemFault> {
        Err(MemFault::Unmapped)
    }
}
