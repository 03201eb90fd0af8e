/* Signals of exceptions: number, si_code, si_addr, trap number and error code, and where RIP is. */
#include "t.h"
#include <fenv.h>
#include <ucontext.h>

static sigjmp_buf out;
static siginfo_t got;
static long trap, error, rip;
static char *page;

static void handler(int s, siginfo_t *i, void *u)
{
	(void)s;
	ucontext_t *c = u;
	got = *i;
	trap = c->uc_mcontext.gregs[REG_TRAPNO];
	error = c->uc_mcontext.gregs[REG_ERR];
	rip = c->uc_mcontext.gregs[REG_RIP];
	/* Flags of the FPU do not come back with siglongjmp. */
	feclearexcept(FE_ALL_EXCEPT);
	siglongjmp(out, 1);
}
static void catch(void)
{
	static const int all[] = {SIGSEGV, SIGILL, SIGTRAP, SIGBUS, SIGFPE};
	for (unsigned i = 0; i < 5; i++)
		OK(on_info(all[i], handler, SA_NODEFER));
	if (!page)
		page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static void run(const char *code, int n)
{
	memset(page, 0xcc, 64);
	memcpy(page, code, n);
	memset(&got, 0, sizeof got);
	if (!sigsetjmp(out, 1))
		((void (*)(void))page)();
}
#define SIGNALS(bytes, sig, code, addr, nr, err, at)         \
	do {                                                 \
		run(bytes, sizeof bytes - 1);                \
		EQ(got.si_signo, sig);                       \
		EQ(got.si_code, code);                       \
		EQ(got.si_addr, (addr) ? page : NULL);       \
		EQ(trap, nr);                                \
		EQ(error, err);                              \
		EQ(rip - (long)page, at);                    \
	} while (0)

CASE(software_interrupts)
{
	catch();
	for (int n = 0; n < 256; n++) {
		/* 0x80 is a system call where there are 32-bit ones. A deprivileged KVM host
		   keeps three for itself: it steps over them, or reports them once they are past. */
		if (n == 3 || n == 4 || n == 0x80 || n == 0x17 || n == 0x19 || n == 0x1a)
			continue;
		char code[] = {0xcd, n};
		run(code, 2);
		EQ(got.si_signo, SIGSEGV);
		EQ(got.si_code, SI_KERNEL);
		EQ(got.si_addr, NULL);
		EQ(trap, 13);
		EQ(error, n << 3 | 2);
		EQ(rip, (long)page);
	}
	SIGNALS("\xcc", SIGTRAP, SI_KERNEL, 0, 3, 0, 1);
	SIGNALS("\xcd\x03", SIGTRAP, SI_KERNEL, 0, 3, 0, 2);
	run("\xcd\x04", 2);
	EQ(got.si_signo, SIGSEGV);
	run("\xf1", 1);
	EQ(got.si_signo, SIGTRAP);
	EQ(got.si_code, TRAP_BRKPT);
	EQ(trap, 1);
}

CASE(privileged)
{
	catch();
	SIGNALS("\xf4", SIGSEGV, SI_KERNEL, 0, 13, 0, 0);         /* hlt */
	SIGNALS("\xfa", SIGSEGV, SI_KERNEL, 0, 13, 0, 0);         /* cli */
	SIGNALS("\xec", SIGSEGV, SI_KERNEL, 0, 13, 0, 0);         /* in */
	SIGNALS("\xee", SIGSEGV, SI_KERNEL, 0, 13, 0, 0);         /* out */
	SIGNALS("\x6c", SIGSEGV, SI_KERNEL, 0, 13, 0, 0);         /* ins */
	SIGNALS("\x6e", SIGSEGV, SI_KERNEL, 0, 13, 0, 0);         /* outs */
	SIGNALS("\x0f\x32", SIGSEGV, SI_KERNEL, 0, 13, 0, 0);     /* rdmsr */
	SIGNALS("\x0f\x30", SIGSEGV, SI_KERNEL, 0, 13, 0, 0);     /* wrmsr */
	SIGNALS("\x0f\x20\xc0", SIGSEGV, SI_KERNEL, 0, 13, 0, 0); /* mov cr0 */
	SIGNALS("\x0f\x22\xd8", SIGSEGV, SI_KERNEL, 0, 13, 0, 0); /* mov cr3 */
	SIGNALS("\x0f\x01\x10", SIGSEGV, SI_KERNEL, 0, 13, 0, 0); /* lgdt */
	SIGNALS("\x0f\x00\xd8", SIGSEGV, SI_KERNEL, 0, 13, 0, 0); /* ltr */
	SIGNALS("\x0f\x01\xf8", SIGSEGV, SI_KERNEL, 0, 13, 0, 0); /* swapgs */
	SIGNALS("\x0f\x06", SIGSEGV, SI_KERNEL, 0, 13, 0, 0);     /* clts */
	SIGNALS("\x0f\x01\x38", SIGSEGV, SI_KERNEL, 0, 13, 0, 0); /* invlpg */
	SIGNALS("\x0f\x01\xc8", SIGILL, ILL_ILLOPN, 1, 6, 0, 0);  /* monitor */
	SIGNALS("\x0f\x01\xc9", SIGILL, ILL_ILLOPN, 1, 6, 0, 0);  /* mwait */
}

CASE(undefined)
{
	catch();
	SIGNALS("\x0f\x0b", SIGILL, ILL_ILLOPN, 1, 6, 0, 0);     /* ud2 */
	SIGNALS("\x0f\xb9\xc0", SIGILL, ILL_ILLOPN, 1, 6, 0, 0); /* ud1 */
	SIGNALS("\x06", SIGILL, ILL_ILLOPN, 1, 6, 0, 0);         /* push es */
	SIGNALS("\xce", SIGILL, ILL_ILLOPN, 1, 6, 0, 0);         /* into */
	SIGNALS("\xf0\x90", SIGILL, ILL_ILLOPN, 1, 6, 0, 0);     /* lock nop */
	SIGNALS("\x0f\xaa", SIGILL, ILL_ILLOPN, 1, 6, 0, 0);     /* rsm */
}

CASE(arithmetic)
{
	catch();
	run("\x31\xc9\xf7\xf1", 4);
	EQ(got.si_signo, SIGFPE);
	EQ(got.si_code, FPE_INTDIV);
	EQ(got.si_addr, page + 2);
	EQ(trap, 0);
}

static volatile double zero, one = 1, huge = 1e308, tiny = 1e-308, result;
static volatile long double lzero, lone = 1, lresult;
#define FPE(flag, expression, code, nr)                  \
	do {                                             \
		memset(&got, 0, sizeof got);             \
		feclearexcept(FE_ALL_EXCEPT);            \
		feenableexcept(flag);                    \
		if (!sigsetjmp(out, 1)) {                \
			expression;                      \
			__asm__ volatile("fwait");       \
		}                                        \
		fedisableexcept(FE_ALL_EXCEPT);          \
		EQ(got.si_signo, SIGFPE);                \
		EQ(got.si_code, code);                   \
		EQ(trap, nr);                            \
	} while (0)

CASE(floating_point)
{
	catch();
	FPE(FE_DIVBYZERO, result = one / zero, FPE_FLTDIV, 19);
	FPE(FE_INVALID, result = zero / zero, FPE_FLTINV, 19);
	FPE(FE_OVERFLOW, result = huge * huge, FPE_FLTOVF, 19);
	FPE(FE_UNDERFLOW, result = tiny * tiny, FPE_FLTUND, 19);
	FPE(FE_INEXACT, result = one / 3, FPE_FLTRES, 19);
	FPE(FE_DIVBYZERO, lresult = lone / lzero, FPE_FLTDIV, 16);
	FPE(FE_INVALID, lresult = lzero / lzero, FPE_FLTINV, 16);
}

CASE(a_step)
{
	catch();
	/* pushfq; or dword [rsp], 0x100; popfq; nop: the trap comes after the nop. */
	run("\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d\x90\x90", 11);
	EQ(got.si_signo, SIGTRAP);
	EQ(got.si_code, TRAP_TRACE);
	EQ(got.si_addr, page + 10);
	EQ(trap, 1);
}
MAIN
