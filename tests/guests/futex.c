/* futex(2). */
#include "t.h"
#include <linux/futex.h>

static atomic_int w, w2;
static long fx(atomic_int *a, int op, int v, const void *t, atomic_int *b, int v3)
{
	return syscall(SYS_futex, a, op, v, t, b, v3);
}

CASE(immediate)
{
	w = 5;
	ERR(fx(&w, FUTEX_WAIT, 4, NULL, NULL, 0), EAGAIN);
	EQ(fx(&w, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
	ERR(fx(&w, 99, 0, NULL, NULL, 0), ENOSYS);
	ERR(syscall(SYS_futex, (char *)&w + 1, FUTEX_WAIT, 5, NULL, NULL, 0), EINVAL);
	ERR(syscall(SYS_futex, 8, FUTEX_WAIT, 5, NULL, NULL, 0), EFAULT);
	ERR(fx(&w, FUTEX_WAIT_BITSET, 5, NULL, NULL, 0), EINVAL);
	ERR(fx(&w, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0), EINVAL);
	struct timespec bad = {0, 1000000000};
	ERR(fx(&w, FUTEX_WAIT, 5, &bad, NULL, 0), EINVAL);
}

CASE(timeouts)
{
	w = 1;
	struct timespec t = {0, 30000000};
	long from = now_ms();
	ERR(fx(&w, FUTEX_WAIT_PRIVATE, 1, &t, NULL, 0), ETIMEDOUT);
	CHECK(now_ms() - from >= 29);
	clock_gettime(CLOCK_MONOTONIC, &t);
	ERR(fx(&w, FUTEX_WAIT_BITSET, 1, &t, NULL, -1), ETIMEDOUT);
	clock_gettime(CLOCK_REALTIME, &t);
	ERR(fx(&w, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 1, &t, NULL, -1), ETIMEDOUT);
}

static atomic_int woken, waiting;
static void *wait_thread(void *mask)
{
	waiting++;
	if (fx(&w, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, NULL, (int)(long)mask) == 0)
		woken++;
	return NULL;
}
static pthread_t t[6];
static void waiters(int n, long mask)
{
	for (int i = 0; i < n; i++)
		pthread_create(&t[i], NULL, wait_thread, (void *)mask);
	UNTIL(waiting == n);
	msleep(60);
}

CASE(wake_counts)
{
	waiters(5, -1);
	EQ(fx(&w, FUTEX_WAKE_PRIVATE, 2, NULL, NULL, 0), 2);
	UNTIL(woken == 2);
	EQ(fx(&w, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0), 3);
	for (int i = 0; i < 5; i++)
		pthread_join(t[i], NULL);
	EQ(woken, 5);
}

CASE(bitsets)
{
	waiters(3, 2);
	EQ(fx(&w, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, NULL, NULL, 1), 0);
	EQ(fx(&w, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, NULL, NULL, 6), 3);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
}

CASE(requeue)
{
	waiters(5, -1);
	ERR(fx(&w, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)10, &w2, 7), EAGAIN);
	EQ(fx(&w, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)2, &w2, 0), 3);
	UNTIL(woken == 1);
	EQ(fx(&w2, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0), 2);
	EQ(fx(&w, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0), 2);
	for (int i = 0; i < 5; i++)
		pthread_join(t[i], NULL);
}

CASE(wake_op)
{
	waiters(2, -1);
	w2 = 3;
	/* w2 += 4; wake 1 on w; nobody waits on w2. */
	EQ(fx(&w, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &w2, FUTEX_OP(FUTEX_OP_ADD, 4, FUTEX_OP_CMP_EQ, 3)), 1);
	EQ(w2, 7);
	EQ(fx(&w, FUTEX_WAKE_PRIVATE, 5, NULL, NULL, 0), 1);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
}

CASE(across_processes)
{
	atomic_int *s = shared(4096);
	pid_t p = CHILD(while (*s == 0) fx(s, FUTEX_WAIT, 0, NULL, NULL, 0); *s = 2);
	ASLEEP(p);
	*s = 1;
	EQ(fx(s, FUTEX_WAKE, 1, NULL, NULL, 0), 1);
	EQ(reap(p), 0);
	EQ(*s, 2);
	/* A file mapped at two addresses is one futex. */
	int fd = NEED(memfd_create("f", 0));
	OK(ftruncate(fd, 4096));
	atomic_int *a = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	p = CHILD(atomic_int *b = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0); EQ(fx(b, FUTEX_WAIT, 0, NULL, NULL, 0), 0));
	ASLEEP(p);
	EQ(fx(a, FUTEX_WAKE, 1, NULL, NULL, 0), 1);
	EQ(reap(p), 0);
	/* Private memory after fork is not. */
	p = CHILD(struct timespec ts = {0, 50000000}; ERR(fx(&w, FUTEX_WAIT, 0, &ts, NULL, 0), ETIMEDOUT));
	msleep(20);
	EQ(fx(&w, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
	EQ(reap(p), 0);
}

static void nothing(int s)
{
}
CASE(interrupted)
{
	pid_t p = CHILD(on(SIGUSR1, nothing, 0); ERR(fx(&w, FUTEX_WAIT, 0, NULL, NULL, 0), EINTR));
	msleep(30);
	ASLEEP(p);
	kill(p, SIGUSR1);
	EQ(reap(p), 0);
	atomic_int *s = shared(4096);
	p = CHILD(on(SIGUSR1, nothing, SA_RESTART); EQ(fx(s, FUTEX_WAIT, 0, NULL, NULL, 0), 0));
	msleep(30);
	ASLEEP(p);
	kill(p, SIGUSR1);
	msleep(30);
	EQ(fx(s, FUTEX_WAKE, 1, NULL, NULL, 0), 1);
	EQ(reap(p), 0);
}

/* A signal that ends in nothing leaves a wait as it was: this one is queued because the main thread
   blocks it, and ignored by the thread that finds it. */
CASE(ignored_signal)
{
	waiters(2, -1);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGURG);
	OK(pthread_sigmask(SIG_BLOCK, &set, NULL));
	for (int i = 0; i < 2; i++) {
		kill(getpid(), SIGURG);
		msleep(30);
	}
	UNTIL(fx(&w, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) == 1);
	UNTIL(woken == 1);
	UNTIL(fx(&w, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) == 1);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
}

CASE(robust_list_calls)
{
	struct robust_list_head *h;
	size_t n;
	OK(syscall(SYS_get_robust_list, 0, &h, &n));
	EQ(n, sizeof(struct robust_list_head));
	ERR(syscall(SYS_set_robust_list, h, 1), EINVAL);
	ERR(syscall(SYS_get_robust_list, 1 << 22, &h, &n), ESRCH);
}
MAIN
