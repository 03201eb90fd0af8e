//! Permission: who may do what to an inode (inode(7), capabilities(7), path_resolution(7)).

use super::inode::{Attr, mode};
use crate::{
    creds::{Creds, cap},
    error::Errno,
};

/// Search or execute.
pub const EXEC: u32 = 1;
/// Write.
pub const WRITE: u32 = 2;
/// Read.
pub const READ: u32 = 4;

/// The caller has `want` (a sum of [`READ`], [`WRITE`], [`EXEC`]) on a file with `attr`.
///
/// # Errors
/// EACCES.
pub fn check(creds: &Creds, attr: &Attr, want: u32) -> Result<(), Errno> {
    let bits = if creds.fsuid == attr.uid {
        attr.mode >> 6
    } else if creds.in_group(attr.gid) {
        attr.mode >> 3
    } else {
        attr.mode
    };
    if bits & want == want {
        return Ok(());
    }
    let overridden = if attr.is_dir() {
        creds.capable(cap::DAC_OVERRIDE)
            || (want & WRITE == 0 && creds.capable(cap::DAC_READ_SEARCH))
    } else {
        (creds.capable(cap::DAC_OVERRIDE) && (want & EXEC == 0 || attr.mode & 0o111 != 0))
            || (want == READ && creds.capable(cap::DAC_READ_SEARCH))
    };
    if overridden { Ok(()) } else { Err(Errno::EACCES) }
}

/// The caller owns the file or has CAP_FOWNER.
#[must_use]
pub fn owns(creds: &Creds, attr: &Attr) -> bool {
    creds.fsuid == attr.uid || creds.capable(cap::FOWNER)
}

/// The caller may remove `victim`'s name from the directory `dir`.
///
/// # Errors
/// EACCES without write and search permission; EPERM in a sticky directory of somebody else's.
pub fn may_delete(creds: &Creds, dir: &Attr, victim: &Attr) -> Result<(), Errno> {
    check(creds, dir, WRITE | EXEC)?;
    let sticky = dir.mode & mode::STICKY != 0;
    if sticky && creds.fsuid != victim.uid && creds.fsuid != dir.uid && !creds.capable(cap::FOWNER)
    {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// Mode left after a write or truncation by `creds` (set-id bits go unless CAP_FSETID); `None` if
/// nothing changes.
#[must_use]
pub fn stripped(creds: &Creds, attr: &Attr) -> Option<u32> {
    if !attr.is_regular() || creds.capable(cap::FSETID) {
        return None;
    }
    let left = without_set_id(attr.mode);
    (left != attr.mode).then_some(left & mode::PERM)
}

/// `bits` without set-user-id, and without set-group-id where it means execution.
#[must_use]
pub fn without_set_id(bits: u32) -> u32 {
    let bits = bits & !mode::SUID;
    if bits & 0o010 != 0 { bits & !mode::SGID } else { bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_bits_bind_the_owner_alone() {
        let user = Creds::user(1000, 1000);
        let mut attr = Attr { mode: mode::REG | 0o077, uid: 1000, gid: 1000, ..Attr::default() };
        assert_eq!(check(&user, &attr, READ), Err(Errno::EACCES));
        attr.uid = 1;
        assert_eq!(check(&user, &attr, READ | WRITE | EXEC), Ok(()));
    }

    #[test]
    fn root_needs_one_execute_bit() {
        let root = Creds::user(0, 0);
        let mut attr = Attr { mode: mode::REG | 0o600, uid: 5, gid: 5, ..Attr::default() };
        assert_eq!(check(&root, &attr, READ | WRITE), Ok(()));
        assert_eq!(check(&root, &attr, EXEC), Err(Errno::EACCES));
        attr.mode |= 0o001;
        assert_eq!(check(&root, &attr, EXEC), Ok(()));
    }
}
