/* Call sites that are hot: however the SYSCALL is reached after many calls, the program's own code, registers,
 * signals and memory look as before. */
#include "t.h"
#include <ucontext.h>

#define HOT 600

/* A site of its own text page, so that a case may change its protection: `name` is followed by `name_call`,
 * the SYSCALL, and `name_end`. */
#define SITE(name, before, after)                                              \
	long name(long, long, long);                                           \
	extern char name##_call[], name##_end[];                               \
	__asm__(".text\n.balign 4096\n.skip 256, 0x90\n.globl " #name "\n"     \
		#name ":\n" before "\n" #name "_call: syscall\n" after         \
		"\n ret\n" #name "_end: .balign 4096\n")

SITE(by_number, "mov $110, %eax", "");
SITE(by_zero, "xor %eax, %eax", "cmp $-4095, %rax");
SITE(by_register, "mov %rdx, %rax", "nop");
SITE(by_lea, "lea 39(%rdx), %eax", "");
/* Loads through RDX: may fault. */
SITE(by_load, "mov (%rdx), %rax", "");
/* The SYSCALL is reached by a branch, too. */
SITE(by_branch, "test %rdx, %rdx\n jz 1f\n mov $39, %eax\n jmp by_branch_call\n1: mov $110, %eax", "");

static long hot(long (*f)(long, long, long), long a, long b, long c)
{
	long last = 0, differ = 0;
	for (int i = 0; i < HOT; i++) {
		long now = f(a, b, c);
		differ += i > 0 && now != last;
		last = now;
	}
	EQ(differ, 0);
	return last;
}

CASE(answers_stay_the_same)
{
	int zero = open("/dev/zero", O_RDONLY);
	char byte = 1;
	CHECK(hot(by_number, 0, 0, 0) == getppid());
	EQ(hot(by_zero, zero, (long)&byte, 1), 1);
	EQ(byte, 0);
	CHECK(hot(by_register, 0, 0, SYS_getppid) == getppid());
	CHECK(hot(by_register, 0, 0, SYS_getpid) == getpid());
	CHECK(hot(by_lea, 0, 0, 0) == getpid());
	CHECK(hot(by_lea, 0, 0, SYS_getppid - 39) == getppid());
	long number = SYS_getpid;
	CHECK(hot(by_load, 0, 0, (long)&number) == getpid());
	CHECK(hot(by_branch, 0, 0, 0) == getppid());
	CHECK(hot(by_branch, 0, 0, 1) == getpid());
	CHECK(by_branch(0, 0, 0) == getppid());
}

CASE(errors_too)
{
	EQ(hot(by_zero, -1, 0, 0), -EBADF);
	EQ(hot(by_register, 0, 0, 100000), -ENOSYS);
}

/* red(number): fills the red zone, calls, and tells what of it is left. */
long red(long);
__asm__(".text\n.skip 256, 0x90\n.globl red\nred: mov %rdi, %r8\n"
	"mov $-16, %rdx\n1: mov %rdx, (%rsp,%rdx,8)\n inc %rdx\n jnz 1b\n"
	"mov %r8, %rdi\n mov $110, %eax\n syscall\n"
	"mov $-16, %rdx\n xor %eax, %eax\n2: cmp %rdx, (%rsp,%rdx,8)\n jne 3f\n inc %rax\n3: inc %rdx\n jnz 2b\n ret\n");

CASE(red_zone)
{
	long whole = 0;
	for (int i = 0; i < HOT; i++)
		whole += red(0) == 16;
	EQ(whole, HOT);
}

static atomic_long ticks, strays;
static void tick(int s, siginfo_t *i, void *c)
{
	(void)s, (void)i;
	ucontext_t *u = c;
	unsigned long rip = u->uc_mcontext.gregs[REG_RIP];
	extern char __executable_start[], etext[];
	ticks++;
	if (rip < (unsigned long)__executable_start || rip >= (unsigned long)etext)
		strays++;
}

CASE(signals_tell_the_programs_own_rip)
{
	struct sigaction a = {.sa_sigaction = tick, .sa_flags = SA_SIGINFO};
	sigaction(SIGALRM, &a, NULL);
	struct itimerval it = {{0, 300}, {0, 300}};
	setitimer(ITIMER_REAL, &it, NULL);
	long wrong = 0, pid = getpid(), ppid = getppid();
	while (ticks < 300) {
		wrong += by_lea(0, 0, 0) != pid;
		wrong += by_number(0, 0, 0) != ppid;
	}
	struct itimerval off = {0};
	setitimer(ITIMER_REAL, &off, NULL);
	EQ(wrong, 0);
	/* The vDSO is not the program's either, but nobody calls it here. */
	EQ(strays, 0);
}

static sigjmp_buf back;
static unsigned long seen_rip, seen_addr;
static void segv(int s, siginfo_t *i, void *c)
{
	(void)s;
	seen_rip = ((ucontext_t *)c)->uc_mcontext.gregs[REG_RIP];
	seen_addr = (unsigned long)i->si_addr;
	siglongjmp(back, 1);
}

CASE(a_fault_of_the_instruction_before_is_its_own)
{
	struct sigaction a = {.sa_sigaction = segv, .sa_flags = SA_SIGINFO};
	sigaction(SIGSEGV, &a, NULL);
	long number = SYS_getpid;
	hot(by_load, 0, 0, (long)&number);
	for (int i = 0; i < 3; i++) {
		seen_rip = 0;
		if (!sigsetjmp(back, 1))
			by_load(0, 0, 0x1008);
		CHECK(seen_rip == (unsigned long)by_load);
		EQ(seen_addr, 0x1008);
	}
	CHECK(by_load(0, 0, (long)&number) == getpid());
}

CASE(code_made_writable_is_as_it_was)
{
	char before[64], after[64];
	char *page = (char *)((unsigned long)by_number & -4096ul);
	memcpy(before, (char *)by_number - 32, sizeof before);
	hot(by_number, 0, 0, 0);
	OK(mprotect(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC));
	memcpy(after, (char *)by_number - 32, sizeof after);
	EQ(memcmp(before, after, sizeof before), 0);
	CHECK(hot(by_number, 0, 0, 0) == getppid());
	/* Another number. */
	((char *)by_number)[1] = 39;
	CHECK(hot(by_number, 0, 0, 0) == getpid());
	OK(mprotect(page, 4096, PROT_READ | PROT_EXEC));
	CHECK(hot(by_number, 0, 0, 0) == getpid());
}

CASE(code_made_inaccessible_and_back)
{
	char *page = (char *)((unsigned long)by_number & -4096ul);
	hot(by_number, 0, 0, 0);
	OK(mprotect(page, 4096, PROT_NONE));
	OK(mprotect(page, 4096, PROT_READ | PROT_EXEC));
	CHECK(hot(by_number, 0, 0, 0) == getppid());
	/* The file's own page again. */
	OK(madvise(page, 4096, MADV_DONTNEED));
	CHECK(hot(by_number, 0, 0, 0) == getppid());
}

/* What the monitor put into the address space is taken away under the sites that use it. */
CASE(trampolines_may_go)
{
	hot(by_number, 0, 0, 0);
	hot(by_zero, -1, 0, 0);
	for (int way = 0; way < 3; way++) {
		char line[512];
		unsigned long at[64][2];
		int n = 0;
		FILE *maps = fopen("/proc/self/maps", "r");
		while (fgets(line, sizeof line, maps) && n < 64)
			if (strstr(line, "[trapgate]") && sscanf(line, "%lx-%lx", &at[n][0], &at[n][1]) == 2)
				n++;
		fclose(maps);
		for (int i = 0; i < n; i++) {
			void *p = (void *)at[i][0];
			size_t len = at[i][1] - at[i][0];
			if (way == 0)
				OK(munmap(p, len));
			else if (way == 1)
				OK(mprotect(p, len, PROT_READ | PROT_WRITE));
			else
				CHECK(mmap(p, len, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
		}
		CHECK(hot(by_number, 0, 0, 0) == getppid());
		EQ(hot(by_zero, -1, 0, 0), -EBADF);
	}
}

static void *caller(void *count)
{
	long wrong = 0, pid = getpid(), ppid = getppid();
	for (long i = 0; i < (long)count; i++) {
		wrong += by_lea(0, 0, 0) != pid;
		wrong += by_number(0, 0, 0) != ppid;
		wrong += by_zero(-1, 0, 0) != -EBADF;
	}
	return (void *)wrong;
}

CASE(threads_share_sites)
{
	pthread_t t[4];
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, caller, (void *)(long)HOT);
	for (int i = 0; i < 4; i++) {
		void *wrong;
		pthread_join(t[i], &wrong);
		EQ((long)wrong, 0);
	}
}

CASE(threads_while_the_code_changes_hands)
{
	pthread_t t[2];
	char *page = (char *)((unsigned long)by_number & -4096ul);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, caller, (void *)(long)(3 * HOT));
	for (int i = 0; i < 40; i++) {
		OK(mprotect(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC));
		OK(mprotect(page, 4096, PROT_READ | PROT_EXEC));
		usleep(300);
	}
	for (int i = 0; i < 2; i++) {
		void *wrong;
		pthread_join(t[i], &wrong);
		EQ((long)wrong, 0);
	}
}

CASE(children_have_the_sites)
{
	CHECK(hot(by_number, 0, 0, 0) == getppid());
	for (int i = 0; i < 4; i++) {
		pid_t me = getpid(), child = fork();
		if (child == 0) {
			int status = 0;
			if (hot(by_number, 0, 0, 0) != me || hot(by_lea, 0, 0, 0) != getpid())
				_exit(1);
			/* Its own new sites, on the pages it shares. */
			if (hot(i & 1 ? by_zero : by_register, -1, 0, i & 1 ? 0 : SYS_close) != -EBADF)
				_exit(2);
			pid_t grandchild = fork();
			if (grandchild == 0)
				_exit(hot(by_number, 0, 0, 0) == getppid() ? 0 : 3);
			waitpid(grandchild, &status, 0);
			_exit(WEXITSTATUS(status));
		}
		int status;
		waitpid(child, &status, 0);
		EQ(status, 0);
		CHECK(hot(i & 1 ? by_register : by_zero, -1, 0, i & 1 ? SYS_close : 0) == -EBADF);
	}
	CHECK(hot(by_number, 0, 0, 0) == getppid());
}

CASE(code_made_at_run_time)
{
	unsigned char code[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3};
	unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(page, 0x90, 256);
	long (*f)(long, long, long) = (long (*)(long, long, long))(void *)(page + 256);
	for (int i = 0; i < 4; i++) {
		code[1] = i & 1 ? SYS_getppid : SYS_getpid;
		memcpy(page + 256, code, sizeof code);
		CHECK(hot(f, 0, 0, 0) == (i & 1 ? getppid() : getpid()));
		EQ(memcmp(page + 256, code, sizeof code), 0);
	}
}

/* A moved mapping takes its code along; one that is gone leaves nothing behind. */
CASE(mapped_code_moves_and_goes)
{
	unsigned char code[4096];
	memset(code, 0x90, sizeof code);
	memcpy(code + 512, (unsigned char[]){0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3}, 8);
	int fd = open("code", O_RDWR | O_CREAT, 0700);
	EQ(write(fd, code, sizeof code), 4096);
	for (int i = 0; i < 3; i++) {
		char *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
		CHECK(hot((long (*)(long, long, long))(void *)(p + 512), 0, 0, 0) == getppid());
		char *room = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		char *q = mremap(p, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, room);
		CHECK(q == room);
		EQ(memcmp(q, code, sizeof code), 0);
		CHECK(hot((long (*)(long, long, long))(void *)(q + 512), 0, 0, 0) == getppid());
		OK(munmap(q, 4096));
	}
	/* The file is as it was. */
	unsigned char again[4096];
	EQ(pread(fd, again, sizeof again, 0), 4096);
	EQ(memcmp(code, again, sizeof code), 0);
}

static atomic_long steps;
static void step(int s)
{
	(void)s;
	steps++;
}

CASE(single_steps_go_through)
{
	signal(SIGTRAP, step);
	CHECK(hot(by_number, 0, 0, 0) == getppid());
	long ppid;
	__asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; call by_number; pushfq; andq $~0x100, (%%rsp); popfq"
			 : "=a"(ppid) : "D"(0), "S"(0), "d"(0) : "rcx", "r11", "r8", "r9", "r10", "memory", "cc");
	CHECK(ppid == getppid());
	CHECK(steps >= 4);
}

MAIN
