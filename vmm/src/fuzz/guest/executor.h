/* The fuzz executor: runs system-call programs and records what each call did.
 *
 *     main.c       arguments, input frames, output records
 *     sandbox.c    the harmless place it runs in on Linux itself; filter.c: the calls denied there
 *     supervise.c  the process that owns the pipes: children, time limits, how a program ended
 *     run.c        the process that runs programs, one call after the other; async.c: calls on threads
 *     signals.c    the signal handler that logs, and copies that may fault
 *     effects.c    what a call may leave behind, and undoing it for the next program; data.c: in memory
 *     state.c      what a program left behind, as text; tree.c: the files among it
 *
 * A program is hostile: it may unmap, overwrite or close anything in its own process. So that process
 * holds no descriptor that matters, and the supervisor believes nothing it reads from shared memory
 * without checking. */
#ifndef EXECUTOR_H
#define EXECUTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>

/* Addresses that programs name. */
#define DATA_START 0x20000000ul
#define DATA_SIZE (4ul << 20)
#define STUB_PAGE 0x1fff0000ul
#define STUB_RESTORER (STUB_PAGE + 0x40)

/* Where the kernel places nothing by itself, and no program looks by accident. */
#define SHARED_START 0x7c0000000000ul

#define FRAME_MAGIC 0x314d475250475254ul
#define FRAME_HEAD 4u
#define FRAME_WORDS_MAX 65536u
#define FLAG_FRESH 1u
#define STATE_FDS 2u
#define STATE_VMAS 4u
#define STATE_SIGNALS 8u
#define STATE_FILES 16u
#define STATE_PROCESS 32u
#define STATE_ALL 62u
#define NO_SLOT UINT64_MAX
#define SLOTS 1024u
#define CALLS_MAX 4096u

enum instruction { COPYIN = 1, DATA, CALL, COPYOUT, REGION };
enum record { R_BEGIN = 1, R_CALL, R_REGION, R_SIGNAL, R_STATE, R_END, R_FATAL };
enum how { COMPLETED, KILLED, EXITED, TIMED_OUT };

/* Descriptors of programs are below this, the supervisor's own from here on. */
#define FD_LIMIT 240

#define BATCH_MAX 256u
#define INPUT_SIZE (2u << 20)
#define OUTPUT_SIZE (4u << 20)
/* More than this of one program is dropped, so that a batch can go on while this much is free. */
#define PROGRAM_OUTPUT (1u << 20)
#define STATE_TEXT (256u << 10)
#define SIGNALS_MAX 128u
#define ASYNC_MAX 16u
#define NO_CALL UINT32_MAX

struct signal_entry {
    uint32_t call, signo;
    int32_t code;
};

struct async_entry {
    uint32_t call;
    /* 0 running, 1 returned; a futex. */
    uint32_t done;
    int64_t result;
    /* Whether its CALL record is in the output. */
    uint32_t recorded;
    /* Not 0 while the thread uses its stack; the kernel clears and wakes it. */
    uint32_t thread;
};

/* System V objects outlive processes: kind is the number of the call that made one. */
#define OBJECTS_MAX 64u
struct ipc_object {
    uint32_t kind;
    int32_t id;
    char name[56];
};

/* Between the supervisor and the one child that runs programs. The first part is read-only to the child:
 * a program that writes wildly spoils its own record, not the programs after it. */
struct channel {
    uint32_t go; /* number of the batch to run; a futex */
    uint32_t slow;
    uint32_t count;
    uint32_t start[BATCH_MAX]; /* of each frame, in words of input */
    uint64_t input[INPUT_SIZE / 8] __attribute__((aligned(4096)));

    uint32_t idle __attribute__((aligned(4096))); /* number of the last batch that ended */
    uint32_t progress;                            /* changes while the child gets on */
    uint32_t running;  /* whether one has begun and not ended */
    uint32_t length;   /* of the finished records in output */
    /* Of each program that completed: where its records end, and a seal that hardly comes by chance. */
    uint32_t end[BATCH_MAX];
    uint64_t seal[BATCH_MAX];
    uint32_t call;     /* index of the call that began last */
    uint32_t inflight; /* whether it is still to return */
    uint32_t quiet;    /* signals are of no interest now */
    uint32_t signals;  /* that came; the first SIGNALS_MAX are kept */
    uint32_t signals_recorded;
    struct signal_entry signal[SIGNALS_MAX];
    uint32_t asyncs;
    struct async_entry async[ASYNC_MAX];
    uint32_t objects;
    struct ipc_object object[OBJECTS_MAX];
    uint8_t output[OUTPUT_SIZE];
};
#define READ_ONLY_SIZE offsetof(struct channel, idle)
#define shared ((volatile struct channel *)SHARED_START)
/* What only one side writes while the other sleeps needs no volatile. */
#define shared_input ((uint64_t *)(SHARED_START + offsetof(struct channel, input)))
#define shared_output ((uint8_t *)(SHARED_START + offsetof(struct channel, output)))

static inline uint64_t seal_of(uint64_t id, uint32_t batch, uint32_t end) {
    return (id ^ FRAME_MAGIC) * 0x9e3779b97f4a7c15ul ^ ((uint64_t)batch << 32 | end);
}

/* The instruction itself: nothing of the library's may come between, and nothing may touch errno, which a
 * program can unmap. */
static inline long raw(long nr, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#define RAW_1(nr, a, b, c, d, e, f, ...)                                                           \
    raw(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define sys(...) RAW_1(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

static inline bool failed(long result) {
    return (unsigned long)result >= -4095ul;
}

/* A walk through the instructions of a frame. One frame_next passes is well formed. */
struct step {
    enum instruction kind;
    uint64_t nr, flags, slot, addr, size;
    const uint64_t *args; /* CALL: nargs ARGs; COPYIN: one */
    uint64_t nargs;
    const void *bytes;
};
/* 1: *step is filled and *at advanced; 0: the end; -1: malformed. */
int frame_next(const uint64_t *words, size_t count, size_t *at, struct step *step);

/* main.c */
__attribute__((noreturn)) void fatal(const char *text, long detail);
void put_record(uint32_t type, const void *a, size_t a_size, const void *b, size_t b_size);

/* sandbox.c, filter.c */
__attribute__((noreturn)) void enter_sandbox(uint32_t slow);
void arm_filter(void);

/* supervise.c */
void limit(int resource, uint64_t value);
void supervisor_start(uint32_t slow);
void supervise(const uint64_t *const *frames, uint32_t count);
void supervisor_stop(void);
/* The supervisor is process 1 of a pid namespace. */
extern bool is_init;

/* run.c */
extern pid_t supervisor;
__attribute__((noreturn)) void worker(bool fresh);
void record(uint32_t type, const void *a, size_t a_size, const void *b, size_t b_size);
void set_slot(uint64_t number, uint64_t value);
long program_call(uint64_t nr, const uint64_t args[6]);

/* async.c */
bool async_start(uint32_t call, const struct step *step, const uint64_t args[6]);
bool async_collect(uint32_t call);
bool async_finish(void);

/* signals.c */
void stub_map(void);
void handlers_install(void);
void handler_install(int signo);
bool handler_is_ours(int signo, uint64_t action[4]);
int guarded_copy(void *to, const void *from, size_t size);

/* effects.c */
struct effects {
    uint32_t classes;
    bool retire; /* the process is not worth another program */
    bool remap;  /* the data area is not the mapping it was */
    bool standard;        /* descriptors 0 to 2 may have changed */
    bool tree;            /* something was created, removed or changed among files */
    bool path;            /* a descriptor that poll(2) takes for closed */
    bool deep;            /* in a way that emptying /w/p does not undo */
    int fd_calls, fd_top; /* how often descriptors were made, and the highest one returned */
    uint64_t actions;     /* signals whose action was set, bit signo - 1 */
    uint32_t timers;      /* interval timers that were set */
    uint32_t maps;
    struct {
        uint64_t start, length;
    } map[32];
};
extern struct effects effects;
long effects_refuse(uint64_t nr, const uint64_t args[6]);
void effects_before(uint64_t nr, const uint64_t args[6]);
void effects_note(uint64_t nr, const uint64_t args[6], long result);
int effects_fds(void);
bool effects_reset(void);
void objects_remove(void);
bool null_standard(void);
bool fd_open(int fd);
void fds_close(void);

/* data.c */
void data_map(void);
void data_touch(uint64_t value);
void data_touch_bytes(uint64_t addr, const void *bytes, uint64_t size);
void data_reset(bool remap);

/* state.c */
struct text {
    char *at, *end;
};
void text_string(struct text *out, const char *string);
void text_number(struct text *out, const char *label, uint64_t value, unsigned base);
void text_name(struct text *out, const char *name);
const char *file_type(uint32_t mode);
void state_before(uint32_t flags);
void state_after(uint32_t flags);
long open_anyway(const char *path, int flags);

/* tree.c */
void tree_record(struct text *out);
bool tree_prepare(void);
bool tree_reset(void);

#endif
