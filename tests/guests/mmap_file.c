/* mmap(2) of files, msync(2), SIGBUS beyond the end. */
#include "t.h"

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)

static int file(const char *name, size_t n)
{
	int fd = NEED(open(name, O_RDWR | O_CREAT | O_TRUNC, 0600));
	NEED(ftruncate(fd, n));
	return fd;
}
static volatile char *m(int fd, size_t n, int prot, int flags, off_t at)
{
	char *p = mmap(NULL, n, prot, flags, fd, at);
	NEED(p);
	return p;
}
static int touch(volatile char *p, bool write)
{
	return reap(CHILD(if (write) *p = 1; else (void)*p));
}

CASE(shared_is_the_file)
{
	int fd = file("f", 2 * PAGE);
	volatile char *p = m(fd, 2 * PAGE, RW, MAP_SHARED, 0);
	p[5] = 'm';
	char b[16];
	EQ(pread(fd, b, 1, 5), 1);
	EQ(b[0], 'm');
	EQ(pwrite(fd, "w", 1, PAGE + 7), 1);
	EQ(p[PAGE + 7], 'w');
	/* A second mapping, another offset. */
	volatile char *q = m(NEED(open("f", O_RDWR)), PAGE, RW, MAP_SHARED, PAGE);
	EQ(q[7], 'w');
	q[8] = 'q';
	EQ(p[PAGE + 8], 'q');
	/* The mapping outlives the descriptor and the name. */
	close(fd);
	OK(unlink("f"));
	p[9] = 1;
	EQ(p[5], 'm');
}

CASE(private_is_a_copy)
{
	put("f", "original");
	int fd = NEED(open("f", O_RDWR));
	volatile char *p = m(fd, PAGE, RW, MAP_PRIVATE, 0);
	EQ(p[0], 'o');
	p[0] = 'X';
	STR(get("f"), "original");
	/* The copied page no longer follows the file. */
	EQ(pwrite(fd, "ZZ", 2, 0), 2);
	EQ(p[0], 'X');
	volatile char *ro = m(fd, PAGE, PROT_READ, MAP_PRIVATE, 0);
	EQ(ro[0], 'Z');
}

CASE(tail_of_last_page)
{
	put("f", "abc");
	int fd = NEED(open("f", O_RDWR));
	volatile char *p = m(fd, PAGE, RW, MAP_SHARED, 0);
	EQ(p[3], 0);
	EQ(p[4095], 0);
	/* What is written beyond the end never reaches the file. */
	p[3] = 'x';
	EQ(OK(lseek(fd, 0, SEEK_END)), 3);
	STR(get("f"), "abc");
}

CASE(beyond_the_end)
{
	int fd = file("f", 100);
	volatile char *p = m(fd, 3 * PAGE, RW, MAP_SHARED, 0);
	EQ(touch(p + 99, true), 0);
	EQ(touch(p + PAGE, false), 1000 + SIGBUS);
	EQ(touch(p + 2 * PAGE, true), 1000 + SIGBUS);
	/* Growing the file brings the pages in. */
	OK(ftruncate(fd, 2 * PAGE));
	EQ(touch(p + PAGE, false), 0);
	p[PAGE] = 5;
	EQ(touch(p + 2 * PAGE, false), 1000 + SIGBUS);
	/* Shrinking takes them away, even from those who used them. */
	OK(ftruncate(fd, 10));
	EQ(touch(p + PAGE, false), 1000 + SIGBUS);
	OK(ftruncate(fd, 2 * PAGE));
	EQ(p[PAGE], 0);
	EQ(p[99], 0);
	volatile char *q = m(fd, PAGE, RW, MAP_PRIVATE, 10 * PAGE);
	EQ(touch(q, false), 1000 + SIGBUS);
}

static sigjmp_buf out;
static volatile int code;
static void *volatile fault_at;
static void trap(int s, siginfo_t *i, void *u)
{
	code = i->si_code;
	fault_at = i->si_addr;
	siglongjmp(out, s);
}
CASE(sigbus_details)
{
	int fd = file("f", 0);
	volatile char *p = m(fd, PAGE, RW, MAP_SHARED, 0);
	on_info(SIGBUS, trap, 0);
	int s = sigsetjmp(out, 1);
	if (!s)
		p[123] = 1;
	EQ(s, SIGBUS);
	EQ(code, BUS_ADRERR);
	EQ((long)fault_at, (long)(p + 123));
	/* The kernel's own access is EFAULT instead. */
	put("g", "x");
	ERR(read(NEED(open("g", O_RDONLY)), (void *)p, 1), EFAULT);
	ERR(write(NEED(open("g", O_WRONLY)), (void *)p, 1), EFAULT);
}

CASE(private_truncated)
{
	/* A private copy goes with the file's page too: truncate drops it. */
	int fd = file("f", 2 * PAGE);
	volatile char *p = m(fd, 2 * PAGE, RW, MAP_PRIVATE, 0);
	p[PAGE] = 7;
	OK(ftruncate(fd, PAGE));
	EQ(touch(p + PAGE, false), 1000 + SIGBUS);
	EQ(touch(p, true), 0);
}

CASE(across_fork)
{
	int fd = file("f", PAGE);
	volatile int *s = (void *)m(fd, PAGE, RW, MAP_SHARED, 0), *v = (void *)m(fd, PAGE, RW, MAP_PRIVATE, 0);
	*v = 1;
	pid_t p = CHILD(*s = 10; *v = 20);
	EQ(reap(p), 0);
	EQ(*s, 10);
	EQ(*v, 1);
}

CASE(unrelated_processes)
{
	file("f", PAGE);
	int go[2], back[2];
	NEED(pipe(go));
	NEED(pipe(back));
	pid_t c[2];
	for (int k = 0; k < 2; k++)
		c[k] = CHILD(volatile char *p = m(NEED(open("f", O_RDWR)), PAGE, RW, MAP_SHARED, 0);
			     p[k] = 'a' + k; char x; EQ(write(back[1], "r", 1), 1); EQ(read(go[0], &x, 1), 1);
			     EQ(p[0], 'a'); EQ(p[1], 'b'));
	char x[2];
	EQ(read(back[0], x, 1), 1);
	EQ(read(back[0], x, 1), 1);
	EQ(write(go[1], "gg", 2), 2);
	for (int k = 0; k < 2; k++)
		EQ(reap(c[k]), 0);
}

CASE(syncs)
{
	int fd = file("f", 2 * PAGE);
	volatile char *p = m(fd, 2 * PAGE, RW, MAP_SHARED, 0);
	p[0] = 1;
	OK(msync((void *)p, 2 * PAGE, MS_SYNC));
	OK(msync((void *)p, PAGE, MS_ASYNC));
	OK(msync((void *)p, PAGE, MS_SYNC | MS_INVALIDATE));
	ERR(msync((void *)p, PAGE, MS_SYNC | MS_ASYNC), EINVAL);
	ERR(msync((void *)p, PAGE, 0x100), EINVAL);
	ERR(msync((void *)(p + 1), PAGE, MS_SYNC), EINVAL);
	OK(munmap((void *)(p + PAGE), PAGE));
	ERR(msync((void *)p, 2 * PAGE, MS_SYNC), ENOMEM);
}

CASE(system_file)
{
	/* A file of the root, mapped privately and read both ways. */
	int fd = NEED(open("/proc/self/exe", O_RDONLY));
	struct stat st;
	OK(fstat(fd, &st));
	volatile char *p = m(fd, st.st_size, PROT_READ, MAP_PRIVATE, 0);
	static char b[1 << 16];
	off_t at = 0;
	ssize_t n;
	long bad = 0;
	while ((n = pread(fd, b, sizeof b, at)) > 0) {
		for (int i = 0; i < n; i++)
			bad += b[i] != p[at + i];
		at += n;
	}
	EQ(at, st.st_size);
	EQ(bad, 0);
	volatile char *w = m(fd, PAGE, RW, MAP_PRIVATE, 0);
	w[0] = 'w';
	EQ(p[0], 0x7f);
	ERR(mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0), EACCES);
	volatile char *s = m(fd, PAGE, PROT_READ, MAP_SHARED, 0);
	EQ(s[1], 'E');
	ERR(mprotect((void *)s, PAGE, RW), EACCES);
}

CASE(zero_device)
{
	int fd = NEED(open("/dev/zero", O_RDWR));
	volatile char *p = m(fd, 2 * PAGE, RW, MAP_PRIVATE, 0);
	EQ(p[PAGE], 0);
	p[PAGE] = 1;
	EQ(p[PAGE], 1);
	ERR(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, NEED(open("/dev/null", O_RDWR)), 0), ENODEV);
	/* A shared mapping of it is shared anonymous memory. */
	volatile char *s = m(fd, PAGE, RW, MAP_SHARED, 0);
	pid_t c = CHILD(*s = 3);
	EQ(reap(c), 0);
	EQ(*s, 3);
}

CASE(write_through_a_mapping_of_itself)
{
	/* read(2) into a mapping of the very file it reads. */
	put("f", "0123456789");
	int fd = NEED(open("f", O_RDWR));
	char *p = (char *)m(fd, PAGE, RW, MAP_SHARED, 0);
	EQ(pread(fd, p + 2, 3, 0), 3);
	EQ(p[0], '0');
	EQ(p[5], '5');
	EQ(pwrite(fd, p + 6, 2, 0), 2);
	EQ(p[0], '6');
	EQ(p[1], '7');
}

CASE(big_mapping_sum)
{
	int fd = file("f", 8 << 20);
	unsigned *p = (unsigned *)m(fd, 8 << 20, RW, MAP_SHARED, 0);
	for (unsigned i = 0; i < (8 << 20) / 4; i++)
		p[i] = i * 2654435761u;
	unsigned long h = 0;
	static unsigned b[16384];
	for (int k = 0; k < 128; k++) {
		EQ(pread(fd, b, sizeof b, k * 65536l), 65536);
		for (int i = 0; i < 16384; i++)
			h = h * 31 + b[i];
	}
	say("hash %lx", h);
}
MAIN
