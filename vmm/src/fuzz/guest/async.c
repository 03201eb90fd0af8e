/* Calls on threads of their own.
 *
 * The threads are bare: no library state, stacks that are always there. So a program sees no mapping
 * that comes or goes with them. */
#define _GNU_SOURCE
#include "executor.h"

#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#define STACK_SIZE 32768

/* How long a call may take to return or to be surely waiting: after it began, after another call that may
 * have woken it, at the end. */
#define START_US 2000
#define SETTLE_US 300
#define END_US 20000

static uint8_t stacks[ASYNC_MAX][STACK_SIZE] __attribute__((aligned(64)));
static struct {
    uint64_t nr, slot, args[6];
} work[ASYNC_MAX];

/* Until *word differs from value, or that many microseconds are over. */
static bool wait_word(volatile uint32_t *word, uint32_t value, uint32_t us) {
    struct timespec now, limit;
    sys(SYS_clock_gettime, CLOCK_MONOTONIC, &limit);
    uint64_t end = (uint64_t)limit.tv_nsec + (uint64_t)us * shared->slow * 1000;
    limit.tv_sec += (time_t)(end / 1000000000);
    limit.tv_nsec = (long)(end % 1000000000);
    while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == value) {
        sys(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
        if (now.tv_sec > limit.tv_sec || (now.tv_sec == limit.tv_sec && now.tv_nsec >= limit.tv_nsec))
            return false;
        sys(SYS_futex, word, FUTEX_WAIT_BITSET, value, &limit, 0, FUTEX_BITSET_MATCH_ANY);
    }
    return true;
}

static void body(uint64_t i) {
    int64_t result = program_call(work[i].nr, work[i].args);
    shared->async[i].result = result;
    __atomic_store_n(&shared->async[i].done, 1, __ATOMIC_SEQ_CST);
    sys(SYS_futex, &shared->async[i].done, FUTEX_WAKE, 1);
    for (;;)
        sys(SYS_exit, 0);
}

/* In assembly, since the new thread returns from the call on a stack without a frame. */
static long start_thread(uint8_t *top, volatile uint32_t *word, uint64_t i) {
    unsigned long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                          CLONE_CHILD_CLEARTID;
    register long r10 __asm__("r10") = (long)word;
    register long r8 __asm__("r8") = 0;
    register void (*r12)(uint64_t) __asm__("r12") = body;
    register uint64_t r13 __asm__("r13") = i;
    long result;
    __asm__ volatile("syscall\n"
                     "test %%rax, %%rax\n"
                     "jnz 1f\n"
                     "xor %%ebp, %%ebp\n"
                     "mov %%r13, %%rdi\n"
                     "call *%%r12\n"
                     "1:"
                     : "=a"(result)
                     : "a"(SYS_clone), "D"(flags), "S"(top), "d"(0), "r"(r10), "r"(r8), "r"(r12), "r"(r13)
                     : "rcx", "r11", "memory");
    return result;
}

/* False: no thread to be had. */
bool async_start(uint32_t call, const struct step *step, const uint64_t args[6]) {
    uint32_t i = shared->asyncs;
    if (i >= ASYNC_MAX)
        return false;
    volatile struct async_entry *entry = &shared->async[i];
    memcpy(work[i].args, args, sizeof work[i].args);
    work[i].nr = step->nr;
    work[i].slot = step->slot;
    entry->call = call;
    entry->done = 0;
    entry->recorded = 0;
    entry->thread = 1;
    shared->asyncs = i + 1;
    if (failed(start_thread(stacks[i] + STACK_SIZE, &entry->thread, i))) {
        shared->asyncs = i;
        return false;
    }
    /* Then it has either returned or is surely waiting: what follows does not depend on the scheduler. */
    wait_word(&entry->done, 0, START_US);
    return true;
}

/* Records what has returned meanwhile. With a call just begun: whether this call is among it and succeeded. */
bool async_collect(uint32_t call) {
    bool succeeded = false;
    for (uint32_t i = 0; i < shared->asyncs; i++) {
        if (shared->async[i].recorded || !wait_word(&shared->async[i].done, 0, call == NO_CALL ? SETTLE_US : 0))
            continue;
        struct async_entry entry = shared->async[i];
        uint32_t head[2] = {entry.call, 1};
        effects_note(work[i].nr, work[i].args, entry.result);
        record(R_CALL, head, 8, &entry.result, 8);
        shared->async[i].recorded = 1;
        if (failed(entry.result))
            continue;
        set_slot(work[i].slot, (uint64_t)entry.result);
        succeeded |= entry.call == call;
    }
    return succeeded;
}

/* Gives the calls a little longer; false if one is still waiting, which then keeps its thread. */
bool async_finish(void) {
    bool all = true;
    for (uint32_t i = 0; i < shared->asyncs; i++)
        all &= wait_word(&shared->async[i].done, 0, all ? END_US : 1);
    async_collect(NO_CALL);
    for (uint32_t i = 0; i < shared->asyncs; i++) {
        struct async_entry entry = shared->async[i];
        uint32_t head[2] = {entry.call, 0};
        int64_t none = 0;
        if (entry.recorded) {
            all &= wait_word(&shared->async[i].thread, 1, 100000);
            continue;
        }
        record(R_CALL, head, 8, &none, 8);
        shared->async[i].recorded = 1;
    }
    return all;
}
