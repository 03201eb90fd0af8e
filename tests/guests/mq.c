/* mq_open(3) and its family. */
#include "t.h"
#include <mqueue.h>

static mqd_t fresh(const char *n, long max, long size, int flags)
{
	struct mq_attr a = {.mq_maxmsg = max, .mq_msgsize = size};
	mq_unlink(n);
	return NEED(mq_open(n, O_RDWR | O_CREAT | O_EXCL | flags, 0600, &a));
}
static char name[64];
static const char *own(void)
{
	snprintf(name, sizeof name, "/tg-%d", getpid());
	return name;
}

CASE(priorities)
{
	mqd_t q = fresh(own(), 4, 16, 0);
	char b[16] = "";
	unsigned p;
	OK(mq_send(q, "low", 4, 1));
	OK(mq_send(q, "high", 5, 9));
	OK(mq_send(q, "high2", 6, 9));
	OK(mq_send(q, "zero", 5, 0));
	struct mq_attr a;
	OK(mq_getattr(q, &a));
	EQ(a.mq_curmsgs, 4);
	EQ(a.mq_maxmsg, 4);
	EQ(a.mq_msgsize, 16);
	EQ(mq_receive(q, b, 16, &p), 5);
	STR(b, "high");
	EQ(p, 9);
	EQ(mq_receive(q, b, 16, &p), 6);
	STR(b, "high2");
	EQ(mq_receive(q, b, 16, &p), 4);
	EQ(p, 1);
	EQ(mq_receive(q, b, 16, NULL), 5);
	OK(mq_unlink(name));
	OK(mq_close(q));
}

CASE(errors)
{
	mqd_t q = fresh(own(), 1, 8, O_NONBLOCK);
	char b[16];
	ERR(mq_receive(q, b, 4, NULL), EMSGSIZE);
	ERR(mq_receive(q, b, 8, NULL), EAGAIN);
	ERR(mq_send(q, "123456789", 9, 0), EMSGSIZE);
	ERR(mq_send(q, "x", 1, 32768), EINVAL);
	OK(mq_send(q, "x", 1, 0));
	ERR(mq_send(q, "y", 1, 0), EAGAIN);
	ERR(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, NULL), EEXIST);
	mqd_t r = NEED(mq_open(name, O_RDONLY)), w = NEED(mq_open(name, O_WRONLY));
	ERR(mq_send(r, "x", 1, 0), EBADF);
	ERR(mq_receive(w, b, 8, NULL), EBADF);
	ERR(mq_send(0, "x", 1, 0), EBADF);
	OK(mq_unlink(name));
	ERR(mq_unlink(name), ENOENT);
	ERR(mq_open(name, O_RDWR), ENOENT);
	ERR(mq_open("/a/b", O_RDWR), EACCES);
	/* It lives while it is open. */
	EQ(mq_receive(r, b, 8, NULL), 1);
	struct mq_attr a = {.mq_maxmsg = 0, .mq_msgsize = 8};
	ERR(mq_open(name, O_RDWR | O_CREAT, 0600, &a), EINVAL);
}

CASE(waits)
{
	mqd_t q = fresh(own(), 1, 8, 0);
	char b[8];
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	ERR(mq_timedreceive(q, b, 8, NULL, &t), ETIMEDOUT);
	t.tv_nsec = -1;
	ERR(mq_timedreceive(q, b, 8, NULL, &t), EINVAL);
	pid_t p = CHILD(EQ(mq_receive(q, b, 8, NULL), 3); EQ(mq_receive(q, b, 8, NULL), 2));
	ASLEEP(p);
	OK(mq_send(q, "abc", 3, 0));
	OK(mq_send(q, "de", 2, 0));
	EQ(reap(p), 0);
	OK(mq_send(q, "full", 4, 0));
	p = CHILD(OK(mq_send(q, "more", 5, 0)));
	ASLEEP(p);
	EQ(mq_receive(q, b, 8, NULL), 4);
	EQ(reap(p), 0);
	EQ(mq_receive(q, b, 8, NULL), 5);
	OK(mq_unlink(name));
}

CASE(polled)
{
	mqd_t q = fresh(own(), 1, 8, 0);
	struct pollfd f = {q, POLLIN | POLLOUT, 0};
	EQ(poll(&f, 1, 0), 1);
	EQ(f.revents, POLLOUT);
	OK(mq_send(q, "x", 1, 0));
	EQ(poll(&f, 1, 0), 1);
	EQ(f.revents, POLLIN);
	struct mq_attr a = {.mq_flags = O_NONBLOCK}, o;
	OK(mq_setattr(q, &a, &o));
	EQ(o.mq_flags, 0);
	OK(mq_getattr(q, &o));
	EQ(o.mq_flags, O_NONBLOCK);
	ERR(mq_send(q, "y", 1, 0), EAGAIN);
	OK(mq_unlink(name));
}

static volatile int code, value, got;
static void told(int s, siginfo_t *i, void *u)
{
	code = i->si_code;
	value = i->si_value.sival_int;
	got++;
}

CASE(notified)
{
	mqd_t q = fresh(own(), 4, 8, 0);
	char b[8];
	on_info(SIGUSR1, told, 0);
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 77};
	OK(mq_notify(q, &e));
	ERR(mq_notify(q, &e), EBUSY);
	pid_t p = CHILD(ERR(mq_notify(q, &e), EBUSY); OK(mq_notify(q, NULL)); OK(mq_send(q, "x", 1, 0)));
	EQ(reap(p), 0);
	UNTIL(got == 1);
	EQ(code, SI_MESGQ);
	EQ(value, 77);
	/* Once only, and only for an empty queue. */
	OK(mq_notify(q, &e));
	OK(mq_send(q, "y", 1, 0));
	EQ(got, 1);
	OK(mq_notify(q, NULL));
	EQ(mq_receive(q, b, 8, NULL), 1);
	EQ(mq_receive(q, b, 8, NULL), 1);
	/* Closing any descriptor withdraws it. */
	mqd_t other = NEED(mq_open(name, O_RDWR));
	OK(mq_notify(q, &e));
	OK(mq_close(other));
	OK(mq_notify(q, &e));
	e.sigev_signo = 99;
	ERR(mq_notify(q, &e), EINVAL);
	OK(mq_unlink(name));
}
MAIN
