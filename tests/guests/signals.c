/* signal(7): handlers, masks, queues, altstack, restart, contexts. */
#include "t.h"
#include <ucontext.h>

static volatile sig_atomic_t hits, order[16];
static siginfo_t info;
static void count(int s)
{
	if (hits < 16)
		order[hits] = s;
	hits++;
}
static void keep(int s, siginfo_t *i, void *u)
{
	info = *i;
	hits++;
}

CASE(raise_and_info)
{
	on_info(SIGUSR1, keep, 0);
	OK(kill(getpid(), SIGUSR1));
	EQ(hits, 1);
	EQ(info.si_signo, SIGUSR1);
	EQ(info.si_code, SI_USER);
	EQ(info.si_pid, getpid());
	EQ(info.si_uid, getuid());
	raise(SIGUSR1);
	EQ(info.si_code, SI_TKILL);
	OK(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 77}));
	EQ(info.si_code, SI_QUEUE);
	EQ(info.si_value.sival_int, 77);
}

CASE(masks)
{
	on(SIGUSR1, count, 0);
	sigset_t s = sigs(SIGUSR1, SIGKILL, SIGSTOP, 0), o;
	OK(sigprocmask(SIG_BLOCK, &s, NULL));
	OK(sigprocmask(SIG_BLOCK, NULL, &o));
	EQ(sigismember(&o, SIGKILL), 0);
	EQ(sigismember(&o, SIGUSR1), 1);
	raise(SIGUSR1);
	raise(SIGUSR1);
	EQ(hits, 0);
	OK(sigpending(&o));
	EQ(sigismember(&o, SIGUSR1), 1);
	OK(sigprocmask(SIG_UNBLOCK, &s, NULL));
	EQ(hits, 1);
	ERR(sigprocmask(99, &s, NULL), EINVAL);
	ERR(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &s, NULL, 4), EINVAL);
	ERR(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8, NULL, 8), EFAULT);
}

CASE(queue_order)
{
	sigset_t s = sigs(SIGRTMIN, SIGRTMIN + 1, SIGUSR1, 0);
	sigprocmask(SIG_BLOCK, &s, NULL);
	for (int k = 0; k < 3; k++)
		OK(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = k}));
	OK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 10}));
	raise(SIGUSR1);
	siginfo_t i;
	struct timespec none = {0, 0};
	for (int k = 0; k < 5; k++) {
		int n = sigtimedwait(&s, &i, &none);
		say("%s%d value %d", n >= SIGRTMIN ? "rt+" : "", n >= SIGRTMIN ? n - SIGRTMIN : n, n >= SIGRTMIN ? i.si_value.sival_int : 0);
	}
	ERR(sigtimedwait(&s, &i, &none), EAGAIN);
	struct timespec t = {0, 30000000};
	ERR(sigtimedwait(&s, &i, &t), EAGAIN);
}

static void nested(int s)
{
	count(s);
	if (hits == 1) {
		raise(SIGUSR1);
		EQ(hits, 1);
		raise(SIGUSR2);
		EQ(hits, 2);
	}
}
CASE(nesting)
{
	on(SIGUSR1, nested, 0);
	on(SIGUSR2, count, 0);
	raise(SIGUSR1);
	EQ(hits, 3);
	say("order %d %d %d", order[0], order[1], order[2]);
}

static void nodefer(int s)
{
	if (hits++ < 3)
		raise(s);
}
CASE(action_flags)
{
	on(SIGUSR1, nodefer, SA_NODEFER);
	raise(SIGUSR1);
	EQ(hits, 4);
	on(SIGUSR2, count, SA_RESETHAND);
	raise(SIGUSR2);
	EQ(hits, 5);
	struct sigaction a;
	sigaction(SIGUSR2, NULL, &a);
	CHECK(a.sa_handler == SIG_DFL);
	struct sigaction b = {.sa_handler = nested};
	sigaddset(&b.sa_mask, SIGUSR2);
	hits = 0;
	ERR(sigaction(SIGKILL, &b, NULL), EINVAL);
	ERR(sigaction(SIGSTOP, &b, NULL), EINVAL);
	ERR(syscall(SYS_rt_sigaction, 65, NULL, NULL, 8), EINVAL);
	ERR(syscall(SYS_rt_sigaction, 0, NULL, NULL, 8), EINVAL);
	ERR(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4), EINVAL);
}

static char alt[65536];
static volatile long where;
static void on_alt(int s)
{
	char here;
	where = &here - alt;
	stack_t o;
	sigaltstack(NULL, &o);
	EQ(o.ss_flags, SS_ONSTACK);
	ERR(sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL), EPERM);
}
CASE(alternate_stack)
{
	stack_t s = {.ss_sp = alt, .ss_size = sizeof alt}, o;
	OK(sigaltstack(&s, &o));
	EQ(o.ss_flags, SS_DISABLE);
	on(SIGUSR1, on_alt, SA_ONSTACK);
	raise(SIGUSR1);
	CHECK(where > 0 && where < (long)sizeof alt);
	OK(sigaltstack(NULL, &o));
	EQ(o.ss_flags, 0);
	ERR(sigaltstack(&(stack_t){.ss_sp = alt, .ss_size = 100}, NULL), ENOMEM);
	ERR(sigaltstack(&(stack_t){.ss_sp = alt, .ss_size = 9000, .ss_flags = 77}, NULL), EINVAL);
}

static sigjmp_buf out;
static volatile long depth;
static void overflow(int s)
{
	siglongjmp(out, s);
}
static long deep(long n)
{
	volatile char b[1000];
	b[0] = n;
	depth = n;
	return n == 100000000 ? 0 : deep(n + 1) + b[0];
}
CASE(stack_overflow_on_altstack)
{
	stack_t s = {.ss_sp = alt, .ss_size = sizeof alt};
	OK(sigaltstack(&s, NULL));
	on(SIGSEGV, overflow, SA_ONSTACK);
	int r = sigsetjmp(out, 1);
	if (!r)
		say("%ld", deep(0));
	EQ(r, SIGSEGV);
	CHECK(depth > 1000);
	/* Without one, it is fatal. */
	EQ(reap(CHILD(on(SIGSEGV, overflow, 0); say("%ld", deep(0)))), 1000 + SIGSEGV);
}

static void *volatile at;
static volatile int code;
static void fault(int s, siginfo_t *i, void *u)
{
	at = i->si_addr;
	code = i->si_code;
	siglongjmp(out, s);
}
#define FAULT(what, ...)                                                 \
	({                                                               \
		int r_ = sigsetjmp(out, 1);                              \
		if (!r_) {                                               \
			__VA_ARGS__;                                     \
		}                                                        \
		say("%s: signal %d code %d", what, r_, code);            \
		r_;                                                      \
	})
CASE(faults)
{
	static const int all[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
	for (int i = 0; i < 5; i++)
		on_info(all[i], fault, SA_NODEFER);
	volatile int zero = 0, one = 1;
	EQ(FAULT("divide", one = one / zero), SIGFPE);
	volatile int min = INT_MIN, minus = -1;
	EQ(FAULT("overflow", one = min / minus), SIGFPE);
	EQ(FAULT("ud2", __asm__ volatile("ud2")), SIGILL);
	EQ(FAULT("int3", __asm__ volatile("int3")), SIGTRAP);
	EQ(FAULT("null", *(volatile int *)0 = 1), SIGSEGV);
	EQ((long)at, 0);
	EQ(FAULT("hlt", __asm__ volatile("hlt")), SIGSEGV);
	EQ(FAULT("cli", __asm__ volatile("cli")), SIGSEGV);
	EQ(FAULT("in", __asm__ volatile("inb $0x80, %%al" ::: "rax")), SIGSEGV);
	EQ(FAULT("out", __asm__ volatile("outb %%al, $0x80" ::: "rax")), SIGSEGV);
	EQ(FAULT("rdmsr", __asm__ volatile("rdmsr" ::"c"(0x10) : "rax", "rdx")), SIGSEGV);
	EQ(FAULT("cr0", __asm__ volatile("mov %%cr0, %%rax" ::: "rax")), SIGSEGV);
	EQ(FAULT("non-canonical", *(volatile char *)0x1234000000000000 = 1), SIGSEGV);
	EQ(FAULT("jump to nowhere", ((void (*)(void))0x1000)()), SIGSEGV);
	EQ((long)at, 0x1000);
	/* The trap flag: one instruction, then SIGTRAP. */
	EQ(FAULT("single step", __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; nop; nop" ::: "memory", "cc")), SIGTRAP);
}

CASE(blocked_or_ignored_faults_kill)
{
	sigset_t s = sigs(SIGSEGV, 0);
	EQ(reap(CHILD(sigprocmask(SIG_BLOCK, &s, NULL); on_info(SIGSEGV, fault, 0); *(volatile int *)0 = 1)), 1000 + SIGSEGV);
	EQ(reap(CHILD(signal(SIGSEGV, SIG_IGN); *(volatile int *)0 = 1)), 1000 + SIGSEGV);
	EQ(reap(CHILD(on_info(SIGUSR1, fault, 0); char *p = mmap(NULL, 4096, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		      __asm__ volatile("mov %0, %%rsp; ud2" ::"r"(p)))), 1000 + SIGILL);
}

static void skip(int s, siginfo_t *i, void *u)
{
	ucontext_t *c = u;
	c->uc_mcontext.gregs[REG_RIP] += 2;
	c->uc_mcontext.gregs[REG_RBX] = 4242;
	hits++;
}
CASE(context_changed_in_handler)
{
	on_info(SIGILL, skip, 0);
	long v;
	__asm__ volatile("mov $1, %%rbx; ud2; mov %%rbx, %0" : "=r"(v)::"rbx");
	EQ(v, 4242);
	EQ(hits, 1);
}

static volatile long regs_seen;
static void registers(int s, siginfo_t *i, void *u)
{
	ucontext_t *c = u;
	regs_seen = c->uc_mcontext.gregs[REG_R12];
	EQ(sigismember(&c->uc_sigmask, SIGUSR2), 1);
	sigdelset(&c->uc_sigmask, SIGUSR2);
}
CASE(context_shows_and_restores)
{
	sigset_t s = sigs(SIGUSR2, 0), o;
	sigprocmask(SIG_BLOCK, &s, NULL);
	on_info(SIGUSR1, registers, 0);
	long r12, r15, pid = getpid(), res;
	__asm__ volatile("mov $0x1111, %%r12; mov $0x5555, %%r15; mov %4, %%rdi; mov $10, %%rsi; mov $62, %%eax; syscall; mov %%r12, %0; mov %%r15, %1; mov %%rax, %2"
			 : "=&r"(r12), "=&r"(r15), "=&r"(res)
			 : "0"(0), "r"(pid)
			 : "rax", "rcx", "r11", "rdi", "rsi", "r12", "r15", "memory");
	EQ(r12, 0x1111);
	EQ(r15, 0x5555);
	EQ(res, 0);
	EQ(regs_seen, 0x1111);
	sigprocmask(SIG_BLOCK, NULL, &o);
	EQ(sigismember(&o, SIGUSR2), 0);
}

static void smash(int s)
{
	__asm__ volatile("pxor %%xmm0, %%xmm0; pxor %%xmm7, %%xmm7; pxor %%xmm15, %%xmm15; fninit; fldpi" ::: "xmm0", "xmm7", "xmm15", "memory");
	if (__builtin_cpu_supports("avx"))
		__asm__ volatile("vzeroall" ::: "memory");
	hits++;
}
CASE(vector_state_preserved)
{
	on(SIGUSR1, smash, 0);
	unsigned char in[32], got[32];
	for (int i = 0; i < 32; i++)
		in[i] = i * 7 + 1;
	long pid = getpid();
	if (__builtin_cpu_supports("avx")) {
		__asm__ volatile("vmovdqu (%1), %%ymm7; mov %2, %%rdi; mov $10, %%rsi; mov $62, %%eax; syscall; vmovdqu %%ymm7, (%0)" ::"r"(got), "r"(in), "r"(pid)
				 : "rax", "rcx", "r11", "rdi", "rsi", "xmm7", "memory");
		MEM(in, got, 32);
	} else {
		__asm__ volatile("movdqu (%1), %%xmm7; mov %2, %%rdi; mov $10, %%rsi; mov $62, %%eax; syscall; movdqu %%xmm7, (%0)" ::"r"(got), "r"(in), "r"(pid)
				 : "rax", "rcx", "r11", "rdi", "rsi", "xmm7", "memory");
		MEM(in, got, 16);
	}
	EQ(hits, 1);
	volatile long double x = 1.0L / 3, y;
	raise(SIGUSR1);
	y = x * 3;
	CHECK(y > 0.999L && y < 1.001L);
}

CASE(vector_state_in_parallel)
{
	/* Signals and switches while several processes compute. */
	pid_t p[4];
	for (int k = 0; k < 4; k++)
		p[k] = CHILD(on(SIGALRM, smash, SA_RESTART); struct itimerval t = {{0, 1000}, {0, 1000}}; setitimer(ITIMER_REAL, &t, NULL);
			     volatile double s = 0; for (int i = 1; i < 3000000; i++) s += (k + 1) / (double)i;
			     double q = 0; setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL); for (int i = 1; i < 3000000; i++) q += (k + 1) / (double)i;
			     CHECK(s == q));
	for (int k = 0; k < 4; k++)
		EQ(reap(p[k]), 0);
}

CASE(suspend_and_pause)
{
	on(SIGUSR1, count, 0);
	sigset_t s = sigs(SIGUSR1, 0), none;
	sigemptyset(&none);
	sigprocmask(SIG_BLOCK, &s, NULL);
	raise(SIGUSR1);
	ERR(sigsuspend(&none), EINTR);
	EQ(hits, 1);
	pid_t me = getpid(), p = CHILD(msleep(30); kill(me, SIGUSR1));
	ERR(sigsuspend(&none), EINTR);
	EQ(hits, 2);
	EQ(reap(p), 0);
	sigprocmask(SIG_UNBLOCK, &s, NULL);
	p = CHILD(on(SIGUSR1, count, SA_RESTART); ERR(pause(), EINTR));
	msleep(30);
	ASLEEP(p);
	kill(p, SIGUSR1);
	EQ(reap(p), 0);
}

CASE(sigwait_wakes)
{
	sigset_t s = sigs(SIGUSR1, SIGUSR2, 0);
	sigprocmask(SIG_BLOCK, &s, NULL);
	pid_t me = getpid(), p = CHILD(msleep(30); kill(me, SIGUSR2));
	int n = 0;
	EQ(sigwait(&s, &n), 0);
	EQ(n, SIGUSR2);
	EQ(reap(p), 0);
}

CASE(default_actions)
{
	struct rlimit r = {0, 0};
	setrlimit(RLIMIT_CORE, &r);
	char line[600] = "";
	for (int s = 1; s < 65; s++) {
		if (s == SIGSTOP || s == SIGTSTP || s == SIGTTIN || s == SIGTTOU || s == 32 || s == 33)
			continue;
		int e = reap(CHILD(raise(s); _exit(3)));
		if (e != 1000 + s)
			snprintf(line + strlen(line), sizeof line - strlen(line), " %d:%d", s, e);
	}
	say("not fatal:%s", line);
}

CASE(sleep_remaining)
{
	on(SIGALRM, count, SA_RESTART);
	struct itimerval t = {{0, 0}, {0, 50000}};
	setitimer(ITIMER_REAL, &t, NULL);
	struct timespec want = {5, 0}, left = {0, 0};
	ERR(nanosleep(&want, &left), EINTR);
	CHECK(left.tv_sec == 4 && left.tv_nsec > 0);
	EQ(hits, 1);
}

static void jump(int s)
{
	siglongjmp(out, 1);
}
CASE(longjmp_out_many)
{
	on(SIGUSR1, jump, 0);
	volatile int n = 0;
	for (volatile int i = 0; i < 1000; i++) {
		if (sigsetjmp(out, 1) == 0)
			raise(SIGUSR1);
		else
			n++;
	}
	EQ(n, 1000);
}

CASE(storm)
{
	on(SIGUSR1, count, 0);
	pid_t me = getpid(), p = CHILD(for (int i = 0; i < 2000; i++) kill(me, SIGUSR1));
	EQ(reap(p), 0);
	CHECK(hits >= 1 && hits <= 2000);
	ERR(wait(NULL), ECHILD);
}
MAIN
