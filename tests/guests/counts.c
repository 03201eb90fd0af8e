/* A known number of calls and exceptions, for `--stats` (stats.rs). */
#include "t.h"

CASE(known_numbers)
{
	long wrong = 0, pid = getpid(), ppid = getppid();
	for (int i = 0; i < 1000; i++)
		wrong += syscall(SYS_getppid) != ppid;
	for (int i = 0; i < 3000; i++)
		wrong += syscall(SYS_getpid) != pid;
	for (int i = 0; i < 70; i++)
		wrong += syscall(SYS_umask, 022) < 0;
	for (int i = 0; i < 30; i++)
		wrong += syscall(SYS_close, -1) != -1;
	EQ(wrong, 0);
}

static sigjmp_buf back;
static void trapped(int s)
{
	siglongjmp(back, s);
}

CASE(known_exceptions)
{
	signal(SIGILL, trapped);
	for (volatile int i = 0; i < 5; i++)
		if (!sigsetjmp(back, 1))
			__asm__ volatile("ud2");
	/* The child's first writes to what it shares. */
	static volatile char data[4 * 4096] = {1};
	EQ(reap(CHILD(for (int i = 0; i < 4; i++) data[i * 4096] = 2)), 0);
	EQ(data[0], 1);
}

MAIN
