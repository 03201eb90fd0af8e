/* timerfd_create(2), timerfd_settime(2), timerfd_gettime(2). */
#include "t.h"
#include <sys/timerfd.h>

static struct itimerspec in_ms(long first, long every)
{
	return (struct itimerspec){{every / 1000, every % 1000 * 1000000}, {first / 1000, first % 1000 * 1000000}};
}

CASE(one_shot)
{
	int fd = NEED(timerfd_create(CLOCK_MONOTONIC, 0));
	struct itimerspec t = in_ms(50, 0);
	long from = now_ms();
	OK(timerfd_settime(fd, 0, &t, NULL));
	uint64_t n = 0;
	EQ(read(fd, &n, 8), 8);
	CHECK(now_ms() - from >= 49);
	EQ(n, 1);
	OK(timerfd_gettime(fd, &t));
	EQ(t.it_value.tv_sec + t.it_value.tv_nsec, 0);
}

CASE(periodic)
{
	int fd = NEED(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
	EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	struct itimerspec t = in_ms(10, 10);
	OK(timerfd_settime(fd, 0, &t, NULL));
	msleep(105);
	uint64_t n = 0;
	EQ(read(fd, &n, 8), 8);
	CHECK(n >= 10);
	OK(timerfd_gettime(fd, &t));
	EQ(t.it_interval.tv_nsec, 10000000);
	CHECK(t.it_value.tv_nsec > 0 && t.it_value.tv_nsec <= 10000000);
	EQ(read(fd, &n, 8), 8);
	CHECK(n >= 1);
}

CASE(nonblock_and_poll)
{
	int fd = NEED(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK));
	uint64_t n;
	ERR(read(fd, &n, 8), EAGAIN);
	struct pollfd p = {fd, POLLIN, 0};
	EQ(poll(&p, 1, 10), 0);
	struct itimerspec t = in_ms(20, 0), old;
	OK(timerfd_settime(fd, 0, &t, NULL));
	EQ(poll(&p, 1, 5000), 1);
	EQ(p.revents, POLLIN);
	EQ(read(fd, &n, 8), 8);
	ERR(read(fd, &n, 8), EAGAIN);
	t = in_ms(100000, 7);
	OK(timerfd_settime(fd, 0, &t, NULL));
	t = in_ms(0, 0);
	OK(timerfd_settime(fd, 0, &t, &old));
	CHECK(old.it_value.tv_sec >= 98 && old.it_value.tv_sec <= 100);
	EQ(old.it_interval.tv_nsec, 7000000);
	EQ(poll(&p, 1, 10), 0);
}

CASE(absolute)
{
	int fd = NEED(timerfd_create(CLOCK_MONOTONIC, 0));
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	struct itimerspec t = {{0, 0}, now};
	uint64_t n;
	/* In the past: at once. */
	OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL));
	EQ(read(fd, &n, 8), 8);
	EQ(n, 1);
	clock_gettime(CLOCK_MONOTONIC, &now);
	now.tv_nsec += 30000000;
	if (now.tv_nsec >= 1000000000) {
		now.tv_sec++;
		now.tv_nsec -= 1000000000;
	}
	t.it_value = now;
	OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL));
	EQ(read(fd, &n, 8), 8);
	struct timespec end;
	clock_gettime(CLOCK_MONOTONIC, &end);
	CHECK(end.tv_sec > now.tv_sec || (end.tv_sec == now.tv_sec && end.tv_nsec >= now.tv_nsec));
}

CASE(settings_in_the_past)
{
	/* The expiry may come before the call that sets it returns: it must not be lost, and one of an
	 * earlier setting must not count. */
	int fd = NEED(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	struct itimerspec t = {{0, 0}, now}, off = {{0, 0}, {0, 0}};
	struct pollfd p = {fd, POLLIN, 0};
	uint64_t n;
	for (int i = 0; i < 300; i++) {
		OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL));
		EQ(poll(&p, 1, 5000), 1);
		OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL));
		EQ(poll(&p, 1, 5000), 1);
		EQ(read(fd, &n, 8), 8);
		EQ(n, 1);
		OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL));
		OK(timerfd_settime(fd, 0, &off, NULL));
		ERR(read(fd, &n, 8), EAGAIN);
	}
}

CASE(errors)
{
	int fd = NEED(timerfd_create(CLOCK_BOOTTIME, 0));
	struct itimerspec t = in_ms(1, 0);
	t.it_value.tv_nsec = 1000000000;
	ERR(timerfd_settime(fd, 0, &t, NULL), EINVAL);
	t.it_value.tv_nsec = -1;
	ERR(timerfd_settime(fd, 0, &t, NULL), EINVAL);
	ERR(timerfd_settime(fd, 0x100, &t, NULL), EINVAL);
	ERR(timerfd_create(99, 0), EINVAL);
	ERR(timerfd_create(CLOCK_MONOTONIC, 1), EINVAL);
	ERR(timerfd_gettime(open("/dev/null", O_RDONLY), &t), EINVAL);
	ERR(timerfd_gettime(99, &t), EBADF);
	ERR(timerfd_settime(fd, 0, (void *)8, NULL), EFAULT);
	uint64_t n;
	ERR(read(fd, &n, 4), EINVAL);
	ERR(write(fd, &n, 8), EINVAL);
}

CASE(shared_across_fork)
{
	int fd = NEED(timerfd_create(CLOCK_MONOTONIC, 0));
	struct itimerspec t = in_ms(30, 0);
	pid_t p = CHILD(OK(timerfd_settime(fd, 0, &t, NULL)));
	EQ(reap(p), 0);
	uint64_t n;
	EQ(read(fd, &n, 8), 8);
	EQ(n, 1);
}
MAIN
