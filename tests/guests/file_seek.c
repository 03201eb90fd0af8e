/* lseek(2), truncate(2), fallocate(2). */
#include "t.h"
#include <linux/falloc.h>

CASE(whence)
{
	put("f", "0123456789");
	int fd = NEED(open("f", O_RDWR));
	EQ(lseek(fd, 4, SEEK_SET), 4);
	EQ(lseek(fd, 2, SEEK_CUR), 6);
	EQ(lseek(fd, -1, SEEK_END), 9);
	EQ(lseek(fd, 100, SEEK_END), 110);
	ERR(lseek(fd, -1, SEEK_SET), EINVAL);
	ERR(lseek(fd, -111, SEEK_CUR), EINVAL);
	EQ(lseek(fd, 0, SEEK_CUR), 110);
	ERR(lseek(fd, 0, 9), EINVAL);
	ERR(lseek(99, 0, SEEK_SET), EBADF);
	EQ(write(fd, "x", 1), 1);
	struct stat st;
	OK(fstat(fd, &st));
	EQ(st.st_size, 111);
}

CASE(not_seekable)
{
	int p[2];
	NEED(pipe(p));
	ERR(lseek(p[0], 0, SEEK_CUR), ESPIPE);
	int s[2];
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	ERR(lseek(s[0], 0, SEEK_SET), ESPIPE);
	int n = NEED(open("/dev/null", O_RDONLY));
	EQ(lseek(n, 5, SEEK_SET), 0);
}

CASE(data_and_holes)
{
	int fd = NEED(open("f", O_RDWR | O_CREAT, 0600));
	OK(ftruncate(fd, 1 << 20));
	ERR(lseek(fd, 0, SEEK_DATA), ENXIO);
	EQ(lseek(fd, 0, SEEK_HOLE), 0);
	EQ(pwrite(fd, "x", 1, 512 * 1024), 1);
	EQ(lseek(fd, 0, SEEK_DATA), 512 * 1024);
	EQ(lseek(fd, 512 * 1024, SEEK_HOLE), 516 * 1024);
	EQ(lseek(fd, 512 * 1024 + 7, SEEK_DATA), 512 * 1024 + 7);
	ERR(lseek(fd, 1 << 20, SEEK_DATA), ENXIO);
	ERR(lseek(fd, 1 << 20, SEEK_HOLE), ENXIO);
	OK(ftruncate(fd, 512 * 1024 + 1));
	EQ(lseek(fd, 512 * 1024, SEEK_HOLE), 512 * 1024 + 1);
}

CASE(truncate_grow_shrink)
{
	put("f", "0123456789");
	OK(truncate("f", 4));
	STR(get("f"), "0123");
	OK(truncate("f", 8));
	int fd = NEED(open("f", O_RDWR));
	char b[16];
	EQ(read(fd, b, 16), 8);
	MEM(b, "0123\0\0\0\0", 8);
	OK(ftruncate(fd, 0));
	EQ(lseek(fd, 0, SEEK_CUR), 8);
	EQ(write(fd, "z", 1), 1);
	EQ(pread(fd, b, 16, 0), 9);
	MEM(b, "\0\0\0\0\0\0\0\0z", 9);
	/* What was cut off never comes back. */
	EQ(pwrite(fd, "secret", 6, 4090), 6);
	OK(ftruncate(fd, 4091));
	OK(ftruncate(fd, 4200));
	EQ(pread(fd, b, 6, 4090), 6);
	MEM(b, "s\0\0\0\0\0", 6);
}

CASE(truncate_errors)
{
	put("f", "x");
	OK(mkdir("d", 0700));
	ERR(truncate("f", -1), EINVAL);
	ERR(truncate("d", 0), EISDIR);
	ERR(truncate("none", 0), ENOENT);
	ERR(truncate("f/x", 0), ENOTDIR);
	int p[2];
	NEED(pipe(p));
	ERR(ftruncate(p[1], 0), EINVAL);
	ERR(ftruncate(99, 0), EBADF);
	OK(symlink("f", "l"));
	OK(truncate("l", 0));
	struct stat st;
	OK(stat("f", &st));
	EQ(st.st_size, 0);
}

CASE(fallocate_modes)
{
	int fd = NEED(open("f", O_RDWR | O_CREAT, 0600));
	OK(fallocate(fd, 0, 0, 10000));
	struct stat st;
	OK(fstat(fd, &st));
	EQ(st.st_size, 10000);
	OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 20000));
	OK(fstat(fd, &st));
	EQ(st.st_size, 10000);
	char b[10000];
	memset(b, 'x', sizeof b);
	EQ(pwrite(fd, b, 10000, 0), 10000);
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096));
	EQ(pread(fd, b, 10000, 0), 10000);
	int x = 0, z = 0;
	for (int i = 0; i < 10000; i++) {
		x += b[i] == 'x';
		z += b[i] == 0;
	}
	say("x %d zero %d", x, z);
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10, 20));
	EQ(pread(fd, b, 100, 0), 100);
	EQ(b[9], 'x');
	EQ(b[10], 0);
	EQ(b[29], 0);
	EQ(b[30], 'x');
	ERR(fallocate(fd, 0, 0, 0), EINVAL);
	ERR(fallocate(fd, 0, -1, 10), EINVAL);
	ERR(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10), EOPNOTSUPP);
	int p[2];
	NEED(pipe(p));
	ERR(fallocate(p[1], 0, 0, 10), ESPIPE);
	int r = NEED(open("f", O_RDONLY));
	ERR(fallocate(r, 0, 0, 10), EBADF);
	EQ(posix_fallocate(fd, 0, 30000), 0);
	OK(fstat(fd, &st));
	EQ(st.st_size, 30000);
}

CASE(far_offsets)
{
	int fd = NEED(open("f", O_RDWR | O_CREAT, 0600));
	EQ(pwrite(fd, "far", 3, 5ll << 30), 3);
	struct stat st;
	OK(fstat(fd, &st));
	EQ(st.st_size, (5ll << 30) + 3);
	CHECK(st.st_blocks < 100);
	char b[8] = "";
	EQ(pread(fd, b, 8, 5ll << 30), 3);
	STR(b, "far");
	EQ(pread(fd, b, 8, 4ll << 30), 8);
	EQ(b[0], 0);
	ERR(pwrite(fd, "x", 1, INT64_MAX), EINVAL);
	OK(ftruncate(fd, 0));
}
MAIN
