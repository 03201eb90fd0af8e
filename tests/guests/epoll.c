/* epoll(7). */
#include "t.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int ep, p[2];

static int ctl(int op, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event e = {.events = events, .data.u64 = data};
	return epoll_ctl(ep, op, fd, &e);
}
/* One line per wait: what is ready. */
static int ready(int ms)
{
	struct epoll_event e[16];
	int n = epoll_wait(ep, e, 16, ms);
	for (int i = 0; i < n; i++)
		say("  data %ld events %x", (long)e[i].data.u64, e[i].events);
	return n;
}

static void start(void)
{
	ep = NEED(epoll_create1(0));
	NEED(pipe2(p, O_NONBLOCK));
}

CASE(level)
{
	start();
	OK(ctl(EPOLL_CTL_ADD, p[0], EPOLLIN, 1));
	EQ(ready(0), 0);
	EQ(write(p[1], "abc", 3), 3);
	EQ(ready(0), 1);
	EQ(ready(0), 1);
	char b[8];
	EQ(read(p[0], b, 8), 3);
	EQ(ready(0), 0);
	close(p[1]);
	EQ(ready(0), 1);
}

CASE(edge)
{
	start();
	OK(ctl(EPOLL_CTL_ADD, p[0], EPOLLIN | EPOLLET, 2));
	EQ(write(p[1], "abc", 3), 3);
	EQ(ready(0), 1);
	EQ(ready(0), 0);
	char b[8];
	EQ(read(p[0], b, 1), 1);
	EQ(ready(0), 0);
	/* New data is a new edge, even while old data is unread. */
	EQ(write(p[1], "d", 1), 1);
	EQ(ready(0), 1);
	EQ(ready(0), 0);
	/* So is re-arming by MOD. */
	OK(ctl(EPOLL_CTL_MOD, p[0], EPOLLIN | EPOLLET, 3));
	EQ(ready(0), 1);
	EQ(ready(0), 0);
}

CASE(edge_out)
{
	start();
	OK(ctl(EPOLL_CTL_ADD, p[1], EPOLLOUT | EPOLLET, 4));
	EQ(ready(0), 1);
	EQ(ready(0), 0);
	static char b[65536];
	EQ(write(p[1], b, 65536), 65536);
	EQ(ready(0), 0);
	EQ(read(p[0], b, 65536), 65536);
	EQ(ready(0), 1);
}

CASE(oneshot)
{
	start();
	OK(ctl(EPOLL_CTL_ADD, p[0], EPOLLIN | EPOLLONESHOT, 5));
	EQ(write(p[1], "a", 1), 1);
	EQ(ready(0), 1);
	EQ(write(p[1], "b", 1), 1);
	EQ(ready(0), 0);
	OK(ctl(EPOLL_CTL_MOD, p[0], EPOLLIN | EPOLLONESHOT, 6));
	EQ(ready(0), 1);
	EQ(ready(0), 0);
}

CASE(control_errors)
{
	start();
	OK(ctl(EPOLL_CTL_ADD, p[0], EPOLLIN, 0));
	ERR(ctl(EPOLL_CTL_ADD, p[0], EPOLLIN, 0), EEXIST);
	ERR(ctl(EPOLL_CTL_MOD, p[1], EPOLLIN, 0), ENOENT);
	ERR(ctl(EPOLL_CTL_DEL, p[1], 0, 0), ENOENT);
	ERR(ctl(EPOLL_CTL_ADD, 99, EPOLLIN, 0), EBADF);
	ERR(ctl(EPOLL_CTL_ADD, ep, EPOLLIN, 0), EINVAL);
	ERR(ctl(9, p[0], EPOLLIN, 0), EINVAL);
	put("f", "");
	ERR(ctl(EPOLL_CTL_ADD, open("f", O_RDWR), EPOLLIN, 0), EPERM);
	OK(epoll_ctl(ep, EPOLL_CTL_DEL, p[0], NULL));
	ERR(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], NULL), EFAULT);
	int keep = ep;
	ep = p[0];
	ERR(ctl(EPOLL_CTL_ADD, p[1], EPOLLIN, 0), EINVAL);
	ep = keep;
	struct epoll_event e;
	ERR(epoll_wait(ep, &e, 0, 0), EINVAL);
	ERR(epoll_wait(ep, &e, -1, 0), EINVAL);
	ERR(epoll_wait(p[0], &e, 1, 0), EINVAL);
	ERR(epoll_wait(99, &e, 1, 0), EBADF);
	ERR(epoll_create(0), EINVAL);
	ERR(epoll_create1(1), EINVAL);
	EQ(fcntl(epoll_create1(EPOLL_CLOEXEC), F_GETFD), FD_CLOEXEC);
}

CASE(hup_and_err_always)
{
	start();
	OK(ctl(EPOLL_CTL_ADD, p[0], 0, 7));
	EQ(ready(0), 0);
	close(p[1]);
	EQ(ready(0), 1);
}

CASE(closed_descriptor_leaves)
{
	start();
	int d = NEED(dup(p[0]));
	OK(ctl(EPOLL_CTL_ADD, p[0], EPOLLIN, 8));
	EQ(write(p[1], "x", 1), 1);
	EQ(ready(0), 1);
	/* Registered is the open file: it stays while a duplicate lives. */
	close(p[0]);
	EQ(ready(0), 1);
	close(d);
	EQ(ready(0), 0);
}

CASE(same_file_twice_by_dup)
{
	start();
	int d = NEED(dup(p[0]));
	OK(ctl(EPOLL_CTL_ADD, p[0], EPOLLIN, 1));
	OK(ctl(EPOLL_CTL_ADD, d, EPOLLIN, 2));
	EQ(write(p[1], "x", 1), 1);
	struct epoll_event e[4];
	EQ(epoll_wait(ep, e, 4, 0), 2);
	EQ(e[0].data.u64 + e[1].data.u64, 3);
}

CASE(nested)
{
	start();
	int outer = NEED(epoll_create1(0));
	OK(ctl(EPOLL_CTL_ADD, p[0], EPOLLIN, 1));
	struct epoll_event e = {.events = EPOLLIN, .data.u64 = 42};
	OK(epoll_ctl(outer, EPOLL_CTL_ADD, ep, &e));
	EQ(epoll_wait(outer, &e, 1, 0), 0);
	EQ(write(p[1], "x", 1), 1);
	EQ(epoll_wait(outer, &e, 1, 0), 1);
	EQ(e.data.u64, 42);
	struct pollfd f = {outer, POLLIN, 0};
	EQ(poll(&f, 1, 0), 1);
	EQ(f.revents, POLLIN);
	/* A cycle is refused. */
	ERR(ctl(EPOLL_CTL_ADD, outer, EPOLLIN, 0), ELOOP);
}

CASE(waits_and_wakes)
{
	start();
	OK(ctl(EPOLL_CTL_ADD, p[0], EPOLLIN, 9));
	pid_t c = CHILD(msleep(30); EQ(write(p[1], "x", 1), 1));
	EQ(ready(-1), 1);
	EQ(reap(c), 0);
	char b;
	EQ(read(p[0], &b, 1), 1);
	long t = now_ms();
	EQ(ready(40), 0);
	CHECK(now_ms() - t >= 39);
}

static void *add_later(void *a)
{
	msleep(30);
	ctl(EPOLL_CTL_ADD, p[0], EPOLLIN, 10);
	return NULL;
}
CASE(add_wakes_a_waiter)
{
	start();
	EQ(write(p[1], "x", 1), 1);
	pthread_t t;
	pthread_create(&t, NULL, add_later, NULL);
	EQ(ready(5000), 1);
	pthread_join(t, NULL);
}

static void nothing(int s)
{
}
CASE(interrupted_and_masked)
{
	start();
	on(SIGALRM, nothing, SA_RESTART);
	struct itimerval it = {{0, 0}, {0, 30000}};
	setitimer(ITIMER_REAL, &it, NULL);
	struct epoll_event e;
	ERR(epoll_wait(ep, &e, 1, -1), EINTR);
	on(SIGUSR1, nothing, 0);
	sigset_t s = sigs(SIGUSR1, 0), none;
	sigemptyset(&none);
	sigprocmask(SIG_BLOCK, &s, NULL);
	raise(SIGUSR1);
	EQ(epoll_wait(ep, &e, 1, 10), 0);
	ERR(epoll_pwait(ep, &e, 1, -1, &none), EINTR);
	struct timespec t = {0, 20000000};
	EQ(syscall(SYS_epoll_pwait2, ep, &e, 1, &t, NULL, 0), 0);
}

CASE(maxevents_rotates)
{
	ep = NEED(epoll_create1(0));
	for (int i = 0; i < 6; i++)
		OK(ctl(EPOLL_CTL_ADD, NEED(eventfd(1, 0)), EPOLLIN, 1ul << i));
	uint64_t seen = 0;
	for (int i = 0; i < 3; i++) {
		struct epoll_event e[2];
		EQ(epoll_wait(ep, e, 2, 0), 2);
		seen |= e[0].data.u64 | e[1].data.u64;
	}
	EQ(seen, 63);
}

CASE(exclusive)
{
	start();
	OK(ctl(EPOLL_CTL_ADD, p[0], EPOLLIN | EPOLLEXCLUSIVE, 11));
	EQ(write(p[1], "x", 1), 1);
	EQ(ready(0), 1);
	ERR(ctl(EPOLL_CTL_MOD, p[0], EPOLLIN | EPOLLEXCLUSIVE, 11), EINVAL);
	ERR(ctl(EPOLL_CTL_MOD, p[0], EPOLLIN, 11), EINVAL);
	ERR(ctl(EPOLL_CTL_ADD, p[1], EPOLLOUT | EPOLLEXCLUSIVE | EPOLLONESHOT, 0), EINVAL);
}

CASE(across_fork)
{
	start();
	OK(ctl(EPOLL_CTL_ADD, p[0], EPOLLIN, 12));
	pid_t c = CHILD(EQ(write(p[1], "x", 1), 1); EQ(ready(0), 1));
	EQ(reap(c), 0);
	EQ(ready(0), 1);
}

static void *taker(void *hits)
{
	struct epoll_event e;
	while (epoll_wait(ep, &e, 1, 300) == 1) {
		char b;
		if (read(p[0], &b, 1) == 1)
			atomic_fetch_add((atomic_int *)hits, 1);
	}
	return NULL;
}
CASE(threads_share)
{
	start();
	OK(ctl(EPOLL_CTL_ADD, p[0], EPOLLIN, 13));
	pthread_t t[4];
	atomic_int hits = 0;
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, taker, &hits);
	for (int i = 0; i < 300; i++)
		EQ(write(p[1], "x", 1), 1);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	EQ(hits, 300);
}
MAIN
