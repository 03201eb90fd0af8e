/*
 * The frame every guest test program stands on: named cases, each in a process of its own,
 * printing only what must be equal natively and on every backend (no pids, addresses, times).
 *
 * A program is a list of CASE(name) { ... } bodies and ends with MAIN. `prog` runs all,
 * `prog NAME` runs one in this very process (for a debugger), `prog -l` lists them.
 * A case starts in a fresh empty directory, with default signals and SIGALRM after CASE_SECONDS.
 */
#ifndef T_H
#define T_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CASE_SECONDS
#define CASE_SECONDS 10
#endif

static struct {
	const char *name;
	void (*fn)(void);
} t_cases[128];
static int t_count;
static const char *t_name = "?";
static atomic_int t_fails;
static const char **t_argv;

static inline void t_add(const char *name, void (*fn)(void))
{
	t_cases[t_count].name = name;
	t_cases[t_count++].fn = fn;
}

#define CASE(n)                                                          \
	static void case_##n(void);                                      \
	__attribute__((constructor)) static void reg_##n(void)           \
	{                                                                \
		t_add(#n, case_##n);                                     \
	}                                                                \
	static void case_##n(void)

/* One line of output, in one write: children share the descriptor. */
__attribute__((format(printf, 1, 2), unused)) static void say(const char *fmt, ...)
{
	char b[1024];
	int n = snprintf(b, sizeof b, "%s: ", t_name);
	va_list ap;
	va_start(ap, fmt);
	n += vsnprintf(b + n, sizeof b - n - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof b - 2)
		n = sizeof b - 2;
	b[n++] = '\n';
	int e = errno;
	if (write(1, b, n) != n)
		_exit(98);
	errno = e;
}

/* Name of an error number; "0" for success. */
__attribute__((unused)) static const char *en(int e)
{
	const char *s = e ? strerrorname_np(e) : "0";
	return s ? s : "E?";
}

__attribute__((unused)) static void t_fail(const char *file, int line, const char *what, long got, int err,
					   const char *want)
{
	t_fails++;
	say("FAIL %s:%d: %s = %ld (%s), want %s", file, line, what, got, en(err), want);
}

/* The call succeeds (not -1). Yields its value. */
#define OK(e)                                                            \
	({                                                               \
		errno = 0;                                               \
		long ok_ = (long)(e);                                    \
		if (ok_ == -1)                                           \
			t_fail(__FILE__, __LINE__, #e, ok_, errno, "success"); \
		ok_;                                                     \
	})
/* As OK, but the case cannot go on without it. */
#define NEED(e)                                                          \
	({                                                               \
		errno = 0;                                               \
		long nd_ = (long)(e);                                    \
		if (nd_ == -1) {                                         \
			t_fail(__FILE__, __LINE__, #e, nd_, errno, "success"); \
			_exit(99);                                       \
		}                                                        \
		nd_;                                                     \
	})
/* The call fails with exactly this error. */
#define ERR(e, want)                                                     \
	do {                                                             \
		errno = 0;                                               \
		long er_ = (long)(e);                                    \
		int no_ = errno;                                         \
		if (er_ != -1 || no_ != (want))                          \
			t_fail(__FILE__, __LINE__, #e, er_, no_, en(want)); \
	} while (0)
/* Two integers are equal. */
#define EQ(a, b)                                                         \
	do {                                                             \
		long a_ = (long)(a);                                     \
		int no_ = errno;                                         \
		long b_ = (long)(b);                                     \
		if (a_ != b_) {                                          \
			char w_[64];                                     \
			snprintf(w_, sizeof w_, "%s = %ld", #b, b_);     \
			t_fail(__FILE__, __LINE__, #a, a_, no_, w_);     \
		}                                                        \
	} while (0)
/* A condition holds. */
#define CHECK(c)                                                         \
	do {                                                             \
		if (!(c))                                                \
			t_fail(__FILE__, __LINE__, #c, 0, errno, "true"); \
	} while (0)
/* Two strings are equal. */
#define STR(a, b)                                                        \
	do {                                                             \
		const char *sa_ = (a), *sb_ = (b);                       \
		if (strcmp(sa_, sb_)) {                                  \
			t_fails++;                                       \
			say("FAIL %s:%d: %s is \"%s\", want \"%s\"", __FILE__, __LINE__, #a, sa_, sb_); \
		}                                                        \
	} while (0)
/* Two runs of bytes are equal. */
#define MEM(a, b, n) CHECK(memcmp((a), (b), (n)) == 0)

/* Runs the statements in a child; yields its pid. The child exits 99 if a check in it failed. */
#define CHILD(...)                                                       \
	({                                                               \
		pid_t ch_ = fork();                                      \
		if (ch_ == 0) {                                          \
			t_fails = 0;                                     \
			__VA_ARGS__;                                     \
			_exit(t_fails ? 99 : 0);                         \
		}                                                        \
		if (ch_ < 0)                                             \
			t_fail(__FILE__, __LINE__, "fork", -1, errno, "success"); \
		ch_;                                                     \
	})

/* Waits for a child: its exit code, or 1000 + the signal that ended it. */
__attribute__((unused)) static int reap(pid_t p)
{
	int st;
	pid_t r;
	while ((r = waitpid(p, &st, 0)) < 0 && errno == EINTR)
		;
	if (r < 0)
		return -errno;
	return WIFSIGNALED(st) ? 1000 + WTERMSIG(st) : WIFEXITED(st) ? WEXITSTATUS(st) : -1000;
}

__attribute__((unused)) static void msleep(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};
	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

/* Monotonic milliseconds, for bounds only; never printed. */
__attribute__((unused)) static long now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Waits (at most ~4 s) until the condition holds. */
#define UNTIL(c)                                                         \
	({                                                               \
		int un_ = 0;                                             \
		while (!(c) && un_++ < 2000)                             \
			msleep(2);                                       \
		bool uok_ = un_ < 2000;                                  \
		if (!uok_)                                               \
			t_fail(__FILE__, __LINE__, "until " #c, 0, 0, "true within 4 s"); \
		uok_;                                                    \
	})

/* State letter of a process from /proc/PID/stat ('?' when it is gone). */
__attribute__((unused)) static char proc_state(pid_t p)
{
	char b[512];
	snprintf(b, sizeof b, "/proc/%d/stat", (int)p);
	int fd = open(b, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return '?';
	ssize_t n = read(fd, b, sizeof b - 1);
	close(fd);
	if (n <= 0)
		return '?';
	b[n] = 0;
	char *r = strrchr(b, ')');
	return r && r[1] == ' ' ? r[2] : '?';
}
/* Waits until a process (or thread) sleeps in a system call. */
#define ASLEEP(p) UNTIL(proc_state(p) == 'S')

/* Creates a file with this content. */
__attribute__((unused)) static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		t_fail(__FILE__, __LINE__, path, -1, errno, "written");
	close(fd);
}

/* Content of a small file; "<errno>" when it cannot be read. */
__attribute__((unused)) static const char *get(const char *path)
{
	static char b[65536];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		snprintf(b, sizeof b, "<%s>", en(errno));
		return b;
	}
	size_t n = 0;
	ssize_t r;
	while ((r = read(fd, b + n, sizeof b - 1 - n)) > 0)
		n += r;
	b[n] = 0;
	close(fd);
	return b;
}

/* Shared anonymous memory, to talk across fork. */
__attribute__((unused)) static void *shared(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		_exit(97);
	return p;
}

/* Installs a handler; returns the sigaction result. */
__attribute__((unused)) static int on(int sig, void (*h)(int), int flags)
{
	struct sigaction a = {.sa_handler = h, .sa_flags = flags};
	return sigaction(sig, &a, NULL);
}
__attribute__((unused)) static int on_info(int sig, void (*h)(int, siginfo_t *, void *), int flags)
{
	struct sigaction a = {.sa_sigaction = h, .sa_flags = flags | SA_SIGINFO};
	return sigaction(sig, &a, NULL);
}
__attribute__((unused)) static sigset_t sigs(int first, ...)
{
	sigset_t s;
	sigemptyset(&s);
	va_list ap;
	va_start(ap, first);
	for (int x = first; x; x = va_arg(ap, int))
		sigaddset(&s, x);
	va_end(ap);
	return s;
}

static void t_run(int i)
{
	t_name = t_cases[i].name;
	t_cases[i].fn();
	if (!t_fails)
		say("ok");
}

static int t_remove(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		char p[4096];
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(p, sizeof p, "%s/%s", dir, e->d_name);
		struct stat st;
		if (lstat(p, &st) == 0 && S_ISDIR(st.st_mode)) {
			chmod(p, 0700);
			t_remove(p);
		} else
			unlink(p);
	}
	if (d)
		closedir(d);
	return rmdir(dir);
}

static int t_main(int argc, char **argv)
{
	t_argv = (const char **)argv;
	if (argc > 1 && !strcmp(argv[1], "-l")) {
		for (int i = 0; i < t_count; i++)
			printf("%s\n", t_cases[i].name);
		return 0;
	}
	const char *base = getenv("T") ? getenv("T") : "/tmp";
	int bad = 0;
	for (int i = 0; i < t_count; i++) {
		if (argc > 1 && strcmp(argv[1], t_cases[i].name))
			continue;
		char dir[4096];
		snprintf(dir, sizeof dir, "%s/t.XXXXXX", base);
		if (!mkdtemp(dir) || chmod(dir, 0755) || chdir(dir)) {
			/* Most cases need none: the rest says so itself. */
			dprintf(1, "no scratch directory: %s\n", en(errno));
		}
		pid_t p = argc > 1 ? 0 : fork();
		if (p < 0) {
			printf("fork: %m\n");
			return 96;
		}
		if (p == 0) {
			setpgid(0, 0);
			alarm(CASE_SECONDS);
			t_run(i);
			if (argc > 1)
				return t_fails != 0;
			_exit(t_fails ? 1 : 0);
		}
		int st = 0;
		while (waitpid(p, &st, 0) < 0 && errno == EINTR)
			;
		kill(-p, SIGKILL);
		t_name = t_cases[i].name;
		if (WIFSIGNALED(st))
			say("FAIL killed by signal %d (%s)", WTERMSIG(st), sigabbrev_np(WTERMSIG(st)));
		else if (WEXITSTATUS(st))
			say("FAIL exit %d", WEXITSTATUS(st));
		bad += st != 0;
		if (chdir("/") || t_remove(dir))
			say("left something in its directory: %s", en(errno));
	}
	printf("%d cases, %d failed\n", t_count, bad);
	return bad != 0;
}
#define MAIN                                                             \
	int main(int argc, char **argv)                                  \
	{                                                                \
		return t_main(argc, argv);                               \
	}
#endif
