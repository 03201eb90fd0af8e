/* munmap, mprotect, fork and reuse take effect at once, while other threads hammer the page. */
#include "t.h"

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
static char *volatile page;
/* Odd while the page is taken away: a write that began and ended in one odd epoch is a breach. */
static atomic_int epoch, stop, ready;
static atomic_long late, faults;
static __thread sigjmp_buf out;

static void trap(int s)
{
	siglongjmp(out, s);
}

static void *hammer(void *a)
{
	while (!stop) {
		int was = epoch;
		if (sigsetjmp(out, 0) == 0) {
			*(volatile long *)page += 1;
			if (was % 2 && epoch == was)
				late++;
		} else
			faults++;
		ready = 1;
	}
	return a;
}
static void *peek(void *a)
{
	while (!stop) {
		int was = epoch;
		if (sigsetjmp(out, 0) == 0) {
			(void)*(volatile long *)page;
			if (was % 2 && epoch == was)
				late++;
		}
	}
	return a;
}

static void with_hammer(void *(*how)(void *), void (*revoke)(void), void (*restore)(void), int rounds)
{
	on(SIGSEGV, trap, SA_NODEFER);
	on(SIGBUS, trap, SA_NODEFER);
	pthread_t t[2];
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, how, NULL);
	for (int r = 0; r < rounds; r++) {
		usleep(300);
		revoke();
		epoch++;
		usleep(300);
		epoch++;
		restore();
	}
	stop = 1;
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	EQ(late, 0);
}

static void do_unmap(void)
{
	OK(munmap(page, PAGE));
}
static void do_map(void)
{
	EQ((long)mmap(page, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), (long)page);
}
static void do_protect(void)
{
	OK(mprotect(page, PAGE, PROT_READ));
}
static void do_none(void)
{
	OK(mprotect(page, PAGE, PROT_NONE));
}
static void do_unprotect(void)
{
	OK(mprotect(page, PAGE, RW));
}
static void new_page(void)
{
	page = mmap(NULL, PAGE, RW, ANON, -1, 0);
	NEED(page);
}

CASE(munmap_against_writers)
{
	new_page();
	with_hammer(hammer, do_unmap, do_map, 60);
	CHECK(faults > 0);
}
CASE(mprotect_against_writers)
{
	new_page();
	with_hammer(hammer, do_protect, do_unprotect, 60);
}
CASE(prot_none_against_readers)
{
	new_page();
	with_hammer(peek, do_none, do_unprotect, 60);
}

static void *churn(void *a)
{
	/* Takes over freed frames and checks they are its own. */
	while (!stop) {
		long *p = mmap(NULL, 16 * PAGE, RW, ANON, -1, 0);
		for (int i = 0; i < 16 * 512; i += 64) {
			if (p[i])
				late++;
			p[i] = 0x5a5a;
		}
		for (int i = 0; i < 16 * 512; i += 64)
			if (p[i] != 0x5a5a)
				late++;
		munmap(p, 16 * PAGE);
	}
	return a;
}
CASE(freed_pages_are_not_written_by_old_owners)
{
	new_page();
	on(SIGSEGV, trap, SA_NODEFER);
	pthread_t t[2];
	pthread_create(&t[0], NULL, hammer, NULL);
	pthread_create(&t[1], NULL, churn, NULL);
	for (int r = 0; r < 200; r++) {
		OK(munmap(page, PAGE));
		usleep(100);
		/* Elsewhere, so that the hammer keeps faulting on the old address. */
		char *p = mmap(NULL, PAGE, RW, ANON, -1, 0);
		p[0] = 1;
		CHECK(mmap(page, PAGE, RW, ANON | MAP_FIXED, -1, 0) == page);
		munmap(p, PAGE);
	}
	stop = 1;
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	EQ(late, 0);
}

CASE(fork_while_written)
{
	/* The child's view is frozen at the fork, whatever the parent's threads go on to write. */
	new_page();
	on(SIGSEGV, trap, SA_NODEFER);
	pthread_t t;
	pthread_create(&t, NULL, hammer, NULL);
	UNTIL(ready);
	for (int r = 0; r < 40; r++) {
		pid_t p = CHILD(long a = *(volatile long *)page; for (int i = 0; i < 50; i++) { EQ(*(volatile long *)page, a); sched_yield(); }
				*(volatile long *)page = -1; for (int i = 0; i < 50; i++) EQ(*(volatile long *)page, -1));
		EQ(reap(p), 0);
		CHECK(*(volatile long *)page >= 0);
	}
	stop = 1;
	pthread_join(t, NULL);
}

CASE(other_processes_pages)
{
	/* The same address in two processes is two pages. */
	new_page();
	volatile long *v = (long *)page;
	int go[2];
	NEED(pipe(go));
	*v = 1;
	pid_t p = CHILD(char b; read(go[0], &b, 1); EQ(*v, 1); *v = 2; long *n = mmap(NULL, 64 * PAGE, RW, ANON, -1, 0);
			int dirty = 0; for (int i = 0; i < 64 * 512; i++) dirty += n[i] != 0; EQ(dirty, 0));
	*v = 0x5ec4e7;
	write(go[1], "g", 1);
	EQ(reap(p), 0);
	EQ(*v, 0x5ec4e7);
}

CASE(dontneed_under_writers)
{
	new_page();
	pthread_t t;
	on(SIGSEGV, trap, SA_NODEFER);
	pthread_create(&t, NULL, hammer, NULL);
	for (int r = 0; r < 200; r++)
		OK(madvise(page, PAGE, MADV_DONTNEED));
	stop = 1;
	pthread_join(t, NULL);
	OK(madvise(page, PAGE, MADV_DONTNEED));
	EQ(*(volatile long *)page, 0);
}

CASE(shared_frame_of_a_shrunk_file)
{
	int fd = NEED(memfd_create("f", 0));
	OK(ftruncate(fd, PAGE));
	page = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);
	on(SIGBUS, trap, SA_NODEFER);
	on(SIGSEGV, trap, SA_NODEFER);
	pthread_t t;
	pthread_create(&t, NULL, hammer, NULL);
	for (int r = 0; r < 40; r++) {
		OK(ftruncate(fd, 0));
		epoch++;
		usleep(200);
		epoch++;
		usleep(200);
		OK(ftruncate(fd, PAGE));
		usleep(200);
	}
	stop = 1;
	pthread_join(t, NULL);
	EQ(late, 0);
}
MAIN
