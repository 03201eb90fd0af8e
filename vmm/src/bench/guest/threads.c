/* Two threads that wait for each other. No side spins: each operation is two sleeps and two
 * wake-ups, as in a server that has nothing else to do. */
#include "bench.h"

#include <arpa/inet.h>
#include <linux/futex.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Where the other thread reads and writes, and how often. */
struct echo {
    int from, to;
    uint64_t operations;
};

static void *echo(void *argument) {
    struct echo *echo = argument;
    char byte;
    for (uint64_t i = 0; i < echo->operations; i++) {
        check(read(echo->from, &byte, 1) == 1, "read by the other thread");
        check(write(echo->to, &byte, 1) == 1, "write by the other thread");
    }
    return NULL;
}

static void converse(uint64_t operations, int to, int from, struct echo other) {
    pthread_t thread;
    char byte = 1;
    other.operations = operations;
    check(pthread_create(&thread, NULL, echo, &other) == 0, "pthread_create");
    start();
    while (operations--) {
        check(write(to, &byte, 1) == 1, "write");
        check(read(from, &byte, 1) == 1, "read");
    }
    stop();
    pthread_join(thread, NULL);
}

void conversation(uint64_t operations) {
    int there[2], back[2];
    check(pipe(there) == 0 && pipe(back) == 0, "pipe");
    converse(operations, there[1], back[0], (struct echo){.from = there[0], .to = back[1]});
    for (int i = 0; i < 2; i++) {
        close(there[i]);
        close(back[i]);
    }
}

void tcp_round_trip(uint64_t operations) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int yes = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0), mine = socket(AF_INET, SOCK_STREAM, 0);
    check(listener >= 0 && mine >= 0, "socket");
    check(bind(listener, (struct sockaddr *)&address, length) == 0, "bind");
    check(listen(listener, 1) == 0, "listen");
    check(getsockname(listener, (struct sockaddr *)&address, &length) == 0, "getsockname");
    check(connect(mine, (struct sockaddr *)&address, length) == 0, "connect");
    int other = accept(listener, NULL, NULL);
    check(other >= 0, "accept");
    setsockopt(mine, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(other, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    converse(operations, mine, mine, (struct echo){.from = other, .to = other});
    close(mine);
    close(other);
    close(listener);
}

/* The turn: whose word it is. */
static int turn;

static void futex(int operation, int value) {
    syscall(SYS_futex, &turn, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void await(int mine) {
    int seen;
    while ((seen = __atomic_load_n(&turn, __ATOMIC_ACQUIRE)) != mine)
        futex(FUTEX_WAIT, seen);
}

static void hand_over(int to) {
    __atomic_store_n(&turn, to, __ATOMIC_RELEASE);
    futex(FUTEX_WAKE, 1);
}

static void *answer(void *argument) {
    for (uint64_t left = *(uint64_t *)argument; left; left--) {
        await(1);
        hand_over(0);
    }
    return NULL;
}

void futex_round_trip(uint64_t operations) {
    pthread_t thread;
    uint64_t count = operations;
    check(pthread_create(&thread, NULL, answer, &count) == 0, "pthread_create");
    start();
    while (operations--) {
        hand_over(1);
        await(0);
    }
    stop();
    pthread_join(thread, NULL);
}

static void *end_at_once(void *argument) {
    return argument;
}

void thread_create(uint64_t operations) {
    start();
    while (operations--) {
        pthread_t thread;
        check(pthread_create(&thread, NULL, end_at_once, NULL) == 0, "pthread_create");
        pthread_join(thread, NULL);
    }
    stop();
}
