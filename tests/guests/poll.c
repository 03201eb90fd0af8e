/* poll(2), ppoll(2), select(2), pselect(2). */
#include "t.h"
#include <sys/select.h>

static int p[2];
static volatile sig_atomic_t got;
static void count(int s)
{
	got++;
}

static int ev(int fd, int want)
{
	struct pollfd f = {fd, want, 0x7777};
	int n = poll(&f, 1, 0);
	return n < 0 ? -errno : f.revents;
}

CASE(pipe_events)
{
	NEED(pipe(p));
	EQ(ev(p[0], POLLIN), 0);
	EQ(ev(p[1], POLLOUT), POLLOUT);
	EQ(write(p[1], "x", 1), 1);
	EQ(ev(p[0], POLLIN | POLLRDNORM), POLLIN | POLLRDNORM);
	close(p[1]);
	EQ(ev(p[0], POLLIN), POLLIN | POLLHUP);
	char c;
	EQ(read(p[0], &c, 1), 1);
	EQ(ev(p[0], POLLIN), POLLHUP);
	EQ(ev(p[0], 0), POLLHUP);
	NEED(pipe(p));
	close(p[0]);
	EQ(ev(p[1], POLLOUT), POLLOUT | POLLERR);
	EQ(ev(99, POLLIN), POLLNVAL);
	EQ(ev(-1, POLLIN), 0);
}

CASE(full_pipe)
{
	NEED(pipe2(p, O_NONBLOCK));
	static char b[65536];
	EQ(write(p[1], b, 65536), 65536);
	EQ(ev(p[1], POLLOUT), 0);
	EQ(read(p[0], b, 100), 100);
	EQ(ev(p[1], POLLOUT), 0);
	EQ(read(p[0], b, 3996), 3996);
	EQ(ev(p[1], POLLOUT), POLLOUT);
}

CASE(always_ready)
{
	put("f", "");
	EQ(ev(open("f", O_RDWR), POLLIN | POLLOUT), POLLIN | POLLOUT);
	EQ(ev(open("/dev/null", O_RDWR), POLLIN | POLLOUT), POLLIN | POLLOUT);
	EQ(ev(open("/dev/zero", O_RDWR), POLLIN | POLLOUT), POLLIN | POLLOUT);
}

CASE(socket_events)
{
	int s[2];
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	EQ(ev(s[0], POLLIN | POLLOUT), POLLOUT);
	EQ(write(s[1], "x", 1), 1);
	EQ(ev(s[0], POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT);
	OK(shutdown(s[1], SHUT_WR));
	EQ(ev(s[0], POLLIN | POLLRDHUP), POLLIN | POLLRDHUP);
	close(s[1]);
	EQ(ev(s[0], POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT | POLLHUP | POLLRDHUP);
}

CASE(timeouts)
{
	NEED(pipe(p));
	struct pollfd f = {p[0], POLLIN, 0};
	long t = now_ms();
	EQ(poll(&f, 1, 50), 0);
	t = now_ms() - t;
	CHECK(t >= 49 && t < 5000);
	EQ(poll(NULL, 0, 20), 0);
	struct timespec ts = {0, 30000000};
	t = now_ms();
	EQ(ppoll(&f, 1, &ts, NULL), 0);
	CHECK(now_ms() - t >= 29);
	EQ(syscall(SYS_ppoll, &f, 1, &ts, NULL, 8), 0);
	EQ(ts.tv_sec + ts.tv_nsec, 0);
	ts.tv_nsec = -1;
	ERR(ppoll(&f, 1, &ts, NULL), EINVAL);
	ERR(poll(&f, 5000000, 0), EINVAL);
	ERR(poll((void *)8, 1, 0), EFAULT);
}

CASE(wakes)
{
	NEED(pipe(p));
	pid_t c = CHILD(msleep(30); EQ(write(p[1], "x", 1), 1));
	struct pollfd f[3] = {{-1, POLLIN, 0}, {p[0], POLLIN, 0}, {p[1], 0, 0}};
	EQ(poll(f, 3, -1), 1);
	EQ(f[0].revents, 0);
	EQ(f[1].revents, POLLIN);
	EQ(f[2].revents, 0);
	EQ(reap(c), 0);
}

CASE(interrupted)
{
	on(SIGALRM, count, SA_RESTART);
	struct itimerval it = {{0, 0}, {0, 50000}};
	setitimer(ITIMER_REAL, &it, NULL);
	ERR(poll(NULL, 0, -1), EINTR);
	EQ(got, 1);
	setitimer(ITIMER_REAL, &it, NULL);
	ERR(select(0, NULL, NULL, NULL, NULL), EINTR);
	EQ(got, 2);
}

CASE(ppoll_mask)
{
	on(SIGUSR1, count, 0);
	sigset_t s = sigs(SIGUSR1, 0), none;
	sigemptyset(&none);
	sigprocmask(SIG_BLOCK, &s, NULL);
	raise(SIGUSR1);
	EQ(got, 0);
	/* Already pending: ends at once, and the mask comes back. */
	ERR(ppoll(NULL, 0, NULL, &none), EINTR);
	EQ(got, 1);
	sigprocmask(SIG_BLOCK, NULL, &none);
	EQ(sigismember(&none, SIGUSR1), 1);
	ERR(syscall(SYS_ppoll, NULL, 0, NULL, &none, 4), EINVAL);
	/* Readiness wins over a signal that came at the same time. */
	NEED(pipe(p));
	EQ(write(p[1], "x", 1), 1);
	sigemptyset(&none);
	struct pollfd f = {p[0], POLLIN, 0};
	EQ(ppoll(&f, 1, NULL, &none), 1);
}

CASE(selects)
{
	NEED(pipe(p));
	fd_set r, w, e;
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_ZERO(&e);
	FD_SET(p[0], &r);
	FD_SET(p[1], &w);
	FD_SET(p[0], &e);
	struct timeval t = {0, 0};
	EQ(select(p[1] + 1, &r, &w, &e, &t), 1);
	EQ(!!FD_ISSET(p[0], &r), 0);
	EQ(!!FD_ISSET(p[1], &w), 1);
	EQ(!!FD_ISSET(p[0], &e), 0);
	EQ(write(p[1], "x", 1), 1);
	FD_SET(p[0], &r);
	EQ(select(p[1] + 1, &r, &w, NULL, NULL), 2);
	FD_ZERO(&r);
	/* Within the first 64, the smallest descriptor table Linux has: beyond its table it looks no further. */
	close(dup2(p[0], 57));
	FD_SET(57, &r);
	ERR(select(58, &r, NULL, NULL, &t), EBADF);
	ERR(select(-1, NULL, NULL, NULL, &t), EINVAL);
	t.tv_sec = -1;
	ERR(select(0, NULL, NULL, NULL, &t), EINVAL);
	/* End of file is readable. */
	close(p[1]);
	FD_ZERO(&r);
	FD_SET(p[0], &r);
	EQ(select(p[0] + 1, &r, NULL, NULL, NULL), 1);
}

CASE(select_time_left)
{
	/* Linux writes the time left back. */
	struct timeval t = {0, 50000};
	long from = now_ms();
	EQ(select(0, NULL, NULL, NULL, &t), 0);
	CHECK(now_ms() - from >= 49);
	EQ(t.tv_sec + t.tv_usec, 0);
	NEED(pipe(p));
	EQ(write(p[1], "x", 1), 1);
	fd_set r;
	FD_ZERO(&r);
	FD_SET(p[0], &r);
	t = (struct timeval){100, 0};
	EQ(select(p[0] + 1, &r, NULL, NULL, &t), 1);
	CHECK(t.tv_sec == 99 || (t.tv_sec == 100 && t.tv_usec == 0));
}

CASE(pselect_mask)
{
	on(SIGUSR1, count, 0);
	sigset_t s = sigs(SIGUSR1, 0), none;
	sigemptyset(&none);
	sigprocmask(SIG_BLOCK, &s, NULL);
	pid_t me = getpid();
	pid_t c = CHILD(msleep(30); kill(me, SIGUSR1));
	ERR(pselect(0, NULL, NULL, NULL, NULL, &none), EINTR);
	EQ(got, 1);
	EQ(reap(c), 0);
	struct timespec t = {0, 1000000};
	EQ(pselect(0, NULL, NULL, NULL, &t, NULL), 0);
}

CASE(many_descriptors)
{
	struct pollfd f[200];
	int w[200];
	for (int i = 0; i < 200; i++) {
		NEED(pipe(p));
		f[i] = (struct pollfd){p[0], POLLIN, 0};
		w[i] = p[1];
	}
	for (int i = 0; i < 200; i += 7)
		EQ(write(w[i], "x", 1), 1);
	EQ(poll(f, 200, 0), 29);
	int wrong = 0;
	for (int i = 0; i < 200; i++)
		wrong += (f[i].revents == POLLIN) != (i % 7 == 0);
	EQ(wrong, 0);
}
MAIN
