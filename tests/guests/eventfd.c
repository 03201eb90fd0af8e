/* eventfd(2). */
#include "t.h"
#include <sys/eventfd.h>

CASE(counter)
{
	int fd = NEED(eventfd(3, 0));
	uint64_t v = 4;
	EQ(write(fd, &v, 8), 8);
	EQ(read(fd, &v, 8), 8);
	EQ(v, 7);
	ERR(read(fd, &v, 4), EINVAL);
	ERR(write(fd, &v, 4), EINVAL);
	v = UINT64_MAX;
	ERR(write(fd, &v, 8), EINVAL);
	ERR(eventfd(0, 0x1000), EINVAL);
}

CASE(nonblock)
{
	int fd = NEED(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
	EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	uint64_t v;
	ERR(read(fd, &v, 8), EAGAIN);
	v = UINT64_MAX - 1;
	EQ(write(fd, &v, 8), 8);
	v = 1;
	ERR(write(fd, &v, 8), EAGAIN);
	EQ(read(fd, &v, 8), 8);
	EQ(v, UINT64_MAX - 1);
}

CASE(semaphore)
{
	int fd = NEED(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
	uint64_t v;
	EQ(read(fd, &v, 8), 8);
	EQ(v, 1);
	EQ(read(fd, &v, 8), 8);
	EQ(v, 1);
	ERR(read(fd, &v, 8), EAGAIN);
}

CASE(polls)
{
	int fd = NEED(eventfd(0, 0));
	struct pollfd p = {fd, POLLIN | POLLOUT, 0};
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLOUT);
	uint64_t v = UINT64_MAX - 1;
	EQ(write(fd, &v, 8), 8);
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLIN);
}

CASE(wakes_across_fork)
{
	int a = NEED(eventfd(0, 0)), b = NEED(eventfd(0, 0));
	pid_t p = CHILD(uint64_t v; for (int i = 0; i < 200; i++) { EQ(read(a, &v, 8), 8); v = 1; EQ(write(b, &v, 8), 8); });
	uint64_t v, sum = 0;
	for (int i = 0; i < 200; i++) {
		v = 1;
		EQ(write(a, &v, 8), 8);
		EQ(read(b, &v, 8), 8);
		sum += v;
	}
	EQ(sum, 200);
	EQ(reap(p), 0);
}

CASE(blocked_writer)
{
	int fd = NEED(eventfd(0, 0));
	uint64_t v = UINT64_MAX - 1;
	EQ(write(fd, &v, 8), 8);
	pid_t p = CHILD(uint64_t w = 5; EQ(write(fd, &w, 8), 8));
	ASLEEP(p);
	EQ(read(fd, &v, 8), 8);
	EQ(reap(p), 0);
	EQ(read(fd, &v, 8), 8);
	EQ(v, 5);
}
MAIN
