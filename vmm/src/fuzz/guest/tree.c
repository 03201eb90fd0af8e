/* The files a program may leave: /w/p, where it runs, and the other places anybody may write.
 *
 * Names may be long, trees deep and permissions none, so emptying never descends: what is in a
 * subdirectory moves up until there is no subdirectory. */
#define _GNU_SOURCE
#include "executor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HASH_LIMIT (1u << 20)
#define ENTRIES_MAX 512

struct entry {
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

static const char *const places[] = {"/w", "/tmp", "/dev/shm"};
#define PLACES (sizeof places / sizeof places[0])
static struct stat kept[PLACES];

/* Whether tree_record saw all there is in /w/p, and none of it a directory. */
static bool listed;
static char list[8192];
static size_t list_length;

static char listing[32768] __attribute__((aligned(8)));

static bool dots(const char *name) {
    return name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
}

static long open_dir(long at, const char *name) {
    return sys(SYS_openat, at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static void up_name(char name[24], uint32_t n) {
    int at = 0;
    name[at++] = '~';
    for (int shift = 28; shift >= 0; shift -= 4)
        name[at++] = "0123456789abcdef"[n >> shift & 15];
    name[at] = 0;
}

/* Removes one; false: it is a directory with something in it. */
static bool remove_one(long dir, const char *name) {
    if (!failed(sys(SYS_unlinkat, dir, name, 0)))
        return true;
    return !failed(sys(SYS_unlinkat, dir, name, AT_REMOVEDIR));
}

static bool empty_dir(const char *path) {
    static char inner[16384] __attribute__((aligned(8)));
    static uint32_t moved;
    long top = open_dir(AT_FDCWD, path);
    if (top == -EACCES && !failed(sys(SYS_chmod, path, 0755)))
        top = open_dir(AT_FDCWD, path);
    if (failed(top))
        return false;
    bool clean = false;
    for (int pass = 0; pass < 4096 && !clean; pass++) {
        clean = true;
        sys(SYS_lseek, top, 0, SEEK_SET);
        long length;
        while ((length = sys(SYS_getdents64, top, listing, sizeof listing)) > 0) {
            for (long at = 0; at < length;) {
                struct entry *entry = (struct entry *)(listing + at);
                at += entry->length;
                if (dots(entry->name) || remove_one(top, entry->name))
                    continue;
                clean = false;
                sys(SYS_fchmodat, top, entry->name, 0700);
                long sub = open_dir(top, entry->name);
                long inner_length = failed(sub) ? -1 : sys(SYS_getdents64, sub, inner, sizeof inner);
                for (long in = 0; in < inner_length;) {
                    struct entry *child = (struct entry *)(inner + in);
                    char name[24];
                    in += child->length;
                    if (dots(child->name) || remove_one(sub, child->name))
                        continue;
                    /* Moving a directory takes leave to write in it. */
                    sys(SYS_fchmodat, sub, child->name, 0700);
                    up_name(name, moved++);
                    sys(SYS_renameat, sub, child->name, top, name);
                }
                if (!failed(sub))
                    sys(SYS_close, sub);
                sys(SYS_unlinkat, top, entry->name, AT_REMOVEDIR);
            }
            /* Room for another entry means there was none. */
            if (clean && length < (long)sizeof listing - 512)
                break;
        }
    }
    sys(SYS_close, top);
    return clean;
}

static bool keep(size_t place) {
    return !failed(sys(SYS_stat, places[place], &kept[place]));
}

static bool make_home(void) {
    sys(SYS_rmdir, "/w/p");
    if (failed(sys(SYS_mkdir, "/w/p", 0755)) || failed(sys(SYS_chmod, "/w/p", 0755)))
        return false;
    return keep(0);
}

static bool is_empty(const char *path) {
    long dir = open_dir(AT_FDCWD, path), length = 0, n;
    if (failed(dir))
        return false;
    while ((n = sys(SYS_getdents64, dir, listing, sizeof listing)) > 0)
        length += n;
    sys(SYS_close, dir);
    /* No more than the two entries every directory has. */
    return length <= 2 * 24;
}

/* A place that is not empty at the start is somebody else's. */
bool tree_prepare(void) {
    for (size_t i = 1; i < PLACES; i++)
        if (!keep(i) || (kept[i].st_mode & 07777) != 01777 || !is_empty(places[i]))
            kept[i].st_mode = 0;
    struct stat home;
    if (!failed(sys(SYS_stat, "/w/p", &home)) && !empty_dir("/w/p"))
        return false;
    return make_home();
}

static bool changed(size_t place) {
    struct stat now;
    if (failed(sys(SYS_stat, places[place], &now)))
        return true;
    struct stat *was = &kept[place];
    return now.st_mode != was->st_mode || now.st_nlink != was->st_nlink || now.st_size != was->st_size ||
           now.st_mtim.tv_sec != was->st_mtim.tv_sec || now.st_mtim.tv_nsec != was->st_mtim.tv_nsec;
}

/* Everything as tree_prepare left it; and the caller in /w/p. */
bool tree_reset(void) {
    bool home = true;
    if (listed) {
        for (size_t at = 0; at < list_length; at += strlen(list + at) + 1)
            home &= !failed(sys(SYS_unlink, list + at));
        listed = false;
    } else {
        /* Without leave to search it nothing in it can be removed. */
        sys(SYS_chmod, "/w/p", 0755);
        home = empty_dir("/w/p");
    }
    for (size_t i = 0; i < PLACES; i++) {
        if (!kept[i].st_mode || !changed(i))
            continue;
        sys(SYS_chmod, places[i], 01777);
        if (!empty_dir(places[i]) || !keep(i))
            return false;
        home &= i != 0;
    }
    if (effects.deep || !home)
        return make_home() && !failed(sys(SYS_chdir, "/w/p"));
    return true;
}

/* A walk of /w/p: names first, all of a directory, sorted; then each with what it holds. */

static char names[64 << 10];
static size_t names_length;
static const char *sorted[ENTRIES_MAX];
static size_t entries;

static void add_names(const char *dir) {
    long fd = open_anyway(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (failed(fd)) {
        listed = false;
        return;
    }
    long length;
    while ((length = sys(SYS_getdents64, fd, listing, sizeof listing)) > 0) {
        for (long at = 0; at < length;) {
            struct entry *entry = (struct entry *)(listing + at);
            at += entry->length;
            size_t size = strlen(entry->name) + 1;
            if (dots(entry->name))
                continue;
            if (names_length + size > sizeof names || entries == ENTRIES_MAX) {
                listed = false;
                continue;
            }
            size_t place = entries++;
            memcpy(names + names_length, entry->name, size);
            for (; place && strcmp(sorted[place - 1], entry->name) > 0; place--)
                sorted[place] = sorted[place - 1];
            sorted[place] = names + names_length;
            names_length += size;
        }
        if (length < (long)sizeof listing - 512)
            break;
    }
    sys(SYS_close, fd);
}

static void put_contents(struct text *out, const char *path, uint64_t size) {
    static uint8_t bytes[65536];
    if (!size)
        return text_string(out, " data=");
    long fd = open_anyway(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (failed(fd)) {
        text_number(out, " unreadable=", (uint64_t)-fd, 10);
        return;
    }
    uint64_t hash = 0xcbf29ce484222325u, total = 0;
    long n = 0;
    while (total < size && total < HASH_LIMIT && (n = sys(SYS_read, fd, bytes, sizeof bytes)) > 0) {
        if (total == 0) {
            text_string(out, " data=");
            for (long i = 0; i < n && i < 64; i++) {
                char digits[3] = {"0123456789abcdef"[bytes[i] >> 4], "0123456789abcdef"[bytes[i] & 15], 0};
                text_string(out, digits);
            }
        }
        for (long i = 0; i < n; i++)
            hash = (hash ^ bytes[i]) * 0x100000001b3u;
        total += (uint64_t)n;
    }
    if (failed(n))
        text_number(out, " unreadable=", (uint64_t)-n, 10);
    if (total > 64)
        text_number(out, " hash=", hash, 16);
    sys(SYS_close, fd);
}

static void put_entry(struct text *out, const char *path, const char *shown, struct stat *at) {
    text_string(out, "file ");
    text_name(out, shown);
    text_string(out, " ");
    text_string(out, file_type(at->st_mode));
    text_number(out, " ", at->st_mode & 07777, 8);
    text_number(out, " size=", (uint64_t)at->st_size, 10);
    text_number(out, " nlink=", at->st_nlink, 10);
    if (S_ISREG(at->st_mode))
        put_contents(out, path, (uint64_t)at->st_size);
    if (S_ISLNK(at->st_mode)) {
        char target[4096];
        long length = sys(SYS_readlink, path, target, sizeof target - 1);
        target[failed(length) ? 0 : length] = 0;
        text_string(out, " -> ");
        text_name(out, target);
    }
    text_string(out, "\n");
}

/* Appends a name to a path of the given length; its new length, 0 when it does not fit. */
static size_t join(char *path, size_t length, const char *name) {
    size_t size = strlen(name);
    if (length + 1 + size + 1 > 4096)
        return 0;
    path[length] = '/';
    memcpy(path + length + 1, name, size + 1);
    return length + 1 + size;
}

static void walk(struct text *out, char *path, size_t length, bool top) {
    size_t from = entries, names_from = names_length;
    add_names(path);
    size_t to = entries;
    for (size_t i = from; i < to; i++) {
        struct stat at;
        size_t inner = join(path, length, sorted[i]);
        if (!inner || failed(sys(SYS_lstat, path, &at))) {
            listed = false;
            continue;
        }
        put_entry(out, path, path + sizeof "/w/p/" - 1, &at);
        if (S_ISDIR(at.st_mode)) {
            listed = false;
            walk(out, path, inner, false);
        } else if (top && list_length + inner + 1 <= sizeof list) {
            memcpy(list + list_length, path, inner + 1);
            list_length += inner + 1;
        } else {
            listed = false;
        }
    }
    path[length] = 0;
    entries = from;
    names_length = names_from;
}

void tree_record(struct text *out) {
    static char path[4096];
    listed = true;
    list_length = 0;
    strcpy(path, "/w/p");
    walk(out, path, 4, true);
}
