/* What a program left behind, as lines of text that are the same on every boot.
 *
 * Looking costs calls too: only what the program's calls can have changed is looked at. */
#define _GNU_SOURCE
#include "executor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAPS_MAX 256

void text_string(struct text *out, const char *string) {
    while (*string && out->at < out->end)
        *out->at++ = *string++;
}

void text_number(struct text *out, const char *label, uint64_t value, unsigned base) {
    char digits[24];
    int at = 23;
    digits[at] = 0;
    do
        digits[--at] = "0123456789abcdef"[value % base];
    while (value /= base);
    text_string(out, label);
    text_string(out, digits + at);
}

static void text_signed(struct text *out, const char *label, int64_t value) {
    if (value < 0) {
        text_string(out, label);
        text_number(out, "-", -(uint64_t)value, 10);
    } else {
        text_number(out, label, (uint64_t)value, 10);
    }
}

/* A name in one word. */
void text_name(struct text *out, const char *name) {
    for (; *name; name++) {
        uint8_t byte = (uint8_t)*name;
        char plain[2] = {*name, 0};
        if (byte > ' ' && byte < 127 && byte != '\\') {
            text_string(out, plain);
        } else {
            char escaped[5] = {'\\', 'x', "0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15], 0};
            text_string(out, escaped);
        }
    }
}

const char *file_type(uint32_t mode) {
    switch (mode & S_IFMT) {
    case S_IFREG:
        return "reg";
    case S_IFDIR:
        return "dir";
    case S_IFIFO:
        return "fifo";
    case S_IFSOCK:
        return "sock";
    case S_IFCHR:
        return "chr";
    case S_IFBLK:
        return "blk";
    case S_IFLNK:
        return "lnk";
    }
    return "anon";
}

/* Opens for our own look when the program has used up every descriptor: what it holds has been recorded
 * by then. */
long open_anyway(const char *path, int flags) {
    long fd = sys(SYS_open, path, flags);
    if (fd != -EMFILE)
        return fd;
    sys(SYS_close_range, 3, ~0u);
    fd = sys(SYS_open, path, flags);
    if (fd != -EMFILE)
        return fd;
    struct rlimit limit;
    sys(SYS_getrlimit, RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    sys(SYS_setrlimit, RLIMIT_NOFILE, &limit);
    effects.retire = true;
    return sys(SYS_open, path, flags);
}

static void fd_link(int fd, char target[4096]) {
    char path[32] = "/proc/self/fd/";
    struct text end = {path + 14, path + 31};
    text_number(&end, "", (uint64_t)fd, 10);
    *end.at = 0;
    long length = sys(SYS_readlink, path, target, 4095);
    target[failed(length) ? 0 : length] = 0;
    /* pipe:[123] says nothing that lasts, anon_inode:[eventfd] does. */
    char *bracket = strchr(target, '[');
    if (target[0] != '/' && bracket && bracket[1] >= '0' && bracket[1] <= '9')
        *bracket = 0;
}

static void put_fd(struct text *out, int fd) {
    static char target[4096];
    struct stat at;
    long close = sys(SYS_fcntl, fd, F_GETFD);
    if (failed(close) || failed(sys(SYS_fstat, fd, &at)))
        return;
    long flags = sys(SYS_fcntl, fd, F_GETFL), pos = -ESPIPE;
    /* What can only have one answer is not asked for. */
    if (S_ISSOCK(at.st_mode) && !effects.tree) {
        strcpy(target, "socket:");
    } else if (S_ISFIFO(at.st_mode) && !effects.tree) {
        strcpy(target, "pipe:");
    } else {
        pos = sys(SYS_lseek, fd, 0, SEEK_CUR);
        fd_link(fd, target);
    }
    if (fd < 3 && flags == O_RDWR && !close && strcmp(target, "/dev/null") == 0)
        return;
    text_number(out, "fd ", (uint64_t)fd, 10);
    text_string(out, " ");
    text_string(out, file_type(at.st_mode));
    text_number(out, " ", at.st_mode & 07777, 8);
    text_number(out, " flags=0x", (uint64_t)flags, 16);
    text_number(out, " cloexec=", (uint64_t)close & 1, 10);
    /* A directory's position is its file system's own cookie. */
    if (failed(pos) || S_ISDIR(at.st_mode))
        text_string(out, " pos=-");
    else
        text_number(out, " pos=", (uint64_t)pos, 10);
    text_number(out, " size=", (uint64_t)at.st_size, 10);
    text_string(out, " ");
    text_name(out, target);
    text_string(out, "\n");
}

static void put_fds(struct text *out) {
    static struct pollfd polls[FD_LIMIT];
    int top = effects_fds(), first = effects.standard ? 0 : 3;
    int count = top >= 3 ? top + 1 : effects.standard ? 3 : 0;
    if (count <= first)
        return;
    /* One call tells which are open, but for those of O_PATH, and unless there is a limit below. */
    for (int fd = first; fd < count; fd++)
        polls[fd] = (struct pollfd){.fd = fd};
    bool polled = count - first > 2 && !failed(sys(SYS_poll, polls + first, count - first, 0));
    for (int fd = first; fd < count; fd++)
        if (fd < 3 || !polled || !(polls[fd].revents & POLLNVAL) || fd_open(fd)) {
            if (fd < 3 && !fd_open(fd)) {
                text_number(out, "fd ", (uint64_t)fd, 10);
                text_string(out, " closed\n");
            } else {
                put_fd(out, fd);
            }
        }
}

/* Mappings. */

struct map {
    uint64_t start, end;
    char perms[5];
    char name[64];
};
static struct map before[MAPS_MAX];
static size_t before_count;
static char maps_text[128 << 10];

static uint64_t hex(char **at) {
    uint64_t value = 0;
    for (;; (*at)++) {
        char c = **at;
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uint64_t)(c - 'a' + 10);
        else
            return value;
    }
}

static size_t read_maps(struct map *maps) {
    long fd = open_anyway("/proc/self/maps", O_RDONLY | O_CLOEXEC), n;
    if (failed(fd))
        return 0;
    size_t length = 0, count = 0;
    while ((n = sys(SYS_read, fd, maps_text + length, sizeof maps_text - 1 - length)) > 0)
        length += (size_t)n;
    sys(SYS_close, fd);
    maps_text[length] = 0;
    for (char *at = maps_text; *at && count < MAPS_MAX;) {
        struct map *map = &maps[count++];
        map->start = hex(&at);
        at++;
        map->end = hex(&at);
        at++;
        memcpy(map->perms, at, 4);
        map->perms[4] = 0;
        /* Offset, device and inode come between. */
        for (int field = 0; field < 4 && *at != '\n'; field++) {
            while (*at && *at != ' ' && *at != '\n')
                at++;
            while (*at == ' ')
                at++;
        }
        size_t size = 0;
        for (; *at && *at != '\n'; at++)
            if (size < sizeof map->name - 1)
                map->name[size++] = *at;
        map->name[size] = 0;
        at += *at == '\n';
    }
    return count;
}

static void put_map(struct text *out, const struct map *map, bool absolute) {
    if (absolute) {
        text_number(out, "vma ", map->start, 16);
        text_number(out, "-", map->end, 16);
    } else {
        text_number(out, "vma +", (map->end - map->start) / 4096, 10);
    }
    text_string(out, " ");
    text_string(out, map->perms);
    if (map->name[0]) {
        text_string(out, " ");
        text_name(out, map->name);
    }
    text_string(out, "\n");
}

/* Lines for pieces in address order, neighbours that are alike as one. */
static void add_piece(struct text *out, struct map *last, const struct map *map, uint64_t start, uint64_t end,
                      bool absolute) {
    bool alike = map && last->end == start && strcmp(last->perms, map->perms) == 0 &&
                 strcmp(last->name, map->name) == 0;
    if (alike) {
        last->end = end;
        return;
    }
    if (last->end)
        put_map(out, last, absolute);
    last->end = 0;
    if (map) {
        *last = *map;
        last->start = start;
        last->end = end;
    }
}

static void put_maps(struct text *out) {
    static struct map after[MAPS_MAX];
    static struct map last;
    const uint64_t low = DATA_START, high = DATA_START + DATA_SIZE;
    size_t count = read_maps(after);
    for (size_t i = 0; i < count; i++)
        if (after[i].start < high && after[i].end > low)
            add_piece(out, &last, &after[i], after[i].start > low ? after[i].start : low,
                      after[i].end < high ? after[i].end : high, true);
    add_piece(out, &last, NULL, 0, 0, true);
    for (size_t i = 0; i < count; i++) {
        /* The stack grows by itself. */
        if (strcmp(after[i].name, "[stack]") == 0)
            continue;
        for (uint64_t at = after[i].start; at < after[i].end;) {
            uint64_t end = after[i].end, skip = 0;
            if (at >= low && at < high)
                skip = high;
            else if (at < low && end > low)
                end = low;
            for (size_t j = 0; j < before_count && !skip; j++) {
                if (at >= before[j].start && at < before[j].end)
                    skip = before[j].end;
                else if (before[j].start > at && before[j].start < end)
                    end = before[j].start;
            }
            if (!skip)
                add_piece(out, &last, &after[i], at, end, false);
            at = skip ? skip : end;
        }
    }
    add_piece(out, &last, NULL, 0, 0, false);
}

/* Signals. */

static void put_signals(struct text *out) {
    uint64_t mask = 0, pending = 0;
    sys(SYS_rt_sigprocmask, SIG_BLOCK, 0, &mask, 8);
    if (mask)
        sys(SYS_rt_sigpending, &pending, 8);
    text_number(out, "sig mask=", mask, 16);
    text_number(out, " pending=", pending, 16);
    text_string(out, "\n");
    for (int signo = 1; signo <= 64; signo++) {
        uint64_t action[4];
        if (!(effects.actions >> (signo - 1) & 1) || signo == SIGKILL || signo == SIGSTOP ||
            handler_is_ours(signo, action))
            continue;
        text_number(out, "act ", (uint64_t)signo, 10);
        if (action[0] < 2)
            text_string(out, action[0] ? " ign" : " dfl");
        else
            text_number(out, " ", action[0], 16);
        text_number(out, " flags=", action[1], 16);
        text_number(out, " mask=", action[3], 16);
        text_string(out, "\n");
    }
}

/* The process itself. */

static void put_ids(struct text *out, const char *label, long nr) {
    uint32_t real = 0, effective = 0, saved = 0;
    sys(nr, &real, &effective, &saved);
    text_signed(out, label, (int32_t)real);
    text_signed(out, ",", (int32_t)effective);
    text_signed(out, ",", (int32_t)saved);
}

static void put_process(struct text *out) {
    static char cwd[4096];
    if (failed(sys(SYS_getcwd, cwd, sizeof cwd)))
        strcpy(cwd, "-");
    text_string(out, "proc cwd=");
    text_name(out, cwd);
    long mask = sys(SYS_umask, 0);
    sys(SYS_umask, mask);
    text_number(out, " umask=", (uint64_t)mask, 8);
    put_ids(out, " uid=", SYS_getresuid);
    put_ids(out, " gid=", SYS_getresgid);
    bool armed = false;
    for (int which = 0; which < 3; which++) {
        struct itimerval timer = {0};
        if (effects.timers >> which & 1)
            sys(SYS_getitimer, which, &timer);
        armed |= timer.it_value.tv_sec || timer.it_value.tv_usec;
    }
    text_string(out, armed ? " itimer=armed" : " itimer=off");
    long self = sys(SYS_getpid);
    text_string(out, sys(SYS_getpgid, 0) == self ? " pgid=self" : " pgid=other");
    text_string(out, sys(SYS_getsid, 0) == self ? " sid=self\n" : " sid=other\n");

    for (int found = 0;; found++) {
        int status = 0;
        long pid = sys(SYS_wait4, -1, &status, WNOHANG | WUNTRACED | __WALL, 0);
        if (failed(pid) && found == 0)
            text_string(out, "child none\n");
        if (failed(pid))
            return;
        if (pid == 0)
            text_string(out, "child running\n");
        else if (WIFEXITED(status))
            text_number(out, "child exited ", WEXITSTATUS(status), 10), text_string(out, "\n");
        else
            text_number(out, "child killed ", WTERMSIG(status), 10), text_string(out, "\n");
        if (pid == 0)
            return;
    }
}

void state_before(uint32_t flags) {
    before_count = flags & STATE_VMAS ? read_maps(before) : 0;
}

void state_after(uint32_t flags) {
    static char buffer[STATE_TEXT];
    struct text out = {buffer, buffer + sizeof buffer};
    if (flags & STATE_FDS)
        put_fds(&out);
    if (flags & STATE_VMAS)
        put_maps(&out);
    if (flags & STATE_SIGNALS)
        put_signals(&out);
    if ((flags & STATE_FILES) && effects.tree)
        tree_record(&out);
    if (flags & STATE_PROCESS)
        put_process(&out);
    record(R_STATE, buffer, (size_t)(out.at - buffer), NULL, 0);
}
