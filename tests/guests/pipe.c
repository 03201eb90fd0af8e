/* pipe(2), pipe(7), tee/splice live in splice.c. */
#include "t.h"

static int p[2];
static void nothing(int s)
{
}

CASE(basics)
{
	NEED(pipe(p));
	char b[16] = "";
	EQ(write(p[1], "hello", 5), 5);
	EQ(read(p[0], b, 2), 2);
	EQ(read(p[0], b + 2, 10), 3);
	STR(b, "hello");
	ERR(write(p[0], "x", 1), EBADF);
	ERR(read(p[1], b, 1), EBADF);
	close(p[1]);
	EQ(read(p[0], b, 1), 0);
	ERR(pipe2(p, 0x40000000), EINVAL);
	ERR(syscall(SYS_pipe, NULL), EFAULT);
}

CASE(flags)
{
	NEED(pipe2(p, O_CLOEXEC | O_NONBLOCK));
	EQ(fcntl(p[0], F_GETFD), FD_CLOEXEC);
	say("read end %o write end %o", fcntl(p[0], F_GETFL), fcntl(p[1], F_GETFL));
	char c;
	ERR(read(p[0], &c, 1), EAGAIN);
}

CASE(epipe)
{
	NEED(pipe(p));
	close(p[0]);
	signal(SIGPIPE, SIG_IGN);
	ERR(write(p[1], "x", 1), EPIPE);
	pid_t c = CHILD(signal(SIGPIPE, SIG_DFL); write(p[1], "x", 1));
	EQ(reap(c), 1000 + SIGPIPE);
}

CASE(full)
{
	NEED(pipe2(p, O_NONBLOCK));
	static char page[4096];
	int n = 0;
	while (write(p[1], page, 4096) == 4096)
		n++;
	EQ(errno, EAGAIN);
	say("holds %d pages", n);
	ERR(write(p[1], "x", 1), EAGAIN);
	EQ(read(p[0], page, 4096), 4096);
	EQ(write(p[1], page, 4096), 4096);
	/* More than PIPE_BUF may be cut. */
	static char big[200000];
	EQ(read(p[0], page, 4096), 4096);
	EQ(write(p[1], big, sizeof big), 4096);
	int left = 0;
	OK(ioctl(p[0], FIONREAD, &left));
	EQ(left, 65536);
}

CASE(atomic_small_writes)
{
	/* Four writers of PIPE_BUF-sized records: never interleaved. */
	NEED(pipe(p));
	pid_t c[4];
	for (int k = 0; k < 4; k++)
		c[k] = CHILD(close(p[0]); char r[4096]; memset(r, 'a' + k, sizeof r);
			     for (int i = 0; i < 60; i++) EQ(write(p[1], r, sizeof r), sizeof r));
	close(p[1]);
	static char r[4096];
	int per[4] = {0}, torn = 0;
	for (;;) {
		size_t n = 0;
		ssize_t k;
		while (n < sizeof r && (k = read(p[0], r + n, sizeof r - n)) > 0)
			n += k;
		if (n == 0)
			break;
		for (int i = 1; i < 4096; i++)
			torn += r[i] != r[0];
		per[(r[0] - 'a') & 3]++;
	}
	say("%d %d %d %d torn %d", per[0], per[1], per[2], per[3], torn);
	for (int k = 0; k < 4; k++)
		EQ(reap(c[k]), 0);
}

CASE(big_transfer)
{
	NEED(pipe(p));
	pid_t c = CHILD(close(p[0]); static unsigned char b[100000];
			for (int k = 0; k < 30; k++) {
				for (int i = 0; i < 100000; i++)
					b[i] = i * 31 + k;
				EQ(write(p[1], b, sizeof b), sizeof b);
			});
	close(p[1]);
	static unsigned char b[70001];
	unsigned long h = 7, total = 0;
	ssize_t n;
	while ((n = read(p[0], b, sizeof b)) > 0) {
		for (int i = 0; i < n; i++)
			h = h * 31 + b[i];
		total += n;
	}
	say("%lu bytes, hash %lx", total, h);
	EQ(reap(c), 0);
}

CASE(size)
{
	NEED(pipe(p));
	EQ(fcntl(p[0], F_GETPIPE_SZ), 65536);
	EQ(fcntl(p[0], F_SETPIPE_SZ, 100), 4096);
	EQ(fcntl(p[1], F_GETPIPE_SZ), 4096);
	EQ(fcntl(p[0], F_SETPIPE_SZ, 5000), 8192);
	OK(fcntl(p[1], F_SETFL, O_NONBLOCK));
	static char b[8192];
	EQ(write(p[1], b, 8192), 8192);
	ERR(write(p[1], b, 1), EAGAIN);
	ERR(fcntl(p[0], F_SETPIPE_SZ, 4096), EBUSY);
	EQ(fcntl(p[0], F_SETPIPE_SZ, 1 << 20), 1 << 20);
	EQ(write(p[1], b, 8192), 8192);
	ERR(fcntl(p[0], F_SETPIPE_SZ, 0x80000001u), EINVAL);
	put("f", "");
	int f = NEED(open("f", O_RDONLY));
	ERR(fcntl(f, F_GETPIPE_SZ), EBADF);
}

CASE(fionread)
{
	NEED(pipe(p));
	int n = -1;
	OK(ioctl(p[0], FIONREAD, &n));
	EQ(n, 0);
	EQ(write(p[1], "abc", 3), 3);
	EQ(write(p[1], "de", 2), 2);
	OK(ioctl(p[0], FIONREAD, &n));
	EQ(n, 5);
	char b[8];
	EQ(read(p[0], b, 2), 2);
	OK(ioctl(p[0], FIONREAD, &n));
	EQ(n, 3);
	EQ(read(p[0], b, 8), 3);
}

CASE(reader_waits)
{
	NEED(pipe(p));
	pid_t c = CHILD(close(p[1]); char b[8]; EQ(read(p[0], b, 8), 3); EQ(read(p[0], b, 8), 0));
	close(p[0]);
	ASLEEP(c);
	EQ(write(p[1], "abc", 3), 3);
	msleep(20);
	close(p[1]);
	EQ(reap(c), 0);
}

CASE(writer_waits)
{
	NEED(pipe(p));
	static char b[65536];
	EQ(write(p[1], b, 65536), 65536);
	pid_t c = CHILD(close(p[0]); EQ(write(p[1], "abc", 3), 3));
	ASLEEP(c);
	EQ(read(p[0], b, 65536), 65536);
	EQ(reap(c), 0);
	EQ(read(p[0], b, 8), 3);
}

CASE(interrupted)
{
	NEED(pipe(p));
	pid_t c = CHILD(on(SIGUSR1, nothing, 0); char b; ERR(read(p[0], &b, 1), EINTR));
	msleep(30);
	ASLEEP(c);
	kill(c, SIGUSR1);
	EQ(reap(c), 0);
	/* With SA_RESTART it goes on. */
	c = CHILD(on(SIGUSR1, nothing, SA_RESTART); char b; EQ(read(p[0], &b, 1), 1));
	msleep(30);
	ASLEEP(c);
	kill(c, SIGUSR1);
	msleep(30);
	EQ(write(p[1], "x", 1), 1);
	EQ(reap(c), 0);
	/* A write that has moved something returns what it moved. */
	static char big[100000];
	c = CHILD(on(SIGUSR1, nothing, 0); EQ(write(p[1], big, sizeof big), 65536));
	msleep(30);
	ASLEEP(c);
	kill(c, SIGUSR1);
	EQ(reap(c), 0);
}

CASE(writer_wakes_when_readers_go)
{
	NEED(pipe(p));
	static char b[65536];
	EQ(write(p[1], b, 65536), 65536);
	pid_t c = CHILD(close(p[0]); signal(SIGPIPE, SIG_IGN); ERR(write(p[1], "abc", 3), EPIPE));
	ASLEEP(c);
	close(p[0]);
	EQ(reap(c), 0);
}

CASE(packet_mode)
{
	NEED(pipe2(p, O_DIRECT));
	char b[16];
	EQ(write(p[1], "abcd", 4), 4);
	EQ(write(p[1], "ef", 2), 2);
	EQ(read(p[0], b, 2), 2);
	EQ(read(p[0], b, 16), 2);
	MEM(b, "ef", 2);
}

CASE(vectors)
{
	NEED(pipe(p));
	struct iovec v[3] = {{"ab", 2}, {"cd", 2}, {"ef", 2}};
	EQ(writev(p[1], v, 3), 6);
	char x[4], y[4];
	struct iovec r[2] = {{x, 4}, {y, 4}};
	EQ(readv(p[0], r, 2), 6);
	MEM(x, "abcd", 4);
	MEM(y, "ef", 2);
}

CASE(ping_pong)
{
	int q[2];
	NEED(pipe(p));
	NEED(pipe(q));
	pid_t c = CHILD(int v; for (int i = 0; i < 500; i++) { EQ(read(p[0], &v, 4), 4); v++; EQ(write(q[1], &v, 4), 4); });
	int v = 0;
	for (int i = 0; i < 500; i++) {
		EQ(write(p[1], &v, 4), 4);
		EQ(read(q[0], &v, 4), 4);
	}
	EQ(v, 500);
	EQ(reap(c), 0);
}
MAIN
