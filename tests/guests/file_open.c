/* open(2), creat(2), openat(2), openat2(2), close(2), close_range(2). */
#include "t.h"
#include <linux/openat2.h>

CASE(creat_makes_and_empties)
{
	int fd = NEED(creat("a", 0640));
	OK(write(fd, "hello", 5));
	ERR(read(fd, (char[1]){0}, 1), EBADF);
	OK(close(fd));
	struct stat st;
	OK(stat("a", &st));
	EQ(st.st_size, 5);
	EQ(st.st_mode & 07777, 0640);
	fd = NEED(creat("a", 0600));
	OK(fstat(fd, &st));
	EQ(st.st_size, 0);
	EQ(st.st_mode & 07777, 0640);
	close(fd);
}

CASE(excl)
{
	int fd = NEED(open("x", O_CREAT | O_EXCL | O_RDWR, 0600));
	close(fd);
	ERR(open("x", O_CREAT | O_EXCL | O_RDWR, 0600), EEXIST);
	OK(symlink("nowhere", "dangling"));
	ERR(open("dangling", O_CREAT | O_EXCL | O_RDWR, 0600), EEXIST);
	/* Without O_EXCL a dangling link's target is made. */
	fd = NEED(open("dangling", O_CREAT | O_RDWR, 0600));
	close(fd);
	OK(access("nowhere", F_OK));
}

CASE(missing)
{
	ERR(open("none", O_RDONLY), ENOENT);
	ERR(open("none/x", O_RDWR | O_CREAT, 0600), ENOENT);
	ERR(open("", O_RDONLY), ENOENT);
	put("plain", "x");
	ERR(open("plain/x", O_RDONLY), ENOTDIR);
	ERR(open("plain/", O_RDONLY), ENOTDIR);
	ERR(open("new/", O_RDWR | O_CREAT, 0600), EISDIR);
	ERR(access("new", F_OK), ENOENT);
}

CASE(directories)
{
	ERR(open(".", O_RDWR), EISDIR);
	ERR(open(".", O_WRONLY), EISDIR);
	ERR(open(".", O_RDONLY | O_CREAT, 0600), EISDIR);
	int fd = NEED(open(".", O_RDONLY));
	ERR(read(fd, (char[1]){0}, 1), EISDIR);
	ERR(pread(fd, (char[1]){0}, 1, 0), EISDIR);
	ERR(write(fd, "", 1), EBADF);
	ERR(ftruncate(fd, 0), EINVAL);
	close(fd);
	put("plain", "x");
	ERR(open("plain", O_RDONLY | O_DIRECTORY), ENOTDIR);
	fd = NEED(open(".", O_RDONLY | O_DIRECTORY));
	close(fd);
}

CASE(trunc)
{
	put("f", "0123456789");
	int fd = NEED(open("f", O_WRONLY | O_TRUNC));
	struct stat st;
	OK(fstat(fd, &st));
	EQ(st.st_size, 0);
	close(fd);
}

CASE(append)
{
	put("f", "ab");
	int fd = NEED(open("f", O_RDWR | O_APPEND));
	EQ(lseek(fd, 0, SEEK_CUR), 0);
	EQ(write(fd, "cd", 2), 2);
	EQ(lseek(fd, 0, SEEK_CUR), 4);
	EQ(lseek(fd, 0, SEEK_SET), 0);
	EQ(write(fd, "ef", 2), 2);
	EQ(lseek(fd, 0, SEEK_CUR), 6);
	/* BUGS in pwrite(2): O_APPEND wins over the offset. */
	EQ(pwrite(fd, "gh", 2, 0), 2);
	EQ(lseek(fd, 0, SEEK_CUR), 6);
	STR(get("f"), "abcdefgh");
	close(fd);
}

CASE(access_modes)
{
	put("f", "ab");
	char b[4];
	int fd = NEED(open("f", O_RDONLY));
	ERR(write(fd, "x", 1), EBADF);
	ERR(ftruncate(fd, 0), EINVAL);
	close(fd);
	fd = NEED(open("f", O_WRONLY));
	ERR(read(fd, b, 1), EBADF);
	close(fd);
	fd = NEED(open("f", O_RDWR));
	EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
	EQ(read(fd, b, 4), 2);
	EQ(write(fd, "cd", 2), 2);
	close(fd);
	STR(get("f"), "abcd");
}

CASE(nofollow)
{
	put("f", "ab");
	OK(symlink("f", "l"));
	ERR(open("l", O_RDONLY | O_NOFOLLOW), ELOOP);
	ERR(open("l", O_RDONLY | O_NOFOLLOW | O_DIRECTORY), ENOTDIR);
	int fd = NEED(open("l", O_PATH | O_NOFOLLOW));
	struct stat st;
	OK(fstat(fd, &st));
	CHECK(S_ISLNK(st.st_mode));
	char b[8];
	EQ(readlinkat(fd, "", b, 8), 1);
	close(fd);
}

CASE(path_fd)
{
	put("f", "ab");
	int fd = NEED(open("f", O_PATH));
	char b[4];
	ERR(read(fd, b, 1), EBADF);
	ERR(write(fd, b, 1), EBADF);
	ERR(fchmod(fd, 0600), EBADF);
	ERR(ftruncate(fd, 0), EBADF);
	ERR(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0), EBADF);
	struct stat st;
	OK(fstat(fd, &st));
	EQ(st.st_size, 2);
	EQ(fcntl(fd, F_GETFL) & O_PATH, O_PATH);
	char p[64];
	snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
	int again = NEED(open(p, O_RDONLY));
	EQ(read(again, b, 4), 2);
	close(again);
	close(fd);
	fd = NEED(open(".", O_PATH));
	again = NEED(openat(fd, "f", O_RDONLY));
	close(again);
	OK(fchdir(fd));
	close(fd);
}

CASE(tmpfile)
{
	int fd = NEED(open(".", O_TMPFILE | O_RDWR, 0600));
	EQ(write(fd, "secret", 6), 6);
	struct stat st;
	OK(fstat(fd, &st));
	EQ(st.st_nlink, 0);
	EQ(st.st_size, 6);
	char p[64];
	snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
	OK(linkat(AT_FDCWD, p, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	STR(get("named"), "secret");
	close(fd);
	ERR(open(".", O_TMPFILE | O_RDONLY, 0600), EINVAL);
	ERR(open("none", O_TMPFILE | O_RDWR, 0600), ENOENT);
}

CASE(openat_dirfd)
{
	OK(mkdir("d", 0755));
	put("d/f", "in d");
	put("f", "here");
	int d = NEED(open("d", O_RDONLY | O_DIRECTORY));
	int fd = NEED(openat(d, "f", O_RDONLY));
	char b[8] = "";
	EQ(read(fd, b, 8), 4);
	STR(b, "in d");
	close(fd);
	fd = NEED(openat(AT_FDCWD, "f", O_RDONLY));
	memset(b, 0, 8);
	EQ(read(fd, b, 8), 4);
	STR(b, "here");
	ERR(openat(fd, "f", O_RDONLY), ENOTDIR);
	ERR(openat(777, "f", O_RDONLY), EBADF);
	/* An absolute path does not look at the descriptor. */
	int n = NEED(openat(777, "/dev/null", O_RDONLY));
	close(n);
	close(fd);
	close(d);
	d = NEED(open("d", O_RDONLY | O_DIRECTORY));
	OK(unlink("d/f"));
	OK(rmdir("d"));
	ERR(openat(d, "g", O_CREAT | O_RDWR, 0600), ENOENT);
	close(d);
}

CASE(lowest_fd)
{
	int a = NEED(open("/dev/null", O_RDONLY));
	int b = NEED(open("/dev/null", O_RDONLY));
	EQ(b, a + 1);
	close(a);
	EQ(open("/dev/null", O_RDONLY), a);
	ERR(close(b + 1), EBADF);
	ERR(close(-1), EBADF);
	OK(close(b));
	ERR(close(b), EBADF);
}

CASE(cloexec_flag)
{
	int a = NEED(open("/dev/null", O_RDONLY | O_CLOEXEC));
	EQ(fcntl(a, F_GETFD), FD_CLOEXEC);
	int b = NEED(open("/dev/null", O_RDONLY));
	EQ(fcntl(b, F_GETFD), 0);
}

CASE(close_ranges)
{
	int a = NEED(open("/dev/null", O_RDONLY));
	OK(dup2(a, 50));
	OK(dup2(a, 51));
	OK(dup2(a, 60));
	OK(syscall(SYS_close_range, 50, 55, 0));
	ERR(fcntl(50, F_GETFD), EBADF);
	ERR(fcntl(51, F_GETFD), EBADF);
	EQ(fcntl(60, F_GETFD), 0);
	OK(syscall(SYS_close_range, 55, 70, 4 /* CLOEXEC */));
	EQ(fcntl(60, F_GETFD), FD_CLOEXEC);
	ERR(syscall(SYS_close_range, 5, 4, 0), EINVAL);
	ERR(syscall(SYS_close_range, 5, 6, 1), EINVAL);
	OK(syscall(SYS_close_range, 50, ~0u, 0));
	ERR(fcntl(60, F_GETFD), EBADF);
}

CASE(openat2_resolve)
{
	OK(mkdir("d", 0755));
	put("f", "up");
	OK(symlink("../f", "d/up"));
	OK(symlink("f", "d/in"));
	put("d/f", "in");
	int d = NEED(open("d", O_PATH | O_DIRECTORY));
	struct open_how h = {.flags = O_RDONLY};
	int fd = OK(syscall(SYS_openat2, d, "up", &h, sizeof h));
	close(fd);
	h.resolve = RESOLVE_BENEATH;
	ERR(syscall(SYS_openat2, d, "up", &h, sizeof h), EXDEV);
	ERR(syscall(SYS_openat2, d, "/f", &h, sizeof h), EXDEV);
	fd = OK(syscall(SYS_openat2, d, "in", &h, sizeof h));
	close(fd);
	h.resolve = RESOLVE_NO_SYMLINKS;
	ERR(syscall(SYS_openat2, d, "in", &h, sizeof h), ELOOP);
	h.resolve = RESOLVE_IN_ROOT;
	fd = OK(syscall(SYS_openat2, d, "/f", &h, sizeof h));
	char b[4] = "";
	EQ(read(fd, b, 3), 2);
	STR(b, "in");
	close(fd);
	fd = OK(syscall(SYS_openat2, d, "up", &h, sizeof h));
	close(fd);
	h.resolve = 1 << 20;
	ERR(syscall(SYS_openat2, d, "f", &h, sizeof h), EINVAL);
	h.resolve = 0;
	ERR(syscall(SYS_openat2, d, "f", &h, 8), EINVAL);
	h.mode = 0600;
	ERR(syscall(SYS_openat2, d, "f", &h, sizeof h), EINVAL);
}

CASE(devices)
{
	char b[16] = "xxxxxxxxxxxxxxx";
	int fd = NEED(open("/dev/null", O_RDWR));
	EQ(read(fd, b, 16), 0);
	EQ(write(fd, b, 16), 16);
	close(fd);
	fd = NEED(open("/dev/zero", O_RDWR));
	EQ(read(fd, b, 16), 16);
	for (int i = 0; i < 16; i++)
		EQ(b[i], 0);
	EQ(write(fd, b, 16), 16);
	close(fd);
	fd = NEED(open("/dev/full", O_RDWR));
	EQ(read(fd, b, 16), 16);
	ERR(write(fd, b, 16), ENOSPC);
	close(fd);
	fd = NEED(open("/dev/urandom", O_RDONLY));
	EQ(read(fd, b, 16), 16);
	close(fd);
	struct stat st;
	OK(stat("/dev/null", &st));
	CHECK(S_ISCHR(st.st_mode));
	EQ(st.st_rdev, 0x103);
}

CASE(too_many)
{
	struct rlimit r = {16, 16};
	OK(setrlimit(RLIMIT_NOFILE, &r));
	int last = -1, n;
	while ((n = open("/dev/null", O_RDONLY)) >= 0)
		last = n;
	EQ(errno, EMFILE);
	EQ(last, 15);
	ERR(dup(0), EMFILE);
	ERR(dup2(0, 16), EBADF);
	ERR(fcntl(0, F_DUPFD, 16), EINVAL);
	int p[2];
	ERR(pipe(p), EMFILE);
	close(last);
	ERR(pipe(p), EMFILE);
}

CASE(unlinked_lives)
{
	int fd = NEED(open("f", O_RDWR | O_CREAT, 0600));
	OK(write(fd, "still", 5));
	OK(unlink("f"));
	ERR(access("f", F_OK), ENOENT);
	char b[8] = "";
	EQ(pread(fd, b, 8, 0), 5);
	STR(b, "still");
	struct stat st;
	OK(fstat(fd, &st));
	EQ(st.st_nlink, 0);
}

CASE(independent_offsets)
{
	put("f", "abcdef");
	int a = NEED(open("f", O_RDONLY)), b = NEED(open("f", O_RDONLY)), c = NEED(dup(a));
	char x;
	EQ(read(a, &x, 1), 1);
	EQ(x, 'a');
	EQ(read(b, &x, 1), 1);
	EQ(x, 'a');
	EQ(read(c, &x, 1), 1);
	EQ(x, 'b');
	pid_t p = CHILD(EQ(read(a, &x, 1), 1); EQ(x, 'c'));
	EQ(reap(p), 0);
	EQ(read(c, &x, 1), 1);
	EQ(x, 'd');
}

CASE(flags_reported)
{
	int fd = NEED(open("f", O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0600));
	/* Creation flags are not kept; O_LARGEFILE shows. */
	say("flags %o", fcntl(fd, F_GETFL));
}
MAIN
