/* mmap(2), munmap(2), anonymous memory. */
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

/* Touches an address in a child: 0 or 1000 + signal. */
static int touch(volatile char *p, bool write)
{
	return reap(CHILD(if (write) *p = 1; else (void)*p));
}

CASE(zeroed_and_aligned)
{
	char *p = map(10 * PAGE);
	EQ((long)p & 4095, 0);
	long sum = 0;
	for (size_t i = 0; i < 10 * PAGE; i++)
		sum += p[i];
	EQ(sum, 0);
	memset(p, 1, 10 * PAGE);
	OK(munmap(p, 10 * PAGE));
	p = map(10 * PAGE);
	for (size_t i = 0; i < 10 * PAGE; i++)
		sum += p[i];
	EQ(sum, 0);
}

CASE(unmap_pieces)
{
	char *p = map(5 * PAGE);
	memset(p, 7, 5 * PAGE);
	OK(munmap(p + PAGE, PAGE));
	OK(munmap(p + 3 * PAGE, PAGE));
	EQ(touch(p, false), 0);
	EQ(touch(p + PAGE, false), 1000 + SIGSEGV);
	EQ(p[2 * PAGE], 7);
	EQ(touch(p + 3 * PAGE, true), 1000 + SIGSEGV);
	EQ(p[4 * PAGE], 7);
	/* A range with holes, and one with nothing. */
	OK(munmap(p, 5 * PAGE));
	OK(munmap(p, 5 * PAGE));
	EQ(touch(p, false), 1000 + SIGSEGV);
}

CASE(errors)
{
	ERR(mmap(NULL, 0, RW, ANON, -1, 0), EINVAL);
	ERR(mmap(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0), EINVAL);
	ERR(mmap(NULL, PAGE, RW, MAP_PRIVATE, -1, 0), EBADF);
	ERR(mmap((void *)123, PAGE, RW, ANON | MAP_FIXED, -1, 0), EINVAL);
	ERR(mmap(NULL, -1ul, RW, ANON, -1, 0), ENOMEM);
	ERR(mmap(NULL, 1ul << 47, RW, ANON, -1, 0), ENOMEM);
	ERR(mmap((void *)(1ul << 47), PAGE, RW, ANON | MAP_FIXED, -1, 0), ENOMEM);
	ERR(syscall(SYS_mmap, NULL, PAGE, RW, ANON, -1, 5), EINVAL);
	ERR(munmap((void *)1, PAGE), EINVAL);
	ERR(munmap((void *)PAGE, 0), EINVAL);
	ERR(munmap((void *)PAGE, -1ul), EINVAL);
	int p[2];
	NEED(pipe(p));
	ERR(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, p[0], 0), ENODEV);
	put("f", "x");
	int r = NEED(open("f", O_RDONLY)), w = NEED(open("f", O_WRONLY));
	ERR(mmap(NULL, PAGE, RW, MAP_SHARED, r, 0), EACCES);
	ERR(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, w, 0), EACCES);
	ERR(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, r, 5), EINVAL);
	OK(mmap(NULL, PAGE, RW, MAP_PRIVATE, r, 0));
	ERR(mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | 0x800000, r, 0), EOPNOTSUPP);
}

CASE(fixed_replaces)
{
	char *p = map(4 * PAGE);
	memset(p, 9, 4 * PAGE);
	EQ((long)mmap(p + PAGE, 2 * PAGE, RW, ANON | MAP_FIXED, -1, 0), (long)(p + PAGE));
	EQ(p[0], 9);
	EQ(p[PAGE], 0);
	EQ(p[2 * PAGE], 0);
	EQ(p[3 * PAGE], 9);
}

CASE(fixed_noreplace)
{
	char *p = map(4 * PAGE);
	ERR(mmap(p + PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
	OK(munmap(p + PAGE, PAGE));
	ERR(mmap(p, 2 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
	EQ((long)mmap(p + PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), (long)(p + PAGE));
}

CASE(hints)
{
	char *p = map(4 * PAGE);
	OK(munmap(p, 4 * PAGE));
	/* A free hint is taken, rounded down; a used one is not an error. */
	EQ((long)mmap(p + 5, PAGE, RW, ANON, -1, 0), (long)p);
	char *q = mmap(p, PAGE, RW, ANON, -1, 0);
	CHECK(q != MAP_FAILED && q != p);
	q = mmap((void *)PAGE, PAGE, RW, ANON, -1, 0);
	CHECK(q != MAP_FAILED && (unsigned long)q >= 65536);
}

CASE(low_32_bits)
{
	char *p = mmap(NULL, PAGE, RW, ANON | MAP_32BIT, -1, 0);
	CHECK(p != MAP_FAILED && (unsigned long)p < (1ul << 31));
}

CASE(prot_none)
{
	char *p = mmap(NULL, PAGE, PROT_NONE, ANON, -1, 0);
	EQ(touch(p, false), 1000 + SIGSEGV);
	EQ(touch(p, true), 1000 + SIGSEGV);
	put("f", "x");
	ERR(read(NEED(open("f", O_RDONLY)), p, 1), EFAULT);
}

CASE(shared_anonymous)
{
	volatile int *s = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	volatile int *m = mmap(NULL, PAGE, RW, ANON, -1, 0);
	*s = *m = 1;
	pid_t p = CHILD(EQ(*s, 1); EQ(*m, 1); *s = 2; *m = 2);
	EQ(reap(p), 0);
	EQ(*s, 2);
	EQ(*m, 1);
	/* Touched first after the fork, still the same page. */
	volatile int *late = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	p = CHILD(*late = 5);
	EQ(reap(p), 0);
	EQ(*late, 5);
}

CASE(big_sparse)
{
	/* 8 GiB reserved, three pages used. */
	size_t n = 8ul << 30;
	char *p = mmap(NULL, n, RW, ANON | MAP_NORESERVE, -1, 0);
	CHECK(p != MAP_FAILED);
	p[0] = 1;
	p[n / 2] = 2;
	p[n - 1] = 3;
	EQ(p[0] + p[n / 2] + p[n - 1] + p[n / 4], 6);
	OK(munmap(p, n));
}

CASE(many_mappings)
{
	static char *p[2000];
	for (int i = 0; i < 2000; i++) {
		p[i] = mmap(NULL, PAGE, i & 1 ? PROT_READ : RW, ANON, -1, 0);
		CHECK(p[i] != MAP_FAILED);
		if (!(i & 1))
			p[i][5] = i;
	}
	int bad = 0;
	for (int i = 0; i < 2000; i++)
		bad += p[i][5] != (i & 1 ? 0 : (char)i);
	EQ(bad, 0);
	for (int i = 0; i < 2000; i += 2)
		OK(munmap(p[i], PAGE));
	for (int i = 1; i < 2000; i += 2)
		bad += p[i][5];
	EQ(bad, 0);
}

CASE(address_space_limit)
{
	struct rlimit r = {64 << 20, 64 << 20};
	OK(setrlimit(RLIMIT_AS, &r));
	ERR(mmap(NULL, 100 << 20, RW, ANON, -1, 0), ENOMEM);
	char *p = mmap(NULL, 8 << 20, RW, ANON, -1, 0);
	CHECK(p != MAP_FAILED);
	memset(p, 1, 8 << 20);
	CHECK(malloc(200 << 20) == NULL);
}

CASE(growsdown_and_stack)
{
	/* The main stack grows by itself, to a megabyte here. */
	volatile char *big = __builtin_alloca(1 << 20);
	for (int i = (1 << 20) - 1; i >= 0; i -= 4096)
		big[i] = 1;
	EQ(big[4095], 1);
	char *p = mmap(NULL, 4 * PAGE, RW, ANON | MAP_GROWSDOWN, -1, 0);
	CHECK(p != MAP_FAILED);
	p[0] = 1;
}

static long deep(long n)
{
	volatile char b[512];
	b[0] = n;
	return n == 100000000 ? 0 : deep(n + 1) + b[0];
}
CASE(stack_limit)
{
	struct rlimit r = {1 << 20, 1 << 20};
	OK(setrlimit(RLIMIT_STACK, &r));
	EQ(reap(CHILD(say("%ld", deep(0)))), 1000 + SIGSEGV);
}

CASE(code_in_memory)
{
	unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};
	unsigned char *p = mmap(NULL, PAGE, RW, ANON, -1, 0);
	memcpy(p, code, sizeof code);
	EQ(reap(CHILD(((int (*)(void))p)())), 1000 + SIGSEGV);
	OK(mprotect(p, PAGE, PROT_READ | PROT_EXEC));
	EQ(((int (*)(void))p)(), 42);
	EQ(touch((char *)p, true), 1000 + SIGSEGV);
	OK(mprotect(p, PAGE, RW | PROT_EXEC));
	/* Code that changes under us is seen. */
	p[1] = 43;
	EQ(((int (*)(void))p)(), 43);
	for (int i = 0; i < 100; i++) {
		p[1] = i;
		EQ(((volatile int (*)(void))p)(), i);
	}
}

CASE(populate_and_locked)
{
	char *p = mmap(NULL, 16 * PAGE, RW, ANON | MAP_POPULATE, -1, 0);
	CHECK(p != MAP_FAILED);
	EQ(p[15 * PAGE], 0);
	OK(mlock(p, PAGE));
	OK(munlock(p, PAGE));
	OK(munmap(p, 16 * PAGE));
	ERR(mlock(p, PAGE), ENOMEM);
	OK(mlockall(MCL_CURRENT));
	OK(munlockall());
	ERR(mlockall(0), EINVAL);
}

CASE(adjacent_maps_stay_apart)
{
	char *p = map(3 * PAGE);
	OK(mprotect(p + PAGE, PAGE, PROT_READ));
	p[0] = 1;
	p[2 * PAGE] = 1;
	EQ(touch(p + PAGE, true), 1000 + SIGSEGV);
	OK(mprotect(p + PAGE, PAGE, RW));
	memset(p, 3, 3 * PAGE);
	EQ(touch(p + PAGE, true), 0);
}

static char *wide;
static void *touch_all(void *from)
{
	for (long i = (long)from; i < 320; i += 2)
		*(volatile long *)(wide + (i << 21)) = i + 1;
	return NULL;
}
CASE(more_memory_than_at_first)
{
	/* A page of every 2 MiB, from two threads: a VM that begins with little memory has to find more. */
	wide = mmap(NULL, 320l << 21, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	NEED(wide != MAP_FAILED ? 0 : -1);
	pthread_t t[2];
	for (long i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, touch_all, (void *)i);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	long bad = 0;
	for (long i = 0; i < 320; i++)
		bad += *(volatile long *)(wide + (i << 21)) != i + 1 || wide[(i << 21) + 4096];
	EQ(bad, 0);
	OK(munmap(wide, 320l << 21));
}

CASE(random_layout)
{
	/* Addresses differ between runs of one program (randomize_va_space), here across two execs. */
	if (get("/proc/sys/kernel/randomize_va_space")[0] != '2')
		return;
	int same = 0;
	unsigned long seen[6];
	for (int i = 0; i < 6; i++) {
		int p[2];
		NEED(pipe(p));
		pid_t c = fork();
		if (c == 0) {
			dup2(p[1], 1);
			execl("/bin/sh", "sh", "-c", "grep -m1 stack /proc/self/maps", NULL);
			_exit(9);
		}
		char b[64] = "";
		NEED(read(p[0], b, 60));
		EQ(reap(c), 0);
		seen[i] = strtoul(b, NULL, 16);
		for (int k = 0; k < i; k++)
			same += seen[i] == seen[k];
		close(p[0]);
		close(p[1]);
	}
	CHECK(same < 3);
}
MAIN
