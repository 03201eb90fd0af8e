//! Files by path: open, stat, directories, attributes.

use crate::{
    linux::{
        sys::{dir, fcntl, mount, open, stat, xattr},
        table::Row,
    },
    row,
};

/// The rows.
pub static ROWS: &[Row] = &[
    row!(2, open(path: Path, flags: Flags("open"), mode: Mode) => open::open, Full),
    row!(85, creat(path: Path, mode: Mode) => open::creat, Full),
    row!(257, openat(dirfd: DirFd, path: Path, flags: Flags("open"), mode: Mode)
        => open::openat, Full),
    row!(437, openat2(dirfd: DirFd, path: Path, how: StructIn("open_how"), size: Size)
        => open::openat2, Partial, "RESOLVE_CACHED always says EAGAIN"),
    row!(3, close(fd: Fd) => open::close, Full),
    row!(436, close_range(first: Uint, last: Uint, flags: Hex) => open::close_range, Full),
    row!(32, dup(fd: Fd) => open::dup, Full),
    row!(33, dup2(oldfd: Fd, newfd: Fd) => open::dup2, Full),
    row!(292, dup3(oldfd: Fd, newfd: Fd, flags: Flags("dup3")) => open::dup3, Full),
    row!(72, fcntl(fd: Fd, cmd: Enum("fcntl"), arg: Hex) => fcntl::fcntl, Partial,
        "no dnotify; no lock on what has no name"),
    row!(73, flock(fd: Fd, operation: Flags("flock")) => fcntl::flock, Full),
    row!(319, memfd_create(name: Str, flags: Hex) => fcntl::memfd_create, Partial, "no huge pages"),
    row!(95, umask(mask: Mode) => open::umask, Full),
    row!(80, chdir(path: Path) => open::chdir, Full),
    row!(81, fchdir(fd: Fd) => open::fchdir, Full),
    row!(161, chroot(path: Path) => open::chroot, Full),
    row!(165, mount(source: Path, target: Path, type: Str, flags: Hex, data: Str) => mount::mount,
        Partial, "tmpfs, proc, sysfs, devpts, devtmpfs, mqueue, bind, move, remount; no propagation"),
    row!(166, umount2(target: Path, flags: Hex) => mount::umount2, Partial, "MNT_EXPIRE never expires"),
    row!(155, pivot_root(new_root: Path, put_old: Path) => mount::pivot_root, Full),
    row!(79, getcwd(buf: Out(1), size: Size) => open::getcwd, Full),
    row!(4, stat(path: Path, statbuf: StructOut("stat")) => stat::stat, Full),
    row!(5, fstat(fd: Fd, statbuf: StructOut("stat")) => stat::fstat, Full),
    row!(6, lstat(path: Path, statbuf: StructOut("stat")) => stat::lstat, Full),
    row!(262, newfstatat(dirfd: DirFd, path: Path, statbuf: StructOut("stat"), flags: Flags("at"))
        => stat::newfstatat, Full),
    row!(332, statx(dirfd: DirFd, path: Path, flags: Flags("at"), mask: Hex,
        statxbuf: StructOut("statx")) => stat::statx, Full),
    row!(21, access(path: Path, mode: Flags("access")) => stat::access, Full),
    row!(269, faccessat(dirfd: DirFd, path: Path, mode: Flags("access")) => stat::faccessat, Full),
    row!(439, faccessat2(dirfd: DirFd, path: Path, mode: Flags("access"), flags: Flags("at"))
        => stat::faccessat2, Full),
    row!(90, chmod(path: Path, mode: Mode) => stat::chmod, Full),
    row!(91, fchmod(fd: Fd, mode: Mode) => stat::fchmod, Full),
    row!(268, fchmodat(dirfd: DirFd, path: Path, mode: Mode) => stat::fchmodat, Full),
    row!(452, fchmodat2(dirfd: DirFd, path: Path, mode: Mode, flags: Flags("at"))
        => stat::fchmodat2, Full),
    row!(92, chown(path: Path, owner: Int, group: Int) => stat::chown, Full),
    row!(93, fchown(fd: Fd, owner: Int, group: Int) => stat::fchown, Full),
    row!(94, lchown(path: Path, owner: Int, group: Int) => stat::lchown, Full),
    row!(260, fchownat(dirfd: DirFd, path: Path, owner: Int, group: Int, flags: Flags("at"))
        => stat::fchownat, Full),
    row!(132, utime(path: Path, times: StructIn("utimbuf")) => stat::utime, Partial, "no times before 1970"),
    row!(235, utimes(path: Path, times: StructIn("timevals")) => stat::utimes, Partial, "no times before 1970"),
    row!(261, futimesat(dirfd: DirFd, path: Path, times: StructIn("timevals")) => stat::futimesat, Partial,
        "no times before 1970"),
    row!(280, utimensat(dirfd: DirFd, path: Path, times: StructIn("timespecs"), flags: Flags("at"))
        => stat::utimensat, Partial, "no times before 1970"),
    row!(137, statfs(path: Path, buf: StructOut("statfs")) => stat::statfs, Full),
    row!(138, fstatfs(fd: Fd, buf: StructOut("statfs")) => stat::fstatfs, Full),
    row!(83, mkdir(path: Path, mode: Mode) => dir::mkdir, Full),
    row!(258, mkdirat(dirfd: DirFd, path: Path, mode: Mode) => dir::mkdirat, Full),
    row!(84, rmdir(path: Path) => dir::rmdir, Full),
    row!(87, unlink(path: Path) => dir::unlink, Full),
    row!(263, unlinkat(dirfd: DirFd, path: Path, flags: Flags("at")) => dir::unlinkat, Full),
    row!(82, rename(oldpath: Path, newpath: Path) => dir::rename, Full),
    row!(264, renameat(olddirfd: DirFd, oldpath: Path, newdirfd: DirFd, newpath: Path)
        => dir::renameat, Full),
    row!(316, renameat2(olddirfd: DirFd, oldpath: Path, newdirfd: DirFd, newpath: Path,
        flags: Flags("rename")) => dir::renameat2, Partial, "no RENAME_WHITEOUT"),
    row!(86, link(oldpath: Path, newpath: Path) => dir::link, Full),
    row!(265, linkat(olddirfd: DirFd, oldpath: Path, newdirfd: DirFd, newpath: Path,
        flags: Flags("at")) => dir::linkat, Full),
    row!(88, symlink(target: Str, linkpath: Path) => dir::symlink, Full),
    row!(266, symlinkat(target: Str, newdirfd: DirFd, linkpath: Path) => dir::symlinkat, Full),
    row!(89, readlink(path: Path, buf: Out(2), bufsiz: Size) => dir::readlink, Full),
    row!(267, readlinkat(dirfd: DirFd, path: Path, buf: Out(3), bufsiz: Size)
        => dir::readlinkat, Full),
    row!(133, mknod(path: Path, mode: Mode, dev: Hex) => dir::mknod, Full),
    row!(259, mknodat(dirfd: DirFd, path: Path, mode: Mode, dev: Hex) => dir::mknodat, Full),
    row!(78, getdents(fd: Fd, dirp: Addr, count: Uint) => dir::getdents, Full),
    row!(217, getdents64(fd: Fd, dirp: Addr, count: Uint) => dir::getdents64, Full),
    row!(188, setxattr(path: Path, name: Str, value: In(3), size: Size, flags: Hex)
        => xattr::setxattr, Partial, "kept in memory; no ACLs"),
    row!(189, lsetxattr(path: Path, name: Str, value: In(3), size: Size, flags: Hex)
        => xattr::lsetxattr, Partial, "kept in memory; no ACLs"),
    row!(190, fsetxattr(fd: Fd, name: Str, value: In(3), size: Size, flags: Hex)
        => xattr::fsetxattr, Partial, "kept in memory; no ACLs"),
    row!(191, getxattr(path: Path, name: Str, value: Out(3), size: Size) => xattr::getxattr,
        Partial, "the host's attributes are not shown"),
    row!(192, lgetxattr(path: Path, name: Str, value: Out(3), size: Size) => xattr::lgetxattr,
        Partial, "the host's attributes are not shown"),
    row!(193, fgetxattr(fd: Fd, name: Str, value: Out(3), size: Size) => xattr::fgetxattr,
        Partial, "the host's attributes are not shown"),
    row!(194, listxattr(path: Path, list: Out(2), size: Size) => xattr::listxattr,
        Partial, "the host's attributes are not shown"),
    row!(195, llistxattr(path: Path, list: Out(2), size: Size) => xattr::llistxattr,
        Partial, "the host's attributes are not shown"),
    row!(196, flistxattr(fd: Fd, list: Out(2), size: Size) => xattr::flistxattr,
        Partial, "the host's attributes are not shown"),
    row!(197, removexattr(path: Path, name: Str) => xattr::removexattr, Full),
    row!(198, lremovexattr(path: Path, name: Str) => xattr::lremovexattr, Full),
    row!(199, fremovexattr(fd: Fd, name: Str) => xattr::fremovexattr, Full),
];
