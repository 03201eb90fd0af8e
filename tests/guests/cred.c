/* credentials(7), capabilities(7), prctl(2). */
#include "t.h"
#include <linux/capability.h>
#include <sys/fsuid.h>

static int caps(struct __user_cap_data_struct d[2])
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	return syscall(SYS_capget, &h, d);
}
static void ids(const char *when)
{
	uid_t r, e, s;
	gid_t a, b, c;
	getresuid(&r, &e, &s);
	getresgid(&a, &b, &c);
	say("%s: %d %d %d / %d %d %d", when, r, e, s, a, b, c);
}

CASE(as_root)
{
	if (geteuid() != 0)
		return;
	EQ(reap(CHILD(OK(setuid(1000)); ids("setuid"); ERR(setuid(0), EPERM); ERR(setresuid(0, -1, -1), EPERM))), 0);
	EQ(reap(CHILD(OK(seteuid(1000)); ids("seteuid"); OK(setuid(0)); ids("back"))), 0);
	EQ(reap(CHILD(OK(setresuid(1, 2, 3)); ids("setresuid"); OK(setresuid(3, 1, 2)); ids("permuted"); ERR(setresuid(4, -1, -1), EPERM);
		      OK(setuid(2)); ids("setuid saved"); OK(setreuid(-1, 3)); ids("setreuid"))), 0);
	EQ(reap(CHILD(OK(setresgid(1, 2, 3)); OK(setregid(7, 8)); ids("setregid"); OK(setgid(9)); ids("setgid"); OK(setegid(4)); ids("setegid"))), 0);
	EQ(reap(CHILD(OK(setreuid(1000, 1001)); ids("setreuid both"))), 0);
	EQ(setfsuid(-1), 0);
	EQ(reap(CHILD(EQ(setfsuid(55), 0); EQ(setfsuid(-1), 55))), 0);
	ERR(setuid(-1), EINVAL);
}

CASE(groups)
{
	if (geteuid() != 0)
		return;
	gid_t g[4] = {3, 1, 2}, got[4];
	OK(setgroups(3, g));
	EQ(getgroups(0, NULL), 3);
	EQ(getgroups(4, got), 3);
	EQ(got[0] + got[1] + got[2], 6);
	ERR(getgroups(2, got), EINVAL);
	ERR(setgroups(100000, g), EINVAL);
	EQ(reap(CHILD(OK(setuid(1000)); ERR(setgroups(0, NULL), EPERM); EQ(getgroups(4, got), 3))), 0);
}

CASE(capability_sets)
{
	struct __user_cap_data_struct d[2];
	OK(caps(d));
	if (geteuid() == 0) {
		CHECK(d[0].effective & (1 << CAP_SETUID));
		EQ(reap(CHILD(OK(setuid(1000)); OK(caps(d)); EQ(d[0].effective, 0); EQ(d[0].permitted, 0))), 0);
		EQ(reap(CHILD(OK(prctl(PR_SET_KEEPCAPS, 1)); OK(setuid(1000)); OK(caps(d)); EQ(d[0].effective, 0); CHECK(d[0].permitted != 0))), 0);
		EQ(reap(CHILD(OK(seteuid(1000)); OK(caps(d)); EQ(d[0].effective, 0); CHECK(d[0].permitted != 0); OK(seteuid(0)); OK(caps(d)); CHECK(d[0].effective != 0))), 0);
	}
	struct __user_cap_header_struct h = {0, 0};
	ERR(syscall(SYS_capget, &h, d), EINVAL);
	EQ(h.version, _LINUX_CAPABILITY_VERSION_3);
	h = (struct __user_cap_header_struct){_LINUX_CAPABILITY_VERSION_3, 1 << 22};
	ERR(syscall(SYS_capget, &h, d), ESRCH);
	h.pid = -1;
	ERR(syscall(SYS_capget, &h, d), EINVAL);
	EQ(prctl(PR_CAPBSET_READ, CAP_CHOWN), 1);
	ERR(prctl(PR_CAPBSET_READ, 999), EINVAL);
}

CASE(privilege_bounds)
{
	if (geteuid() != 0)
		return;
	put("f", "x");
	OK(chmod("f", 0600));
	EQ(reap(CHILD(OK(setuid(1000)); ERR(open("f", O_RDONLY), EACCES); ERR(chown("f", 1, 1), EPERM); ERR(chroot("."), EPERM);
		      ERR(sethostname("x", 1), EPERM); ERR(mknod("d", S_IFCHR | 0600, 0x103) == 0 ? -1 : (errno == EPERM || errno == EACCES ? (errno = EPERM, -1) : 0), EPERM);
		      ERR(setpriority(PRIO_PROCESS, 0, -5), EACCES);
		      struct rlimit r = {RLIM_INFINITY, RLIM_INFINITY}; struct rlimit o; getrlimit(RLIMIT_NOFILE, &o); r.rlim_max = o.rlim_max + 1; r.rlim_cur = 1;
		      ERR(setrlimit(RLIMIT_NOFILE, &r), EPERM))), 0);
}

CASE(prctls)
{
	char b[32] = "";
	OK(prctl(PR_SET_NAME, "a-very-long-name-indeed"));
	OK(prctl(PR_GET_NAME, b));
	STR(b, "a-very-long-nam");
	STR(get("/proc/self/comm"), "a-very-long-nam\n");
	EQ(prctl(PR_GET_DUMPABLE), 1);
	OK(prctl(PR_SET_DUMPABLE, 0));
	EQ(prctl(PR_GET_DUMPABLE), 0);
	ERR(prctl(PR_SET_DUMPABLE, 9), EINVAL);
	EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
	ERR(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
	OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	int s = 9;
	OK(prctl(PR_GET_PDEATHSIG, &s));
	EQ(s, 0);
	OK(prctl(PR_SET_PDEATHSIG, SIGUSR1));
	OK(prctl(PR_GET_PDEATHSIG, &s));
	EQ(s, SIGUSR1);
	ERR(prctl(PR_SET_PDEATHSIG, 99), EINVAL);
	EQ(prctl(PR_GET_KEEPCAPS), 0);
	EQ(prctl(PR_GET_TIMERSLACK) > 0, 1);
	ERR(prctl(99999), EINVAL);
	ERR(prctl(PR_GET_NAME, 8), EFAULT);
}

CASE(arch_prctls)
{
	unsigned long fs = 0, gs = 7;
	OK(syscall(SYS_arch_prctl, 0x1003, &fs));
	EQ(fs, (unsigned long)pthread_self());
	OK(syscall(SYS_arch_prctl, 0x1004, &gs));
	EQ(gs, 0);
	static long slot[2] = {1234, 5678};
	OK(syscall(SYS_arch_prctl, 0x1001, slot));
	long v;
	__asm__ volatile("movq %%gs:8, %0" : "=r"(v));
	EQ(v, 5678);
	OK(syscall(SYS_arch_prctl, 0x1004, &gs));
	EQ(gs, (unsigned long)slot);
	pid_t p = CHILD(__asm__ volatile("movq %%gs:0, %0" : "=r"(v)); EQ(v, 1234));
	EQ(reap(p), 0);
	ERR(syscall(SYS_arch_prctl, 0x1001, 0x8000000000000000ul), EPERM);
	ERR(syscall(SYS_arch_prctl, 0x9999, 0), EINVAL);
}
MAIN
