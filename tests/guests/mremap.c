/* mremap(2), brk(2). */
#include "t.h"

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
static char *map(size_t n)
{
	char *p = mmap(NULL, n, RW, ANON, -1, 0);
	NEED(p);
	return p;
}
static int touch(volatile char *p)
{
	return reap(CHILD((void)*p));
}

CASE(shrink)
{
	char *p = map(4 * PAGE);
	memset(p, 1, 4 * PAGE);
	EQ((long)mremap(p, 4 * PAGE, 2 * PAGE, 0), (long)p);
	EQ(p[PAGE], 1);
	EQ(touch(p + 2 * PAGE), 1000 + SIGSEGV);
}

CASE(grow)
{
	char *p = map(8 * PAGE);
	OK(munmap(p + 2 * PAGE, 6 * PAGE));
	memset(p, 2, 2 * PAGE);
	/* Room behind it: in place. */
	EQ((long)mremap(p, 2 * PAGE, 4 * PAGE, 0), (long)p);
	EQ(p[2 * PAGE], 0);
	EQ(p[2 * PAGE - 1], 2);
	/* No room: only with MAYMOVE. */
	EQ((long)mmap(p + 4 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0), (long)(p + 4 * PAGE));
	ERR(mremap(p, 4 * PAGE, 6 * PAGE, 0), ENOMEM);
	char *q = mremap(p, 4 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
	CHECK(q != MAP_FAILED && q != p);
	EQ(q[0], 2);
	EQ(q[63 * PAGE], 0);
	EQ(touch(p), 1000 + SIGSEGV);
	EQ(touch(p + 4 * PAGE), 0);
}

CASE(fixed)
{
	char *p = map(2 * PAGE), *q = map(4 * PAGE);
	memset(p, 3, 2 * PAGE);
	memset(q, 4, 4 * PAGE);
	EQ((long)mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q + PAGE), (long)(q + PAGE));
	EQ(q[0], 4);
	EQ(q[PAGE], 3);
	EQ(q[2 * PAGE], 3);
	EQ(q[3 * PAGE], 4);
	EQ(touch(p), 1000 + SIGSEGV);
	ERR(mremap(q, 2 * PAGE, 2 * PAGE, MREMAP_FIXED, p), EINVAL);
	ERR(mremap(q, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q + PAGE), EINVAL);
}

CASE(dontunmap)
{
	char *p = map(2 * PAGE);
	memset(p, 5, 2 * PAGE);
	char *q = mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	CHECK(q != MAP_FAILED && q != p);
	EQ(q[PAGE], 5);
	EQ(p[PAGE], 0);
}

CASE(file_backed)
{
	int fd = NEED(open("f", O_RDWR | O_CREAT, 0600));
	OK(ftruncate(fd, 4 * PAGE));
	EQ(pwrite(fd, "three", 5, 3 * PAGE), 5);
	char *p = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);
	p[0] = 'x';
	p = mremap(p, PAGE, 4 * PAGE, MREMAP_MAYMOVE);
	CHECK(p != MAP_FAILED);
	EQ(p[0], 'x');
	EQ(p[3 * PAGE], 't');
	/* An old size of 0 duplicates a shared mapping. */
	char *q = mremap(p, 0, PAGE, MREMAP_MAYMOVE);
	CHECK(q != MAP_FAILED && q != p);
	q[1] = 'y';
	EQ(p[1], 'y');
}

CASE(errors)
{
	char *p = map(4 * PAGE);
	ERR(mremap(p + 1, PAGE, PAGE, 0), EINVAL);
	ERR(mremap(p, PAGE, 0, 0), EINVAL);
	ERR(mremap(p, PAGE, PAGE, 0x100), EINVAL);
	OK(munmap(p + PAGE, PAGE));
	ERR(mremap(p + PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EFAULT);
	ERR(mremap(p, 3 * PAGE, 5 * PAGE, MREMAP_MAYMOVE), EFAULT);
}

CASE(keeps_content_of_many_pages)
{
	size_t n = 300;
	char *p = map(n * PAGE);
	for (size_t i = 0; i < n; i++)
		p[i * PAGE + 7] = i;
	int bad = 0;
	for (int round = 0; round < 5; round++) {
		p = mremap(p, n * PAGE, (n + 300) * PAGE, MREMAP_MAYMOVE);
		NEED(p);
		for (size_t i = 0; i < 300; i++)
			bad += p[i * PAGE + 7] != (char)i;
		n += 300;
	}
	EQ(bad, 0);
}

CASE(move_after_fork)
{
	char *p = map(2 * PAGE);
	p[0] = 1;
	atomic_int *step = shared(PAGE);
	pid_t c = CHILD(UNTIL(*step == 1); EQ(p[0], 1); p[0] = 9);
	char *q = mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, map(2 * PAGE));
	q[0] = 2;
	*step = 1;
	EQ(reap(c), 0);
	EQ(q[0], 2);
}

CASE(program_break)
{
	char *a = sbrk(0);
	EQ((long)sbrk(3 * PAGE), (long)a);
	a[0] = 1;
	a[3 * PAGE - 1] = 2;
	EQ(a[PAGE], 0);
	EQ((long)sbrk(-2 * (long)PAGE), (long)(a + 3 * PAGE));
	EQ((long)sbrk(0), (long)(a + PAGE));
	/* Given back pages are zero when they return. */
	sbrk(2 * PAGE);
	EQ(a[3 * PAGE - 1], 0);
	/* A bad request changes nothing and says so by the unchanged break. */
	long now = syscall(SYS_brk, 0);
	EQ(syscall(SYS_brk, 4096), now);
	EQ(syscall(SYS_brk, -1l), now);
	EQ(syscall(SYS_brk, now + 5), now + 5);
	EQ(syscall(SYS_brk, now), now);
}

CASE(break_limits)
{
	struct rlimit r = {1 << 20, 1 << 20};
	OK(setrlimit(RLIMIT_DATA, &r));
	ERR(sbrk(16 << 20), ENOMEM);
	/* Something in the way. */
	char *a = sbrk(0);
	char *at = (char *)(((long)a + 2 * PAGE) & -PAGE);
	r = (struct rlimit){RLIM_INFINITY, RLIM_INFINITY};
	EQ((long)mmap(at, PAGE, RW, ANON | MAP_FIXED, -1, 0), (long)at);
	ERR(sbrk(16 * PAGE), ENOMEM);
	OK(munmap(at, PAGE));
}

CASE(break_across_fork)
{
	char *a = sbrk(PAGE);
	a[0] = 'p';
	pid_t c = CHILD(EQ(a[0], 'p'); a[0] = 'c'; EQ((long)sbrk(0), (long)(a + PAGE)); sbrk(PAGE));
	EQ(reap(c), 0);
	EQ(a[0], 'p');
	EQ((long)sbrk(0), (long)(a + PAGE));
}

CASE(malloc_churn)
{
	void *p[200] = {0};
	unsigned r = 1;
	for (int i = 0; i < 20000; i++) {
		r = r * 1103515245 + 12345;
		int k = (r >> 16) % 200;
		free(p[k]);
		size_t n = 1 << ((r >> 8) % 18);
		p[k] = malloc(n);
		CHECK(p[k] != NULL);
		memset(p[k], k, n);
	}
	int bad = 0;
	for (int k = 0; k < 200; k++)
		bad += p[k] && *(unsigned char *)p[k] != k;
	EQ(bad, 0);
}
MAIN
