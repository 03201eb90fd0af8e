/* User code cannot read, write or execute what is not its own: the upper half, the gate's data. */
#include "t.h"

static sigjmp_buf out;
static void trap(int s)
{
	siglongjmp(out, s);
}
static void arm(void)
{
	on(SIGSEGV, trap, SA_NODEFER);
	on(SIGBUS, trap, SA_NODEFER);
	on(SIGILL, trap, SA_NODEFER);
}
static int probe_read(unsigned long a)
{
	int s = sigsetjmp(out, 1);
	if (!s)
		(void)*(volatile char *)a;
	return s;
}
static int probe_write(unsigned long a)
{
	int s = sigsetjmp(out, 1);
	if (!s)
		*(volatile char *)a = 1;
	return s;
}
static int probe_exec(unsigned long a)
{
	int s = sigsetjmp(out, 1);
	if (!s)
		((void (*)(void))a)();
	return s;
}

CASE(upper_half)
{
	arm();
	int bad = 0;
	/* 512 top-level slots' starts, and around the ends of the address space. */
	for (unsigned long i = 256; i < 512; i++) {
		unsigned long a = 0xffff000000000000ul | i << 39;
		bad += probe_read(a) != SIGSEGV;
		bad += probe_write(a) != SIGSEGV;
		bad += probe_exec(a) != SIGSEGV;
		bad += probe_read(a + 0x1000) != SIGSEGV;
		bad += probe_write(a + 0x200000) != SIGSEGV;
	}
	EQ(bad, 0);
	static const unsigned long at[] = {0xffffffffff000000, 0xfffffffffffff000, 0xffffffff80000000, 0xffffffff81000000, 0xffff800000000000,
					   0xffff888000000000, 0xfffffe0000000000, 0x00007ffffffff000, 0x0000800000000000};
	for (unsigned i = 0; i < sizeof at / sizeof *at; i++) {
		EQ(probe_write(at[i]), SIGSEGV);
		EQ(probe_exec(at[i]), SIGSEGV);
	}
}

CASE(privileged_instructions)
{
	arm();
	int s;
#define PRIV(i) (s = sigsetjmp(out, 1), s ? s : ({ __asm__ volatile(i ::: "rax", "rcx", "rdx", "memory"); 0; }))
	EQ(PRIV("mov %%cr3, %%rax"), SIGSEGV);
	EQ(PRIV("xor %%eax, %%eax; mov %%rax, %%cr3"), SIGSEGV);
	EQ(PRIV("mov $0xc0000082, %%ecx; rdmsr"), SIGSEGV);
	EQ(PRIV("mov $0xc0000082, %%ecx; wrmsr"), SIGSEGV);
	EQ(PRIV("hlt"), SIGSEGV);
	EQ(PRIV("cli"), SIGSEGV);
	EQ(PRIV("invlpg (%%rsp)"), SIGSEGV);
	EQ(PRIV("lgdt (%%rsp)"), SIGSEGV);
	EQ(PRIV("lidt (%%rsp)"), SIGSEGV);
	EQ(PRIV("swapgs"), SIGSEGV);
	EQ(PRIV("wbinvd"), SIGSEGV);
	EQ(PRIV("clts"), SIGSEGV);
	EQ(PRIV("mov $0xdead, %%eax; out %%eax, $0xf4"), SIGSEGV);
}

CASE(every_port)
{
	arm();
	/* No port may reach anything: volatile, since siglongjmp comes back here. */
	volatile int bad = 0;
	for (volatile int port = 0; port < 65536; port += 97) {
		int s = sigsetjmp(out, 0);
		if (!s) {
			__asm__ volatile("outb %%al, %%dx" ::"a"(0), "d"(port));
			bad++;
		}
	}
	EQ(bad, 0);
}

CASE(system_calls_do_not_reach_up)
{
	put("f", "x");
	int fd = NEED(open("f", O_RDWR));
	ERR(read(fd, (void *)0xffffffff81000000, 1), EFAULT);
	ERR(write(fd, (void *)0xffff800000000000, 1), EFAULT);
	ERR(mmap((void *)0xffff800000000000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), ENOMEM);
	ERR(munmap((void *)0xffff800000000000, 4096), EINVAL);
	ERR(mprotect((void *)0xffff800000000000, 4096, PROT_READ), ENOMEM);
	ERR(read(fd, (void *)0x7ffffffff000, 1), EFAULT);
	ERR(open((char *)0xffffffff81000000, O_RDONLY), EFAULT);
}
MAIN
