/* clock_gettime(2), nanosleep(2), setitimer(2), timer_create(2), alarm(2). */
#include "t.h"
#include <sys/timex.h>

static volatile sig_atomic_t hits;
static siginfo_t info;
static void count(int s)
{
	hits++;
}
static void keep(int s, siginfo_t *i, void *u)
{
	info = *i;
	hits++;
}

CASE(clocks)
{
	static const int c[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_RAW,
				CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_TAI};
	for (unsigned i = 0; i < sizeof c / sizeof *c; i++) {
		struct timespec a, b, r;
		OK(clock_gettime(c[i], &a));
		OK(syscall(SYS_clock_gettime, c[i], &b));
		CHECK(b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec));
		CHECK(b.tv_sec - a.tv_sec < 5);
		OK(clock_getres(c[i], &r));
		EQ(r.tv_sec, 0);
	}
	struct timespec t;
	ERR(clock_gettime(99, &t), EINVAL);
	ERR(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, 8), EFAULT);
	struct timeval v;
	OK(gettimeofday(&v, NULL));
	OK(clock_gettime(CLOCK_REALTIME, &t));
	CHECK(t.tv_sec - v.tv_sec < 5 && t.tv_sec > 1600000000);
	CHECK(labs(time(NULL) - t.tv_sec) < 5);
}

CASE(monotonic_across_threads)
{
	struct timespec last = {0}, t;
	int back = 0;
	for (int i = 0; i < 100000; i++) {
		clock_gettime(CLOCK_MONOTONIC, &t);
		back += t.tv_sec < last.tv_sec || (t.tv_sec == last.tv_sec && t.tv_nsec < last.tv_nsec);
		last = t;
	}
	EQ(back, 0);
}

CASE(cpu_time_counts_work)
{
	struct timespec a, b;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	msleep(100);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
	CHECK((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 < 80);
	long from = now_ms();
	while (now_ms() - from < 300)
		;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	CHECK((a.tv_sec - b.tv_sec) * 1000 + (a.tv_nsec - b.tv_nsec) / 1000000 > 20);
}

CASE(sleeps)
{
	long from = now_ms();
	msleep(50);
	CHECK(now_ms() - from >= 49);
	struct timespec t = {0, 1000000000};
	ERR(nanosleep(&t, NULL), EINVAL);
	t.tv_nsec = -1;
	ERR(nanosleep(&t, NULL), EINVAL);
	ERR(nanosleep((void *)8, NULL), EFAULT);
	clock_gettime(CLOCK_MONOTONIC, &t);
	EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL), 0);
	t.tv_nsec += 30000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL), 0);
	struct timespec n;
	clock_gettime(CLOCK_MONOTONIC, &n);
	CHECK(n.tv_sec > t.tv_sec || n.tv_nsec >= t.tv_nsec);
	EQ(clock_nanosleep(99, 0, &t, NULL), EINVAL);
	EQ(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &t, NULL), EINVAL);
}

CASE(interval_timer)
{
	on(SIGALRM, count, 0);
	struct itimerval t = {{0, 10000}, {0, 10000}}, o;
	OK(setitimer(ITIMER_REAL, &t, NULL));
	UNTIL(hits >= 3);
	t = (struct itimerval){0};
	OK(setitimer(ITIMER_REAL, &t, &o));
	EQ(o.it_interval.tv_usec, 10000);
	OK(getitimer(ITIMER_REAL, &o));
	EQ(o.it_value.tv_usec, 0);
	ERR(setitimer(9, &t, NULL), EINVAL);
	t.it_value.tv_usec = 1000000;
	ERR(setitimer(ITIMER_REAL, &t, NULL), EINVAL);
}

CASE(cpu_timers)
{
	on(SIGVTALRM, count, 0);
	struct itimerval t = {{0, 0}, {0, 30000}};
	OK(setitimer(ITIMER_VIRTUAL, &t, NULL));
	long from = now_ms();
	while (!hits && now_ms() - from < 8000)
		;
	EQ(hits, 1);
	on(SIGPROF, count, 0);
	OK(setitimer(ITIMER_PROF, &t, NULL));
	while (hits < 2 && now_ms() - from < 8000)
		;
	EQ(hits, 2);
}

CASE(alarms)
{
	on(SIGALRM, count, 0);
	alarm(0);
	EQ(alarm(100), 0);
	long left = alarm(1);
	CHECK(left == 100 || left == 99);
	pause();
	EQ(hits, 1);
	EQ(alarm(0), 0);
	EQ(reap(CHILD(signal(SIGALRM, SIG_DFL); alarm(1); for (;;) pause())), 1000 + SIGALRM);
	EQ(reap(CHILD(signal(SIGALRM, SIG_DFL); ualarm(20000, 0); for (;;) ;)), 1000 + SIGALRM);
}

CASE(posix_timers)
{
	timer_t id;
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 5};
	on_info(SIGUSR1, keep, 0);
	OK(timer_create(CLOCK_MONOTONIC, &e, &id));
	struct itimerspec t = {{0, 10000000}, {0, 10000000}}, o;
	OK(timer_settime(id, 0, &t, NULL));
	UNTIL(hits >= 3);
	EQ(info.si_code, SI_TIMER);
	EQ(info.si_value.sival_int, 5);
	OK(timer_gettime(id, &o));
	EQ(o.it_interval.tv_nsec, 10000000);
	sigset_t s = sigs(SIGUSR1, 0);
	sigprocmask(SIG_BLOCK, &s, NULL);
	msleep(120);
	sigprocmask(SIG_UNBLOCK, &s, NULL);
	CHECK(timer_getoverrun(id) >= 3);
	OK(timer_delete(id));
	ERR(timer_delete(id), EINVAL);
	ERR(timer_gettime(id, &o), EINVAL);
	ERR(timer_create(99, &e, &id), EINVAL);
	e.sigev_signo = 999;
	ERR(timer_create(CLOCK_MONOTONIC, &e, &id), EINVAL);
	e = (struct sigevent){.sigev_notify = SIGEV_NONE};
	OK(timer_create(CLOCK_REALTIME, &e, &id));
	t = (struct itimerspec){{0, 0}, {100, 0}};
	OK(timer_settime(id, 0, &t, NULL));
	OK(timer_gettime(id, &o));
	CHECK(o.it_value.tv_sec >= 98);
}

static atomic_int fired;
static void notify(union sigval v)
{
	fired += v.sival_int;
}
CASE(timer_thread)
{
	timer_t id;
	struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = notify, .sigev_value.sival_int = 3};
	OK(timer_create(CLOCK_MONOTONIC, &e, &id));
	struct itimerspec t = {{0, 0}, {0, 10000000}};
	OK(timer_settime(id, 0, &t, NULL));
	UNTIL(fired == 3);
}

CASE(timers_and_exec)
{
	EQ(reap(CHILD(alarm(1); execl("/bin/sleep", "sleep", "20", NULL))), 1000 + SIGALRM);
}
/* Whoever answers, the vDSO or the kernel, time goes forward, and both tell the same. */
CASE(one_clock)
{
	static const clockid_t ids[] = {CLOCK_MONOTONIC, CLOCK_REALTIME};
	for (int k = 0; k < 2; k++) {
		int bad = 0;
		long until = now_ms() + 300;
		while (now_ms() < until) {
			struct timespec t[3];
			clock_gettime(ids[k], &t[0]);
			syscall(SYS_clock_gettime, ids[k], &t[1]);
			clock_gettime(ids[k], &t[2]);
			for (int i = 0; i < 2; i++)
				bad += t[i + 1].tv_sec < t[i].tv_sec || (t[i + 1].tv_sec == t[i].tv_sec && t[i + 1].tv_nsec < t[i].tv_nsec);
			for (int i = 0; i < 3; i++)
				bad += t[i].tv_nsec < 0 || t[i].tv_nsec >= 1000000000;
		}
		EQ(bad, 0);
	}
	struct timespec r;
	struct timeval v;
	for (int i = 0; i < 1000; i++) {
		clock_gettime(CLOCK_REALTIME, &r);
		EQ(gettimeofday(&v, NULL), 0);
		if (v.tv_sec < r.tv_sec || v.tv_sec > r.tv_sec + 1 || v.tv_usec < 0 || v.tv_usec >= 1000000)
			EQ((long)v.tv_usec, -1);
		time_t a = time(NULL), b;
		EQ(time(&b) - a <= 1, 1);
		EQ(b >= a, 1);
	}
	ERR(clock_gettime(12345, &r), EINVAL);
}
MAIN
