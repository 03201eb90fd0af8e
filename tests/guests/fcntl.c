/* fcntl(2), dup(2), ioctl(2) on descriptors. */
#include "t.h"

CASE(dups)
{
	put("f", "abcdef");
	int a = NEED(open("f", O_RDONLY | O_CLOEXEC));
	int b = NEED(dup(a));
	EQ(fcntl(b, F_GETFD), 0);
	char c;
	EQ(read(a, &c, 1), 1);
	EQ(lseek(b, 0, SEEK_CUR), 1);
	EQ(dup2(a, 30), 30);
	EQ(fcntl(30, F_GETFD), 0);
	EQ(dup2(a, a), a);
	EQ(fcntl(a, F_GETFD), FD_CLOEXEC);
	ERR(dup2(99, 31), EBADF);
	ERR(dup2(99, 99), EBADF);
	ERR(dup2(a, -1), EBADF);
	ERR(dup(99), EBADF);
	EQ(dup3(a, 32, O_CLOEXEC), 32);
	EQ(fcntl(32, F_GETFD), FD_CLOEXEC);
	ERR(dup3(a, a, 0), EINVAL);
	ERR(dup3(a, 33, O_NONBLOCK), EINVAL);
	/* dup2 closes what was there. */
	int p[2];
	NEED(pipe(p));
	EQ(dup2(a, p[1]), p[1]);
	EQ(read(p[0], &c, 1), 0);
}

CASE(dupfd)
{
	int a = NEED(open("/dev/null", O_RDONLY));
	EQ(fcntl(a, F_DUPFD, 40), 40);
	EQ(fcntl(a, F_DUPFD, 40), 41);
	EQ(fcntl(a, F_DUPFD_CLOEXEC, 40), 42);
	EQ(fcntl(42, F_GETFD), FD_CLOEXEC);
	ERR(fcntl(a, F_DUPFD, -1), EINVAL);
	ERR(fcntl(a, F_DUPFD, 1 << 30), EINVAL);
	ERR(fcntl(99, F_DUPFD, 0), EBADF);
	/* fcntl(F_DUPFD_QUERY) is newer than the oldest Linux this runs on. */
}

CASE(descriptor_flags)
{
	int a = NEED(open("/dev/null", O_RDONLY)), b = NEED(dup(a));
	OK(fcntl(a, F_SETFD, FD_CLOEXEC));
	EQ(fcntl(a, F_GETFD), FD_CLOEXEC);
	EQ(fcntl(b, F_GETFD), 0);
	OK(ioctl(b, FIOCLEX));
	EQ(fcntl(b, F_GETFD), FD_CLOEXEC);
	OK(ioctl(b, FIONCLEX));
	EQ(fcntl(b, F_GETFD), 0);
	OK(fcntl(a, F_SETFD, 0));
	EQ(fcntl(a, F_GETFD), 0);
}

CASE(status_flags)
{
	put("f", "");
	int a = NEED(open("f", O_RDWR)), b = NEED(dup(a));
	OK(fcntl(a, F_SETFL, O_APPEND | O_NONBLOCK));
	EQ(fcntl(b, F_GETFL) & (O_APPEND | O_NONBLOCK | O_ACCMODE), O_APPEND | O_NONBLOCK | O_RDWR);
	/* Access mode and creation flags are ignored. */
	OK(fcntl(a, F_SETFL, O_RDONLY | O_CREAT | O_TRUNC));
	EQ(fcntl(a, F_GETFL) & ~O_LARGEFILE & ~0100000, O_RDWR);
	int on = 1;
	OK(ioctl(a, FIONBIO, &on));
	EQ(fcntl(a, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	on = 0;
	OK(ioctl(b, FIONBIO, &on));
	EQ(fcntl(a, F_GETFL) & O_NONBLOCK, 0);
}

CASE(bad_commands)
{
	int a = NEED(open("/dev/null", O_RDONLY));
	ERR(fcntl(a, 9999, 0), EINVAL);
	ERR(fcntl(99, F_GETFD), EBADF);
	ERR(ioctl(a, 0x12345678, 0), ENOTTY);
	ERR(ioctl(99, FIONREAD, 0), EBADF);
	put("f", "abc");
	int f = NEED(open("f", O_RDONLY)), n = -1;
	ERR(ioctl(f, TIOCGWINSZ, (char[64]){0}), ENOTTY);
	OK(ioctl(f, FIONREAD, &n));
	EQ(n, 3);
	EQ(isatty(f), 0);
	EQ(errno, ENOTTY);
}

CASE(owners)
{
	int s[2];
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	EQ(fcntl(s[0], F_GETOWN), 0);
	OK(fcntl(s[0], F_SETOWN, getpid()));
	EQ(fcntl(s[0], F_GETOWN), getpid());
	EQ(fcntl(s[0], F_GETSIG), 0);
	OK(fcntl(s[0], F_SETSIG, SIGUSR1));
	EQ(fcntl(s[0], F_GETSIG), SIGUSR1);
	ERR(fcntl(s[0], F_SETSIG, 65), EINVAL);
	struct f_owner_ex o = {F_OWNER_PGRP, getpgrp()}, got;
	OK(fcntl(s[0], F_SETOWN_EX, &o));
	OK(fcntl(s[0], F_GETOWN_EX, &got));
	EQ(got.type, F_OWNER_PGRP);
	EQ(got.pid, getpgrp());
	o.type = 7;
	ERR(fcntl(s[0], F_SETOWN_EX, &o), EINVAL);
	ERR(fcntl(s[0], F_SETOWN, 0x3fffff), ESRCH);
	OK(fcntl(s[0], F_SETOWN, 0));
	EQ(fcntl(s[0], F_GETOWN), 0);
	/* It belongs to the description, not to the descriptor. */
	int d = NEED(dup(s[0]));
	OK(fcntl(d, F_SETOWN, getpid()));
	EQ(fcntl(s[0], F_GETOWN), getpid());
}

/* Takes the next of these signals; 0 if none comes within the time. */
static int taken(sigset_t *set, siginfo_t *info, long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};
	int s = sigtimedwait(set, info, &t);
	return s < 0 ? 0 : s;
}

CASE(signal_driven)
{
	sigset_t set = sigs(SIGIO, SIGUSR1, 0);
	OK(sigprocmask(SIG_BLOCK, &set, NULL));
	for (int sockets = 0; sockets < 2; sockets++) {
		int p[2];
		siginfo_t info;
		NEED(sockets ? socketpair(AF_UNIX, SOCK_STREAM, 0, p) : pipe(p));
		/* Without O_ASYNC, and without an owner, nobody is told. */
		OK(fcntl(p[0], F_SETOWN, getpid()));
		EQ(write(p[1], "a", 1), 1);
		EQ(taken(&set, &info, 0), 0);
		OK(fcntl(p[0], F_SETFL, O_ASYNC | O_NONBLOCK));
		EQ(write(p[1], "a", 1), 1);
		EQ(taken(&set, &info, 2000), SIGIO);
		OK(fcntl(p[0], F_SETSIG, SIGUSR1));
		EQ(write(p[1], "a", 1), 1);
		EQ(taken(&set, &info, 2000), SIGUSR1);
		EQ(info.si_code, POLL_IN);
		EQ(info.si_fd, p[0]);
		CHECK(info.si_band & POLLIN);
		OK(fcntl(p[0], F_SETFL, O_NONBLOCK));
		EQ(write(p[1], "a", 1), 1);
		EQ(taken(&set, &info, 0), 0);
		close(p[0]);
		close(p[1]);
	}
	/* A child's pipe tells the group. */
	int p[2];
	NEED(pipe(p));
	OK(setpgid(0, 0));
	OK(fcntl(p[0], F_SETOWN, -getpgrp()));
	OK(fcntl(p[0], F_SETFL, O_ASYNC));
	pid_t c = CHILD(EQ(write(p[1], "a", 1), 1));
	siginfo_t info;
	EQ(taken(&set, &info, 2000), SIGIO);
	EQ(reap(c), 0);
}

CASE(leases)
{
	put("f", "x");
	mkdir("d", 0755);
	int w = NEED(open("f", O_RDWR));
	int r = NEED(open("f", O_RDONLY));
	EQ(fcntl(r, F_GETLEASE), F_UNLCK);
	ERR(fcntl(r, F_SETLEASE, F_UNLCK), EAGAIN);
	ERR(fcntl(r, F_SETLEASE, 9), EINVAL);
	ERR(fcntl(r, F_SETLEASE, F_RDLCK), EAGAIN);
	ERR(fcntl(w, F_SETLEASE, F_WRLCK), EAGAIN);
	close(w);
	OK(fcntl(r, F_SETLEASE, F_RDLCK));
	EQ(fcntl(r, F_GETLEASE), F_RDLCK);
	OK(fcntl(r, F_SETLEASE, F_WRLCK));
	EQ(fcntl(r, F_GETLEASE), F_WRLCK);
	OK(fcntl(r, F_SETLEASE, F_UNLCK));
	EQ(fcntl(r, F_GETLEASE), F_UNLCK);
	int p[2];
	NEED(pipe(p));
	ERR(fcntl(p[0], F_SETLEASE, F_RDLCK), EINVAL);
	ERR(fcntl(open("d", O_DIRECTORY), F_SETLEASE, F_RDLCK), EINVAL);
	/* Another's file needs CAP_LEASE. */
	chmod("f", 0644);
	pid_t c = CHILD({
		OK(setresuid(65534, 65534, 65534));
		ERR(fcntl(r, F_SETLEASE, F_RDLCK), EACCES);
	});
	EQ(reap(c), 0);
}

CASE(lease_breaks)
{
	sigset_t set = sigs(SIGIO, SIGUSR1, 0);
	OK(sigprocmask(SIG_BLOCK, &set, NULL));
	put("f", "x");
	int r = NEED(open("f", O_RDONLY));
	OK(fcntl(r, F_SETLEASE, F_RDLCK));
	siginfo_t info;
	/* Readers may come. */
	close(NEED(open("f", O_RDONLY)));
	EQ(taken(&set, &info, 0), 0);
	/* A writer that will not wait is refused, and the break has begun. */
	pid_t c = CHILD(ERR(open("f", O_WRONLY | O_NONBLOCK), EWOULDBLOCK));
	EQ(reap(c), 0);
	EQ(taken(&set, &info, 2000), SIGIO);
	EQ(fcntl(r, F_GETLEASE), F_UNLCK);
	/* The holder may change it, which ends no break. */
	OK(fcntl(r, F_SETLEASE, F_RDLCK));
	EQ(fcntl(r, F_GETLEASE), F_UNLCK);
	OK(fcntl(r, F_SETLEASE, F_UNLCK));
	/* One that waits goes on when the lease is given up. */
	OK(fcntl(r, F_SETLEASE, F_RDLCK));
	OK(fcntl(r, F_SETSIG, SIGUSR1));
	c = CHILD(OK(truncate("f", 0)));
	EQ(taken(&set, &info, 4000), SIGUSR1);
	EQ(info.si_code, POLL_MSG);
	EQ(info.si_fd, r);
	OK(fcntl(r, F_SETLEASE, F_UNLCK));
	EQ(reap(c), 0);
	/* A reader needs a write lease to become a read lease. */
	OK(fcntl(r, F_SETLEASE, F_WRLCK));
	c = CHILD(OK(open("f", O_RDONLY)));
	/* Giving a lease up has forgotten owner and signal. */
	EQ(taken(&set, &info, 4000), SIGIO);
	EQ(fcntl(r, F_GETLEASE), F_RDLCK);
	OK(fcntl(r, F_SETLEASE, F_RDLCK));
	EQ(reap(c), 0);
}

CASE(posix_locks_and_exec)
{
	/* Closing by dup2 or close_range gives locks up, too. */
	put("f", "x");
	int fd = NEED(open("f", O_RDWR)), a = NEED(open("f", O_RDONLY)), b = NEED(open("/dev/null", O_RDONLY));
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	OK(fcntl(fd, F_SETLK, &l));
	OK(dup2(b, a));
	pid_t p = CHILD(OK(fcntl(fd, F_SETLK, &l)));
	EQ(reap(p), 0);
	OK(fcntl(fd, F_SETLK, &l));
	a = NEED(open("f", O_RDONLY));
	OK(syscall(SYS_close_range, a, a, 0));
	p = CHILD(OK(fcntl(fd, F_SETLK, &l)));
	EQ(reap(p), 0);
	/* A killed owner's locks go with it. */
	p = CHILD(OK(fcntl(fd, F_SETLK, &l)); pause());
	msleep(50);
	UNTIL(fcntl(fd, F_SETLK, &l) < 0);
	kill(p, SIGKILL);
	EQ(reap(p), 1000 + SIGKILL);
	OK(fcntl(fd, F_SETLK, &l));
}

static int set(int fd, int cmd, short type, off_t start, off_t len)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
	return fcntl(fd, cmd, &l);
}
/* Type of the lock that would stop this one. */
static int probe(int fd, int cmd, short type, off_t start, off_t len, struct flock *out)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
	int r = fcntl(fd, cmd, &l);
	if (out)
		*out = l;
	return r ? -errno : l.l_type;
}

CASE(posix_locks)
{
	put("f", "0123456789");
	int fd = NEED(open("f", O_RDWR));
	OK(set(fd, F_SETLK, F_WRLCK, 2, 4));
	/* One's own lock is no conflict. */
	EQ(probe(fd, F_GETLK, F_WRLCK, 0, 0, NULL), F_UNLCK);
	pid_t me = getpid();
	pid_t p = CHILD(
		struct flock l;
		EQ(probe(fd, F_GETLK, F_WRLCK, 0, 0, &l), F_WRLCK);
		EQ(l.l_start, 2); EQ(l.l_len, 4); EQ(l.l_pid, me); EQ(l.l_whence, SEEK_SET);
		ERR(set(fd, F_SETLK, F_RDLCK, 5, 1), EAGAIN);
		OK(set(fd, F_SETLK, F_WRLCK, 6, 1));
		OK(set(fd, F_SETLK, F_WRLCK, 0, 2)));
	EQ(reap(p), 0);
	/* Splitting and merging. */
	OK(set(fd, F_SETLK, F_UNLCK, 3, 1));
	p = CHILD(
		OK(set(fd, F_SETLK, F_WRLCK, 3, 1));
		ERR(set(fd, F_SETLK, F_WRLCK, 2, 1), EAGAIN);
		ERR(set(fd, F_SETLK, F_WRLCK, 4, 1), EAGAIN));
	EQ(reap(p), 0);
	/* Closing any descriptor of the file drops them all. */
	int other = NEED(open("f", O_RDONLY));
	close(other);
	p = CHILD(EQ(probe(fd, F_GETLK, F_WRLCK, 0, 0, NULL), F_UNLCK));
	EQ(reap(p), 0);
}

CASE(posix_read_locks)
{
	put("f", "x");
	int fd = NEED(open("f", O_RDWR));
	OK(set(fd, F_SETLK, F_RDLCK, 0, 0));
	pid_t p = CHILD(OK(set(fd, F_SETLK, F_RDLCK, 0, 0)); ERR(set(fd, F_SETLK, F_WRLCK, 0, 0), EAGAIN));
	EQ(reap(p), 0);
	int ro = NEED(open("f", O_RDONLY));
	ERR(set(ro, F_SETLK, F_WRLCK, 0, 0), EBADF);
	ERR(set(fd, F_SETLK, 77, 0, 0), EINVAL);
	ERR(set(fd, F_SETLK, F_RDLCK, -5, 1), EINVAL);
	int wo = NEED(open("f", O_WRONLY));
	ERR(set(wo, F_SETLK, F_RDLCK, 0, 0), EBADF);
}

CASE(posix_lock_waits)
{
	put("f", "x");
	int fd = NEED(open("f", O_RDWR)), go[2];
	atomic_int *step = shared(4096);
	NEED(pipe(go));
	OK(set(fd, F_SETLK, F_WRLCK, 0, 0));
	pid_t p = CHILD(*step = 1; OK(set(fd, F_SETLKW, F_WRLCK, 0, 0)); EQ(*step, 2));
	UNTIL(*step == 1);
	ASLEEP(p);
	*step = 2;
	OK(set(fd, F_SETLK, F_UNLCK, 0, 0));
	EQ(reap(p), 0);
}

CASE(posix_deadlock)
{
	put("f", "xx");
	int fd = NEED(open("f", O_RDWR));
	atomic_int *held = shared(4096);
	OK(set(fd, F_SETLK, F_WRLCK, 0, 1));
	pid_t p = CHILD(OK(set(fd, F_SETLK, F_WRLCK, 1, 1)); *held = 1; OK(set(fd, F_SETLKW, F_WRLCK, 0, 1)));
	UNTIL(*held);
	ASLEEP(p);
	ERR(set(fd, F_SETLKW, F_WRLCK, 1, 1), EDEADLK);
	OK(set(fd, F_SETLK, F_UNLCK, 0, 1));
	EQ(reap(p), 0);
}

CASE(posix_locks_across_fork_and_exit)
{
	put("f", "x");
	int fd = NEED(open("f", O_RDWR));
	/* Not inherited, and gone with their owner. */
	pid_t p = CHILD(OK(set(fd, F_SETLK, F_WRLCK, 0, 0)));
	EQ(reap(p), 0);
	OK(set(fd, F_SETLK, F_WRLCK, 0, 0));
	p = CHILD(ERR(set(fd, F_SETLK, F_WRLCK, 0, 0), EAGAIN));
	EQ(reap(p), 0);
}

CASE(ofd_locks)
{
	put("f", "x");
	int a = NEED(open("f", O_RDWR)), b = NEED(open("f", O_RDWR)), c = NEED(dup(a));
	OK(set(a, F_OFD_SETLK, F_WRLCK, 0, 0));
	ERR(set(b, F_OFD_SETLK, F_WRLCK, 0, 0), EAGAIN);
	OK(set(c, F_OFD_SETLK, F_WRLCK, 0, 0));
	struct flock l;
	EQ(probe(b, F_OFD_GETLK, F_RDLCK, 0, 0, &l), F_WRLCK);
	EQ(l.l_pid, -1);
	close(a);
	ERR(set(b, F_OFD_SETLK, F_WRLCK, 0, 0), EAGAIN);
	close(c);
	OK(set(b, F_OFD_SETLK, F_WRLCK, 0, 0));
	/* A classic lock conflicts with it even in the same process. */
	a = NEED(open("f", O_RDWR));
	ERR(set(a, F_SETLK, F_WRLCK, 0, 0), EAGAIN);
	l = (struct flock){.l_type = F_WRLCK, .l_pid = 5};
	ERR(fcntl(a, F_OFD_SETLK, &l), EINVAL);
}

CASE(whence_of_locks)
{
	put("f", "0123456789");
	int fd = NEED(open("f", O_RDWR));
	OK(lseek(fd, 4, SEEK_SET));
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_CUR, .l_start = 1, .l_len = -3};
	OK(fcntl(fd, F_SETLK, &l));
	pid_t p = CHILD(struct flock o; EQ(probe(fd, F_GETLK, F_WRLCK, 0, 0, &o), F_WRLCK); EQ(o.l_start, 2); EQ(o.l_len, 3));
	EQ(reap(p), 0);
	l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -2, .l_len = 0};
	OK(fcntl(fd, F_SETLK, &l));
	p = CHILD(struct flock o; EQ(probe(fd, F_GETLK, F_WRLCK, 7, 0, &o), F_WRLCK); EQ(o.l_start, 8); EQ(o.l_len, 0));
	EQ(reap(p), 0);
}
MAIN
