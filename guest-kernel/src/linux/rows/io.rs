//! Rows of reading, writing and descriptors.

use crate::{
    linux::{
        sys::{fd, io},
        table::Row,
    },
    row,
};

/// The rows.
pub static ROWS: &[Row] = &[
    row!(0, read(fd: Fd, buf: Out(2), count: Size) => io::read, Full),
    row!(1, write(fd: Fd, buf: In(2), count: Size) => io::write, Full),
    row!(3, close(fd: Fd) => fd::close, Full),
    row!(8, lseek(fd: Fd, offset: Int, whence: Enum("seek")) => io::lseek, Full),
    row!(16, ioctl(fd: Fd, request: Enum("ioctl"), arg: Hex) => fd::ioctl, Partial, "terminals, pipes and sockets; others ENOTTY"),
    row!(17, pread64(fd: Fd, buf: Out(2), count: Size, offset: Int) => io::pread64, Full),
    row!(18, pwrite64(fd: Fd, buf: In(2), count: Size, offset: Int) => io::pwrite64, Full),
    row!(19, readv(fd: Fd, iov: IovOut(2), iovcnt: Int) => io::readv, Full),
    row!(20, writev(fd: Fd, iov: IovIn(2), iovcnt: Int) => io::writev, Full),
    row!(32, dup(oldfd: Fd) => fd::dup, Full),
    row!(33, dup2(oldfd: Fd, newfd: Fd) => fd::dup2, Full),
    row!(40, sendfile(out_fd: Fd, in_fd: Fd, offset: Addr, count: Size) => io::sendfile, Full),
    row!(72, fcntl(fd: Fd, cmd: Enum("fcntl"), arg: Hex) => fd::fcntl, Partial, "no leases, no I/O signals, no deadlock detection"),
    row!(73, flock(fd: Fd, operation: Flags("flock")) => fd::flock, Full),
    row!(292, dup3(oldfd: Fd, newfd: Fd, flags: Flags("dup3")) => fd::dup3, Full),
    row!(295, preadv(fd: Fd, iov: IovOut(2), iovcnt: Int, offset: Int) => io::preadv, Full),
    row!(296, pwritev(fd: Fd, iov: IovIn(2), iovcnt: Int, offset: Int) => io::pwritev, Full),
    row!(326, copy_file_range(fd_in: Fd, off_in: Addr, fd_out: Fd, off_out: Addr, len: Size, flags: Hex) => io::copy_file_range, Full),
    row!(327, preadv2(fd: Fd, iov: IovOut(2), iovcnt: Int, offset: Int, high: Int, flags: Hex) => io::preadv2, Partial, "RWF_HIPRI, RWF_DSYNC and RWF_SYNC change nothing"),
    row!(328, pwritev2(fd: Fd, iov: IovIn(2), iovcnt: Int, offset: Int, high: Int, flags: Hex) => io::pwritev2, Partial, "RWF_HIPRI, RWF_DSYNC and RWF_SYNC change nothing"),
    row!(436, close_range(first: Uint, last: Uint, flags: Hex) => fd::close_range, Full),
];
