/* Runs one loop until it has lasted long enough and prints nanoseconds per operation.
 *
 *     guest LOOP NOTHING       NOTHING: path of a static program that does nothing
 *     guest idle               prints a line and sleeps until killed
 *     guest init DIRECTORY     see init.c
 *
 * The number of operations grows until one measurement takes ENOUGH, so the early, short ones warm
 * up caches and whatever learns from behaviour. */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Long against the clock's and the scheduler's noise. */
#define ENOUGH 60000000ull

static const struct {
    const char *name;
    loop *body;
} loops[] = {
    {"getpid", getpid_loop},
    {"getppid", getppid_loop},
    {"clock-vdso", clock_vdso},
    {"clock-syscall", clock_syscall},
    {"cpu", cpu},
    {"read", read_zero},
    {"stat", file_stat},
    {"open", open_close},
    {"pwrite", pwrite_4k},
    {"epoll", epoll_1000},
    {"conversation", conversation},
    {"futex", futex_round_trip},
    {"thread", thread_create},
    {"tcp", tcp_round_trip},
    {"signal", signal_self},
    {"pipe", pipe_round_trip},
    {"fork", fork_wait},
    {"fork-exec", fork_exec},
    {"posix-spawn", spawn},
    {"mmap", mmap_munmap},
    {"mprotect", mprotect_pair},
    {"fault", fault},
    {"touch", touch},
    {"map", map_large},
};

const char *nothing_path;
static struct timespec begun;
static uint64_t spent;

void check(int ok, const char *what) {
    if (ok)
        return;
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

void start(void) {
    clock_gettime(CLOCK_MONOTONIC, &begun);
}

void stop(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    spent += (uint64_t)(now.tv_sec - begun.tv_sec) * 1000000000u + (uint64_t)now.tv_nsec -
             (uint64_t)begun.tv_nsec;
}

static double measure(loop *body) {
    uint64_t operations = 1;
    for (;;) {
        spent = 0;
        body(operations);
        if (spent >= ENOUGH)
            return (double)spent / (double)operations;
        /* A little past the goal, so that one more measurement is usually enough. */
        double factor = 1.2 * (double)ENOUGH / (double)(spent + 1);
        if (factor > 100)
            factor = 100;
        operations = (uint64_t)((double)operations * factor) + 1;
    }
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    if (!strcmp(name, "idle")) {
        check(write(1, "ready\n", 6) == 6, "write");
        for (;;)
            pause();
    }
    if (!strcmp(name, "init") && argc > 2)
        return init(argv[2]);
    nothing_path = argc > 2 ? argv[2] : "/bin/true";
    for (size_t i = 0; i < sizeof loops / sizeof *loops; i++) {
        if (!strcmp(name, loops[i].name)) {
            printf("%.2f\n", measure(loops[i].body));
            return 0;
        }
    }
    fprintf(stderr, "no loop '%s'\n", name);
    return 1;
}
