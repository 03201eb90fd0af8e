/* The first process of a machine that is a kernel of its own (User-mode Linux): mounts what programs
 * expect, runs one command, writes its status, powers off.
 *
 * DIRECTORY/command: environment, an empty word, program, arguments, each ended by a NUL. The command's
 * working directory is /, its standard streams are DIRECTORY/out and DIRECTORY/err, its status goes to
 * DIRECTORY/status. A kernel command line could carry none of these: it is short and splits at spaces. */
#include "bench.h"

#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char text[65536];
/* The environment, and behind its NULL the program and its arguments. */
static char *words[512], **program;

static void loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd >= 0) {
        ioctl(fd, SIOCSIFFLAGS, &request);
        close(fd);
    }
}

static void read_command(void) {
    int fd = open("command", O_RDONLY | O_CLOEXEC);
    check(fd >= 0, "open command");
    ssize_t length = read(fd, text, sizeof text - 1);
    check(length > 0, "read command");
    size_t count = 0;
    for (char *at = text; at < text + length && count < 511; at += strlen(at) + 1) {
        words[count] = *at || program ? at : NULL;
        if (!words[count++] && !program)
            program = words + count;
    }
    check(program && *program, "command names no program");
}

static void become_command(void) {
    int in = open("/dev/null", O_RDONLY);
    int out = open("out", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int err = open("err", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    check(chdir("/") == 0, "chdir");
    execve(*program, program, words);
    check(0, *program);
}

int init(const char *directory) {
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
    loopback_up();
    check(chdir(directory) == 0, directory);
    read_command();
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        become_command();
    while (wait(&status) != child)
        ;
    FILE *file = fopen("status.new", "w");
    check(file != NULL, "status");
    fprintf(file, "%d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    fclose(file);
    rename("status.new", "status");
    sync();
    reboot(RB_POWER_OFF);
    return 1;
}
