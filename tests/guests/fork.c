/* fork(2), vfork(2), _exit(2), orphans; copies of everything. */
#include "t.h"

CASE(copies_memory)
{
	static int global = 1;
	int local = 2, *heap = malloc(4);
	*heap = 3;
	pid_t p = CHILD(EQ(global, 1); EQ(local, 2); EQ(*heap, 3); global = local = *heap = 9);
	EQ(reap(p), 0);
	EQ(global + local + *heap, 6);
}

CASE(ids)
{
	pid_t me = getpid(), *seen = shared(4096);
	pid_t p = CHILD(seen[0] = getpid(); EQ(getppid(), me); EQ(getpgrp(), getpgid(me)); EQ(getsid(0), getsid(me)); EQ(gettid(), getpid()));
	EQ(reap(p), 0);
	EQ(seen[0], p);
	CHECK(p != me);
}

CASE(isolation_under_writes)
{
	/* Parent and child write the same pages at the same time; neither sees the other. */
	enum { N = 400 };
	volatile char *m = mmap(NULL, N * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < N; i++)
		m[i * 4096] = 1;
	pid_t p = CHILD(int bad = 0;
			for (int r = 0; r < 5; r++) {
				for (int i = 0; i < N; i++) m[i * 4096] = 50 + r;
				for (int i = 0; i < N; i++) bad += m[i * 4096] != 50 + r;
			}
			EQ(bad, 0));
	int bad = 0;
	for (int r = 0; r < 5; r++) {
		for (int i = N - 1; i >= 0; i--)
			m[i * 4096] = 100 + r;
		for (int i = 0; i < N; i++)
			bad += m[i * 4096] != 100 + r;
	}
	EQ(bad, 0);
	EQ(reap(p), 0);
}

CASE(generations)
{
	static volatile int v = 0;
	v = 1;
	pid_t a = CHILD(
		v = 2;
		pid_t b = CHILD(v = 3; pid_t c = CHILD(EQ(v, 3); v = 4); EQ(reap(c), 0); EQ(v, 3));
		EQ(reap(b), 0);
		EQ(v, 2));
	v = 10;
	EQ(reap(a), 0);
	EQ(v, 10);
}

CASE(exit_codes)
{
	static const int codes[] = {0, 1, 42, 127, 255};
	for (int i = 0; i < 5; i++)
		EQ(reap(CHILD(_exit(codes[i]))), codes[i]);
	EQ(reap(CHILD(_exit(256))), 0);
	EQ(reap(CHILD(_exit(-1))), 255);
	EQ(reap(CHILD(syscall(SYS_exit_group, 300))), 44);
	EQ(reap(CHILD(syscall(SYS_exit, 5))), 5);
	EQ(reap(CHILD(abort())), 1000 + SIGABRT);
}

static void bye(void)
{
	if (write(1, "atexit: ran\n", 12) != 12)
		_exit(1);
}
CASE(exit_runs_handlers)
{
	EQ(reap(CHILD(atexit(bye); exit(3))), 3);
	EQ(reap(CHILD(atexit(bye); _exit(4))), 4);
}

CASE(vforks)
{
	volatile int v = 1;
	int p[2];
	NEED(pipe(p));
	pid_t c = vfork();
	if (c == 0) {
		/* Memory is shared and the parent waits. */
		v = 2;
		_exit(7);
	}
	EQ(v, 2);
	EQ(reap(c), 7);
	c = vfork();
	if (c == 0) {
		execl("/bin/sh", "sh", "-c", "exit 6", NULL);
		_exit(1);
	}
	EQ(reap(c), 6);
	c = vfork();
	if (c == 0) {
		execl("/does/not/exist", "x", NULL);
		_exit(errno);
	}
	EQ(reap(c), ENOENT);
}

CASE(descriptors_are_copied)
{
	int p[2];
	NEED(pipe(p));
	pid_t c = CHILD(close(p[0]); EQ(write(p[1], "x", 1), 1); close(p[1]));
	close(p[1]);
	char b;
	EQ(read(p[0], &b, 1), 1);
	EQ(read(p[0], &b, 1), 0);
	EQ(reap(c), 0);
	OK(fcntl(p[0], F_GETFD));
}

CASE(pending_signals_are_not_copied)
{
	sigset_t s = sigs(SIGUSR1, 0), q;
	sigprocmask(SIG_BLOCK, &s, NULL);
	raise(SIGUSR1);
	pid_t c = CHILD(sigpending(&q); EQ(sigismember(&q, SIGUSR1), 0);
			sigprocmask(SIG_BLOCK, NULL, &q); EQ(sigismember(&q, SIGUSR1), 1));
	EQ(reap(c), 0);
	sigpending(&q);
	EQ(sigismember(&q, SIGUSR1), 1);
}

CASE(timers_are_not_copied)
{
	struct itimerval t = {{0, 0}, {100, 0}}, g;
	setitimer(ITIMER_REAL, &t, NULL);
	pid_t c = CHILD(getitimer(ITIMER_REAL, &g); EQ(g.it_value.tv_sec, 0); EQ(alarm(0), 0));
	EQ(reap(c), 0);
	getitimer(ITIMER_REAL, &g);
	CHECK(g.it_value.tv_sec > 90);
}

CASE(cpu_times_start_at_zero)
{
	for (volatile long i = 0; i < 50000000; i++)
		;
	pid_t c = CHILD(struct rusage r; getrusage(RUSAGE_SELF, &r); CHECK(r.ru_utime.tv_sec == 0 && r.ru_utime.tv_usec < 50000));
	EQ(reap(c), 0);
}

CASE(orphan_is_adopted)
{
	int p[2];
	NEED(pipe(p));
	pid_t me = getpid();
	pid_t c = CHILD(pid_t parent = getpid(); CHILD(
		UNTIL(getppid() != parent);
		char ok = getppid() != me && getppid() > 0;
		EQ(write(p[1], &ok, 1), 1)));
	EQ(reap(c), 0);
	char ok = 9;
	EQ(read(p[0], &ok, 1), 1);
	EQ(ok, 1);
	ERR(waitpid(-1, NULL, 0), ECHILD);
}

CASE(subreaper)
{
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	int v = 0;
	OK(prctl(PR_GET_CHILD_SUBREAPER, &v));
	EQ(v, 1);
	pid_t me = getpid(), *grand = shared(4096);
	pid_t c = CHILD(pid_t parent = getpid(); *grand = CHILD(UNTIL(getppid() != parent); EQ(getppid(), me); _exit(t_fails ? 99 : 33)));
	EQ(reap(c), 0);
	EQ(reap(*grand), 33);
}

CASE(parent_death_signal)
{
	int p[2];
	NEED(pipe(p));
	pid_t c = CHILD(pid_t parent = getpid(); CHILD(
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent) _exit(1);
		EQ(write(p[1], "r", 1), 1);
		pause());
		char b; EQ(read(p[0], &b, 1), 1));
	EQ(reap(c), 0);
	close(p[1]);
	char b;
	/* The grandchild's end closes the pipe. */
	EQ(read(p[0], &b, 1), 0);
}

CASE(process_limit)
{
	if (geteuid() != 0)
		return;
	pid_t c = CHILD(struct rlimit r = {0, 0}; OK(setrlimit(RLIMIT_NPROC, &r)); OK(setuid(54321)); ERR(fork(), EAGAIN));
	EQ(reap(c), 0);
}

CASE(many)
{
	pid_t p[50];
	int sum = 0;
	for (int i = 0; i < 50; i++)
		p[i] = CHILD(_exit(i));
	for (int i = 0; i < 50; i++)
		sum += reap(p[i]);
	EQ(sum, 1225);
	for (int i = 0; i < 100; i++)
		EQ(reap(CHILD(_exit(i))), i);
}

CASE(stdio_is_copied)
{
	fflush(stdout);
	printf("once");
	pid_t c = CHILD(printf(" child\n"); fflush(stdout));
	EQ(reap(c), 0);
	printf(" parent\n");
	fflush(stdout);
}

CASE(fork_in_a_deep_stack)
{
	volatile char big[200000];
	for (int i = 0; i < 200000; i += 1000)
		big[i] = i / 1000;
	pid_t c = CHILD(int bad = 0; for (int i = 0; i < 200000; i += 1000) bad += big[i] != (char)(i / 1000); EQ(bad, 0);
			for (int i = 0; i < 200000; i += 1000) big[i] = 1);
	EQ(reap(c), 0);
	int bad = 0;
	for (int i = 0; i < 200000; i += 1000)
		bad += big[i] != (char)(i / 1000);
	EQ(bad, 0);
}
MAIN
