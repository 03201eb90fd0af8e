/* What a SYSCALL leaves alone and what it changes, however it reaches the kernel; and signals that
 * arrive while calls come thick and fast. */
#include "t.h"

#define ROUNDS 3000

struct seen {
	unsigned long rax, rcx, r11, flags, here, others;
};

/* void probe(struct seen *, unsigned long rax, unsigned long flags): a call with every register known. */
void probe(struct seen *s, unsigned long rax, unsigned long flags);
__asm__(".text\n.globl probe\nprobe:\n"
	"push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"push %rdi\n" /* s */
	"mov %rsi, %rax\n"
	"mov %rdx, %r11\n"
	"mov $0xb0, %ebx; mov $0xb1, %ebp; mov $0x12, %r12d; mov $0x13, %r13d; mov $0x14, %r14d; mov $0x15, %r15d\n"
	"mov $-1, %rdi; mov $0x51, %esi; mov $0xd0, %edx; mov $0x10, %r10d; mov $0x08, %r8d; mov $0x09, %r9d\n"
	"push %r11; popfq\n"
	"syscall\n"
	"1: pushfq\n"
	"cld\n"
	"push %rdi\n"
	"mov 16(%rsp), %rdi\n" /* s */
	"mov %rax, (%rdi); mov %rcx, 8(%rdi); mov %r11, 16(%rdi)\n"
	"lea 1b(%rip), %rax; mov %rax, 32(%rdi)\n"
	"mov 8(%rsp), %rax; mov %rax, 24(%rdi)\n"
	"pop %rax\n" /* rdi as the call left it */
	"add %rbx, %rax; add %rbp, %rax; add %r12, %rax; add %r13, %rax; add %r14, %rax; add %r15, %rax\n"
	"add %rsi, %rax; add %rdx, %rax; add %r10, %rax; add %r8, %rax; add %r9, %rax\n"
	"mov %rax, 40(%rdi)\n"
	"pushq $0x202; popfq\n"
	"add $16, %rsp\n"
	"pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"ret\n");
#define OTHERS (-1ul + 0xb0 + 0xb1 + 0x12 + 0x13 + 0x14 + 0x15 + 0x51 + 0xd0 + 0x10 + 0x08 + 0x09)

static int wrong(const struct seen *s, unsigned long flags)
{
	return s->rcx != s->here || s->r11 != flags || s->flags != flags || s->others != OTHERS;
}

CASE(registers_survive)
{
	/* close(-1), getpid, getppid, and a number nobody has. */
	static const unsigned long calls[] = {SYS_close, SYS_getpid, SYS_getppid, 100000};
	for (unsigned c = 0; c < 4; c++) {
		int bad = 0, rax = 0;
		for (int i = 0; i < ROUNDS; i++) {
			/* CF, PF, AF, ZF, SF, OF in every combination. */
			unsigned long f = 0x202 | (i & 1) | (i & 2) << 1 | (i & 4) << 2 | (i & 8) << 3 | (i & 16) << 3 | (i & 32) << 6;
			struct seen s;
			probe(&s, calls[c], f);
			bad += wrong(&s, f);
			rax += c == 0 ? s.rax != -EBADF : c == 1 ? (long)s.rax != getpid() : c == 2 ? (long)s.rax != getppid() : s.rax != -ENOSYS;
		}
		EQ(bad, 0);
		EQ(rax, 0);
	}
}

CASE(odd_flags_survive)
{
	/* DF, AC, ID; with AC only where nothing unaligned is touched. */
	static const unsigned long odd[] = {0x602, 0x200202, 0x40202, 0x200603};
	for (unsigned k = 0; k < 4; k++) {
		struct seen s;
		int bad = 0;
		for (int i = 0; i < 50; i++) {
			probe(&s, SYS_close, odd[k]);
			bad += wrong(&s, odd[k]) || s.rax != -EBADF;
		}
		EQ(bad, 0);
	}
}

CASE(numbers)
{
	struct seen s;
	static const unsigned long none[] = {-1ul, 1ul << 32, 1ul << 63, 512, 511, 0x7fffffff};
	for (unsigned i = 0; i < 6; i++) {
		probe(&s, none[i], 0x202);
		/* Linux looks at the low half of RAX alone. */
		EQ(s.rax, none[i] == 1ul << 32 || none[i] == 1ul << 63 ? (unsigned long)-EBADF : (unsigned long)-ENOSYS);
	}
}

CASE(identity_follows_the_kernel)
{
	EQ(getpid(), gettid());
	if (!fork()) {
		int pid = getpid();
		int ok = pid == (int)syscall(SYS_gettid) && getppid() != pid;
		if (!fork())
			_exit(getppid() != pid || getpid() == pid);
		int st;
		wait(&st);
		_exit(!ok || st);
	}
	int st;
	wait(&st);
	EQ(st, 0);
	if (!fork()) {
		if (geteuid() == 0) {
			EQ(setresgid(77, 77, 77), 0);
			EQ(setresuid(88, 99, 88), 0);
			EQ(getuid(), 88);
			EQ(geteuid(), 99);
			EQ(getgid(), 77);
			EQ(getegid(), 77);
		}
		_exit(atomic_load(&t_fails) != 0);
	}
	wait(&st);
	EQ(st, 0);
}

static atomic_int ticks;
static void tick(int s)
{
	ticks++;
}
static void alarms(int flags)
{
	on(SIGALRM, tick, flags);
	struct itimerval v = {{0, 700}, {0, 700}};
	EQ(setitimer(ITIMER_REAL, &v, NULL), 0);
}
static void quiet(void)
{
	struct itimerval v = {{0, 0}, {0, 0}};
	setitimer(ITIMER_REAL, &v, NULL);
}

CASE(signals_during_calls)
{
	alarms(SA_RESTART);
	int zero = NEED(open("/dev/zero", O_RDONLY)), bad = 0, parent = getppid(), self = getpid();
	long until = now_ms() + 400;
	while (now_ms() < until) {
		char c = 1;
		bad += read(zero, &c, 1) != 1 || c != 0;
		bad += (int)syscall(SYS_getpid) != self;
		bad += (int)syscall(SYS_getppid) != parent;
		bad += close(-1) != -1 || errno != EBADF;
		struct seen s;
		probe(&s, SYS_getppid, 0x203);
		bad += wrong(&s, 0x203) || (int)s.rax != parent;
	}
	quiet();
	EQ(bad, 0);
	EQ(ticks > 10, 1);
}

CASE(signals_during_waits)
{
	alarms(0);
	int p[2], interrupted = 0;
	NEED(pipe(p));
	char c;
	for (int i = 0; i < 30; i++) {
		ssize_t n = read(p[0], &c, 1);
		interrupted += n == -1 && errno == EINTR;
	}
	EQ(interrupted, 30);
	/* With data on its way, SA_RESTART hides them all. */
	alarms(SA_RESTART);
	int child = fork();
	if (!child) {
		quiet();
		for (int i = 0; i < 300; i++) {
			char b = (char)i;
			if (write(p[1], &b, 1) != 1)
				_exit(1);
			if (i % 10 == 0)
				usleep(1000);
		}
		_exit(0);
	}
	int bad = 0;
	for (int i = 0; i < 300; i++)
		bad += read(p[0], &c, 1) != 1 || c != (char)i;
	int st;
	EQ(waitpid(child, &st, 0), child);
	quiet();
	EQ(st, 0);
	EQ(bad, 0);
}

static int ping[2], pong[2];
static void *echo(void *unused)
{
	char c;
	while (read(ping[0], &c, 1) == 1)
		if (write(pong[1], &c, 1) != 1)
			break;
	return NULL;
}
CASE(conversation)
{
	NEED(pipe(ping));
	NEED(pipe(pong));
	pthread_t t;
	pthread_create(&t, NULL, echo, NULL);
	int bad = 0;
	for (int i = 0; i < 2000; i++) {
		char c = (char)i, d = (char)~i;
		bad += write(ping[1], &c, 1) != 1 || read(pong[0], &d, 1) != 1 || c != d;
	}
	close(ping[1]);
	pthread_join(t, NULL);
	EQ(bad, 0);
}

static void *caller(void *unused)
{
	long bad = 0, self = syscall(SYS_gettid);
	for (int i = 0; i < 3000; i++) {
		bad += syscall(SYS_gettid) != self;
		bad += close(-1) != -1;
		bad += syscall(SYS_getppid) != getppid();
	}
	return (void *)bad;
}
CASE(many_callers)
{
	pthread_t t[6];
	for (int i = 0; i < 6; i++)
		pthread_create(&t[i], NULL, caller, NULL);
	long all = 0;
	for (int i = 0; i < 6; i++) {
		void *bad;
		pthread_join(t[i], &bad);
		all += (long)bad;
	}
	EQ(all, 0);
}

CASE(killed_while_calling)
{
	for (int i = 0; i < 20; i++) {
		int p = fork();
		if (!p)
			for (;;)
				syscall(SYS_getppid);
		usleep(2000);
		kill(p, SIGKILL);
		int st;
		EQ(waitpid(p, &st, 0), p);
		EQ(WTERMSIG(st), SIGKILL);
	}
}
/* long whole(long tgid, long tid, long sig): tgkill with every register known; how many came back changed. */
long whole(long, long, long);
__asm__(".text\n.globl whole\nwhole:\n"
	"push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"mov $0xb0, %ebx; mov $0xb1, %ebp; mov $0x12, %r12d; mov $0x13, %r13d; mov $0x14, %r14d; mov $0x15, %r15d\n"
	"mov $0x10, %r10d; mov $0x08, %r8d; mov $0x09, %r9d\n"
	"movq %rbx, %xmm0; movq %r12, %xmm7; movq %r15, %xmm15\n"
	"mov $-16, %rax\n1: mov %rax, (%rsp,%rax,8); inc %rax; jnz 1b\n"
	"mov $234, %eax\n"
	"stc\n"
	"syscall\n"
	"mov $0, %ecx\n"
	"adc $0, %rax\n" /* CF was kept: 1 */
	"cmp $1, %rax; je 1f; inc %ecx; 1:\n"
	"cmp $0xb0, %rbx; je 1f; inc %ecx; 1: cmp $0xb1, %rbp; je 1f; inc %ecx; 1:\n"
	"cmp $0x12, %r12; je 1f; inc %ecx; 1: cmp $0x13, %r13; je 1f; inc %ecx; 1:\n"
	"cmp $0x14, %r14; je 1f; inc %ecx; 1: cmp $0x15, %r15; je 1f; inc %ecx; 1:\n"
	"cmp $0x10, %r10; je 1f; inc %ecx; 1: cmp $0x08, %r8; je 1f; inc %ecx; 1: cmp $0x09, %r9; je 1f; inc %ecx; 1:\n"
	"movq %xmm0, %rax; cmp $0xb0, %rax; je 1f; inc %ecx; 1:\n"
	"movq %xmm7, %rax; cmp $0x12, %rax; je 1f; inc %ecx; 1:\n"
	"movq %xmm15, %rax; cmp $0x15, %rax; je 1f; inc %ecx; 1:\n"
	"mov $-16, %rdx\n2: cmp %rdx, (%rsp,%rdx,8); je 3f; inc %ecx\n3: inc %rdx; jnz 2b\n"
	"mov %rcx, %rax\n"
	"pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"ret\n");

static atomic_long came, rang;
static void clobber(int s)
{
	__asm__ volatile("pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm7, %%xmm7; pxor %%xmm15, %%xmm15" ::: "xmm0", "xmm7", "xmm15");
	if (s == SIGALRM)
		rang++;
	else
		came++;
}

/* A signal to itself changes nothing but what its handler means to, whatever else arrives meanwhile. */
CASE(signals_keep_every_register)
{
	signal(SIGUSR1, clobber);
	signal(SIGALRM, clobber);
	struct itimerval it = {{0, 300}, {0, 300}};
	long changed = 0, pid = getpid();
	for (int i = 0; i < 2 * ROUNDS; i++) {
		if (i == ROUNDS)
			setitimer(ITIMER_REAL, &it, NULL);
		changed += whole(pid, pid, SIGUSR1);
	}
	struct itimerval off = {0};
	setitimer(ITIMER_REAL, &off, NULL);
	EQ(changed, 0);
	EQ(came, 2 * ROUNDS);
	CHECK(rang > 0);
	/* Blocked, it waits; let in by its own return from another, it comes. */
	sigset_t usr1;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	came = 0;
	for (int i = 0; i < ROUNDS; i++) {
		sigprocmask(SIG_BLOCK, &usr1, NULL);
		raise(SIGUSR1);
		CHECK(came == i);
		sigprocmask(SIG_UNBLOCK, &usr1, NULL);
		CHECK(came == i + 1);
	}
}

MAIN
