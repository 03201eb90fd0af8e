/* wait4(2), waitid(2), stop and continue, process groups and sessions. */
#include "t.h"

CASE(nothing_to_wait_for)
{
	ERR(waitpid(-1, NULL, 0), ECHILD);
	ERR(waitpid(getpid(), NULL, 0), ECHILD);
	ERR(waitpid(1, NULL, 0), ECHILD);
	ERR(waitpid(-1, NULL, 0x800), EINVAL);
	siginfo_t i;
	ERR(waitid(P_ALL, 0, &i, 0), EINVAL);
	ERR(waitid(99, 0, &i, WEXITED), EINVAL);
	ERR(waitid(P_PID, 0, &i, WEXITED), EINVAL);
	ERR(waitid(P_ALL, 0, &i, WEXITED), ECHILD);
}

CASE(wnohang)
{
	int go[2], st = 0x5555;
	NEED(pipe(go));
	pid_t p = CHILD(char b; close(go[1]); read(go[0], &b, 1); _exit(3));
	EQ(waitpid(p, &st, WNOHANG), 0);
	close(go[1]);
	UNTIL(proc_state(p) == 'Z');
	EQ(waitpid(p, &st, WNOHANG), p);
	EQ(st, 0x300);
	ERR(waitpid(p, &st, 0), ECHILD);
}

CASE(status_words)
{
	int st;
	pid_t p = CHILD(_exit(0xab));
	EQ(waitpid(p, &st, 0), p);
	say("exit %x", st);
	p = CHILD(kill(getpid(), SIGKILL));
	EQ(waitpid(p, &st, 0), p);
	say("kill %x", st);
	struct rlimit r = {0, 0};
	setrlimit(RLIMIT_CORE, &r);
	p = CHILD(raise(SIGSEGV));
	EQ(waitpid(p, &st, 0), p);
	say("segv %x", st & 0x7f);
	p = CHILD(raise(SIGSTOP); msleep(300); _exit(1));
	EQ(waitpid(p, &st, WUNTRACED), p);
	say("stop %x", st);
	OK(kill(p, SIGCONT));
	EQ(waitpid(p, &st, WCONTINUED), p);
	say("cont %x", st);
	EQ(reap(p), 1);
}

CASE(stop_is_reported_once)
{
	int st;
	pid_t p = CHILD(pause());
	OK(kill(p, SIGSTOP));
	EQ(waitpid(p, &st, WUNTRACED), p);
	EQ(proc_state(p), 'T');
	EQ(waitpid(p, &st, WUNTRACED | WNOHANG), 0);
	/* A stopped process dies of SIGKILL at once, of SIGTERM when continued. */
	OK(kill(p, SIGTERM));
	msleep(20);
	EQ(proc_state(p), 'T');
	OK(kill(p, SIGCONT));
	EQ(reap(p), 1000 + SIGTERM);
	p = CHILD(pause());
	OK(kill(p, SIGSTOP));
	EQ(waitpid(p, &st, WUNTRACED), p);
	OK(kill(p, SIGKILL));
	EQ(reap(p), 1000 + SIGKILL);
}

CASE(waitid_info)
{
	siginfo_t i;
	pid_t p = CHILD(_exit(9));
	memset(&i, 0, sizeof i);
	OK(waitid(P_PID, p, &i, WEXITED | WNOWAIT));
	EQ(i.si_pid, p);
	EQ(i.si_signo, SIGCHLD);
	EQ(i.si_code, CLD_EXITED);
	EQ(i.si_status, 9);
	EQ(i.si_uid, getuid());
	OK(waitid(P_PID, p, &i, WEXITED));
	ERR(waitid(P_PID, p, &i, WEXITED), ECHILD);
	p = CHILD(pause());
	memset(&i, 0x55, sizeof i);
	OK(waitid(P_PID, p, &i, WEXITED | WNOHANG));
	EQ(i.si_pid, 0);
	EQ(i.si_signo, 0);
	OK(kill(p, SIGSTOP));
	OK(waitid(P_PID, p, &i, WSTOPPED));
	EQ(i.si_code, CLD_STOPPED);
	EQ(i.si_status, SIGSTOP);
	OK(kill(p, SIGCONT));
	OK(waitid(P_PID, p, &i, WCONTINUED));
	EQ(i.si_code, CLD_CONTINUED);
	EQ(i.si_status, SIGCONT);
	OK(kill(p, SIGINT));
	OK(waitid(P_ALL, 0, &i, WEXITED));
	EQ(i.si_code, CLD_KILLED);
	EQ(i.si_status, SIGINT);
}

CASE(by_group)
{
	pid_t a = CHILD(setpgid(0, 0); pause());
	setpgid(a, a);
	pid_t b = CHILD(_exit(2));
	int st;
	EQ(waitpid(0, &st, 0), b);
	OK(kill(-a, SIGTERM));
	EQ(waitpid(-a, &st, 0), a);
	EQ(WTERMSIG(st), SIGTERM);
	ERR(waitpid(-a, &st, 0), ECHILD);
}

CASE(usage)
{
	struct rusage r;
	memset(&r, 0xff, sizeof r);
	int st;
	pid_t p = CHILD(for (volatile long i = 0; i < 30000000; i++));
	EQ(wait4(p, &st, 0, &r), p);
	CHECK(r.ru_utime.tv_sec * 1000000 + r.ru_utime.tv_usec > 1000);
	CHECK(r.ru_maxrss >= 0);
	getrusage(RUSAGE_CHILDREN, &r);
	CHECK(r.ru_utime.tv_sec * 1000000 + r.ru_utime.tv_usec > 1000);
}

CASE(ignored_children_reap_themselves)
{
	signal(SIGCHLD, SIG_IGN);
	CHILD(_exit(1));
	ERR(waitpid(-1, NULL, 0), ECHILD);
	struct sigaction a = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
	sigaction(SIGCHLD, &a, NULL);
	CHILD(msleep(20));
	ERR(waitpid(-1, NULL, 0), ECHILD);
}

static volatile sig_atomic_t hits, last;
static void chld(int s, siginfo_t *i, void *u)
{
	hits++;
	last = i->si_code;
}
CASE(sigchld)
{
	on_info(SIGCHLD, chld, SA_RESTART);
	pid_t p = CHILD(_exit(0));
	EQ(reap(p), 0);
	UNTIL(hits == 1);
	EQ(last, CLD_EXITED);
	p = CHILD(pause());
	OK(kill(p, SIGSTOP));
	UNTIL(hits == 2);
	EQ(last, CLD_STOPPED);
	OK(kill(p, SIGCONT));
	UNTIL(hits == 3);
	EQ(last, CLD_CONTINUED);
	OK(kill(p, SIGKILL));
	EQ(reap(p), 1000 + SIGKILL);
	UNTIL(hits == 4);
	on_info(SIGCHLD, chld, SA_RESTART | SA_NOCLDSTOP);
	p = CHILD(pause());
	OK(kill(p, SIGSTOP));
	int st;
	EQ(waitpid(p, &st, WUNTRACED), p);
	EQ(hits, 4);
	OK(kill(p, SIGKILL));
	EQ(reap(p), 1000 + SIGKILL);
}

static void nothing(int s)
{
}
CASE(interrupted_and_restarted)
{
	pid_t p = CHILD(msleep(150); _exit(5));
	on(SIGALRM, nothing, 0);
	struct itimerval t = {{0, 0}, {0, 30000}};
	setitimer(ITIMER_REAL, &t, NULL);
	int st;
	ERR(waitpid(p, &st, 0), EINTR);
	on(SIGALRM, nothing, SA_RESTART);
	setitimer(ITIMER_REAL, &t, NULL);
	EQ(waitpid(p, &st, 0), p);
	EQ(WEXITSTATUS(st), 5);
}

static void *waiter(void *p)
{
	return (void *)(long)reap((pid_t)(long)p);
}
CASE(children_belong_to_the_group)
{
	pthread_t t;
	void *r;
	pid_t p = CHILD(_exit(6));
	pthread_create(&t, NULL, waiter, (void *)(long)p);
	pthread_join(t, &r);
	EQ((long)r, 6);
}

CASE(groups)
{
	pid_t me = getpid();
	EQ(getpgrp(), me);
	pid_t p = CHILD(EQ(getpgrp(), me); OK(setpgid(0, 0)); EQ(getpgrp(), getpid()); OK(setpgid(0, me)); EQ(getpgrp(), me));
	EQ(reap(p), 0);
	ERR(setpgid(1 << 22, 0), ESRCH);
	ERR(setpgid(0, -1), EINVAL);
	ERR(setpgid(0, 1 << 21), EPERM);
	ERR(getpgid(1 << 22), ESRCH);
	ERR(getsid(1 << 22), ESRCH);
	p = CHILD(execl("/bin/sleep", "sleep", "100", NULL));
	UNTIL(strcmp(get("/proc/self/comm"), "x") && ({ char c[64]; snprintf(c, 64, "/proc/%d/comm", p); !strcmp(get(c), "sleep\n"); }));
	ERR(setpgid(p, p), EACCES);
	kill(p, SIGKILL);
	EQ(reap(p), 1000 + SIGKILL);
}

CASE(sessions)
{
	ERR(setsid(), EPERM);
	pid_t me = getpid();
	pid_t p = CHILD(pid_t s = OK(setsid()); EQ(s, getpid()); EQ(getsid(0), s); EQ(getpgrp(), s); ERR(setsid(), EPERM);
			ERR(setpgid(0, 0), EPERM); ERR(setpgid(0, me), EPERM); ERR(open("/dev/tty", O_RDWR), ENXIO));
	EQ(reap(p), 0);
}

CASE(kill_targets)
{
	ERR(kill(1 << 22, 0), ESRCH);
	ERR(kill(getpid(), 65), EINVAL);
	ERR(kill(getpid(), -1), EINVAL);
	OK(kill(getpid(), 0));
	pid_t p[3];
	for (int i = 0; i < 3; i++) {
		p[i] = CHILD(pause());
		OK(setpgid(p[i], p[0]));
	}
	OK(kill(-p[0], SIGUSR1));
	for (int i = 0; i < 3; i++)
		EQ(reap(p[i]), 1000 + SIGUSR1);
	ERR(kill(-p[0], 0), ESRCH);
	ERR(syscall(SYS_tgkill, getpid(), 1 << 22, 0), ESRCH);
	ERR(syscall(SYS_tgkill, 0, gettid(), 0), EINVAL);
	OK(syscall(SYS_tgkill, getpid(), gettid(), 0));
	OK(syscall(SYS_tkill, gettid(), 0));
	if (geteuid() == 0) {
		pid_t v = CHILD(pause());
		pid_t q = CHILD(OK(setuid(1234)); ERR(kill(v, SIGTERM), EPERM); ERR(kill(v, 0), EPERM));
		EQ(reap(q), 0);
		kill(v, SIGKILL);
		EQ(reap(v), 1000 + SIGKILL);
	}
}

CASE(zombies_keep_their_pid)
{
	pid_t p = CHILD(_exit(0));
	UNTIL(proc_state(p) == 'Z');
	OK(kill(p, 0));
	OK(kill(p, SIGKILL));
	EQ(reap(p), 0);
	ERR(kill(p, 0), ESRCH);
}
MAIN
