/* Address space: mapped, protected, touched, given back. */
#include "bench.h"

#include <stddef.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)
#define MIB ((size_t)1 << 20)

static char *map(size_t length) {
    char *memory =
        mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED, "mmap");
    return memory;
}

static void unmap(char *memory, size_t length) {
    check(munmap(memory, length) == 0, "munmap");
}

void mmap_munmap(uint64_t operations) {
    start();
    while (operations--)
        unmap(map(PAGE), PAGE);
    stop();
}

void map_large(uint64_t operations) {
    start();
    while (operations--)
        unmap(map(48 * MIB), 48 * MIB);
    stop();
}

/* The page is present, so that narrowing must reach whatever caches the translation. */
void mprotect_pair(uint64_t operations) {
    char *page = map(PAGE);
    start();
    while (operations--) {
        *(volatile char *)page = 1;
        check(mprotect(page, PAGE, PROT_READ) == 0, "mprotect");
        check(mprotect(page, PAGE, PROT_READ | PROT_WRITE) == 0, "mprotect");
    }
    stop();
    unmap(page, PAGE);
}

/* First touches only: mapping and unmapping are not counted, and huge pages, which would make one
 * fault of many, are declined where they are on. */
void fault(uint64_t operations) {
    const size_t chunk = 16 * MIB;
    while (operations) {
        char *memory = map(chunk);
        madvise(memory, chunk, MADV_NOHUGEPAGE);
        size_t pages = operations < chunk / PAGE ? (size_t)operations : chunk / PAGE;
        start();
        for (size_t i = 0; i < pages; i++)
            ((volatile char *)memory)[i * PAGE] = 1;
        stop();
        unmap(memory, chunk);
        operations -= pages;
    }
}

void touch(uint64_t operations) {
    const size_t length = 64 * MIB;
    start();
    while (operations--) {
        char *memory = map(length);
        for (size_t i = 0; i < length; i += PAGE)
            ((volatile char *)memory)[i] = 1;
        unmap(memory, length);
    }
    stop();
}
