/* What the loops share: a clock that the loop itself starts and stops, and the list of loops.
 *
 * A loop gets a number of operations, sets up what it needs, calls start(), performs the
 * operations, calls stop(). Setting up and tearing down are therefore not measured, however dear
 * they are where it runs. */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>

typedef void loop(uint64_t operations);

/* The clock. start() may be called again after stop(): times add up. */
void start(void);
void stop(void);

/* Ends the program with the errno of `what` unless `ok`. */
void check(int ok, const char *what);

/* Path of the program that fork-exec and posix-spawn execute: static, does nothing. */
extern const char *nothing_path;

/* calls.c */
loop getpid_loop, getppid_loop, clock_vdso, clock_syscall, cpu, read_zero, file_stat, open_close,
    pwrite_4k, epoll_1000;
/* threads.c */
loop conversation, futex_round_trip, thread_create, tcp_round_trip;
/* processes.c */
loop signal_self, pipe_round_trip, fork_wait, fork_exec, spawn;
/* memory.c */
loop mmap_munmap, mprotect_pair, fault, touch, map_large;

/* init.c: the first process of a machine of its own, for peers that are one. */
int init(const char *directory);

#endif
