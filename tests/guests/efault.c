/* Bad pointers: EFAULT and nothing worse. Unknown calls: ENOSYS. */
#include "t.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static void *const bad[] = {NULL, (void *)8, (void *)0x7ffffffff000, (void *)0xffff800000000000, (void *)-4096l, (void *)-1l};

CASE(output_structures)
{
	int p[2], wrong = 0;
	NEED(pipe(p));
	static const int calls[] = {SYS_uname, SYS_sysinfo, SYS_pipe, SYS_times};
	for (int i = 1; i < 6; i++) {
		for (unsigned k = 0; k < 4; k++)
			wrong += syscall(calls[k], bad[i]) != -1 || errno != EFAULT;
		wrong += syscall(SYS_fstat, p[0], bad[i]) != -1 || errno != EFAULT;
		wrong += syscall(SYS_stat, "/", bad[i]) != -1 || errno != EFAULT;
		wrong += syscall(SYS_getrlimit, 0, bad[i]) != -1 || errno != EFAULT;
		wrong += syscall(SYS_getrusage, 0, bad[i]) != -1 || errno != EFAULT;
		wrong += syscall(SYS_clock_gettime, 1, bad[i]) != -1 || errno != EFAULT;
		wrong += syscall(SYS_getcwd, bad[i], 100) != -1 || errno != EFAULT;
		wrong += syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, bad[i]) != -1 || errno != EFAULT;
		wrong += syscall(SYS_nanosleep, bad[i], NULL) != -1 || errno != EFAULT;
		wrong += syscall(SYS_rt_sigaction, SIGUSR1, bad[i], NULL, 8) != -1 || errno != EFAULT;
		wrong += syscall(SYS_futex, (long)bad[i] & ~3l, 0, 0, NULL, NULL, 0) != -1 || (errno != EFAULT);
		wrong += syscall(SYS_poll, bad[i], 1, 0) != -1 || errno != EFAULT;
		wrong += syscall(SYS_getrandom, bad[i], 8, 0) != -1 || errno != EFAULT;
	}
	EQ(wrong, 0);
}

CASE(paths)
{
	int wrong = 0;
	static const int calls[] = {SYS_open, SYS_mkdir, SYS_rmdir, SYS_unlink, SYS_chdir, SYS_chmod, SYS_access, SYS_truncate, SYS_readlink, SYS_stat};
	for (int i = 0; i < 6; i++)
		for (unsigned k = 0; k < 10; k++) {
			long r = syscall(calls[k], bad[i], 0, 0, 0);
			if (r != -1 || errno != EFAULT) {
				/* A length or mode of 0 may be refused first. */
				wrong += errno != EINVAL;
			}
		}
	EQ(wrong, 0);
	/* A path that runs into an unmapped page. */
	char *m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	OK(munmap(m + 4096, 4096));
	memset(m, 'a', 4096);
	ERR(open(m + 4090, O_RDONLY), EFAULT);
	m[4095] = 0;
	ERR(open(m + 4090, O_RDONLY), ENOENT);
	ERR(rename("x", m + 4096), EFAULT);
}

CASE(buffers)
{
	int p[2], s[2];
	NEED(pipe(p));
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	for (int i = 0; i < 6; i++) {
		ERR(write(p[1], bad[i], 10), EFAULT);
		EQ(write(p[1], "x", 1), 1);
		ERR(read(p[0], bad[i], 1), EFAULT);
		char c;
		EQ(read(p[0], &c, 1), 1);
		ERR(write(s[0], bad[i], 10), EFAULT);
		struct iovec v = {bad[i], 10};
		ERR(writev(p[1], &v, 1), EFAULT);
		if (i)
			ERR(writev(p[1], bad[i], 1), EFAULT);
	}
	struct pollfd f = {p[0], POLLIN, 0};
	EQ(poll(&f, 1, 0), 0);
	/* Read-only memory as a destination. */
	char *ro = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	EQ(write(p[1], "x", 1), 1);
	ERR(read(p[0], ro, 1), EFAULT);
	ERR(syscall(SYS_fstat, p[0], ro), EFAULT);
}

CASE(huge_lengths)
{
	int p[2], fd = NEED(open("/dev/zero", O_RDWR));
	NEED(pipe(p));
	static char b[4096];
	ERR(write(p[1], b, -1ul), EFAULT);
	ERR(read(fd, b, 1ul << 62), EFAULT);
	ERR(getsockopt(0, 0, 0, b, NULL), ENOTSOCK);
	struct iovec v[2] = {{b, 1ul << 62}, {b, 1ul << 62}};
	CHECK(readv(fd, v, 2) < 0);
	ERR(syscall(SYS_poll, b, 1ul << 31, 0), EINVAL);
	ERR(syscall(SYS_epoll_wait, NEED(epoll_create1(0)), b, 1 << 30, 0), EINVAL);
	ERR(mincore((void *)4096, 1ul << 60, (void *)b), ENOMEM);
	ERR(syscall(SYS_setgroups, 1ul << 20, b), EINVAL);
}

CASE(unknown_calls)
{
	static const long numbers[] = {400, 410, 423, 500, 999, 100000, -1, -2, 1l << 31, 512, 547};
	for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
		ERR(syscall(numbers[i], 0, 0, 0, 0, 0, 0), ENOSYS);
	/* Long since gone. */
	ERR(syscall(SYS_create_module, 0), ENOSYS);
	ERR(syscall(SYS_getpmsg, 0), ENOSYS);
	ERR(syscall(SYS_tuxcall, 0), ENOSYS);
	ERR(syscall(SYS_vserver, 0), ENOSYS);
}
MAIN
