/* getrlimit(2), getrusage(2), times(2), sysinfo(2), uname(2), sched_*(2), getcpu(2), getpriority(2), getrandom(2). */
#include "t.h"
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/utsname.h>

CASE(limits)
{
	struct rlimit r, n;
	for (int i = 0; i < 16; i++) {
		OK(getrlimit(i, &r));
		CHECK(r.rlim_cur <= r.rlim_max);
	}
	ERR(getrlimit(16, &r), EINVAL);
	OK(getrlimit(RLIMIT_NOFILE, &r));
	n = (struct rlimit){100, r.rlim_max};
	OK(setrlimit(RLIMIT_NOFILE, &n));
	pid_t p = CHILD(OK(getrlimit(RLIMIT_NOFILE, &r)); EQ(r.rlim_cur, 100));
	EQ(reap(p), 0);
	n.rlim_cur = n.rlim_max + 1;
	if (n.rlim_max != RLIM_INFINITY)
		ERR(setrlimit(RLIMIT_NOFILE, &n), EINVAL);
	OK(prlimit(0, RLIMIT_CORE, &(struct rlimit){0, 0}, &n));
	OK(prlimit(getpid(), RLIMIT_CORE, NULL, &n));
	EQ(n.rlim_max, 0);
	ERR(prlimit(1 << 22, RLIMIT_CORE, NULL, &n), ESRCH);
	ERR(getrlimit(RLIMIT_CORE, (void *)8), EFAULT);
}

CASE(cpu_limit)
{
	pid_t p = CHILD(setrlimit(RLIMIT_CPU, &(struct rlimit){1, 2}); for (;;));
	EQ(reap(p), 1000 + SIGXCPU);
}

CASE(usage)
{
	struct rusage u;
	OK(getrusage(RUSAGE_SELF, &u));
	OK(getrusage(RUSAGE_CHILDREN, &u));
	OK(getrusage(RUSAGE_THREAD, &u));
	ERR(getrusage(99, &u), EINVAL);
	struct tms t;
	CHECK(times(&t) != -1);
	EQ(t.tms_cutime, 0);
}

CASE(system)
{
	struct sysinfo i;
	OK(sysinfo(&i));
	CHECK(i.totalram > 0 && i.freeram <= i.totalram && i.mem_unit >= 1 && i.procs >= 1);
	struct utsname u;
	OK(uname(&u));
	STR(u.sysname, "Linux");
	STR(u.machine, "x86_64");
	CHECK(u.release[0] >= '4');
	CHECK(u.nodename[0] != 0);
	ERR(sysinfo((void *)8), EFAULT);
	EQ(sysconf(_SC_PAGESIZE), 4096);
	EQ(sysconf(_SC_CLK_TCK), 100);
	CHECK(sysconf(_SC_NPROCESSORS_ONLN) >= 1);
}

/* Process 1 is there to be asked about, whoever it is. */
CASE(process_one)
{
	struct sched_param sp;
	struct rlimit r;
	unsigned long mask[16];
	uint32_t head[2] = {0x20080522, 1}, sets[6];
	CHECK(sched_getscheduler(1) >= 0);
	OK(sched_getparam(1, &sp));
	CHECK(syscall(SYS_sched_getaffinity, 1, sizeof mask, mask) > 0);
	errno = 0;
	getpriority(PRIO_PROCESS, 1);
	EQ(errno, 0);
	OK(syscall(SYS_capget, head, sets));
	OK(prlimit(1, RLIMIT_NOFILE, NULL, &r));
	OK(syscall(SYS_tkill, 1, 0));
	OK(syscall(SYS_tgkill, 1, 1, 0));
	pid_t c = CHILD({
		OK(setresuid(65534, 65534, 65534));
		sp.sched_priority = 0;
		ERR(sched_setscheduler(1, SCHED_OTHER, &sp), EPERM);
		ERR(setpriority(PRIO_PROCESS, 1, 5), EPERM);
		ERR(prlimit(1, RLIMIT_NOFILE, NULL, &r), EPERM);
		ERR(syscall(SYS_tkill, 1, SIGKILL), EPERM);
		ERR(syscall(SYS_ioprio_set, 1, 1, 2 << 13 | 4), EPERM);
	});
	EQ(reap(c), 0);
	/* No process has a negative id. */
	ERR(syscall(SYS_sched_getaffinity, -1, sizeof mask, mask), ESRCH);
	mask[0] = 1;
	ERR(syscall(SYS_sched_setaffinity, -1, sizeof mask, mask), ESRCH);
	ERR(sched_getscheduler(-1), EINVAL);
	ERR(setpgid(-1, 0), EINVAL);
}

CASE(io_priority)
{
	const int process = 1, group = 2;
	const int rt = 1 << 13, be = 2 << 13, idle = 3 << 13;
	EQ(syscall(SYS_ioprio_get, process, 0), 0);
	/* Without one of its own, a task's follows from its nice value. */
	OK(setpgid(0, 0));
	EQ(syscall(SYS_ioprio_get, group, 0), be | 4);
	OK(syscall(SYS_ioprio_set, process, 0, be | 6));
	EQ(syscall(SYS_ioprio_get, process, getpid()), be | 6);
	pid_t c = CHILD(EQ(syscall(SYS_ioprio_get, process, 0), be | 6));
	EQ(reap(c), 0);
	OK(syscall(SYS_ioprio_set, group, 0, idle));
	EQ(syscall(SYS_ioprio_get, process, 0), idle);
	OK(syscall(SYS_ioprio_set, process, 0, rt | 2));
	EQ(syscall(SYS_ioprio_get, process, 0), rt | 2);
	ERR(syscall(SYS_ioprio_set, process, 0, 7), EINVAL);
	ERR(syscall(SYS_ioprio_set, process, 0, 5 << 13), EINVAL);
	ERR(syscall(SYS_ioprio_set, 9, 0, be), EINVAL);
	ERR(syscall(SYS_ioprio_get, 9, 0), EINVAL);
	ERR(syscall(SYS_ioprio_get, process, 0x3fffff), ESRCH);
	OK(syscall(SYS_ioprio_set, process, 0, 0));
	c = CHILD({
		OK(setresuid(65534, 65534, 65534));
		ERR(syscall(SYS_ioprio_set, process, 0, rt), EPERM);
		OK(syscall(SYS_ioprio_set, process, 0, idle));
	});
	EQ(reap(c), 0);
}

CASE(scheduling)
{
	cpu_set_t s;
	CPU_ZERO(&s);
	OK(sched_getaffinity(0, sizeof s, &s));
	CHECK(CPU_COUNT(&s) >= 1);
	ERR(syscall(SYS_sched_getaffinity, 0, 1, &s), EINVAL);
	OK(sched_setaffinity(0, sizeof s, &s));
	cpu_set_t none;
	CPU_ZERO(&none);
	ERR(sched_setaffinity(0, sizeof none, &none), EINVAL);
	unsigned c, n;
	OK(syscall(SYS_getcpu, &c, &n, NULL));
	CHECK(CPU_ISSET(c, &s));
	OK(sched_yield());
	EQ(sched_getscheduler(0), SCHED_OTHER);
	struct sched_param p;
	OK(sched_getparam(0, &p));
	EQ(p.sched_priority, 0);
	EQ(sched_get_priority_max(SCHED_FIFO), 99);
	EQ(sched_get_priority_min(SCHED_OTHER), 0);
	ERR(sched_get_priority_max(99), EINVAL);
	ERR(sched_getscheduler(-1), EINVAL);
	ERR(sched_getscheduler(1 << 22), ESRCH);
}

CASE(niceness)
{
	errno = 0;
	EQ(getpriority(PRIO_PROCESS, 0), 0);
	OK(setpriority(PRIO_PROCESS, 0, 5));
	EQ(getpriority(PRIO_PROCESS, 0), 5);
	OK(setpriority(PRIO_PROCESS, 0, 100));
	EQ(getpriority(PRIO_PROCESS, 0), 19);
	pid_t p = CHILD(EQ(getpriority(PRIO_PROCESS, 0), 19));
	EQ(reap(p), 0);
	ERR(getpriority(99, 0), EINVAL);
	ERR(getpriority(PRIO_PROCESS, 1 << 22), ESRCH);
}

CASE(randomness)
{
	char a[64] = {0}, b[64] = {0};
	EQ(getrandom(a, 64, 0), 64);
	EQ(getrandom(b, 64, GRND_NONBLOCK), 64);
	CHECK(memcmp(a, b, 64) != 0);
	EQ(getrandom(a, 0, 0), 0);
	ERR(getrandom(a, 1, 99), EINVAL);
	ERR(getrandom((void *)8, 1, 0), EFAULT);
	static char big[100000];
	EQ(getrandom(big, sizeof big, 0), 100000);
	EQ(getrandom(a, 10, GRND_RANDOM), 10);
}

CASE(host_name)
{
	char b[65];
	OK(gethostname(b, sizeof b));
	struct utsname u;
	uname(&u);
	STR(b, u.nodename);
}
MAIN
