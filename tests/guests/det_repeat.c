/*
 * A program of one thread whose every system call and answer follows from the seed and from virtual
 * time; natively its output differs from run to run, so it has no cases. With an argument, one part.
 */
#define _GNU_SOURCE
#include <assert.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <linux/futex.h>
#include <sys/auxv.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t rings;

static void ring(int sig)
{
	(void)sig;
	rings++;
}

static void show(const char *what)
{
	static const struct {
		clockid_t id;
		const char *name;
	} clocks[] = {{CLOCK_REALTIME, "real"},
		      {CLOCK_MONOTONIC, "mono"},
		      {CLOCK_BOOTTIME, "boot"},
		      {CLOCK_MONOTONIC_COARSE, "coarse"},
		      {CLOCK_PROCESS_CPUTIME_ID, "cpu"}};
	struct timespec t;
	printf("%s:", what);
	for (size_t i = 0; i < sizeof clocks / sizeof *clocks; i++) {
		clock_gettime(clocks[i].id, &t);
		printf(" %s %ld.%09ld", clocks[i].name, (long)t.tv_sec, t.tv_nsec);
	}
	printf("\n");
}

static void bytes(const char *what, const void *at, int n)
{
	printf("%s:", what);
	for (int i = 0; i < n; i++)
		printf(" %02x", ((const unsigned char *)at)[i]);
	printf("\n");
}

static void randomness(void)
{
	unsigned char b[16];
	bytes("AT_RANDOM", (void *)getauxval(AT_RANDOM), 16);
	if (getrandom(b, sizeof b, 0) == sizeof b)
		bytes("getrandom", b, sizeof b);
	int fd = open("/dev/urandom", O_RDONLY);
	if (read(fd, b, sizeof b) == sizeof b)
		bytes("urandom", b, sizeof b);
	close(fd);
	char id[40] = "";
	fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY);
	if (read(fd, id, 36) == 36)
		printf("boot_id: %s\n", id);
	close(fd);
	void *map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	printf("mmap %p stack %p brk %p\n", map, (void *)&map, sbrk(0));
}

static void sleeps(void)
{
	show("start");
	sleep(1000);
	show("after sleep");
	struct timespec at;
	clock_gettime(CLOCK_REALTIME, &at);
	at.tv_sec += 86400;
	clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &at, NULL);
	show("after a day");
	struct pollfd none = {.fd = -1};
	printf("poll %d\n", poll(&none, 1, 5000));
	struct timeval tv = {60, 0};
	printf("select %d\n", select(0, NULL, NULL, NULL, &tv));
	int ep = epoll_create1(0);
	struct epoll_event ev;
	printf("epoll %d\n", epoll_wait(ep, &ev, 1, 70000));
	close(ep);
	static uint32_t word;
	struct timespec limit = {80, 0};
	printf("futex %ld\n", syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &limit, NULL, 0));
	show("after time-outs");
}

static void timers(void)
{
	struct sigaction act = {.sa_handler = ring};
	sigaction(SIGALRM, &act, NULL);
	alarm(3600);
	pause();
	printf("alarm %d, left %u\n", (int)rings, alarm(0));
	show("after alarm");

	struct itimerval it = {{10, 0}, {20, 0}};
	setitimer(ITIMER_REAL, &it, NULL);
	while (rings < 4)
		pause();
	memset(&it, 0, sizeof it);
	setitimer(ITIMER_REAL, &it, NULL);
	show("after itimer");

	timer_t timer;
	struct sigevent se = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
	struct itimerspec its = {{0, 0}, {7200, 0}};
	assert(timer_create(CLOCK_MONOTONIC, &se, &timer) == 0);
	timer_settime(timer, 0, &its, NULL);
	pause();
	timer_delete(timer);
	show("after POSIX timer");

	int fd = timerfd_create(CLOCK_REALTIME, 0);
	struct itimerspec tick = {{5, 0}, {5, 0}};
	uint64_t n = 0;
	timerfd_settime(fd, 0, &tick, NULL);
	sleep(21);
	if (read(fd, &n, sizeof n) == sizeof n)
		printf("timerfd %lu\n", (unsigned long)n);
	close(fd);
	show("after timerfd");

	/* A signal that comes of what calls take themselves. */
	struct itimerval soon = {{0, 0}, {0, 40}};
	int before = rings, calls = 0;
	setitimer(ITIMER_REAL, &soon, NULL);
	while (rings == before)
		calls += syscall(SYS_getuid) < 10000000, syscall(SYS_sched_yield);
	printf("met after %d turns\n", calls);

	/* CPU time is what calls take, and those who wait use none. */
	sigaction(SIGPROF, &act, NULL);
	struct itimerval prof = {{0, 0}, {0, 500}};
	before = rings;
	setitimer(ITIMER_PROF, &prof, NULL);
	sleep(30);
	printf("asleep: %d\n", rings - before);
	for (calls = 0; rings == before; calls++)
		syscall(SYS_sched_yield);
	printf("SIGPROF after %d calls\n", calls);
	struct timespec until = {1000, 0}, t;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec = until.tv_nsec < 999000000 ? until.tv_nsec + 500000 : until.tv_nsec;
	calls = 0;
	do {
		clock_gettime(CLOCK_MONOTONIC, &t);
		calls++;
	} while (t.tv_sec == until.tv_sec && t.tv_nsec < until.tv_nsec);
	printf("polled the clock %d times\n", calls);
}

static void files(void)
{
	struct stat st;
	int fd = open("/tmp/file", O_CREAT | O_RDWR, 0644);
	fstat(fd, &st);
	printf("made %ld.%09ld\n", (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	sleep(10);
	if (write(fd, "x", 1) == 1 && fstat(fd, &st) == 0)
		printf("written %ld.%09ld ino %lu\n", (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (unsigned long)st.st_ino);
	close(fd);
	for (fd = 0; fd < 3; fd++) {
		fstat(fd, &st);
		printf("stream %d: %lu %ld %ld\n", fd, (unsigned long)st.st_ino, (long)st.st_mtim.tv_sec, (long)st.st_atim.tv_sec);
	}
	stat("/proc/self/exe", &st);
	printf("program read %ld, written %ld\n", (long)st.st_atim.tv_sec, (long)st.st_mtim.tv_sec);
}

static void children(void)
{
	for (int i = 0; i < 3; i++) {
		pid_t pid = fork();
		if (pid == 0)
			_exit(i + 3);
		int status = 0;
		pid_t got = waitpid(pid, &status, 0);
		printf("child %d ended %d with %d\n", pid, got == pid, WEXITSTATUS(status));
	}
	struct rusage self;
	getrusage(RUSAGE_SELF, &self);
	printf("used %ld.%06ld\n", (long)self.ru_utime.tv_sec, (long)self.ru_utime.tv_usec);
	show("after children");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} parts[] = {{"randomness", randomness}, {"sleeps", sleeps}, {"timers", timers}, {"files", files}, {"children", children}};
	setvbuf(stdout, NULL, _IOLBF, 4096);
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		if (argc < 2 || !strcmp(argv[1], parts[i].name))
			parts[i].fn();
	return 0;
}
