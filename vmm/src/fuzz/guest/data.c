/* The data area, and making it zero again.
 *
 * Mapping it anew is simple and, on some kernels, the dearest call of a whole program. So while nothing
 * touched the mapping itself, only pages that can have been written are zeroed: a kernel writes where it
 * was pointed to, and not further than a length it was given, a structure's size, or what it says it wrote.
 * Every value a program handed to anybody counts, as a pointer or as a length. A wrong guess would cost one
 * later program a clean page, so now and then the area is mapped anew all the same. */
#define _GNU_SOURCE
#include "executor.h"

#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u
#define PAGES (DATA_SIZE / PAGE)
/* Beyond this zeroing is no gain. */
#define LENGTH_MAX 65536u
#define REMAP_EVERY 256

static uint64_t touched[PAGES / 64];
static uint64_t longest;
static unsigned resets;

void data_map(void) {
    long at = sys(SYS_mmap, DATA_START, DATA_SIZE, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (at != (long)DATA_START)
        sys(SYS_exit_group, 4);
    memset(touched, 0, sizeof touched);
    longest = 0;
}

void data_touch(uint64_t value) {
    if (value - DATA_START < DATA_SIZE) {
        uint64_t page = (value - DATA_START) / PAGE;
        touched[page / 64] |= 1ull << page % 64;
    } else if (value <= DATA_SIZE) {
        /* It may count structures; those that count many are bounded by the limit on descriptors. */
        uint64_t length = value <= LENGTH_MAX / 64 ? value * 64 : value;
        if (length > longest)
            longest = length;
    }
}

/* Bytes may hold addresses and lengths too, and those are small enough to be found in half a word. A large
 * number there is more likely text; the call it is a length for tells what it wrote. */
void data_touch_bytes(uint64_t addr, const void *bytes, uint64_t size) {
    for (uint64_t at = 0; at < size + PAGE; at += PAGE)
        data_touch(addr + (at < size ? at : size));
    for (uint64_t at = 0; at + 4 <= size; at += 4) {
        uint32_t value;
        memcpy(&value, (const char *)bytes + at, 4);
        if (value <= LENGTH_MAX || value - DATA_START < DATA_SIZE)
            data_touch(value);
    }
}

void data_reset(bool remap) {
    if (remap || longest > LENGTH_MAX || ++resets % REMAP_EVERY == 0) {
        data_map();
        return;
    }
    /* Up to a page's end, and what reaches into the next. */
    uint64_t extent = (longest > PAGE ? longest : PAGE) / PAGE + 1, until = 0;
    for (uint64_t page = 0; page < PAGES; page++) {
        if (page % 64 == 0 && touched[page / 64] == 0 && page >= until) {
            page += 63;
            continue;
        }
        if (touched[page / 64] >> page % 64 & 1)
            until = page + extent + 1;
        if (page < until)
            memset((void *)(DATA_START + page * PAGE), 0, PAGE);
    }
    memset(touched, 0, sizeof touched);
    longest = 0;
}
