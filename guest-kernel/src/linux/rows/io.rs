//! Files by descriptor: reading, writing, position, size, synchronisation.

use crate::{
    linux::{
        sys::{io, ioctl, splice},
        table::Row,
    },
    row,
};

/// The rows.
pub static ROWS: &[Row] = &[
    row!(0, read(fd: Fd, buf: Out(2), count: Size) => io::read, Full),
    row!(1, write(fd: Fd, buf: In(2), count: Size) => io::write, Full),
    row!(17, pread64(fd: Fd, buf: Out(2), count: Size, offset: Int) => io::pread64, Full),
    row!(18, pwrite64(fd: Fd, buf: In(2), count: Size, offset: Int) => io::pwrite64, Full),
    row!(19, readv(fd: Fd, iov: IovOut(2), iovcnt: Int) => io::readv, Full),
    row!(20, writev(fd: Fd, iov: IovIn(2), iovcnt: Int) => io::writev, Full),
    row!(295, preadv(fd: Fd, iov: IovOut(2), iovcnt: Int, offset: Int, high: Hex)
        => io::preadv, Full),
    row!(296, pwritev(fd: Fd, iov: IovIn(2), iovcnt: Int, offset: Int, high: Hex)
        => io::pwritev, Full),
    row!(327, preadv2(fd: Fd, iov: IovOut(2), iovcnt: Int, offset: Int, high: Hex, flags: Hex)
        => io::preadv2, Full),
    row!(328, pwritev2(fd: Fd, iov: IovIn(2), iovcnt: Int, offset: Int, high: Hex, flags: Hex)
        => io::pwritev2, Full),
    row!(8, lseek(fd: Fd, offset: Int, whence: Enum("seek")) => io::lseek, Full),
    row!(16, ioctl(fd: Fd, request: Enum("ioctl"), argp: Hex) => ioctl::ioctl, Partial,
        "what each kind of file has; no FICLONE"),
    row!(40, sendfile(out_fd: Fd, in_fd: Fd, offset: StructIn("offset"), count: Size) => io::sendfile, Full),
    row!(326, copy_file_range(fd_in: Fd, off_in: StructIn("offset"), fd_out: Fd, off_out: StructIn("offset"), len: Size,
        flags: Hex) => io::copy_file_range, Full),
    row!(275, splice(fd_in: Fd, off_in: StructIn("offset"), fd_out: Fd, off_out: StructIn("offset"), len: Size, flags: Hex)
        => splice::splice, Partial, "copies, and moves less at a time"),
    row!(276, tee(fd_in: Fd, fd_out: Fd, len: Size, flags: Hex) => splice::tee, Partial,
        "copies"),
    row!(278, vmsplice(fd: Fd, iov: IovIn(2), nr_segs: Int, flags: Hex) => splice::vmsplice,
        Partial, "copies"),
    row!(74, fsync(fd: Fd) => io::fsync, Full),
    row!(75, fdatasync(fd: Fd) => io::fdatasync, Full),
    row!(162, sync() => io::sync, Full),
    row!(306, syncfs(fd: Fd) => io::syncfs, Full),
    row!(277, sync_file_range(fd: Fd, offset: Int, nbytes: Int, flags: Hex)
        => io::sync_file_range, Full),
    row!(221, fadvise64(fd: Fd, offset: Int, len: Int, advice: Int) => io::fadvise64, Stub,
        "accepted without effect"),
    row!(187, readahead(fd: Fd, offset: Int, count: Size) => io::readahead, Stub,
        "accepted without effect"),
    row!(76, truncate(path: Path, length: Int) => io::truncate, Full),
    row!(77, ftruncate(fd: Fd, length: Int) => io::ftruncate, Full),
    row!(285, fallocate(fd: Fd, mode: Hex, offset: Int, len: Int) => io::fallocate, Partial,
        "allocates and punches holes; no ranges collapsed, inserted or zeroed"),
];
