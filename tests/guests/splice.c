/* splice(2), tee(2), vmsplice(2), sendfile(2), copy_file_range(2). */
#include "t.h"
#include <sys/sendfile.h>

CASE(splice_file_to_pipe)
{
	put("f", "0123456789");
	int f = NEED(open("f", O_RDWR)), p[2];
	NEED(pipe(p));
	EQ(splice(f, NULL, p[1], NULL, 4, 0), 4);
	EQ(lseek(f, 0, SEEK_CUR), 4);
	loff_t at = 6;
	EQ(splice(f, &at, p[1], NULL, 100, 0), 4);
	EQ(at, 10);
	EQ(lseek(f, 0, SEEK_CUR), 4);
	char b[16] = "";
	EQ(read(p[0], b, 16), 8);
	STR(b, "01236789");
	EQ(splice(f, &at, p[1], NULL, 100, 0), 0);
}

CASE(splice_pipe_to_file)
{
	int f = NEED(open("f", O_RDWR | O_CREAT, 0600)), p[2];
	NEED(pipe(p));
	EQ(write(p[1], "abcdef", 6), 6);
	loff_t at = 2;
	EQ(splice(p[0], NULL, f, &at, 6, 0), 6);
	EQ(at, 8);
	char b[16];
	EQ(pread(f, b, 16, 0), 8);
	MEM(b, "\0\0abcdef", 8);
}

CASE(splice_pipes)
{
	int p[2], q[2];
	NEED(pipe(p));
	NEED(pipe(q));
	EQ(write(p[1], "hello", 5), 5);
	EQ(splice(p[0], NULL, q[1], NULL, 3, 0), 3);
	char b[16] = "";
	EQ(read(q[0], b, 16), 3);
	STR(b, "hel");
	EQ(read(p[0], b, 16), 2);
	ERR(splice(p[0], NULL, q[1], NULL, 3, SPLICE_F_NONBLOCK), EAGAIN);
	close(p[1]);
	EQ(splice(p[0], NULL, q[1], NULL, 3, 0), 0);
}

CASE(splice_errors)
{
	put("f", "x");
	int f = NEED(open("f", O_RDWR)), g = NEED(open("f", O_RDWR)), p[2];
	NEED(pipe(p));
	loff_t at = 0;
	ERR(splice(f, NULL, g, NULL, 1, 0), EINVAL);
	ERR(splice(p[0], &at, f, NULL, 1, 0), ESPIPE);
	ERR(splice(99, NULL, p[1], NULL, 1, 0), EBADF);
	ERR(splice(p[0], NULL, p[1], NULL, 1, 0), EINVAL);
	ERR(splice(f, NULL, p[1], NULL, 1, 0x100), EINVAL);
	int a = NEED(open("f", O_RDWR | O_APPEND));
	EQ(write(p[1], "y", 1), 1);
	ERR(splice(p[0], NULL, a, NULL, 1, 0), EINVAL);
	EQ(splice(f, NULL, p[1], NULL, 0, 0), 0);
}

CASE(tees)
{
	int p[2], q[2];
	NEED(pipe(p));
	NEED(pipe(q));
	EQ(write(p[1], "hello", 5), 5);
	EQ(tee(p[0], q[1], 3, 0), 3);
	char b[16] = "";
	EQ(read(p[0], b, 16), 5);
	STR(b, "hello");
	memset(b, 0, 16);
	EQ(read(q[0], b, 16), 3);
	STR(b, "hel");
	ERR(tee(p[0], q[1], 3, SPLICE_F_NONBLOCK), EAGAIN);
	ERR(tee(p[0], p[1], 3, 0), EINVAL);
	put("f", "");
	ERR(tee(open("f", O_RDONLY), q[1], 3, 0), EINVAL);
}

CASE(vmsplices)
{
	int p[2];
	NEED(pipe(p));
	struct iovec v[2] = {{"abc", 3}, {"de", 2}};
	EQ(vmsplice(p[1], v, 2, 0), 5);
	char b[8] = "";
	EQ(read(p[0], b, 8), 5);
	STR(b, "abcde");
}

CASE(sendfiles)
{
	put("f", "0123456789");
	int f = NEED(open("f", O_RDONLY)), g = NEED(open("g", O_RDWR | O_CREAT, 0600)), s[2];
	EQ(sendfile(g, f, NULL, 4), 4);
	EQ(lseek(f, 0, SEEK_CUR), 4);
	off_t at = 8;
	EQ(sendfile(g, f, &at, 100), 2);
	EQ(at, 10);
	EQ(lseek(f, 0, SEEK_CUR), 4);
	STR(get("g"), "012389");
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	at = 0;
	EQ(sendfile(s[0], f, &at, 5), 5);
	char b[16] = "";
	EQ(read(s[1], b, 16), 5);
	STR(b, "01234");
	at = 20;
	EQ(sendfile(g, f, &at, 5), 0);
	ERR(sendfile(f, g, NULL, 1), EBADF);
	at = -1;
	ERR(sendfile(g, f, &at, 1), EINVAL);
	int p[2];
	NEED(pipe(p));
	ERR(sendfile(g, p[0], NULL, 1), EINVAL);
}

CASE(sendfile_large)
{
	int f = NEED(open("f", O_RDWR | O_CREAT, 0600)), s[2];
	static char b[65536];
	for (int k = 0; k < 16; k++) {
		memset(b, 'a' + k, sizeof b);
		EQ(write(f, b, sizeof b), sizeof b);
	}
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	pid_t c = CHILD(close(s[1]); off_t at = 0; size_t n = 0; ssize_t k;
			while (n < (1 << 20) && (k = sendfile(s[0], f, &at, (1 << 20) - n)) > 0) n += k;
			EQ(n, 1 << 20));
	close(s[0]);
	unsigned long sum = 0, n = 0;
	ssize_t k;
	while ((k = read(s[1], b, sizeof b)) > 0) {
		for (int i = 0; i < k; i++)
			sum += (unsigned char)b[i] * (1 + (n + i) % 251);
		n += k;
	}
	say("%lu bytes sum %lu", n, sum);
	EQ(reap(c), 0);
}

CASE(copy_range)
{
	put("f", "0123456789");
	int f = NEED(open("f", O_RDWR)), g = NEED(open("g", O_RDWR | O_CREAT, 0600));
	EQ(copy_file_range(f, NULL, g, NULL, 4, 0), 4);
	EQ(lseek(f, 0, SEEK_CUR), 4);
	EQ(lseek(g, 0, SEEK_CUR), 4);
	off_t in = 8, out = 0;
	EQ(copy_file_range(f, &in, g, &out, 100, 0), 2);
	EQ(in, 10);
	EQ(out, 2);
	STR(get("g"), "8923");
	ERR(copy_file_range(f, &in, g, &out, 1, 1), EINVAL);
	in = 0;
	out = 2;
	ERR(copy_file_range(f, &in, f, &out, 4, 0), EINVAL);
	out = 10;
	EQ(copy_file_range(f, &in, f, &out, 4, 0), 4);
	STR(get("f"), "01234567890123");
	int d = NEED(open(".", O_RDONLY)), p[2];
	ERR(copy_file_range(d, NULL, g, NULL, 1, 0), EISDIR);
	NEED(pipe(p));
	ERR(copy_file_range(p[0], NULL, g, NULL, 1, 0), EINVAL);
	int ro = NEED(open("g", O_RDONLY));
	ERR(copy_file_range(f, NULL, ro, NULL, 1, 0), EBADF);
}
MAIN
