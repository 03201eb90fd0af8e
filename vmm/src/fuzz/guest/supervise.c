/* The supervisor: owns the pipes and is everybody's reaper. It gives frames to a child, watches that
 * child get on, and tells how each program ended.
 *
 * Nothing in shared memory is taken at its word: a program may have written there. Frames are kept in
 * private memory, and what the child recorded is checked record by record. */
#define _GNU_SOURCE
#include "executor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_TIMEOUT_MS 40

bool is_init;
static pid_t child;
static uint32_t time_factor;
static sigset_t news;

void limit(int resource, uint64_t value) {
    struct rlimit both;
    if (getrlimit(resource, &both) == 0 && both.rlim_max != RLIM_INFINITY && both.rlim_max < value)
        value = both.rlim_max;
    both.rlim_cur = both.rlim_max = value;
    if (setrlimit((__rlimit_resource_t)resource, &both))
        fatal("cannot set a limit", resource);
}

/* What a program may have, the same on every kernel. Processes are counted per user, so only where the user
 * is ours alone (sandbox.c). */
static void limits(void) {
    limit(RLIMIT_AS, 1ul << 30);
    limit(RLIMIT_FSIZE, 16ul << 20);
    limit(RLIMIT_NOFILE, 256);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_MEMLOCK, 64ul << 10);
    limit(RLIMIT_MSGQUEUE, 64ul << 10);
    limit(RLIMIT_SIGPENDING, 256);
    limit(RLIMIT_STACK, 8ul << 20);
    limit(RLIMIT_NPROC, 64);
}

/* SIGUSR1: the batch ended. SIGCHLD: the child did. */
void supervisor_start(uint32_t slow) {
    is_init = getpid() == 1;
    limits();
    time_factor = slow;
    void *memory = mmap((void *)SHARED_START, sizeof(struct channel), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (memory == MAP_FAILED)
        fatal("cannot map the shared memory", errno);
    shared->slow = slow;
    sigemptyset(&news);
    sigaddset(&news, SIGCHLD);
    sigaddset(&news, SIGUSR1);
    sigprocmask(SIG_BLOCK, &news, NULL);
    /* No program shall write to this process through /proc or ptrace. */
    prctl(PR_SET_DUMPABLE, 0);
    setsid();
    if (!is_init)
        prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (!tree_prepare())
        fatal("cannot prepare /w/p", errno);
}

/* Kills those that have this process for a parent: what a dead program left comes to us one generation
 * after the other. */
static void kill_children(void) {
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char path[300], line[512], *end;
        pid_t pid = atoi(entry->d_name), parent = 0;
        if (pid <= 1)
            continue;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
        if (fd >= 0)
            close(fd);
        line[n > 0 ? n : 0] = 0;
        if ((end = strrchr(line, ')')) && sscanf(end + 1, " %*c %d", &parent) == 1 && parent == getpid())
            kill(pid, SIGKILL);
    }
    if (dir)
        closedir(dir);
}

/* Kills whatever programs left running. Only a pid namespace of our own makes -1 mean just that. */
static void reap_all(void) {
    if (is_init)
        kill(-1, SIGKILL);
    else if (child > 0)
        kill(child, SIGKILL);
    for (;;) {
        pid_t pid = waitpid(-1, NULL, __WALL | (is_init ? 0 : WNOHANG));
        if (pid < 0 && errno == ECHILD)
            break;
        if (pid == 0) {
            if (waitpid(child, NULL, __WALL) < 0)
                kill_children();
        } else if (is_init) {
            kill(-1, SIGKILL);
        }
    }
    child = 0;
}

void supervisor_stop(void) {
    if (child > 0)
        reap_all();
}

static void start_child(bool fresh) {
    child = fork();
    if (child < 0) {
        /* What the last programs left may still be going away. */
        reap_all();
        child = fork();
    }
    if (child < 0)
        fatal("cannot fork", errno);
    if (child == 0)
        worker(fresh);
}

static bool is_done(const uint64_t *const *frames, uint32_t i, uint32_t *end) {
    *end = shared->end[i];
    return *end <= OUTPUT_SIZE && shared->seal[i] == seal_of(frames[i][1], shared->go, *end);
}

/* Waits until the batch is done or the child has ended. True: it ended, with *status. */
static bool wait_child(const uint64_t *const *frames, uint32_t count, int *status, bool *timed_out) {
    uint32_t seen = shared->progress, idle_looks = 0, at = 0;
    *timed_out = false;
    for (;;) {
        if (shared->idle == shared->go)
            return false;
        for (uint32_t done; at < count - 1 && is_done(frames, at, &done);)
            at++;
        uint64_t ms = frames[at][2] >> 32;
        ms = (ms ? ms : DEFAULT_TIMEOUT_MS) * time_factor;
        struct timespec limit = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
        int signo = sigtimedwait(&news, NULL, &limit);
        if (signo == SIGCHLD && waitpid(child, status, WNOHANG | __WALL) == child)
            return true;
        if (signo < 0 && errno == EAGAIN) {
            uint32_t now = shared->progress;
            idle_looks = now == seen ? idle_looks + 1 : 0;
            seen = now;
            /* A second look: the host may just have been busy. */
            if (idle_looks == 2) {
                kill(child, SIGKILL);
                *timed_out = true;
                waitpid(child, status, __WALL);
                return true;
            }
        }
    }
}

/* Passes on the records between two places of the child's output, as far as they make sense. */
static void pass_records(size_t from, size_t to) {
    static const uint32_t fixed[] = {[R_CALL] = 16, [R_SIGNAL] = 16};
    while (to - from >= 8) {
        uint32_t head[2];
        memcpy(head, shared_output + from, 8);
        from += 8;
        if (head[1] > to - from || head[0] < R_CALL || head[0] > R_STATE)
            return;
        if (head[0] == R_REGION ? head[1] < 8 || head[1] > 8 + 4096
                                : head[0] != R_STATE && head[1] != fixed[head[0]])
            return;
        put_record(head[0], shared_output + from, head[1], NULL, 0);
        from += head[1];
    }
}

static void put_call(uint32_t call, bool returned, int64_t result) {
    struct {
        uint32_t call, flags;
        int64_t result;
    } body = {call, returned, returned ? result : 0};
    put_record(R_CALL, &body, sizeof body, NULL, 0);
}

/* What a program that ended early had begun, or been told, and not recorded. */
static void put_remains(void) {
    uint32_t asyncs = shared->asyncs, seen = shared->signals, put = shared->signals_recorded;
    for (uint32_t i = 0; i < asyncs && i < ASYNC_MAX; i++) {
        struct async_entry entry = shared->async[i];
        if (!entry.recorded)
            put_call(entry.call, entry.done, entry.result);
    }
    if (shared->inflight)
        put_call(shared->call, false, 0);
    for (; put < seen && put < SIGNALS_MAX; put++) {
        struct signal_entry entry = shared->signal[put];
        uint32_t body[4] = {entry.call, entry.signo, (uint32_t)entry.code, 0};
        put_record(R_SIGNAL, body, sizeof body, NULL, 0);
    }
}

static void put_end(uint64_t id, enum how how, uint32_t detail) {
    struct {
        uint64_t id;
        uint32_t how, detail;
    } body = {id, how, detail};
    put_record(R_END, &body, sizeof body, NULL, 0);
}

/* Records of the programs that completed, and their number; *rest: where other records begin. */
static uint32_t put_completed(const uint64_t *const *frames, uint32_t count, size_t *rest) {
    uint32_t i, end;
    *rest = 0;
    for (i = 0; i < count && is_done(frames, i, &end) && end >= *rest; i++) {
        put_record(R_BEGIN, &frames[i][1], 8, NULL, 0);
        pass_records(*rest, end);
        put_end(frames[i][1], COMPLETED, 0);
        *rest = end;
    }
    return i;
}

static void put_broken(uint64_t id, size_t from, int status, bool timed_out) {
    size_t to = shared->length;
    put_record(R_BEGIN, &id, 8, NULL, 0);
    if (to > from && to <= OUTPUT_SIZE)
        pass_records(from, to);
    put_remains();
    if (timed_out)
        put_end(id, TIMED_OUT, shared->call);
    else if (WIFSIGNALED(status))
        put_end(id, KILLED, (uint32_t)WTERMSIG(status));
    else
        put_end(id, EXITED, (uint32_t)WEXITSTATUS(status));
}

static void hand_over(const uint64_t *const *frames, uint32_t count) {
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        size_t words = FRAME_HEAD + frames[i][3];
        memcpy(shared_input + at, frames[i], words * 8);
        shared->start[i] = (uint32_t)at;
        at += words;
    }
    shared->count = count;
    shared->running = 0;
    shared->length = 0;
    __atomic_add_fetch(&shared->go, 1, __ATOMIC_SEQ_CST);
}

void supervise(const uint64_t *const *frames, uint32_t count) {
    bool fresh = frames[0][2] & FLAG_FRESH, barren = false;
    while (count) {
        if (fresh && child > 0)
            reap_all();
        hand_over(frames, count);
        if (child > 0)
            syscall(SYS_futex, &shared->go, FUTEX_WAKE, 1);
        else
            start_child(fresh);

        int status;
        bool timed_out, ended = wait_child(frames, count, &status, &timed_out);
        size_t rest;
        uint32_t done = put_completed(frames, count, &rest);
        frames += done;
        count -= done;
        if (!ended) {
            /* It stops early when its output is full. */
            if (done || !count)
                continue;
        }
        /* A child that ends between programs only wants to be replaced; but not twice for nothing. */
        if (count && (shared->running || (!done && barren))) {
            put_broken(frames[0][1], rest, ended ? status : 0, timed_out);
            frames++;
            count--;
        }
        barren = !done;
        reap_all();
        objects_remove();
        if (!tree_reset())
            fatal("cannot empty /w", errno);
    }
}
