/* signalfd(2). */
#include "t.h"
#include <sys/signalfd.h>

static int block_and_open(int sig, int flags)
{
	sigset_t s = sigs(sig, 0);
	sigprocmask(SIG_BLOCK, &s, NULL);
	return NEED(signalfd(-1, &s, flags));
}

CASE(reads_pending)
{
	int fd = block_and_open(SIGUSR1, SFD_CLOEXEC);
	EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	OK(kill(getpid(), SIGUSR1));
	struct signalfd_siginfo i;
	EQ(read(fd, &i, sizeof i), 128);
	EQ(i.ssi_signo, SIGUSR1);
	EQ(i.ssi_code, SI_USER);
	EQ(i.ssi_pid, getpid());
	EQ(i.ssi_uid, getuid());
	sigset_t s;
	sigpending(&s);
	EQ(sigismember(&s, SIGUSR1), 0);
}

CASE(nonblock)
{
	int fd = block_and_open(SIGUSR1, SFD_NONBLOCK);
	struct signalfd_siginfo i[2];
	ERR(read(fd, i, sizeof i), EAGAIN);
	ERR(read(fd, i, 100), EINVAL);
	struct pollfd p = {fd, POLLIN, 0};
	EQ(poll(&p, 1, 0), 0);
	raise(SIGUSR1);
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLIN);
	EQ(read(fd, i, sizeof i), 128);
	EQ(i[0].ssi_code, SI_TKILL);
}

CASE(several_and_values)
{
	sigset_t s = sigs(SIGRTMIN, SIGRTMIN + 1, SIGCHLD, 0);
	sigprocmask(SIG_BLOCK, &s, NULL);
	int fd = NEED(signalfd(-1, &s, SFD_NONBLOCK));
	for (int k = 0; k < 3; k++)
		OK(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = k}));
	OK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 9}));
	struct signalfd_siginfo i[8];
	EQ(read(fd, i, sizeof i), 4 * 128);
	for (int k = 0; k < 4; k++)
		say("rt+%d value %d code %d", i[k].ssi_signo - SIGRTMIN, i[k].ssi_int, i[k].ssi_code);
	pid_t p = CHILD(_exit(7));
	UNTIL(read(fd, i, sizeof i) == 128);
	EQ(i[0].ssi_signo, SIGCHLD);
	EQ(i[0].ssi_code, CLD_EXITED);
	EQ(i[0].ssi_status, 7);
	EQ(i[0].ssi_pid, p);
	EQ(reap(p), 7);
}

CASE(blocking_read_wakes)
{
	int fd = block_and_open(SIGUSR2, 0);
	pid_t me = getpid();
	pid_t p = CHILD(msleep(30); kill(me, SIGUSR2));
	struct signalfd_siginfo i;
	EQ(read(fd, &i, sizeof i), 128);
	EQ(i.ssi_signo, SIGUSR2);
	EQ(i.ssi_pid, p);
	EQ(reap(p), 0);
}

CASE(change_mask)
{
	sigset_t a = sigs(SIGUSR1, 0), b = sigs(SIGUSR2, 0), both = sigs(SIGUSR1, SIGUSR2, 0);
	sigprocmask(SIG_BLOCK, &both, NULL);
	int fd = NEED(signalfd(-1, &a, SFD_NONBLOCK));
	raise(SIGUSR2);
	struct signalfd_siginfo i;
	ERR(read(fd, &i, sizeof i), EAGAIN);
	EQ(signalfd(fd, &b, 0), fd);
	EQ(read(fd, &i, sizeof i), 128);
	EQ(i.ssi_signo, SIGUSR2);
	ERR(signalfd(open("/dev/null", O_RDONLY), &b, 0), EINVAL);
	ERR(signalfd(99, &b, 0), EBADF);
	ERR(signalfd(-1, &b, 0x100), EINVAL);
	ERR(syscall(SYS_signalfd4, -1, &b, 4, 0), EINVAL);
}
MAIN
