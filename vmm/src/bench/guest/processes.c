/* Processes: made, ended, signalled, talking by pipes. */
#include "bench.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t caught;

static void catch (int number) {
    (void)number;
    caught = 1;
}

void signal_self(uint64_t operations) {
    struct sigaction action = {.sa_handler = catch};
    check(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
    pid_t self = getpid();
    start();
    while (operations--) {
        caught = 0;
        kill(self, SIGUSR1);
        check(caught, "the signal did not come");
    }
    stop();
}

static void reap(pid_t child) {
    int status;
    check(waitpid(child, &status, 0) == child, "waitpid");
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child failed");
}

void pipe_round_trip(uint64_t operations) {
    int there[2], back[2];
    char byte = 1;
    check(pipe(there) == 0 && pipe(back) == 0, "pipe");
    pid_t child = fork();
    check(child >= 0, "fork");
    if (child == 0) {
        close(there[1]);
        close(back[0]);
        while (read(there[0], &byte, 1) == 1)
            check(write(back[1], &byte, 1) == 1, "write by the other process");
        _exit(0);
    }
    close(there[0]);
    close(back[1]);
    start();
    while (operations--) {
        check(write(there[1], &byte, 1) == 1, "write");
        check(read(back[0], &byte, 1) == 1, "read");
    }
    stop();
    close(there[1]);
    close(back[0]);
    reap(child);
}

void fork_wait(uint64_t operations) {
    start();
    while (operations--) {
        pid_t child = fork();
        check(child >= 0, "fork");
        if (child == 0)
            _exit(0);
        reap(child);
    }
    stop();
}

void fork_exec(uint64_t operations) {
    char *const arguments[] = {(char *)nothing_path, NULL};
    start();
    while (operations--) {
        pid_t child = fork();
        check(child >= 0, "fork");
        if (child == 0) {
            execv(nothing_path, arguments);
            _exit(1);
        }
        reap(child);
    }
    stop();
}

void spawn(uint64_t operations) {
    char *const arguments[] = {(char *)nothing_path, NULL}, *const environment[] = {NULL};
    start();
    while (operations--) {
        pid_t child;
        check(posix_spawn(&child, nothing_path, NULL, NULL, arguments, environment) == 0, "posix_spawn");
        reap(child);
    }
    stop();
}
