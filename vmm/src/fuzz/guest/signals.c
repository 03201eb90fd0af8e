/* The handler every signal has when a program begins, and copies that may fault.
 *
 * Programs name the handler by a constant: a stub at STUB_PAGE jumps to it. The handler only takes notes;
 * the records are written between calls, so it can come at any time and on any thread. */
#define _GNU_SOURCE
#include "executor.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define RESTORER_FLAG 0x04000000ul

/* rep movsb leaves its own address when it faults, and can be left from there. */
int guarded_copy(void *to, const void *from, size_t size);
extern const char copy_instruction[], copy_fault[];
__asm__(".text\n"
        ".globl guarded_copy\n"
        "guarded_copy:\n"
        "    mov %rdx, %rcx\n"
        "copy_instruction:\n"
        "    rep movsb\n"
        "    xor %eax, %eax\n"
        "    ret\n"
        "copy_fault:\n"
        "    mov $1, %eax\n"
        "    ret\n");

static bool is_fault(int signo) {
    return signo == SIGSEGV || signo == SIGBUS || signo == SIGILL || signo == SIGFPE || signo == SIGTRAP;
}

static void handler(int signo, siginfo_t *info, void *context) {
    if (!shared->quiet) {
        uint32_t i = __atomic_fetch_add(&shared->signals, 1, __ATOMIC_SEQ_CST);
        if (i < SIGNALS_MAX) {
            shared->signal[i].call = shared->call;
            shared->signal[i].signo = (uint32_t)signo;
            shared->signal[i].code = info->si_code;
        }
    }
    /* One that somebody sent is news, not a fault. */
    if (!is_fault(signo) || info->si_code <= 0)
        return;
    ucontext_t *at = context;
    if ((uintptr_t)at->uc_mcontext.gregs[REG_RIP] == (uintptr_t)copy_instruction) {
        at->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)copy_fault;
        return;
    }
    sys(SYS_exit_group, 200 + signo);
}

void stub_map(void) {
    uint8_t jump[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0}; /* mov $handler,%rax; jmp *%rax */
    static const uint8_t restorer[] = {0xb8, SYS_rt_sigreturn, 0, 0, 0, 0x0f, 0x05}; /* syscall */
    uintptr_t address = (uintptr_t)handler;
    memcpy(jump + 2, &address, 8);
    char *page = mmap((void *)STUB_PAGE, 4096, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (page == MAP_FAILED)
        sys(SYS_exit_group, 4);
    memcpy(page, jump, sizeof jump);
    memcpy((char *)STUB_RESTORER, restorer, sizeof restorer);
    mprotect(page, 4096, PROT_READ | PROT_EXEC);
}

/* The kernel's struct sigaction: handler, flags, restorer, mask. */
static const uint64_t ours[4] = {STUB_PAGE, SA_SIGINFO | RESTORER_FLAG, STUB_RESTORER, 0};

void handler_install(int signo) {
    sys(SYS_rt_sigaction, signo, ours, 0, 8);
}

void handlers_install(void) {
    for (int signo = 1; signo <= 64; signo++)
        if (signo != SIGKILL && signo != SIGSTOP)
            handler_install(signo);
}

bool handler_is_ours(int signo, uint64_t action[4]) {
    memset(action, 0, 32);
    sys(SYS_rt_sigaction, signo, 0, action, 8);
    return memcmp(action, ours, 32) == 0;
}
