/* proc(5), sysfs: what real programs read. Shapes are compared, machine-dependent values are not. */
#include "t.h"

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
MAIN
