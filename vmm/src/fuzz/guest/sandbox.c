/* The harmless place programs run in on Linux itself.
 *
 * New namespaces of every kind, a root of empty tmpfs that cannot be written, a user who is nobody outside,
 * limits; and, once inside, a filter of calls (filter.c). The outer process stays in the old place: it
 * writes the user mapping, waits, and passes the status on. When either dies, so does the other. */
#define _GNU_SOURCE
#include "executor.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <grp.h>
#include <unistd.h>

#define INSIDE_ID 1000
/* Who that is outside, when we may choose. */
#define NOBODY 65534

static void check(bool good, const char *what) {
    if (!good)
        fatal(what, errno);
}

static void put_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    check(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), path);
    close(fd);
}

static void map_ids(pid_t pid) {
    bool root = geteuid() == 0;
    char path[64], line[64];
    if (!root) {
        snprintf(path, sizeof path, "/proc/%d/setgroups", pid);
        put_file(path, "deny");
    }
    snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
    snprintf(line, sizeof line, "%d %d 1\n", INSIDE_ID, root ? NOBODY : (int)geteuid());
    put_file(path, line);
    snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
    snprintf(line, sizeof line, "%d %d 1\n", INSIDE_ID, root ? NOBODY : (int)getegid());
    put_file(path, line);
}

static void make_file(const char *path, mode_t mode) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    check(fd >= 0 && fchmod(fd, mode) == 0, path);
    close(fd);
}

static void make_dir(const char *path, mode_t mode) {
    check(mkdir(path, mode) == 0 && chmod(path, mode) == 0, path);
}

static void copy_self(int from) {
    struct stat size;
    int to = open("executor", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    check(to >= 0 && fstat(from, &size) == 0, "executor");
    for (off_t left = size.st_size; left > 0;) {
        ssize_t n = sendfile(to, from, NULL, (size_t)left);
        check(n > 0, "copy of the executor");
        left -= n;
    }
    check(fchmod(to, 0755) == 0, "executor");
    close(to);
    close(from);
}

/* The device is the host's own: it may be used, but its mode, owner and times are not ours to change, even where
 * we are its owner. What the mount forbids already it must go on forbidding. */
static void read_only(const char *path) {
    struct statvfs is;
    check(statvfs(path, &is) == 0, path);
    unsigned long flags = MS_NOSUID | MS_NOEXEC;
    flags |= is.f_flag & ST_NODEV ? MS_NODEV : 0;
    flags |= is.f_flag & ST_NOATIME ? MS_NOATIME : 0;
    flags |= is.f_flag & ST_NODIRATIME ? MS_NODIRATIME : 0;
    flags |= is.f_flag & ST_RELATIME ? MS_RELATIME : 0;
    check(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL) == 0, path);
}

static void make_root(void) {
    static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
    int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    check(self >= 0, "/proc/self/exe");
    check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "private mounts");
    /* Over a directory that is there everywhere, and in nobody's sight but ours. */
    check(mount("root", "/proc", "tmpfs", MS_NOSUID | MS_NODEV, "size=64m,nr_inodes=4k,mode=755") == 0, "root");
    check(chdir("/proc") == 0, "root");
    copy_self(self);
    make_dir("dev", 0755);
    make_dir("proc", 0555);
    make_dir("tmp", 0755);
    make_dir("w", 0755);
    make_dir("old", 0700);
    check(mount("dev", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k,nr_inodes=64,mode=755") == 0, "/dev");
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        char from[32], to[32];
        snprintf(from, sizeof from, "/dev/%s", devices[i]);
        snprintf(to, sizeof to, "dev/%s", devices[i]);
        if (access(from, F_OK))
            continue;
        make_file(to, 0666);
        if (mount(from, to, NULL, MS_BIND, NULL)) {
            check(strcmp(devices[i], "null") != 0, "/dev/null");
            unlink(to);
        } else {
            read_only(to);
        }
    }
    static const struct {
        const char *link, *target;
    } links[] = {{"dev/fd", "/proc/self/fd"}, {"dev/stdin", "/proc/self/fd/0"},
                 {"dev/stdout", "/proc/self/fd/1"}, {"dev/stderr", "/proc/self/fd/2"}};
    for (size_t i = 0; i < 4; i++)
        check(symlink(links[i].target, links[i].link) == 0, links[i].link);
    check(mount(NULL, "dev", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) == 0,
          "read-only /dev");
    const unsigned long flags = MS_NOSUID | MS_NODEV;
    check(mount("tmp", "tmp", "tmpfs", flags, "size=32m,nr_inodes=4k,mode=1777") == 0, "/tmp");
    check(mount("w", "w", "tmpfs", flags, "size=32m,nr_inodes=4k,mode=1777") == 0, "/w");
    /* Refused where the old /proc is partly covered; so before the old root goes. */
    check(syscall(SYS_pivot_root, ".", "old") == 0 && chdir("/") == 0, "pivot_root");
    check(mount("proc", "/proc", "proc", flags | MS_NOEXEC, NULL) == 0, "/proc");
    check(umount2("/old", MNT_DETACH) == 0 && rmdir("/old") == 0, "old root");
    check(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL) == 0, "read-only root");
}

static void loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        ioctl(fd, SIOCSIFFLAGS, &request);
        close(fd);
    }
}

/* The first process of the new pid namespace, with every capability until it becomes another program. */
static void inside(uint32_t slow, const int go[2]) {
    char byte, factor[16], *words[] = {"executor", "--inside", "--slow", factor, NULL}, *nothing[] = {NULL};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(go[1]);
    check(read(go[0], &byte, 1) == 1, "no user mapping");
    close(go[0]);
    /* Denied to those who may not choose whom they map to; then the list is theirs anyway. */
    setgroups(0, NULL);
    check(setresgid(INSIDE_ID, INSIDE_ID, INSIDE_ID) == 0 && setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID) == 0,
          "user");
    prctl(PR_SET_DUMPABLE, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setsid();
    umask(022);
    make_root();
    loopback_up();
    check(sethostname("fuzz", 4) == 0, "host name");
    close_range(3, ~0u, 0);
    /* The same addresses every time. */
    personality(ADDR_NO_RANDOMIZE);
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new privileges");
    snprintf(factor, sizeof factor, "%u", slow);
    execve("/executor", words, nothing);
    check(false, "/executor");
}

static pid_t outer_child;

static void pass_on(int signo) {
    kill(outer_child, SIGKILL);
    signal(signo, SIG_DFL);
    raise(signo);
}

void enter_sandbox(uint32_t slow) {
    int go[2], status;
    check(pipe2(go, O_CLOEXEC) == 0, "pipe");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    long flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
                 CLONE_NEWCGROUP | SIGCHLD;
    outer_child = (pid_t)syscall(SYS_clone, flags, 0, 0, 0, 0);
    check(outer_child >= 0, "namespaces");
    if (outer_child == 0)
        inside(slow, go);
    signal(SIGTERM, pass_on);
    signal(SIGINT, pass_on);
    signal(SIGHUP, pass_on);
    close(go[0]);
    map_ids(outer_child);
    check(write(go[1], "", 1) == 1, "pipe");
    close(go[1]);
    /* Only the child is to hold the pipes: their ends tell each side that the other is gone. */
    close(0);
    close(1);
    while (waitpid(outer_child, &status, 0) < 0)
        check(errno == EINTR, "wait");
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}
