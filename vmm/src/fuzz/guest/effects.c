/* What a call may leave behind in the process, and undoing it before the next program.
 *
 * Undoing costs calls, and this path is what the tool's rates are made of: so each call is noted as it
 * is made, and only what those can have changed is looked at. What is not worth undoing here costs the
 * process instead. */
#define _GNU_SOURCE
#include "executor.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum class {
    TIMERS = 1, /* interval timers */
    MASK = 2,
    ALTERNATE = 4, /* the alternate signal stack */
    UMASK = 8,
    DIRECTORY = 16,
};

struct effects effects;

/* Where it is not the first process of a namespace, a signal would end the supervisor; and everywhere it
 * could be starved. Process 1 counts as it, so that it is all the same wherever a program runs. */
static bool is_supervisor(uint64_t pid) {
    int32_t target = (int32_t)pid;
    /* -1 is no group of its own, and an error to most. */
    return target == 1 || target == supervisor;
}

/* For calls that take a group as a negative number. */
static bool has_supervisor(uint64_t pid) {
    return is_supervisor(pid) || is_supervisor(-pid);
}

/* Calls that would reach the supervisor, or be answered from our own stack; 0 for all others. */
long effects_refuse(uint64_t nr, const uint64_t args[6]) {
    const long eperm = -1, enosys = -38;
    switch (nr) {
    case SYS_rt_sigreturn:
        return enosys;
    case SYS_kill:
        return has_supervisor(args[0]) ? eperm : 0;
    case SYS_tkill:
    case SYS_tgkill:
    case SYS_rt_sigqueueinfo:
    case SYS_rt_tgsigqueueinfo:
    case SYS_pidfd_open:
    case SYS_prlimit64:
    case SYS_sched_setaffinity:
    case SYS_sched_setscheduler:
    case SYS_sched_setparam:
    case SYS_sched_setattr:
    case SYS_sched_getparam:
    case SYS_sched_getscheduler:
    case SYS_sched_getattr:
    case SYS_sched_rr_get_interval:
    case SYS_sched_getaffinity:
    case SYS_getpgid:
    case SYS_getsid:
    case SYS_process_vm_readv:
    case SYS_process_vm_writev:
        return is_supervisor(args[0]) ? eperm : 0;
    case SYS_ptrace:
        return is_supervisor(args[1]) ? eperm : 0;
    case SYS_getpriority:
    case SYS_ioprio_get:
        return is_supervisor(args[1]) ? eperm : 0;
    case SYS_setpriority:
        return args[0] == 2 || is_supervisor(args[1]) ? eperm : 0;
    case SYS_ioprio_set:
        return args[0] == 3 || is_supervisor(args[1]) ? eperm : 0;
    case SYS_fcntl:
        return args[1] == F_SETOWN && (int32_t)args[2] != -1 && has_supervisor(args[2]) ? eperm : 0;
    }
    return 0;
}

static bool in_data(uint64_t start, uint64_t length) {
    return start >= DATA_START && length <= DATA_SIZE && start - DATA_START <= DATA_SIZE - length;
}

/* What the arguments alone tell: for a call whose result nobody will see, too. */
void effects_before(uint64_t nr, const uint64_t args[6]) {
    switch (nr) {
    case SYS_close:
    case SYS_close_range:
    case SYS_fcntl:
    case SYS_ioctl:
    case SYS_lseek:
        effects.standard |= (uint32_t)args[0] <= 2;
        break;
    case SYS_dup2:
    case SYS_dup3:
        effects.standard |= (uint32_t)args[1] <= 2;
        break;
    case SYS_pipe:
    case SYS_pipe2:
    case SYS_socketpair:
    case SYS_clone:
    case SYS_clone3:
        effects.fd_calls++;
        break;
    case SYS_recvmsg:
    case SYS_recvmmsg:
        effects.fd_top = FD_LIMIT - 1;
        break;
    case SYS_rt_sigaction:
        if (args[0] - 1 < 64)
            effects.actions |= 1ull << (args[0] - 1);
        break;
    case SYS_rt_sigprocmask:
    case SYS_rt_sigsuspend:
    case SYS_ppoll:
    case SYS_pselect6:
    case SYS_epoll_pwait:
        effects.classes |= MASK;
        break;
    case SYS_sigaltstack:
        effects.classes |= ALTERNATE;
        effects.remap = true;
        break;
    case SYS_alarm:
        effects.timers |= 1;
        break;
    case SYS_setitimer:
        effects.timers |= 1u << (args[0] & 3);
        break;
    case SYS_umask:
        effects.classes |= UMASK;
        break;
    case SYS_chdir:
    case SYS_fchdir:
        effects.classes |= DIRECTORY;
        break;
    }
}

static void note_object(uint64_t nr, const uint64_t args[6], long id) {
    uint32_t i = shared->objects;
    if (i >= OBJECTS_MAX)
        return;
    struct ipc_object object = {.kind = (uint32_t)nr, .id = (int32_t)id};
    if (nr == SYS_mq_open && guarded_copy(object.name, (void *)args[0], sizeof object.name - 1))
        return;
    *(struct ipc_object *)&shared->object[i] = object;
    shared->objects = i + 1;
}

/* By whichever process comes to it: the supervisor after one that died. */
void objects_remove(void) {
    for (uint32_t i = 0; i < shared->objects && i < OBJECTS_MAX; i++) {
        struct ipc_object object = *(struct ipc_object *)&shared->object[i];
        object.name[sizeof object.name - 1] = 0;
        if (object.kind == SYS_msgget)
            sys(SYS_msgctl, object.id, 0);
        else if (object.kind == SYS_semget)
            sys(SYS_semctl, object.id, 0, 0);
        else if (object.kind == SYS_shmget)
            sys(SYS_shmctl, object.id, 0);
        else
            sys(SYS_mq_unlink, object.name);
    }
    shared->objects = 0;
}

static void note_map(uint64_t start, uint64_t length) {
    effects.remap |= start < DATA_START + DATA_SIZE && start + length > DATA_START;
    if (in_data(start, length))
        return;
    if (effects.maps == sizeof effects.map / sizeof effects.map[0]) {
        effects.retire = true;
        return;
    }
    effects.map[effects.maps].start = start;
    effects.map[effects.maps++].length = length;
}

/* Calls that succeeded. */
void effects_note(uint64_t nr, const uint64_t args[6], long result) {
    if (result > effects.fd_top && result < FD_LIMIT)
        effects.fd_top = (int)result;
    if (failed(result))
        return;
    data_touch((uint64_t)result);
    switch (nr) {
    case SYS_open:
        effects.path |= (args[1] & O_PATH) != 0;
        effects.tree |= (args[1] & O_CREAT) != 0;
        break;
    case SYS_openat:
        effects.path |= (args[2] & O_PATH) != 0;
        effects.tree |= (args[2] & (O_CREAT | O_TMPFILE)) != 0;
        break;
    case SYS_openat2:
        effects.path = true;
        effects.tree = true;
        break;
    case SYS_creat: case SYS_mkdir: case SYS_mkdirat: case SYS_mknod: case SYS_mknodat:
    case SYS_link: case SYS_linkat: case SYS_symlink: case SYS_symlinkat: case SYS_bind:
        effects.tree = true;
        break;
    case SYS_rename: case SYS_renameat: case SYS_renameat2: case SYS_rmdir: case SYS_unlinkat:
    case SYS_chmod: case SYS_fchmod: case SYS_fchmodat: case SYS_chown: case SYS_fchown: case SYS_lchown:
    case SYS_fchownat: case SYS_setxattr: case SYS_lsetxattr: case SYS_fsetxattr:
    case SYS_utime: case SYS_utimes: case SYS_futimesat: case SYS_utimensat:
    case 452: /* fchmodat2 */
        effects.tree = true;
        effects.deep = true;
        break;
    case SYS_mmap:
        note_map((uint64_t)result, args[1]);
        break;
    case SYS_mremap:
        effects.retire |= !in_data(args[0], args[1]);
        effects.remap = true;
        note_map((uint64_t)result, args[2]);
        break;
    case SYS_munmap: case SYS_mprotect: case SYS_madvise: case SYS_mlock: case SYS_mlock2: case SYS_munlock:
    case SYS_pkey_mprotect: case SYS_mbind: case SYS_remap_file_pages: case 462: /* mseal */
        effects.retire |= !in_data(args[0], args[1]) || nr == 462;
        effects.remap = true;
        break;
    case SYS_brk:
        effects.retire |= args[0] != 0;
        break;
    case SYS_prlimit64:
        effects.retire |= args[2] != 0;
        break;
    case SYS_fcntl:
        /* Leases, notification and the like speak up by signals; closing ends them. */
        break;
    case SYS_msgget: case SYS_semget: case SYS_shmget: case SYS_mq_open:
        note_object(nr, args, result);
        break;
    case SYS_clone: case SYS_clone3: case SYS_fork: case SYS_vfork: case SYS_execve: case SYS_execveat:
    case SYS_timer_create: case SYS_arch_prctl: case SYS_set_tid_address: case SYS_set_robust_list:
    case SYS_rseq: case SYS_prctl: case SYS_seccomp: case SYS_personality: case SYS_setrlimit:
    case SYS_setpriority: case SYS_ioprio_set: case SYS_sched_setaffinity: case SYS_sched_setscheduler:
    case SYS_sched_setparam: case SYS_sched_setattr: case SYS_setsid: case SYS_setpgid: case SYS_setuid:
    case SYS_setgid: case SYS_setreuid: case SYS_setregid: case SYS_setresuid: case SYS_setresgid:
    case SYS_setfsuid: case SYS_setfsgid: case SYS_setgroups: case SYS_capset: case SYS_chroot:
    case SYS_unshare: case SYS_setns: case SYS_mlockall: case SYS_shmat: case SYS_semop: case SYS_semtimedop:
    case SYS_set_mempolicy: case SYS_io_setup: case SYS_modify_ldt: case SYS_membarrier: case SYS_ptrace:
    case SYS_pkey_alloc: case SYS_pkey_free: case SYS_mount: case SYS_umount2: case SYS_pivot_root:
    case SYS_sethostname: case SYS_setdomainname: case 453: /* map_shadow_stack */
        effects.retire = true;
        break;
    }
}

/* The highest descriptor a program can have open: what was returned, and what calls stored in memory,
 * which is always the lowest that is free. */
int effects_fds(void) {
    int stored = effects.fd_calls ? 2 + 2 * effects.fd_calls + effects.fd_top : 0;
    int top = stored > effects.fd_top ? stored : effects.fd_top;
    return top < FD_LIMIT ? top : FD_LIMIT - 1;
}

bool fd_open(int fd) {
    return !failed(sys(SYS_fcntl, fd, F_GETFD));
}

void fds_close(void) {
    if (effects_fds() > 2)
        sys(SYS_close_range, 3, ~0u);
    effects.fd_calls = effects.fd_top = 0;
}

bool null_standard(void) {
    sys(SYS_close_range, 0, 2);
    for (int fd = 0; fd < 3; fd++)
        if (sys(SYS_open, "/dev/null", O_RDWR) != fd)
            return false;
    return true;
}

/* False: this process is not worth another program. */
bool effects_reset(void) {
    if (effects.retire)
        return false;
    for (int which = 0; which < 3; which++) {
        static const uint64_t off[4];
        if (effects.timers >> which & 1)
            sys(SYS_setitimer, which, off, 0);
    }
    for (int signo = 1; signo <= 64; signo++)
        if (effects.actions >> (signo - 1) & 1)
            handler_install(signo);
    if (effects.classes & ALTERNATE) {
        const stack_t none = {.ss_flags = SS_DISABLE};
        sys(SYS_sigaltstack, &none, 0);
    }
    /* Whatever is pending arrives here, and is not noted. */
    if (effects.classes & MASK) {
        uint64_t none = 0;
        sys(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
    }
    fds_close();
    if (effects.standard && !null_standard())
        return false;
    for (uint32_t i = 0; i < effects.maps; i++)
        sys(SYS_munmap, effects.map[i].start, effects.map[i].length);
    if (effects.classes & UMASK)
        sys(SYS_umask, 022);
    if (effects.classes & DIRECTORY)
        sys(SYS_chdir, "/w/p");
    if (shared->objects)
        objects_remove();
    if (effects.tree && !tree_reset())
        return false;
    data_reset(effects.remap);
    return true;
}
