/* flock(2), lockf(3), leases refused. */
#include "t.h"
#include <sys/file.h>

CASE(basics)
{
	put("f", "");
	int a = NEED(open("f", O_RDONLY)), b = NEED(open("f", O_RDWR));
	OK(flock(a, LOCK_SH));
	OK(flock(b, LOCK_SH));
	ERR(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	OK(flock(a, LOCK_UN));
	OK(flock(b, LOCK_EX | LOCK_NB));
	ERR(flock(a, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	close(b);
	OK(flock(a, LOCK_EX | LOCK_NB));
	ERR(flock(a, 7), EINVAL);
	ERR(flock(99, LOCK_SH), EBADF);
}

CASE(dup_shares_the_lock)
{
	put("f", "");
	int a = NEED(open("f", O_RDONLY)), c = NEED(dup(a)), b = NEED(open("f", O_RDONLY));
	OK(flock(a, LOCK_EX));
	OK(flock(c, LOCK_EX | LOCK_NB));
	close(a);
	ERR(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	OK(flock(c, LOCK_UN));
	OK(flock(b, LOCK_EX | LOCK_NB));
}

CASE(fork_shares_the_lock)
{
	put("f", "");
	int a = NEED(open("f", O_RDONLY)), b = NEED(open("f", O_RDONLY));
	OK(flock(a, LOCK_EX));
	pid_t p = CHILD(OK(flock(a, LOCK_EX | LOCK_NB)); ERR(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK));
	EQ(reap(p), 0);
	p = CHILD(OK(flock(a, LOCK_UN)));
	EQ(reap(p), 0);
	OK(flock(b, LOCK_EX | LOCK_NB));
}

CASE(waits)
{
	put("f", "");
	int a = NEED(open("f", O_RDONLY));
	atomic_int *step = shared(4096);
	OK(flock(a, LOCK_EX));
	pid_t p = CHILD(int b = NEED(open("f", O_RDONLY)); *step = 1; OK(flock(b, LOCK_EX)); EQ(*step, 2));
	UNTIL(*step == 1);
	ASLEEP(p);
	*step = 2;
	OK(flock(a, LOCK_UN));
	EQ(reap(p), 0);
}

static void nothing(int s)
{
}

CASE(wait_interrupted)
{
	put("f", "");
	int a = NEED(open("f", O_RDONLY));
	OK(flock(a, LOCK_EX));
	pid_t p = CHILD(int b = NEED(open("f", O_RDONLY)); on(SIGUSR1, nothing, 0); ERR(flock(b, LOCK_EX), EINTR));
	msleep(50);
	ASLEEP(p);
	OK(kill(p, SIGUSR1));
	EQ(reap(p), 0);
}

CASE(apart_from_posix_locks)
{
	put("f", "");
	int a = NEED(open("f", O_RDWR));
	OK(flock(a, LOCK_EX));
	pid_t p = CHILD(int b = NEED(open("f", O_RDWR)); OK(lockf(b, F_TLOCK, 0)));
	EQ(reap(p), 0);
}

CASE(leases)
{
	put("f", "");
	int a = NEED(open("f", O_RDWR));
	EQ(fcntl(a, F_GETLEASE), F_UNLCK);
	ERR(fcntl(a, F_SETLEASE, 77), EINVAL);
}
MAIN
