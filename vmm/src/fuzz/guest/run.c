/* The process that runs programs: one call after the other, recording as it goes.
 *
 * Everything a program can break is in here and nowhere else; when it is broken the supervisor starts
 * another. The program's calls and our own are made by the instruction itself. */
#define _GNU_SOURCE
#include "executor.h"

#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t supervisor;
static size_t program_start;
static struct {
    uint64_t value;
    uint64_t set; /* number of the program that set it */
} slot[SLOTS];
static uint64_t program;

void record(uint32_t type, const void *a, size_t a_size, const void *b, size_t b_size) {
    size_t at = shared->length, size = 8 + a_size + b_size;
    if (at + size > program_start + PROGRAM_OUTPUT || at + size > OUTPUT_SIZE)
        return;
    uint32_t head[2] = {type, (uint32_t)(a_size + b_size)};
    memcpy(shared_output + at, head, 8);
    memcpy(shared_output + at + 8, a, a_size);
    if (b_size && guarded_copy(shared_output + at + 8 + a_size, b, b_size))
        return;
    shared->length = (uint32_t)(at + size);
}

static bool makes_process(uint64_t nr) {
    return nr == SYS_clone || nr == SYS_fork || nr == SYS_vfork || nr == SYS_clone3;
}

/* A new process or thread ends at once, in assembly: its stack may be ours or nowhere. */
long program_call(uint64_t nr, const uint64_t args[6]) {
    register uint64_t r10 __asm__("r10") = args[3];
    register uint64_t r8 __asm__("r8") = args[4];
    register uint64_t r9 __asm__("r9") = args[5];
    bool forks = makes_process(nr);
    long result;
    __asm__ volatile("syscall\n"
                     "test %%rax, %%rax\n"
                     "jnz 1f\n"
                     "test %%ebx, %%ebx\n"
                     "jz 1f\n"
                     "xor %%edi, %%edi\n"
                     "mov $60, %%eax\n"
                     "syscall\n"
                     "1:"
                     : "=a"(result)
                     : "a"(nr), "D"(args[0]), "S"(args[1]), "d"(args[2]), "r"(r10), "r"(r8), "r"(r9),
                       "b"((uint32_t)forks)
                     : "rcx", "r11", "memory");
    return result;
}

static uint64_t argument(const uint64_t **at) {
    const uint64_t *arg = *at;
    uint64_t value = arg[1];
    *at += 2 + arg[0];
    if (arg[0] == 1)
        value = slot[arg[1]].set == program ? slot[arg[1]].value : arg[2];
    data_touch(value);
    return value;
}

void set_slot(uint64_t number, uint64_t value) {
    if (number == NO_SLOT)
        return;
    slot[number].value = value;
    slot[number].set = program;
}

static void record_signals(void) {
    uint32_t seen = shared->signals;
    for (uint32_t i = shared->signals_recorded; i < seen && i < SIGNALS_MAX; i++) {
        struct signal_entry entry = shared->signal[i];
        uint32_t body[4] = {entry.call, entry.signo, (uint32_t)entry.code, 0};
        record(R_SIGNAL, body, sizeof body, NULL, 0);
    }
    shared->signals_recorded = seen;
}

/* What the last call of a program said, for instructions that ask. */
struct last {
    uint32_t call, regions;
    bool succeeded;
};

static void run_call(const struct step *step, uint32_t index, struct last *last) {
    uint64_t args[6] = {0};
    const uint64_t *arg = step->args;
    for (uint64_t i = 0; i < step->nargs; i++)
        args[i] = argument(&arg);
    last->call = index;
    last->regions = 0;
    last->succeeded = false;
    shared->call = index;
    shared->progress++;
    effects_before(step->nr, args);
    long result = effects_refuse(step->nr, args);
    if (!result) {
        if ((step->flags & 1) && async_start(index, step, args)) {
            last->succeeded = async_collect(index);
            return;
        }
        shared->inflight = 1;
        result = program_call(step->nr, args);
        /* Its SIGCHLD then always comes here, not some calls later. */
        /* What its number is differs from place to place; that it is the first process does not. */
        if (step->nr == SYS_getppid && result == supervisor)
            result = 1;
        if (makes_process(step->nr) && result > 0)
            sys(SYS_waitid, P_PID, result, 0, WEXITED | WNOWAIT | __WALL);
    }
    uint32_t head[2] = {index, 1};
    record(R_CALL, head, 8, &result, 8);
    shared->inflight = 0;
    effects_note(step->nr, args, result);
    if (!failed(result)) {
        last->succeeded = true;
        set_slot(step->slot, (uint64_t)result);
    }
    if (shared->signals != shared->signals_recorded)
        record_signals();
}

static void run_steps(const uint64_t *frame) {
    struct last last = {NO_CALL, 0, false};
    struct step step;
    uint32_t calls = 0;
    uint64_t value;
    size_t at = 0;
    while (frame_next(frame + FRAME_HEAD, frame[3], &at, &step) > 0) {
        switch (step.kind) {
        case COPYIN:
            value = argument(&step.args);
            data_touch_bytes(step.addr, &value, step.size);
            guarded_copy((void *)step.addr, &value, step.size);
            break;
        case DATA:
            data_touch_bytes(step.addr, step.bytes, step.size);
            guarded_copy((void *)step.addr, step.bytes, step.size);
            break;
        case CALL:
            run_call(&step, calls++, &last);
            if (shared->asyncs)
                async_collect(NO_CALL);
            break;
        case COPYOUT:
            value = 0;
            if (last.succeeded && !guarded_copy(&value, (void *)step.addr, step.size))
                set_slot(step.slot, value);
            break;
        case REGION:
            if (last.call != NO_CALL) {
                uint32_t head[2] = {last.call, last.regions++};
                record(R_REGION, head, 8, (void *)step.addr, step.size);
            }
            break;
        }
    }
}

/* True: this process can run another. */
static bool run_program(const uint64_t *frame, uint32_t index, bool last) {
    uint32_t state = (uint32_t)frame[2] & STATE_ALL;
    program++;
    program_start = shared->length;
    memset(&effects, 0, sizeof effects);
    shared->signals = shared->signals_recorded = 0;
    shared->asyncs = 0;
    shared->inflight = 0;
    shared->call = NO_CALL;
    if (state & STATE_VMAS)
        state_before(state);
    shared->quiet = 0;
    shared->running = 1;
    run_steps(frame);
    bool intact = shared->asyncs ? async_finish() : true;
    shared->quiet = 1;
    record_signals();
    if (state)
        state_after(state);
    shared->end[index] = shared->length;
    shared->seal[index] = seal_of(frame[1], shared->go, shared->length);
    shared->running = 0;
    shared->progress++;
    return intact && !last && effects_reset();
}

static void run_batch(bool fresh) {
    uint32_t count = shared->count;
    for (uint32_t i = 0; i < count && i < BATCH_MAX; i++) {
        if (OUTPUT_SIZE - shared->length < PROGRAM_OUTPUT)
            return;
        uint32_t start = shared->start[i];
        if (start > INPUT_SIZE / 8 - FRAME_HEAD || shared_input[start] != FRAME_MAGIC ||
            !run_program(shared_input + start, i, fresh))
            sys(SYS_exit_group, 0);
    }
}

void worker(bool fresh) {
    supervisor = getppid();
    prctl(PR_SET_DUMPABLE, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setsid();
    sys(SYS_close_range, 3, ~0u);
    sys(SYS_chdir, "/w/p");
    sys(SYS_mprotect, SHARED_START, READ_ONLY_SIZE, PROT_READ);
    stub_map();
    data_map();
    shared->quiet = 1;
    handlers_install();
    uint64_t none = 0;
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
    for (;;) {
        uint32_t batch = shared->go;
        run_batch(fresh);
        __atomic_store_n(&shared->idle, batch, __ATOMIC_SEQ_CST);
        sys(SYS_kill, supervisor, SIGUSR1);
        while (__atomic_load_n(&shared->go, __ATOMIC_SEQ_CST) == batch)
            sys(SYS_futex, &shared->go, FUTEX_WAIT, batch, 0);
    }
}
