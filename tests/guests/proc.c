/* proc(5), sysfs: what real programs read. Shapes are compared, machine-dependent values are not. */
#include "t.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static bool has(const char *file, const char *text)
{
	bool found = strstr(get(file), text) != NULL;
	if (!found)
		say("%s lacks %s", file, text);
	return found;
}

CASE(self)
{
	char b[4096], exe[64], me[16];
	ssize_t n = OK(readlink("/proc/self", b, sizeof b - 1));
	b[n] = 0;
	snprintf(me, sizeof me, "%d", getpid());
	STR(b, me);
	n = OK(readlink("/proc/self/cwd", b, sizeof b - 1));
	b[n] = 0;
	char cwd[4096];
	STR(b, getcwd(cwd, sizeof cwd));
	n = OK(readlink("/proc/self/exe", b, sizeof b - 1));
	b[n] = 0;
	say("exe %s", strrchr(b, '/'));
	n = OK(readlink("/proc/self/root", b, sizeof b - 1));
	b[n] = 0;
	STR(b, "/");
	snprintf(exe, sizeof exe, "/proc/%d/comm", getpid());
	STR(get(exe), get("/proc/self/comm"));
	n = OK(readlink("/proc/thread-self", b, sizeof b - 1));
	CHECK(n > 0);
	ERR(readlink("/proc/999999999/exe", b, 10), ENOENT);
}

CASE(cmdline_and_environ)
{
	int fd = NEED(open("/proc/self/cmdline", O_RDONLY));
	char b[4096];
	ssize_t n = read(fd, b, sizeof b);
	EQ(n, strlen(t_argv[0]) + 1);
	STR(b, t_argv[0]);
	CHECK(memmem(b, 4096, "", 0) != NULL);
	fd = NEED(open("/proc/self/environ", O_RDONLY));
	n = read(fd, b, sizeof b);
	CHECK(n > 0 && memmem(b, n, "PATH=", 5));
}

CASE(fds)
{
	int a = NEED(open("/dev/null", O_RDONLY));
	DIR *d = opendir("/proc/self/fd");
	CHECK(d != NULL);
	int n = 0, saw = 0;
	struct dirent *e;
	while (d && (e = readdir(d))) {
		n += e->d_name[0] != '.';
		saw += atoi(e->d_name) == a;
	}
	CHECK(n >= 4);
	EQ(saw, 1);
	char p[64], b[64];
	snprintf(p, 64, "/proc/self/fd/%d", a);
	ssize_t k = OK(readlink(p, b, 63));
	b[k] = 0;
	STR(b, "/dev/null");
	int q[2];
	NEED(pipe(q));
	snprintf(p, 64, "/proc/self/fd/%d", q[0]);
	k = OK(readlink(p, b, 63));
	b[k] = 0;
	CHECK(!strncmp(b, "pipe:[", 6));
	snprintf(p, 64, "/proc/self/fdinfo/%d", a);
	CHECK(has(p, "pos:"));
	CHECK(has(p, "flags:"));
}

CASE(maps)
{
	static const char *want[] = {"[stack]", "[heap]", "[vdso]", "r-xp", "rw-p"};
	sbrk(4096);
	for (int i = 0; i < 5; i++)
		CHECK(has("/proc/self/maps", want[i]));
	char *p = mmap(NULL, 3 * 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0), line[64];
	snprintf(line, sizeof line, "%lx-%lx r--s", (long)p, (long)p + 3 * 4096);
	CHECK(strstr(get("/proc/self/maps"), line) != NULL);
	OK(munmap(p, 3 * 4096));
	CHECK(strstr(get("/proc/self/maps"), line) == NULL);
}

CASE(status_and_stat)
{
	static const char *keys[] = {"Name:\t", "State:\tR", "Tgid:\t", "Pid:\t", "PPid:\t", "TracerPid:\t0", "Uid:\t", "Gid:\t", "FDSize:\t",
				     "Groups:\t", "VmSize:\t", "VmRSS:\t", "Threads:\t1", "SigBlk:\t", "SigCgt:\t", "CapEff:\t", "Cpus_allowed"};
	for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++)
		CHECK(has("/proc/self/status", keys[i]));
	int pid, ppid, pgrp, sid;
	char comm[64], st;
	EQ(sscanf(get("/proc/self/stat"), "%d (%63[^)]) %c %d %d %d", &pid, comm, &st, &ppid, &pgrp, &sid), 6);
	EQ(pid, getpid());
	EQ(ppid, getppid());
	EQ(pgrp, getpgrp());
	EQ(sid, getsid(0));
	EQ(st, 'R');
	int fields = 0;
	for (const char *s = strrchr(get("/proc/self/stat"), ')'); *s; s++)
		fields += *s == ' ';
	say("%d fields after the name", fields);
	long size;
	EQ(sscanf(get("/proc/self/statm"), "%ld", &size), 1);
	CHECK(size > 0);
	CHECK(has("/proc/self/limits", "Max open files"));
	CHECK(has("/proc/self/mounts", " /proc proc "));
	CHECK(has("/proc/self/mountinfo", " /proc "));
	CHECK(has("/proc/self/cgroup", "") || 1);
}

CASE(oom_score_adj)
{
	STR(get("/proc/self/oom_score_adj"), "0\n");
	put("/proc/self/oom_score_adj", "500");
	STR(get("/proc/self/oom_score_adj"), "500\n");
	int fd = NEED(open("/proc/self/oom_score_adj", O_WRONLY));
	ERR(write(fd, "2000", 4), EINVAL);
	ERR(write(fd, "x", 1), EINVAL);
}

CASE(machine)
{
	static const char *mem[] = {"MemTotal:", "MemFree:", "MemAvailable:", "Buffers:", "Cached:", "SwapTotal:", "Shmem:"};
	for (int i = 0; i < 7; i++)
		CHECK(has("/proc/meminfo", mem[i]));
	CHECK(has("/proc/cpuinfo", "processor\t: 0"));
	CHECK(has("/proc/cpuinfo", "flags\t\t:"));
	CHECK(has("/proc/stat", "cpu0 "));
	CHECK(has("/proc/stat", "btime "));
	CHECK(has("/proc/version", "Linux version"));
	double a, b;
	EQ(sscanf(get("/proc/uptime"), "%lf %lf", &a, &b), 2);
	EQ(sscanf(get("/proc/loadavg"), "%lf %lf", &a, &b), 2);
	CHECK(has("/proc/filesystems", "tmpfs"));
	CHECK(get("/sys/devices/system/cpu/online")[0] == '0');
	CHECK(atoi(get("/proc/sys/kernel/pid_max")) >= 32768);
	STR(get("/proc/sys/kernel/ostype"), "Linux\n");
	CHECK(get("/proc/sys/kernel/osrelease")[0] >= '4');
	CHECK(strlen(get("/proc/sys/kernel/hostname")) > 1);
	CHECK(strlen(get("/proc/sys/kernel/random/uuid")) == 37);
	CHECK(get("/proc/sys/vm/overcommit_memory")[0] != '<');
	CHECK(atoi(get("/proc/sys/fs/pipe-max-size")) >= 65536);
	CHECK(get("/proc/sys/kernel/cap_last_cap")[0] >= '3');
}

CASE(tasks)
{
	DIR *d = opendir("/proc/self/task");
	int n = 0;
	struct dirent *e;
	while (d && (e = readdir(d)))
		n += e->d_name[0] != '.';
	EQ(n, 1);
	pid_t p = CHILD(pause());
	ASLEEP(p);
	char b[64];
	snprintf(b, 64, "/proc/%d/status", p);
	CHECK(has(b, "State:\tS"));
	d = opendir("/proc");
	n = 0;
	while (d && (e = readdir(d)))
		n += atoi(e->d_name) == p;
	EQ(n, 1);
	kill(p, SIGKILL);
	EQ(reap(p), 1000 + SIGKILL);
	ERR(open(b, O_RDONLY), ENOENT);
}

CASE(read_only)
{
	ERR(open("/proc/new", O_CREAT | O_RDWR, 0600), ENOENT);
	ERR(mkdir("/proc/new", 0700) == -1 && (errno == ENOENT || errno == EPERM || errno == EROFS) ? (errno = ENOENT, -1) : 0, ENOENT);
	ERR(open("/proc/self/nope", O_RDONLY), ENOENT);
}

CASE(writable)
{
	put("/proc/self/comm", "another-name-that-is-cut");
	STR(get("/proc/self/comm"), "another-name-th\n");
	char b[32] = "";
	prctl(PR_GET_NAME, b);
	STR(b, "another-name-th");
	pid_t p = CHILD(pause());
	ASLEEP(p);
	char f[64];
	snprintf(f, 64, "/proc/%d/comm", p);
	int fd = NEED(open(f, O_WRONLY));
	ERR(write(fd, "x", 1), EINVAL);
	/* Set for the child alone, and inherited by its own. */
	snprintf(f, 64, "/proc/%d/oom_score_adj", p);
	put(f, "300");
	STR(get(f), "300\n");
	put("/proc/self/oom_score_adj", "200");
	pid_t k = CHILD(STR(get("/proc/self/oom_score_adj"), "200\n"));
	EQ(reap(k), 0);
	EQ(reap(CHILD(NEED(setuid(12345)); prctl(PR_SET_DUMPABLE, 1); int o = NEED(open("/proc/self/oom_score_adj", O_WRONLY)); ERR(write(o, "-500", 4), EACCES);
		      OK(write(o, "201", 3)))),
	   0);
	kill(p, SIGKILL);
	reap(p);
	put("/proc/self/coredump_filter", "0x23");
	STR(get("/proc/self/coredump_filter"), "00000023\n");
	fd = NEED(open("/proc/self/status", O_RDONLY));
	ERR(write(fd, "x", 1), EBADF);
}

CASE(zombies_and_stops)
{
	pid_t p = CHILD(_exit(3));
	char b[64], f[64];
	siginfo_t si;
	OK(waitid(P_PID, p, &si, WEXITED | WNOWAIT));
	snprintf(f, 64, "/proc/%d/status", p);
	CHECK(has(f, "State:\tZ (zombie)"));
	snprintf(f, 64, "/proc/%d/cmdline", p);
	STR(get(f), "");
	snprintf(f, 64, "/proc/%d/maps", p);
	STR(get(f), "");
	snprintf(f, 64, "/proc/%d/exe", p);
	ERR(readlink(f, b, 64), ENOENT);
	snprintf(f, 64, "/proc/%d/stat", p);
	int fd = NEED(open(f, O_RDONLY));
	EQ(reap(p), 3);
	ERR(read(fd, b, 64), ESRCH);
	p = CHILD(pause());
	ASLEEP(p);
	kill(p, SIGSTOP);
	int st;
	EQ(waitpid(p, &st, WUNTRACED), p);
	snprintf(f, 64, "/proc/%d/status", p);
	CHECK(has(f, "State:\tT (stopped)"));
	kill(p, SIGKILL);
	reap(p);
}

CASE(reopened)
{
	int q[2];
	NEED(pipe(q));
	char p[64], b[64] = "";
	snprintf(p, 64, "/proc/self/fd/%d", q[1]);
	int w = NEED(open(p, O_WRONLY));
	EQ(write(w, "through", 7), 7);
	EQ(read(q[0], b, 64), 7);
	STR(b, "through");
	snprintf(p, 64, "/dev/fd/%d", q[0]);
	int r = NEED(open(p, O_RDONLY | O_NONBLOCK));
	ERR(read(r, b, 64), EAGAIN);
	int s = NEED(socket(AF_UNIX, SOCK_STREAM, 0));
	snprintf(p, 64, "/proc/self/fd/%d", s);
	ERR(open(p, O_RDWR), ENXIO);
	int t = NEED(open("t", O_CREAT | O_RDWR, 0600));
	EQ(write(t, "kept", 4), 4);
	OK(unlink("t"));
	snprintf(p, 64, "/proc/self/fd/%d", t);
	ssize_t n = OK(readlink(p, b, 63));
	b[n] = 0;
	CHECK(n > 10 && !strcmp(b + n - 12, "/t (deleted)"));
	int u = NEED(open(p, O_RDONLY));
	memset(b, 0, 64);
	EQ(read(u, b, 64), 4);
	STR(b, "kept");
	struct stat x, y;
	OK(fstat(t, &x));
	OK(stat(p, &y));
	EQ(x.st_ino == y.st_ino, 1);
	OK(lstat(p, &y));
	EQ(y.st_mode, S_IFLNK | 0700);
	EQ(y.st_size, 64);
}

CASE(fdinfo)
{
	char p[64];
	int e = NEED(eventfd(5, EFD_SEMAPHORE | EFD_CLOEXEC));
	snprintf(p, 64, "/proc/self/fdinfo/%d", e);
	CHECK(has(p, "eventfd-count:                5"));
	CHECK(has(p, "flags:\t02000002"));
	int f = NEED(open("/dev/null", O_RDONLY | O_APPEND));
	lseek(f, 0, SEEK_SET);
	snprintf(p, 64, "/proc/self/fdinfo/%d", f);
	CHECK(has(p, "pos:\t0\nflags:\t0102000\nmnt_id:\t"));
	ERR(open("/proc/self/fdinfo/999", O_RDONLY), ENOENT);
	sigset_t s = sigs(SIGUSR1, 0);
	int sf = NEED(signalfd(-1, &s, 0));
	snprintf(p, 64, "/proc/self/fdinfo/%d", sf);
	CHECK(has(p, "sigmask:\t0000000000000200"));
	int tf = NEED(timerfd_create(CLOCK_MONOTONIC, 0));
	snprintf(p, 64, "/proc/self/fdinfo/%d", tf);
	CHECK(has(p, "clockid: 1\nticks: 0\nsettime flags: 00\nit_value: (0, 0)\nit_interval: (0, 0)\n"));
	int ep = NEED(epoll_create1(0));
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 0xabc};
	OK(epoll_ctl(ep, EPOLL_CTL_ADD, e, &ev));
	snprintf(p, 64, "/proc/self/fdinfo/%d", ep);
	CHECK(has(p, "events:       19 data:              abc"));
}

CASE(memory)
{
	static char word[] = "a word in memory";
	int m = NEED(open("/proc/self/mem", O_RDWR));
	char b[64] = "";
	EQ(pread(m, b, sizeof word, (off_t)word), sizeof word);
	STR(b, "a word in memory");
	EQ(pwrite(m, "A", 1, (off_t)word), 1);
	STR(word, "A word in memory");
	ERR(pread(m, b, 1, 8), EIO);
	int g = NEED(open("/proc/self/pagemap", O_RDONLY));
	uint64_t e;
	EQ(pread(g, &e, 8, (off_t)word / 4096 * 8), 8);
	CHECK(e >> 63);
	ERR(pread(g, &e, 8, 3), EINVAL);
	unsigned long aux[2];
	EQ(read(NEED(open("/proc/self/auxv", O_RDONLY)), aux, 16), 16);
	CHECK(has("/proc/self/smaps", "Rss: "));
	CHECK(has("/proc/self/smaps", "VmFlags: rd"));
	CHECK(has("/proc/self/smaps_rollup", "[rollup]"));
	OK(mkdir("d", 0700));
	/* Others may not look. */
	EQ(reap(CHILD(char f[64]; pid_t up = getppid(); NEED(setuid(12345));
		      snprintf(f, 64, "/proc/%d/environ", up); ERR(open(f, O_RDONLY), EACCES);
		      snprintf(f, 64, "/proc/%d/mem", up); ERR(open(f, O_RDONLY), EACCES);
		      snprintf(f, 64, "/proc/%d/maps", up); ERR(open(f, O_RDONLY), EACCES);
		      snprintf(f, 64, "/proc/%d/exe", up); ERR(readlink(f, b, 64), EACCES);
		      snprintf(f, 64, "/proc/%d/fd", up); ERR(open(f, O_RDONLY), EACCES);
		      snprintf(f, 64, "/proc/%d/cmdline", up); OK(open(f, O_RDONLY));
		      snprintf(f, 64, "/proc/%d/status", up); CHECK(has(f, "Uid:\t0")))),
	   0);
}

static void *in_thread(void *x)
{
	char b[64];
	prctl(PR_SET_NAME, "second");
	ssize_t n = readlink("/proc/thread-self", b, 63);
	b[n > 0 ? n : 0] = 0;
	snprintf(x, 64, "%d/task/%ld", getpid(), (long)syscall(SYS_gettid));
	STR(b, (char *)x);
	STR(get("/proc/thread-self/comm"), "second\n");
	CHECK(has("/proc/self/status", "Threads:\t2"));
	CHECK(has("/proc/thread-self/status", "Name:\tsecond"));
	return NULL;
}
CASE(threads)
{
	pthread_t t;
	char b[64];
	NEED(pthread_create(&t, NULL, in_thread, b) == 0 ? 0 : -1);
	pthread_join(t, NULL);
	/* It is joined a little before it is gone. */
	UNTIL(strstr(get("/proc/self/status"), "Threads:\t1\n"));
	char f[64];
	pid_t p = CHILD(pause());
	snprintf(f, 64, "/proc/self/task/%d/children", getpid());
	snprintf(b, 64, "%d ", p);
	CHECK(has(f, b));
	kill(p, SIGKILL);
	reap(p);
}

CASE(sysctls)
{
	ERR(write(NEED(open("/proc/sys/kernel/core_uses_pid", O_WRONLY)), "x\n", 2), EINVAL);
	CHECK(has("/proc/sys/net/ipv4/ip_local_port_range", "\t"));
	STR(get("/proc/sys/kernel/ngroups_max"), "65536\n");
	CHECK(has("/proc/sys/kernel/seccomp/actions_avail", "kill_process"));
	char one[64], two[64];
	strcpy(one, get("/proc/sys/kernel/random/boot_id"));
	strcpy(two, get("/proc/sys/kernel/random/boot_id"));
	STR(one, two);
	strcpy(one, get("/proc/sys/kernel/random/uuid"));
	strcpy(two, get("/proc/sys/kernel/random/uuid"));
	CHECK(strcmp(one, two) != 0);
	ERR(mkdir("/proc/sys/kernel/new", 0755) == -1 ? (errno = ENOENT, -1) : 0, ENOENT);
	CHECK(has("/proc/net/dev", "lo:"));
	CHECK(has("/proc/net/if_inet6", "lo"));
	CHECK(get("/sys/devices/system/node/online")[0] == '0');
	CHECK(has("/sys/class/net/lo/mtu", "65536"));
	CHECK(has("/sys/devices/system/cpu/cpu0/topology/core_id", "\n"));
}

CASE(one_moment)
{
	/* A text is made again when it is read from its start. */
	int fd = NEED(open("/proc/self/status", O_RDONLY));
	static char b[8192];
	CHECK(read(fd, b, sizeof b - 1) > 0);
	prctl(PR_SET_NAME, "renamed");
	OK(lseek(fd, 0, SEEK_SET));
	memset(b, 0, sizeof b);
	CHECK(read(fd, b, sizeof b - 1) > 0);
	CHECK(!strncmp(b, "Name:\trenamed\n", 14));
}
MAIN
