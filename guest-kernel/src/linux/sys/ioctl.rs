//! ioctl(2): what every file has; the rest is the kind's.

use super::path::file;
use crate::{
    call::Cx,
    error::{Errno, SysResult},
    fs::file::{OpenFile, OpenFlags},
    num::Word,
};

const FIONCLEX: u32 = 0x5450;
const FIOCLEX: u32 = 0x5451;
const FIONBIO: u32 = 0x5421;
const FIOASYNC: u32 = 0x5452;
const FIONREAD: u32 = 0x541b;
const FICLONE: u32 = 0x4004_9409;
const FICLONERANGE: u32 = 0x4020_940d;

const FIGETBSZ: u32 = 2;
const FIOQSIZE: u32 = 0x5460;
const FS_IOC_GETFLAGS: u32 = 0x8008_6601;

/// A regular file or directory with a place.
fn on_disk(file: &OpenFile) -> Result<bool, Errno> {
    let attr = file.attr()?;
    Ok(file.path.is_some() && (attr.is_regular() || attr.is_dir()))
}

/// ioctl(2): what every file has; the rest is the kind's.
pub fn ioctl(cx: &mut Cx<'_>, fd: i32, command: u32, arg: u64) -> SysResult {
    let file = file(cx, fd)?;
    match command {
        FIOCLEX | FIONCLEX => cx.files().set_cloexec(fd, command == FIOCLEX)?,
        FIONBIO | FIOASYNC => {
            let on: i32 = cx.mm().read_obj(arg)?;
            let bit = if command == FIONBIO { OpenFlags::NONBLOCK } else { OpenFlags::ASYNC };
            let mut flags = file.flags();
            if bit == OpenFlags::ASYNC
                && file.ops.queue().is_none()
                && flags.contains(bit) != (on != 0)
            {
                return Err(Errno::ENOTTY.into());
            }
            flags.set(bit, on != 0);
            file.set_flags(flags);
            crate::fs::async_io::Async::follow(cx.kernel(), &file, fd);
        }
        FIONREAD if file.path.is_some() && file.attr()?.is_regular() => {
            // Negative beyond the end.
            let left = file.attr()?.size.wrapping_sub(file.with_position(|p| *p));
            cx.mm().write_obj(arg, &left.low_i32())?;
        }
        FIGETBSZ => {
            let block = file.attr()?.blksize;
            cx.mm().write_obj(arg, &block)?;
        }
        FIOQSIZE if on_disk(&file)? => cx.mm().write_obj(arg, &file.attr()?.size)?,
        // No inode flag is ever set.
        FS_IOC_GETFLAGS if on_disk(&file)? => cx.mm().write_obj(arg, &0u32)?,
        FICLONE | FICLONERANGE => return Err(Errno::EOPNOTSUPP.into()),
        _ => return file.ops.ioctl(cx, &file, command, arg),
    }
    Ok(0)
}
