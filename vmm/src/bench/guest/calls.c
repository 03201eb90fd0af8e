/* Single system calls, and the two loops that make none.
 *
 * getpid, getppid and the clock are called by the instruction itself: no library may answer. */
#include "bench.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static inline long call2(long number, long a, long b) {
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b)
                     : "rcx", "r11", "memory");
    return result;
}

void getpid_loop(uint64_t operations) {
    start();
    while (operations--)
        call2(SYS_getpid, 0, 0);
    stop();
}

void getppid_loop(uint64_t operations) {
    start();
    while (operations--)
        call2(SYS_getppid, 0, 0);
    stop();
}

void clock_vdso(uint64_t operations) {
    struct timespec now;
    start();
    while (operations--)
        clock_gettime(CLOCK_MONOTONIC, &now);
    stop();
}

void clock_syscall(uint64_t operations) {
    struct timespec now;
    start();
    while (operations--)
        call2(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&now);
    stop();
}

void cpu(uint64_t operations) {
    volatile uint64_t result;
    uint64_t state = 88172645463325252u;
    start();
    while (operations--) {
        for (int step = 0; step < 1000; step++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        }
    }
    result = state;
    stop();
    (void)result;
}

void read_zero(uint64_t operations) {
    char byte;
    int fd = open("/dev/zero", O_RDONLY);
    check(fd >= 0, "open /dev/zero");
    start();
    while (operations--)
        check(read(fd, &byte, 1) == 1, "read");
    stop();
    close(fd);
}

void file_stat(uint64_t operations) {
    struct stat found;
    start();
    while (operations--)
        check(stat("/etc/passwd", &found) == 0, "stat");
    stop();
}

void open_close(uint64_t operations) {
    start();
    while (operations--) {
        int fd = open("/etc/passwd", O_RDONLY);
        check(fd >= 0, "open");
        close(fd);
    }
    stop();
}

/* Always the same page of a file that exists: no block is ever allocated. */
void pwrite_4k(uint64_t operations) {
    static char page[4096];
    char path[] = "/tmp/trapgate-bench-XXXXXX";
    int fd = mkstemp(path);
    check(fd >= 0, "mkstemp in /tmp");
    unlink(path);
    check(pwrite(fd, page, sizeof page, 0) == sizeof page, "pwrite");
    start();
    while (operations--)
        check(pwrite(fd, page, sizeof page, 0) == sizeof page, "pwrite");
    stop();
    close(fd);
}

/* One of a thousand watched descriptors becomes ready and is found: write, epoll_wait, read. */
void epoll_1000(uint64_t operations) {
    enum { WATCHED = 1000 };
    static int fds[WATCHED];
    struct rlimit limit;
    check(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    if (limit.rlim_cur < 2 * WATCHED) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    int epoll = epoll_create1(0);
    check(epoll >= 0, "epoll_create1");
    for (int i = 0; i < WATCHED; i++) {
        fds[i] = eventfd(0, EFD_NONBLOCK);
        check(fds[i] >= 0, "eventfd");
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fds[i]};
        check(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event) == 0, "epoll_ctl");
    }
    uint64_t value = 1;
    start();
    for (uint64_t i = 0; i < operations; i++) {
        struct epoll_event event;
        check(write(fds[i * 7 % WATCHED], &value, sizeof value) == sizeof value, "write");
        check(epoll_wait(epoll, &event, 1, -1) == 1, "epoll_wait");
        check(read(event.data.fd, &value, sizeof value) == sizeof value, "read");
    }
    stop();
    for (int i = 0; i < WATCHED; i++)
        close(fds[i]);
    close(epoll);
}
