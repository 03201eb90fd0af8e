/* mprotect(2), madvise(2), mincore(2), and what faults report. */
#include "t.h"

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)
static char *map(size_t n)
{
	char *p = mmap(NULL, n, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	NEED(p);
	return p;
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
/* Signal a touch raises, 0 if none; leaves si_code and si_addr. */
static int touch(volatile char *p, bool write)
{
	on_info(SIGSEGV, trap, 0);
	on_info(SIGBUS, trap, 0);
	int s = sigsetjmp(out, 1);
	if (!s) {
		if (write)
			*p = *p + 1;
		else
			(void)*p;
	}
	return s;
}

CASE(read_only_and_back)
{
	char *p = map(PAGE);
	p[10] = 'v';
	OK(mprotect(p, PAGE, PROT_READ));
	EQ(p[10], 'v');
	EQ(touch(p + 10, true), SIGSEGV);
	EQ(code, SEGV_ACCERR);
	EQ((long)fault_at, (long)(p + 10));
	OK(mprotect(p, PAGE, PROT_NONE));
	EQ(touch(p + 9, false), SIGSEGV);
	EQ(code, SEGV_ACCERR);
	OK(mprotect(p, PAGE, RW));
	EQ(p[10], 'v');
	EQ(touch(p + 10, true), 0);
	EQ(p[10], 'w');
}

CASE(unmapped_is_maperr)
{
	char *p = map(PAGE);
	OK(munmap(p, PAGE));
	EQ(touch(p + 77, false), SIGSEGV);
	EQ(code, SEGV_MAPERR);
	EQ((long)fault_at, (long)(p + 77));
	EQ(touch(NULL, false), SIGSEGV);
	EQ(code, SEGV_MAPERR);
	EQ((long)fault_at, 0);
	/* A non-canonical address has no address to report. */
	EQ(touch((char *)0x8000000000000000ul, false), SIGSEGV);
	EQ(code, SI_KERNEL);
	EQ((long)fault_at, 0);
	EQ(touch((char *)0xffffffff81000000ul, false), SIGSEGV);
	EQ(code, SEGV_MAPERR);
}

CASE(errors)
{
	char *p = map(3 * PAGE);
	ERR(mprotect(p + 1, PAGE, PROT_READ), EINVAL);
	ERR(mprotect(p, PAGE, 0x1000), EINVAL);
	OK(mprotect(p, 0, PROT_READ));
	OK(munmap(p + PAGE, PAGE));
	ERR(mprotect(p, 3 * PAGE, PROT_READ), ENOMEM);
	/* What lies before the hole was changed. */
	EQ(touch(p, true), SIGSEGV);
	EQ(touch(p + 2 * PAGE, true), 0);
	ERR(mprotect((void *)0, PAGE, PROT_READ), ENOMEM);
}

CASE(no_exec)
{
	unsigned char *p = (void *)map(PAGE);
	p[0] = 0xc3;
	on_info(SIGSEGV, trap, 0);
	int s = sigsetjmp(out, 1);
	if (!s)
		((void (*)(void))p)();
	EQ(s, SIGSEGV);
	EQ(code, SEGV_ACCERR);
	EQ((long)fault_at, (long)p);
	OK(mprotect(p, PAGE, PROT_EXEC));
	((void (*)(void))p)();
}

CASE(many_splits)
{
	char *p = map(256 * PAGE);
	memset(p, 1, 256 * PAGE);
	for (int i = 0; i < 256; i += 2)
		OK(mprotect(p + i * PAGE, PAGE, PROT_READ));
	int wrong = 0;
	for (int i = 0; i < 256; i++)
		wrong += (touch(p + i * PAGE, true) == SIGSEGV) != (i % 2 == 0);
	EQ(wrong, 0);
	OK(mprotect(p, 256 * PAGE, RW));
	for (int i = 0; i < 256; i++)
		wrong += touch(p + i * PAGE, true) != 0;
	EQ(wrong, 0);
}

CASE(protect_after_fork)
{
	char *p = map(PAGE);
	p[0] = 1;
	pid_t c = CHILD(OK(mprotect(p, PAGE, PROT_READ)); EQ(touch(p, true), SIGSEGV); EQ(p[0], 1));
	EQ(reap(c), 0);
	EQ(touch(p, true), 0);
	/* Copy-on-write must not make a read-only page writable, nor lose the parent's value. */
	OK(mprotect(p, PAGE, PROT_READ));
	c = CHILD(EQ(touch(p, true), SIGSEGV); OK(mprotect(p, PAGE, RW)); p[0] = 50);
	EQ(reap(c), 0);
	EQ(p[0], 2);
}

CASE(dontneed)
{
	char *p = map(4 * PAGE);
	memset(p, 5, 4 * PAGE);
	OK(madvise(p + PAGE, 2 * PAGE, MADV_DONTNEED));
	EQ(p[0], 5);
	EQ(p[PAGE], 0);
	EQ(p[3 * PAGE - 1], 0);
	EQ(p[3 * PAGE], 5);
	/* On a private file mapping the file's content comes back. */
	put("f", "file");
	char *f = mmap(NULL, PAGE, RW, MAP_PRIVATE, NEED(open("f", O_RDONLY)), 0);
	f[0] = 'X';
	OK(madvise(f, PAGE, MADV_DONTNEED));
	EQ(f[0], 'f');
	/* On shared memory nothing is lost. */
	char *s = shared(PAGE);
	s[0] = 9;
	OK(madvise(s, PAGE, MADV_DONTNEED));
	EQ(s[0], 9);
	OK(munmap(p + PAGE, PAGE));
	ERR(madvise(p, 4 * PAGE, MADV_DONTNEED), ENOMEM);
}

CASE(dontneed_after_fork)
{
	char *p = map(PAGE);
	p[0] = 7;
	pid_t c = CHILD(OK(madvise(p, PAGE, MADV_DONTNEED)); EQ(p[0], 0));
	EQ(reap(c), 0);
	EQ(p[0], 7);
}

CASE(advice)
{
	char *p = map(4 * PAGE);
	static const int ok[] = {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTFORK,
				 MADV_DOFORK, MADV_DONTDUMP, MADV_DODUMP, MADV_FREE, MADV_COLD, MADV_PAGEOUT};
	for (unsigned i = 0; i < sizeof ok / sizeof *ok; i++)
		OK(madvise(p, 4 * PAGE, ok[i]));
	ERR(madvise(p, PAGE, 12345), EINVAL);
	ERR(madvise(p + 1, PAGE, MADV_NORMAL), EINVAL);
	OK(madvise(p, 0, MADV_NORMAL));
	OK(madvise(p, PAGE, MADV_POPULATE_WRITE));
	EQ(p[0], 0);
}

CASE(dontfork)
{
	char *p = map(2 * PAGE);
	p[0] = p[PAGE] = 1;
	OK(madvise(p, PAGE, MADV_DONTFORK));
	pid_t c = CHILD(EQ(touch(p, false), SIGSEGV); EQ(code, SEGV_MAPERR); EQ(p[PAGE], 1));
	EQ(reap(c), 0);
	OK(madvise(p + PAGE, PAGE, MADV_WIPEONFORK));
	OK(madvise(p, PAGE, MADV_DOFORK));
	c = CHILD(EQ(p[0], 1); EQ(p[PAGE], 0));
	EQ(reap(c), 0);
	EQ(p[PAGE], 1);
}

CASE(remove_shared)
{
	int fd = NEED(memfd_create("x", 0));
	OK(ftruncate(fd, 2 * PAGE));
	char *p = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);
	memset(p, 3, 2 * PAGE);
	OK(madvise(p, PAGE, MADV_REMOVE));
	EQ(p[0], 0);
	EQ(p[PAGE], 3);
	ERR(madvise(map(PAGE), PAGE, MADV_REMOVE), EINVAL);
}

CASE(mincores)
{
	char *p = map(4 * PAGE);
	unsigned char v[4] = {9, 9, 9, 9};
	p[0] = 1;
	p[2 * PAGE] = 1;
	OK(mincore(p, 4 * PAGE, v));
	EQ(v[0] & 1, 1);
	EQ(v[2] & 1, 1);
	ERR(mincore(p + 1, PAGE, v), EINVAL);
	OK(munmap(p + PAGE, PAGE));
	ERR(mincore(p, 4 * PAGE, v), ENOMEM);
	ERR(mincore(p, PAGE, (void *)8), EFAULT);
}

CASE(read_fault_then_write)
{
	/* First touched by reading: the shared zero page must be copied on write. */
	char *a = map(64 * PAGE), *b = map(64 * PAGE);
	long sum = 0;
	for (int i = 0; i < 64; i++)
		sum += a[i * PAGE] + b[i * PAGE];
	for (int i = 0; i < 64; i++)
		a[i * PAGE] = 1;
	for (int i = 0; i < 64; i++)
		sum += b[i * PAGE];
	EQ(sum, 0);
	char *c = map(PAGE);
	EQ(c[5], 0);
}
MAIN
