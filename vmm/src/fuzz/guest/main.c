/* Arguments, frames from standard input, records to standard output.
 *
 *     executor [--sandbox | --inside] [--slow N]
 *
 * Frames come in bursts, so input is read in large pieces, and answers leave in one write when no whole
 * frame is left. Only our own host side writes frames: a malformed one ends the executor. */
#define _GNU_SOURCE
#include "executor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define FD_INPUT 240
#define FD_OUTPUT 241
#define READ_SIZE (4u << 20)
#define FLUSH_AT (256u << 10)

static char *in_buffer;
static size_t in_start, in_end;
static char *out_buffer;
static size_t out_length;
static int fd_out = 1;

static void flush(void) {
    for (size_t at = 0; at < out_length;) {
        ssize_t n = write(fd_out, out_buffer + at, out_length - at);
        if (n < 0 && errno != EINTR)
            exit(2);
        if (n > 0)
            at += (size_t)n;
    }
    out_length = 0;
}

void put_record(uint32_t type, const void *a, size_t a_size, const void *b, size_t b_size) {
    uint32_t head[2] = {type, (uint32_t)(a_size + b_size)};
    if (out_length >= FLUSH_AT)
        flush();
    char *at = out_buffer + out_length;
    memcpy(at, head, 8);
    memcpy(at + 8, a, a_size);
    if (b_size)
        memcpy(at + 8 + a_size, b, b_size);
    out_length += 8 + a_size + b_size;
}

void fatal(const char *text, long detail) {
    char line[256];
    int length = snprintf(line, sizeof line, "%s (%ld)", text, detail);
    uint32_t head[2] = {R_FATAL, (uint32_t)length};
    if (out_buffer) {
        put_record(R_FATAL, line, (size_t)length, NULL, 0);
        flush();
    } else if (write(fd_out, head, 8) != 8 || write(fd_out, line, (size_t)length) != length) {
        exit(2);
    }
    supervisor_stop();
    exit(3);
}

/* Of the supervisor alone: a child neither inherits it nor pays for its page tables. */
static char *private_memory(size_t size) {
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fatal("no memory for buffers", errno);
    madvise(memory, size, MADV_DONTFORK);
    return memory;
}

int frame_next(const uint64_t *words, size_t count, size_t *at, struct step *step) {
    const uint64_t *word = words + *at;
    size_t left = count - *at, used, args;
    if (left == 0)
        return 0;
    step->kind = word[0];
    switch (word[0]) {
    case COPYIN:
    case DATA:
    case COPYOUT:
        if (left < (word[0] == DATA ? 3 : 4))
            return -1;
        break;
    case CALL:
        if (left < 5)
            return -1;
        break;
    case REGION:
        if (left < 3 || word[2] > 4096)
            return -1;
        step->addr = word[1];
        step->size = word[2];
        *at += 3;
        return 1;
    default:
        return -1;
    }
    if (word[0] == DATA) {
        step->addr = word[1];
        step->size = word[2];
        step->bytes = word + 3;
        if (word[2] > (left - 3) * 8)
            return -1;
        *at += 3 + (word[2] + 7) / 8;
        return 1;
    }
    if (word[0] == COPYOUT) {
        step->slot = word[1];
        step->addr = word[2];
        step->size = word[3];
        *at += 4;
        return word[1] < SLOTS && word[3] - 1 < 8 && (word[3] & (word[3] - 1)) == 0 ? 1 : -1;
    }
    if (word[0] == COPYIN) {
        step->addr = word[1];
        step->size = word[2];
        used = 3;
        args = 1;
        if (word[2] - 1 >= 8 || (word[2] & (word[2] - 1)) != 0)
            return -1;
    } else {
        step->nr = word[1];
        step->flags = word[2];
        step->slot = word[3];
        args = word[4];
        used = 5;
        if (args > 6 || (word[3] >= SLOTS && word[3] != NO_SLOT))
            return -1;
    }
    step->args = word + used;
    step->nargs = args;
    for (; args; args--) {
        if (left < used + 2 || word[used] > 1)
            return -1;
        if (word[used] == 1 && (left < used + 3 || word[used + 1] >= SLOTS))
            return -1;
        used += 2 + word[used];
    }
    *at += used;
    return 1;
}

static bool well_formed(const uint64_t *frame) {
    size_t at = 0, calls = 0;
    struct step step;
    int more;
    while ((more = frame_next(frame + FRAME_HEAD, frame[3], &at, &step)) > 0)
        calls += step.kind == CALL;
    return more == 0 && calls <= CALLS_MAX;
}

/* The next whole frame of the buffer, or NULL. */
static const uint64_t *buffered_frame(void) {
    if (in_end - in_start < FRAME_HEAD * 8)
        return NULL;
    const uint64_t *frame = (const uint64_t *)(in_buffer + in_start);
    if (frame[0] != FRAME_MAGIC || frame[3] > FRAME_WORDS_MAX)
        fatal("malformed frame head", (long)frame[3]);
    size_t size = (FRAME_HEAD + frame[3]) * 8;
    if (in_end - in_start < size)
        return NULL;
    if (!well_formed(frame))
        fatal("malformed frame", (long)frame[1]);
    in_start += size;
    return frame;
}

static bool read_more(void) {
    if (in_start) {
        memmove(in_buffer, in_buffer + in_start, in_end - in_start);
        in_end -= in_start;
        in_start = 0;
    }
    ssize_t n;
    while ((n = read(FD_INPUT, in_buffer + in_end, READ_SIZE - in_end)) < 0 && errno == EINTR)
        ;
    if (n < 0)
        fatal("cannot read frames", errno);
    if (n == 0 && in_end)
        fatal("input ends within a frame", (long)in_end);
    in_end += (size_t)(n > 0 ? n : 0);
    return n > 0;
}

/* Programs that may share a process, in a row, or one that must not. */
static void serve(void) {
    const uint64_t *frames[BATCH_MAX], *next = NULL;
    for (;;) {
        uint32_t count = 0;
        size_t words = 0;
        while (count < BATCH_MAX) {
            if (!next && !(next = buffered_frame()))
                break;
            words += FRAME_HEAD + next[3];
            if (count && ((next[2] & FLAG_FRESH) || words > INPUT_SIZE / 8))
                break;
            frames[count++] = next;
            next = NULL;
            if (frames[0][2] & FLAG_FRESH)
                break;
        }
        if (count) {
            supervise(frames, count);
            continue;
        }
        if (out_length)
            flush();
        if (!read_more())
            return;
    }
}

/* The pipes go where programs do not look, and 0 to 2 become what every program finds there. */
static void move_pipes(void) {
    if (dup3(0, FD_INPUT, O_CLOEXEC) < 0 || dup3(1, FD_OUTPUT, O_CLOEXEC) < 0)
        fatal("cannot move the pipes", errno);
    fd_out = FD_OUTPUT;
    int null = open("/dev/null", O_RDWR);
    if (null < 0)
        fatal("cannot open /dev/null", errno);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    close_range(3, FD_INPUT - 1, 0);
}

int main(int argc, char **argv) {
    uint32_t slow = 1;
    bool sandbox = false, inside = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--sandbox") == 0)
            sandbox = true;
        else if (strcmp(argv[i], "--inside") == 0)
            inside = true;
        else if (strcmp(argv[i], "--slow") == 0 && i + 1 < argc && atoi(argv[i + 1]) > 0)
            slow = (uint32_t)atoi(argv[++i]);
        else {
            fprintf(stderr, "usage: executor [--sandbox] [--slow N]\n");
            return 2;
        }
    }
    if (sandbox)
        enter_sandbox(slow);
    if (inside)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    in_buffer = private_memory(READ_SIZE);
    out_buffer = private_memory(FLUSH_AT + OUTPUT_SIZE + 4096);
    move_pipes();
    if (inside)
        arm_filter();
    supervisor_start(slow);
    serve();
    supervisor_stop();
    return 0;
}
