/* memfd_create(2), sealing with fcntl(2). */
#include "t.h"

static int sealable(void)
{
	return NEED(memfd_create("name", MFD_ALLOW_SEALING | MFD_CLOEXEC));
}

CASE(basics)
{
	int fd = NEED(memfd_create("hello", 0));
	EQ(fcntl(fd, F_GETFD), 0);
	struct stat st;
	OK(fstat(fd, &st));
	EQ(st.st_mode, S_IFREG | 0777);
	EQ(st.st_nlink, 0);
	EQ(st.st_size, 0);
	EQ(write(fd, "abc", 3), 3);
	char b[64], p[64];
	EQ(pread(fd, b, 64, 0), 3);
	snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
	ssize_t n = OK(readlink(p, b, 63));
	b[n > 0 ? n : 0] = 0;
	STR(b, "/memfd:hello (deleted)");
	STR(get(p), "abc");
	EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SEAL);
	ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
	ERR(memfd_create("x", 0x4000), EINVAL);
	ERR(syscall(SYS_memfd_create, 8, 0), EFAULT);
	char big[260];
	memset(big, 'x', 259);
	big[259] = 0;
	ERR(memfd_create(big, 0), EINVAL);
	big[249] = 0;
	OK(memfd_create(big, 0));
	fd = NEED(memfd_create("", MFD_CLOEXEC));
	EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
}

CASE(seal_shrink_grow)
{
	int fd = sealable();
	EQ(fcntl(fd, F_GET_SEALS), 0);
	OK(ftruncate(fd, 8192));
	OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	ERR(ftruncate(fd, 4096), EPERM);
	OK(ftruncate(fd, 12288));
	OK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
	ERR(ftruncate(fd, 16384), EPERM);
	ERR(pwrite(fd, "x", 1, 12288), EPERM);
	EQ(pwrite(fd, "x", 1, 0), 1);
	EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
}

CASE(seal_write)
{
	int fd = sealable();
	OK(ftruncate(fd, 4096));
	char *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(m != MAP_FAILED);
	ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
	OK(munmap(m, 4096));
	OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	ERR(write(fd, "x", 1), EPERM);
	ERR(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EPERM);
	m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(m != MAP_FAILED);
	m[0] = 'p';
	char c;
	EQ(pread(fd, &c, 1, 0), 1);
	EQ(c, 0);
}

CASE(seal_future_write)
{
	int fd = sealable();
	OK(ftruncate(fd, 4096));
	char *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	OK(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	m[0] = 'x';
	char c;
	EQ(pread(fd, &c, 1, 0), 1);
	EQ(c, 'x');
	ERR(write(fd, "x", 1), EPERM);
	ERR(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EPERM);
}

CASE(seal_seal)
{
	int fd = sealable();
	OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
	ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
	ERR(fcntl(fd, F_ADD_SEALS, 0x1000), EINVAL);
	int p[2];
	NEED(pipe(p));
	ERR(fcntl(p[0], F_GET_SEALS), EINVAL);
}

CASE(shared_across_fork_and_reopen)
{
	int fd = NEED(memfd_create("m", 0));
	OK(ftruncate(fd, 4096));
	char *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	pid_t p = CHILD(char path[64]; snprintf(path, 64, "/proc/self/fd/%d", fd); int g = NEED(open(path, O_RDWR));
			char *n = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, g, 0); strcpy(n, "from child"));
	EQ(reap(p), 0);
	STR(m, "from child");
	EQ(pwrite(fd, "file", 4, 0), 4);
	STR(m, "file child");
}
MAIN
