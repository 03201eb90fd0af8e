/* read(2), write(2), pread(2), readv(2), preadv2(2), and sync relatives. */
#include "t.h"
#include <linux/fs.h>
#include <sys/sendfile.h>

static int fresh(void)
{
	return NEED(open("f", O_RDWR | O_CREAT | O_TRUNC, 0600));
}

CASE(read_write)
{
	int fd = fresh();
	EQ(write(fd, "0123456789", 10), 10);
	EQ(lseek(fd, 3, SEEK_SET), 3);
	char b[20] = "";
	EQ(read(fd, b, 4), 4);
	STR(b, "3456");
	EQ(read(fd, b, 20), 3);
	EQ(read(fd, b, 20), 0);
	EQ(read(fd, b, 0), 0);
	EQ(write(fd, b, 0), 0);
}

CASE(positional)
{
	int fd = fresh();
	EQ(pwrite(fd, "world", 5, 6), 5);
	EQ(pwrite(fd, "hello ", 6, 0), 6);
	EQ(lseek(fd, 0, SEEK_CUR), 0);
	char b[20] = "";
	EQ(pread(fd, b, 20, 2), 9);
	STR(b, "llo world");
	EQ(pread(fd, b, 20, 100), 0);
	ERR(pread(fd, b, 1, -1), EINVAL);
	ERR(pwrite(fd, b, 1, -1), EINVAL);
	int p[2];
	NEED(pipe(p));
	ERR(pread(p[0], b, 1, 0), ESPIPE);
	ERR(pwrite(p[1], b, 1, 0), ESPIPE);
}

CASE(hole_reads_zero)
{
	int fd = fresh();
	EQ(pwrite(fd, "x", 1, 100000), 1);
	char b[100001];
	memset(b, 7, sizeof b);
	EQ(pread(fd, b, sizeof b, 0), 100001);
	long sum = 0;
	for (int i = 0; i < 100000; i++)
		sum += b[i];
	EQ(sum, 0);
	EQ(b[100000], 'x');
}

CASE(vectors)
{
	int fd = fresh();
	struct iovec w[3] = {{"ab", 2}, {"", 0}, {"cde", 3}};
	EQ(writev(fd, w, 3), 5);
	char a[2], b[10];
	struct iovec r[2] = {{a, 2}, {b, 10}};
	EQ(lseek(fd, 0, SEEK_SET), 0);
	EQ(readv(fd, r, 2), 5);
	MEM(a, "ab", 2);
	MEM(b, "cde", 3);
	EQ(readv(fd, r, 2), 0);
	EQ(writev(fd, w, 0), 0);
	ERR(writev(fd, w, -1), EINVAL);
	ERR(writev(fd, w, 1025), EINVAL);
	w[0].iov_len = -1;
	ERR(writev(fd, w, 3), EINVAL);
	EQ(preadv(fd, r, 2, 1), 4);
	MEM(a, "bc", 2);
	w[0].iov_len = 2;
	EQ(pwritev(fd, w, 3, 4), 5);
	STR(get("f"), "abcdabcde");
	ERR(preadv(fd, r, 2, -1), EINVAL);
}

CASE(preadv2_flags)
{
	int fd = fresh();
	struct iovec w = {"abc", 3};
	EQ(pwritev2(fd, &w, 1, -1, 0), 3);
	EQ(lseek(fd, 0, SEEK_CUR), 3);
	EQ(pwritev2(fd, &w, 1, 0, RWF_APPEND), 3);
	EQ(lseek(fd, 0, SEEK_CUR), 3);
	STR(get("f"), "abcabc");
	EQ(pwritev2(fd, &w, 1, 0, RWF_DSYNC), 3);
	ERR(pwritev2(fd, &w, 1, 0, 1 << 20), EOPNOTSUPP);
	char b[8];
	struct iovec r = {b, 8};
	EQ(preadv2(fd, &r, 1, -1, 0), 3);
	EQ(preadv2(fd, &r, 1, 0, RWF_HIPRI), 6);
}

CASE(max_count)
{
	/* A transfer is cut at 0x7ffff000 bytes; a huge count on a small file is fine. */
	int fd = fresh();
	EQ(write(fd, "abc", 3), 3);
	char *big = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	EQ(pread(fd, big, 1 << 20, 0), 3);
	ERR(read(fd, big, (size_t)-1), EFAULT);
	ERR(read(fd, big, (size_t)SSIZE_MAX + 1), EFAULT);
}

CASE(partial_efault)
{
	/* Bytes copied before the bad page count. */
	int fd = fresh();
	char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(p, 'a', 4096);
	OK(munmap(p + 4096, 4096));
	ssize_t n = write(fd, p + 4090, 12);
	CHECK(n == 6 || (n == -1 && errno == EFAULT));
	OK(ftruncate(fd, 0));
	EQ(pwrite(fd, "0123456789ab", 12, 0), 12);
	struct iovec v[2] = {{p + 4092, 4}, {p + 4096, 4}};
	ERR(write(fd, p + 4096, 1), EFAULT);
	ERR(write(fd, NULL, 1), EFAULT);
	ERR(pread(fd, p + 4096, 4, 0), EFAULT);
	EQ(preadv(fd, v, 1, 0), 4);
	EQ(preadv(fd, v, 2, 0), 4);
}

CASE(fsize_limit)
{
	struct rlimit r = {10, RLIM_INFINITY};
	int fd = fresh();
	OK(setrlimit(RLIMIT_FSIZE, &r));
	signal(SIGXFSZ, SIG_IGN);
	EQ(write(fd, "0123456", 7), 7);
	EQ(write(fd, "789abc", 6), 3);
	ERR(write(fd, "x", 1), EFBIG);
	ERR(ftruncate(fd, 11), EFBIG);
	pid_t p = CHILD(signal(SIGXFSZ, SIG_DFL); write(fd, "x", 1));
	EQ(reap(p), 1000 + SIGXFSZ);
}

/* Which error comes first when there are several. */
CASE(error_order)
{
	char b[16];
	int p[2], z;
	off_t at = 0;
	put("f", "hello");
	NEED(pipe(p));
	int f = NEED(open("f", O_RDWR)), w = NEED(open("f", O_WRONLY)), d = NEED(open(".", O_RDONLY));
	ERR(pread(p[1], b, 1, 0), ESPIPE);
	ERR(pwrite(p[0], b, 1, 0), ESPIPE);
	ERR(pread(w, b, 1, 0), EBADF);
	ERR(sendfile(f, p[0], &at, 1), ESPIPE);
	ERR(sendfile(f, d, NULL, 1), EINVAL);
	ERR(splice(d, NULL, p[1], NULL, 1, 0), EINVAL);
	ERR(copy_file_range(f, NULL, d, NULL, 1, 0), EISDIR);
	ERR(copy_file_range(w, NULL, f, NULL, 1, 0), EBADF);
	ERR(sync_file_range(NEED(open("/dev/null", O_RDWR)), 0, 0, 0), ESPIPE);
	EQ(posix_fadvise(p[0], 0, 0, 99), ESPIPE);
	EQ(posix_fadvise(socket(AF_UNIX, SOCK_STREAM, 0), 0, 0, 0), 0);
	OK(ioctl(f, FIGETBSZ, &z));
	CHECK(z >= 512);
	OK(ioctl(d, FIGETBSZ, &z));
	OK(ioctl(p[0], FIGETBSZ, &z));
	ERR(ioctl(p[0], FIOQSIZE, &z), ENOTTY);
	/* RLIMIT_FSIZE is about growing. */
	OK(ftruncate(f, 1 << 16));
	pid_t c = CHILD({
		struct rlimit r = {4096, 4096};
		OK(setrlimit(RLIMIT_FSIZE, &r));
		signal(SIGXFSZ, SIG_IGN);
		OK(ftruncate(f, 8192));
		OK(truncate("f", 6000));
		ERR(ftruncate(f, 6001), EFBIG);
	});
	EQ(reap(c), 0);
}

CASE(syncs)
{
	int fd = fresh(), p[2];
	OK(fsync(fd));
	OK(fdatasync(fd));
	OK(syncfs(fd));
	sync();
	OK(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
	NEED(pipe(p));
	ERR(fsync(p[0]), EINVAL);
	ERR(fsync(99), EBADF);
	OK(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
	EQ(posix_fadvise(fd, 0, 0, 99), EINVAL);
	EQ(posix_fadvise(p[0], 0, 0, POSIX_FADV_NORMAL), ESPIPE);
	EQ(readahead(fd, 0, 4096), 0);
}

CASE(big_file_pattern)
{
	int fd = fresh();
	static unsigned char b[65536], c[65536];
	for (int k = 0; k < 64; k++) {
		for (int i = 0; i < 65536; i++)
			b[i] = (i * 7 + k * 13) ^ (i >> 8);
		EQ(write(fd, b, sizeof b), sizeof b);
	}
	unsigned long h = 1469598103934665603ul;
	EQ(lseek(fd, 0, SEEK_SET), 0);
	ssize_t n;
	while ((n = read(fd, c, 50001)) > 0)
		for (int i = 0; i < n; i++)
			h = (h ^ c[i]) * 1099511628211ul;
	EQ(n, 0);
	say("hash %lx", h);
}

CASE(concurrent_append)
{
	/* O_APPEND writes from several processes never overlap. */
	fresh();
	pid_t p[4];
	for (int k = 0; k < 4; k++)
		p[k] = CHILD(
			int fd = NEED(open("f", O_WRONLY | O_APPEND));
			char line[8] = {'a' + k, 'a' + k, 'a' + k, 'a' + k, 'a' + k, 'a' + k, 'a' + k, '\n'};
			for (int i = 0; i < 200; i++)
				EQ(write(fd, line, 8), 8));
	for (int k = 0; k < 4; k++)
		EQ(reap(p[k]), 0);
	const char *s = get("f");
	EQ(strlen(s), 6400);
	int per[4] = {0}, torn = 0;
	for (int i = 0; i < 800; i++) {
		per[(s[i * 8] - 'a') & 3]++;
		torn += s[i * 8] != s[i * 8 + 6] || s[i * 8 + 7] != '\n';
	}
	say("%d %d %d %d torn %d", per[0], per[1], per[2], per[3], torn);
}

CASE(same_file_two_names)
{
	int fd = fresh();
	OK(link("f", "g"));
	EQ(write(fd, "via f", 5), 5);
	STR(get("g"), "via f");
	OK(truncate("g", 3));
	STR(get("f"), "via");
}
MAIN
