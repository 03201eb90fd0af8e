/* clone(2), clone3(2), unshare(2), set_tid_address(2), pidfd. */
#include "t.h"
#include <linux/sched.h>
#include <linux/futex.h>

static char stack[65536] __attribute__((aligned(16)));
static volatile int v;

static int set_v(void *a)
{
	v = (int)(long)a;
	return 5;
}

CASE(shared_memory)
{
	pid_t p = NEED(clone(set_v, stack + sizeof stack, CLONE_VM | SIGCHLD, (void *)42));
	EQ(reap(p), 5);
	EQ(v, 42);
	p = NEED(clone(set_v, stack + sizeof stack, SIGCHLD, (void *)43));
	EQ(reap(p), 5);
	EQ(v, 42);
}

static int close_it(void *a)
{
	close((int)(long)a);
	return 0;
}
CASE(shared_descriptors)
{
	int fd = NEED(open("/dev/null", O_RDONLY));
	pid_t p = NEED(clone(close_it, stack + sizeof stack, CLONE_FILES | SIGCHLD, (void *)(long)fd));
	EQ(reap(p), 0);
	ERR(fcntl(fd, F_GETFD), EBADF);
	fd = NEED(open("/dev/null", O_RDONLY));
	p = NEED(clone(close_it, stack + sizeof stack, SIGCHLD, (void *)(long)fd));
	EQ(reap(p), 0);
	OK(fcntl(fd, F_GETFD));
}

static int go_root(void *a)
{
	umask(0111);
	return chdir("/");
}
CASE(shared_directory)
{
	char b[4096];
	umask(022);
	pid_t p = NEED(clone(go_root, stack + sizeof stack, CLONE_FS | SIGCHLD, NULL));
	EQ(reap(p), 0);
	CHECK(getcwd(b, sizeof b) != NULL);
	STR(b, "/");
	EQ(umask(022), 0111);
}

CASE(exit_signals)
{
	sigset_t s = sigs(SIGCHLD, SIGUSR1, 0), q;
	sigprocmask(SIG_BLOCK, &s, NULL);
	pid_t p = NEED(clone(set_v, stack + sizeof stack, SIGUSR1, NULL));
	/* Not a "SIGCHLD child": waited for with __WALL or __WCLONE only. */
	int st;
	UNTIL(proc_state(p) == 'Z');
	ERR(waitpid(p, &st, WNOHANG), ECHILD);
	EQ(waitpid(p, &st, __WCLONE), p);
	sigpending(&q);
	EQ(sigismember(&q, SIGUSR1), 1);
	EQ(sigismember(&q, SIGCHLD), 0);
	p = NEED(clone(set_v, stack + sizeof stack, 0, NULL));
	EQ(waitpid(p, &st, __WALL), p);
	EQ(WEXITSTATUS(st), 5);
}

CASE(tids_written)
{
	static pid_t ptid, ctid;
	pid_t p = NEED(syscall(SYS_clone, SIGCHLD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID, 0, &ptid, &ctid, 0));
	if (p == 0)
		_exit(ctid == getpid() ? 0 : 1);
	EQ(ptid, p);
	EQ(ctid, 0);
	EQ(reap(p), 0);
}

CASE(invalid_combinations)
{
	ERR(syscall(SYS_clone, CLONE_THREAD, stack, 0, 0, 0), EINVAL);
	ERR(syscall(SYS_clone, CLONE_SIGHAND, stack, 0, 0, 0), EINVAL);
	ERR(syscall(SYS_clone, CLONE_THREAD | CLONE_SIGHAND, stack, 0, 0, 0), EINVAL);
	ERR(syscall(SYS_clone, CLONE_FS | CLONE_NEWNS, 0, 0, 0, 0), EINVAL);
}

CASE(clone3_basics)
{
	struct clone_args a = {.exit_signal = SIGCHLD};
	pid_t p = NEED(syscall(SYS_clone3, &a, sizeof a));
	if (p == 0)
		_exit(8);
	EQ(reap(p), 8);
	ERR(syscall(SYS_clone3, &a, 8), EINVAL);
	ERR(syscall(SYS_clone3, &a, 5000), E2BIG);
	ERR(syscall(SYS_clone3, 8, sizeof a), EFAULT);
	a.flags = CLONE_THREAD;
	ERR(syscall(SYS_clone3, &a, sizeof a), EINVAL);
	a = (struct clone_args){.exit_signal = 200};
	ERR(syscall(SYS_clone3, &a, sizeof a), EINVAL);
	a = (struct clone_args){.stack = 0x1000, .exit_signal = SIGCHLD};
	ERR(syscall(SYS_clone3, &a, sizeof a), EINVAL);
	struct {
		struct clone_args a;
		uint64_t more;
	} big = {{.exit_signal = SIGCHLD}, 1};
	ERR(syscall(SYS_clone3, &big, sizeof big), E2BIG);
	big.more = 0;
	p = NEED(syscall(SYS_clone3, &big, sizeof big));
	if (p == 0)
		_exit(9);
	EQ(reap(p), 9);
}

CASE(clear_sighand)
{
	on(SIGUSR1, SIG_IGN, 0);
	on(SIGUSR2, (void (*)(int))set_v, 0);
	struct clone_args a = {.exit_signal = SIGCHLD, .flags = CLONE_CLEAR_SIGHAND};
	pid_t p = NEED(syscall(SYS_clone3, &a, sizeof a));
	if (p == 0) {
		struct sigaction o;
		sigaction(SIGUSR2, NULL, &o);
		int ok = o.sa_handler == SIG_DFL;
		sigaction(SIGUSR1, NULL, &o);
		_exit(ok && o.sa_handler == SIG_IGN ? 0 : 1);
	}
	EQ(reap(p), 0);
}

CASE(pidfd_by_proc)
{
	/* An open /proc/PID stands for the process. */
	pid_t c = CHILD(pause());
	char path[64];
	snprintf(path, sizeof path, "/proc/%d", (int)c);
	int d = NEED(open(path, O_DIRECTORY));
	OK(syscall(SYS_pidfd_send_signal, d, 0, NULL, 0));
	ERR(syscall(SYS_pidfd_send_signal, NEED(open("/proc", O_DIRECTORY)), 0, NULL, 0), EBADF);
	OK(syscall(SYS_pidfd_send_signal, d, SIGTERM, NULL, 0));
	EQ(reap(c), 1000 + SIGTERM);
	ERR(syscall(SYS_pidfd_send_signal, d, 0, NULL, 0), ESRCH);
	ERR(syscall(SYS_setns, -1, 0), EBADF);
	ERR(syscall(SYS_setns, open("/", O_RDONLY), 0), EINVAL);
}

CASE(pidfds)
{
	int pfd = -1;
	struct clone_args a = {.exit_signal = SIGCHLD, .flags = CLONE_PIDFD, .pidfd = (uint64_t)&pfd};
	pid_t p = NEED(syscall(SYS_clone3, &a, sizeof a));
	if (p == 0) {
		pause();
		_exit(0);
	}
	CHECK(pfd >= 0);
	EQ(fcntl(pfd, F_GETFD), FD_CLOEXEC);
	struct pollfd f = {pfd, POLLIN, 0};
	EQ(poll(&f, 1, 0), 0);
	OK(syscall(SYS_pidfd_send_signal, pfd, 0, NULL, 0));
	OK(syscall(SYS_pidfd_send_signal, pfd, SIGTERM, NULL, 0));
	EQ(poll(&f, 1, 5000), 1);
	EQ(f.revents, POLLIN);
	siginfo_t i;
	OK(waitid(P_PIDFD, pfd, &i, WEXITED));
	EQ(i.si_pid, p);
	EQ(i.si_status, SIGTERM);
	ERR(syscall(SYS_pidfd_send_signal, pfd, 0, NULL, 0), ESRCH);
	ERR(syscall(SYS_pidfd_open, p, 0), ESRCH);
	ERR(syscall(SYS_pidfd_open, -1, 0), EINVAL);
	int self = OK(syscall(SYS_pidfd_open, getpid(), 0));
	CHECK(self >= 0);
}

CASE(clone_parent)
{
	pid_t me = getpid(), *kid = shared(4096);
	pid_t a = CHILD(pid_t k = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
			if (k == 0) _exit(getppid() == me ? 4 : 5);
			*kid = k;
			ERR(waitpid(k, NULL, 0), ECHILD));
	EQ(reap(a), 0);
	EQ(reap(*kid), 4);
}

CASE(clear_child_tid)
{
	/* CLONE_CHILD_CLEARTID wakes a futex when the thread's memory is let go. */
	static atomic_int word = 77;
	pid_t p = NEED(clone(set_v, stack + sizeof stack, CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD, NULL, NULL, NULL, &word));
	EQ(reap(p), 5);
	EQ(word, 0);
	EQ(syscall(SYS_set_tid_address, &word), gettid());
}

CASE(unshares)
{
	OK(unshare(0));
	OK(unshare(CLONE_FILES | CLONE_FS));
	ERR(unshare(0x4), EINVAL);
}
MAIN
