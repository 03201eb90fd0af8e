/* stat(2), statx(2), statfs(2), chmod(2), chown(2), utimensat(2), umask(2), access(2). */
#include "t.h"
#include <linux/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <utime.h>

static mode_t mode(const char *p)
{
	struct stat st;
	return stat(p, &st) ? 0 : st.st_mode & 07777;
}

CASE(fields)
{
	put("f", "0123456789");
	struct stat st;
	OK(stat("f", &st));
	EQ(st.st_size, 10);
	EQ(st.st_nlink, 1);
	EQ(st.st_uid, geteuid());
	EQ(st.st_gid, getegid());
	EQ(st.st_mode, S_IFREG | 0644);
	EQ(st.st_blksize, 4096);
	EQ(st.st_blocks, 8);
	CHECK(st.st_ino != 0);
	CHECK(llabs(st.st_mtime - time(NULL)) < 100);
	struct stat d;
	OK(stat(".", &d));
	EQ(d.st_dev, st.st_dev);
	CHECK(d.st_ino != st.st_ino);
}

CASE(kinds)
{
	struct stat st;
	int p[2], s[2];
	NEED(pipe(p));
	OK(fstat(p[0], &st));
	say("pipe %o size %ld", st.st_mode, (long)st.st_size);
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	OK(fstat(s[0], &st));
	say("socket %o", st.st_mode);
	OK(stat("/dev/null", &st));
	say("null %o %d:%d", st.st_mode & S_IFMT, major(st.st_rdev), minor(st.st_rdev));
	OK(stat("/dev/zero", &st));
	say("zero %o %d:%d", st.st_mode & S_IFMT, major(st.st_rdev), minor(st.st_rdev));
	OK(stat("/dev/urandom", &st));
	say("urandom %o %d:%d", st.st_mode & S_IFMT, major(st.st_rdev), minor(st.st_rdev));
	OK(stat("/proc/self/exe", &st));
	say("exe %o", st.st_mode & S_IFMT);
	OK(lstat("/proc/self", &st));
	say("/proc/self %o", st.st_mode & S_IFMT);
}

CASE(stat_errors)
{
	struct stat st;
	ERR(stat("none", &st), ENOENT);
	ERR(stat("", &st), ENOENT);
	ERR(fstat(99, &st), EBADF);
	put("f", "");
	ERR(stat("f/x", &st), ENOTDIR);
	ERR(stat((char *)8, &st), EFAULT);
	ERR(syscall(SYS_stat, "f", 8), EFAULT);
}

CASE(statx_fields)
{
	put("f", "abc");
	struct statx x;
	OK(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &x));
	EQ(x.stx_size, 3);
	EQ(x.stx_mode, S_IFREG | 0644);
	EQ(x.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
	struct stat st;
	OK(stat("f", &st));
	EQ(x.stx_ino, st.st_ino);
	EQ(makedev(x.stx_dev_major, x.stx_dev_minor), st.st_dev);
	EQ(x.stx_mtime.tv_sec, st.st_mtime);
	EQ(x.stx_mtime.tv_nsec, st.st_mtim.tv_nsec);
	int fd = NEED(open("f", O_RDONLY));
	OK(statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &x));
	EQ(x.stx_size, 3);
	ERR(statx(fd, "", 0, STATX_SIZE, &x), ENOENT);
	ERR(statx(AT_FDCWD, "f", 0x20000000, STATX_SIZE, &x), EINVAL);
	ERR(statx(AT_FDCWD, "f", 0, 0x80000000u, &x), EINVAL);
	ERR(statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, 0, &x), EINVAL);
	ERR(statx(AT_FDCWD, "none", 0, STATX_SIZE, &x), ENOENT);
	OK(symlink("none", "l"));
	OK(statx(AT_FDCWD, "l", AT_SYMLINK_NOFOLLOW, STATX_TYPE, &x));
	CHECK(S_ISLNK(x.stx_mode));
}

CASE(chmods)
{
	put("f", "");
	OK(chmod("f", 0));
	EQ(mode("f"), 0);
	OK(chmod("f", 07777));
	EQ(mode("f"), 07777);
	int fd = NEED(open("f", O_RDONLY));
	OK(fchmod(fd, 0600));
	EQ(mode("f"), 0600);
	OK(fchmodat(AT_FDCWD, "f", 0640, 0));
	EQ(mode("f"), 0640);
	ERR(chmod("none", 0600), ENOENT);
	ERR(chmod("f/x", 0600), ENOTDIR);
	ERR(fchmod(99, 0600), EBADF);
	OK(symlink("f", "l"));
	OK(chmod("l", 0604));
	EQ(mode("f"), 0604);
	ERR(syscall(452 /* fchmodat2 */, AT_FDCWD, "l", 0600, AT_SYMLINK_NOFOLLOW), EOPNOTSUPP);
}

CASE(umasks)
{
	umask(022);
	EQ(umask(027), 022);
	int fd = NEED(open("f", O_CREAT | O_RDWR, 0777));
	EQ(mode("f"), 0750);
	OK(mkdir("d", 0777));
	EQ(mode("d"), 0750);
	OK(mkfifo("p", 0666));
	EQ(mode("p"), 0640);
	OK(fchmod(fd, 0777));
	EQ(mode("f"), 0777);
	EQ(umask(0xfffff), 027);
	EQ(umask(0), 0777);
	pid_t p = CHILD(umask(077));
	EQ(reap(p), 0);
	EQ(umask(022), 0);
}

CASE(chowns)
{
	if (geteuid() != 0)
		return;
	struct stat st;
	put("f", "");
	OK(chmod("f", 06755));
	OK(chown("f", 11, 22));
	OK(stat("f", &st));
	EQ(st.st_uid, 11);
	EQ(st.st_gid, 22);
	/* The set-user-id bits go with the owner. */
	EQ(st.st_mode & 07777, 0755);
	OK(chown("f", -1, 33));
	OK(stat("f", &st));
	EQ(st.st_uid, 11);
	EQ(st.st_gid, 33);
	OK(symlink("f", "l"));
	OK(lchown("l", 5, 6));
	OK(stat("f", &st));
	EQ(st.st_uid, 11);
	OK(lstat("l", &st));
	EQ(st.st_uid, 5);
	OK(chown("l", 7, 8));
	OK(stat("f", &st));
	EQ(st.st_uid, 7);
	ERR(chown("none", 1, 1), ENOENT);
	ERR(fchown(99, 1, 1), EBADF);
	pid_t p = CHILD(OK(setuid(1234)); ERR(chown("f", 1234, -1), EPERM); ERR(chmod("f", 0777), EPERM);
			OK(chown("f", -1, -1) == 0 || errno == EPERM ? 0 : -1));
	EQ(reap(p), 0);
}

CASE(setgid_directory)
{
	if (geteuid() != 0)
		return;
	OK(mkdir("d", 0755));
	OK(chown("d", 0, 77));
	OK(chmod("d", 02755));
	put("d/f", "");
	OK(mkdir("d/e", 0755));
	struct stat st;
	OK(stat("d/f", &st));
	EQ(st.st_gid, 77);
	OK(stat("d/e", &st));
	EQ(st.st_gid, 77);
	EQ(st.st_mode & 07777, 02755);
}

CASE(write_drops_setuid)
{
	if (geteuid() != 0)
		return;
	put("f", "");
	OK(chown("f", 1234, 1234));
	OK(chmod("f", 06777));
	pid_t p = CHILD(OK(setgid(1234)); OK(setuid(1234)); int fd = NEED(open("f", O_WRONLY)); EQ(write(fd, "x", 1), 1));
	EQ(reap(p), 0);
	EQ(mode("f"), 0777);
}

CASE(times)
{
	put("f", "");
	struct timespec t[2] = {{1000, 5}, {2000, 999999999}};
	struct stat st;
	OK(utimensat(AT_FDCWD, "f", t, 0));
	OK(stat("f", &st));
	EQ(st.st_atime, 1000);
	EQ(st.st_atim.tv_nsec, 5);
	EQ(st.st_mtime, 2000);
	EQ(st.st_mtim.tv_nsec, 999999999);
	t[0].tv_nsec = UTIME_OMIT;
	t[1] = (struct timespec){3000, 0};
	OK(utimensat(AT_FDCWD, "f", t, 0));
	OK(stat("f", &st));
	EQ(st.st_atime, 1000);
	EQ(st.st_mtime, 3000);
	t[0].tv_nsec = UTIME_NOW;
	t[1].tv_nsec = UTIME_OMIT;
	OK(utimensat(AT_FDCWD, "f", t, 0));
	OK(stat("f", &st));
	CHECK(st.st_atime > 1000000);
	EQ(st.st_mtime, 3000);
	t[0].tv_nsec = 1000000000;
	ERR(utimensat(AT_FDCWD, "f", t, 0), EINVAL);
	OK(utimensat(AT_FDCWD, "f", NULL, 0));
	OK(stat("f", &st));
	CHECK(st.st_mtime > 1000000);
	int fd = NEED(open("f", O_RDONLY));
	t[0] = (struct timespec){7, 7};
	t[1] = (struct timespec){8, 8};
	OK(futimens(fd, t));
	OK(fstat(fd, &st));
	EQ(st.st_atime, 7);
	OK(symlink("f", "l"));
	t[0].tv_sec = 99;
	OK(utimensat(AT_FDCWD, "l", t, AT_SYMLINK_NOFOLLOW));
	OK(lstat("l", &st));
	EQ(st.st_atime, 99);
	OK(stat("f", &st));
	EQ(st.st_atime, 7);
	ERR(utimensat(AT_FDCWD, "none", t, 0), ENOENT);
	struct utimbuf u = {10, 20};
	OK(utime("f", &u));
	OK(stat("f", &st));
	EQ(st.st_mtime, 20);
	struct timeval tv[2] = {{30, 1}, {40, 2}};
	OK(utimes("f", tv));
	OK(stat("f", &st));
	EQ(st.st_mtim.tv_nsec, 2000);
	OK(utimensat(AT_FDCWD, "f", (struct timespec[2]){{-100, 0}, {-100, 0}}, 0));
	OK(stat("f", &st));
	EQ(st.st_mtime, -100);
}

CASE(times_move)
{
	put("f", "");
	struct timespec old[2] = {{1000, 0}, {1000, 0}};
	struct stat st;
	OK(utimensat(AT_FDCWD, "f", old, 0));
	int fd = NEED(open("f", O_RDWR));
	EQ(write(fd, "x", 1), 1);
	OK(fstat(fd, &st));
	CHECK(st.st_mtime > 1000);
	OK(futimens(fd, old));
	OK(fstat(fd, &st));
	CHECK(st.st_ctime > 1000);
	OK(utimensat(AT_FDCWD, ".", old, 0));
	OK(link("f", "g"));
	OK(stat(".", &st));
	CHECK(st.st_mtime > 1000);
	OK(utimensat(AT_FDCWD, ".", old, 0));
	OK(unlink("g"));
	OK(stat(".", &st));
	CHECK(st.st_mtime > 1000);
	OK(fstat(fd, &st));
	EQ(st.st_mtime, 1000);
	OK(ftruncate(fd, 50));
	OK(fstat(fd, &st));
	CHECK(st.st_mtime > 1000);
}

CASE(access_root)
{
	put("f", "");
	OK(chmod("f", 0600));
	OK(access("f", F_OK));
	OK(access("f", R_OK | W_OK));
	ERR(access("f", X_OK), EACCES);
	ERR(access("none", F_OK), ENOENT);
	ERR(access("f", 8), EINVAL);
	OK(chmod("f", 0100));
	OK(access("f", X_OK));
	OK(access(".", X_OK));
}

CASE(access_real_ids)
{
	if (geteuid() != 0)
		return;
	put("f", "");
	OK(chmod("f", 0600));
	pid_t p = CHILD(
		OK(setresuid(1234, 0, 0));
		ERR(access("f", R_OK), EACCES);
		OK(faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
		OK(syscall(SYS_faccessat2, AT_FDCWD, "f", R_OK, AT_EACCESS));
		ERR(syscall(SYS_faccessat2, AT_FDCWD, "f", R_OK, 0x8000000), EINVAL);
		int fd = OK(open("f", O_RDONLY)); close(fd));
	EQ(reap(p), 0);
	OK(chmod("f", 0604));
	p = CHILD(OK(setgroups(0, NULL)); OK(setresgid(1234, 1234, 1234)); OK(setresuid(1234, 1234, 1234));
		  OK(access("f", R_OK)); ERR(access("f", W_OK), EACCES));
	EQ(reap(p), 0);
	/* The first class that matches decides. */
	OK(chown("f", 1234, 0));
	OK(chmod("f", 0077));
	p = CHILD(OK(setresuid(1234, 1234, 1234)); ERR(access("f", R_OK), EACCES));
	EQ(reap(p), 0);
	OK(chown("f", 0, 55));
	OK(chmod("f", 0040));
	p = CHILD(gid_t g = 55; OK(setgroups(1, &g)); OK(setresuid(1234, 1234, 1234)); OK(access("f", R_OK)));
	EQ(reap(p), 0);
}

CASE(filesystems)
{
	struct statfs s;
	OK(statfs(".", &s));
	say("scratch bsize %ld namelen %ld", (long)s.f_bsize, (long)s.f_namelen);
	CHECK(s.f_blocks > 0);
	CHECK(s.f_bfree <= s.f_blocks);
	OK(statfs("/proc", &s));
	say("proc type %lx", (long)s.f_type);
	ERR(statfs("none", &s), ENOENT);
	ERR(fstatfs(99, &s), EBADF);
	int p[2];
	NEED(pipe(p));
	OK(fstatfs(p[0], &s));
	say("pipe type %lx", (long)s.f_type);
	struct statvfs v;
	OK(statvfs("/", &v));
}
MAIN
