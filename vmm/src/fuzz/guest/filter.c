/* Calls denied inside the sandbox: those that reach beyond any namespace, and those that have had the
 * most holes. What an ordinary user may call stays. */
#define _GNU_SOURCE
#include "executor.h"

#include <asm/ioctls.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>

/* As an unprivileged user would find on a system that has the call. */
static const uint16_t not_permitted[] = {
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load, SYS_reboot,
    SYS_swapon, SYS_swapoff, SYS_bpf, SYS_perf_event_open, SYS_ptrace, SYS_userfaultfd,
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_fsconfig,
    SYS_fsmount, SYS_fspick, 442 /* mount_setattr */, 457 /* statmount */, 458 /* listmount */,
    467 /* open_tree_attr */, SYS_unshare, SYS_setns, SYS_open_by_handle_at, SYS_acct, SYS_quotactl,
    443 /* quotactl_fd */, SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime, SYS_syslog,
    SYS_iopl, SYS_ioperm, SYS_personality, SYS_fanotify_init, SYS_fanotify_mark, SYS_vhangup,
    SYS_process_vm_readv, SYS_process_vm_writev, 440 /* process_madvise */, 438 /* pidfd_getfd */,
    SYS_move_pages, SYS_migrate_pages, SYS_sethostname, SYS_setdomainname,
};

/* As on a system without it. */
static const uint16_t not_there[] = {
    SYS_clone3, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_add_key, SYS_request_key,
    SYS_keyctl, SYS_lookup_dcookie, SYS_nfsservctl, SYS_uselib, SYS_create_module, SYS_get_kernel_syms,
    SYS_query_module, SYS__sysctl, SYS_vserver, SYS_security, SYS_modify_ldt, SYS_kcmp,
    444 /* landlock_create_ruleset */, 445, 446, 447 /* memfd_secret */,
};

#define WORD(field) (uint32_t)offsetof(struct seccomp_data, field)
#define NAMESPACES                                                                                             \
    (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |                  \
     CLONE_NEWCGROUP | CLONE_NEWTIME)

static struct sock_filter program[512];
static unsigned short length;

static void add(uint16_t code, uint32_t k, uint8_t yes, uint8_t no) {
    program[length++] = (struct sock_filter){code, yes, no, k};
}

static void load(uint32_t word) {
    add(BPF_LD | BPF_W | BPF_ABS, word, 0, 0);
}

/* When what is loaded equals the value. */
static void answer_if(uint32_t value, uint32_t answer) {
    add(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    add(BPF_RET | BPF_K, answer, 0, 0);
}

void arm_filter(void) {
    const uint32_t eperm = SECCOMP_RET_ERRNO | EPERM, enosys = SECCOMP_RET_ERRNO | ENOSYS;
    load(WORD(arch));
    add(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
    load(WORD(nr));
    /* The x32 calls. */
    add(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1);
    add(BPF_RET | BPF_K, enosys, 0, 0);
    for (size_t i = 0; i < sizeof not_permitted / sizeof not_permitted[0]; i++)
        answer_if(not_permitted[i], eperm);
    for (size_t i = 0; i < sizeof not_there / sizeof not_there[0]; i++)
        answer_if(not_there[i], enosys);

    add(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4);
    load(WORD(args[0]));
    add(BPF_JMP | BPF_JSET | BPF_K, NAMESPACES & ~0x80u, 0, 1);
    add(BPF_RET | BPF_K, eperm, 0, 0);
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);

    /* A terminal's input is not for programs to write. */
    add(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 6);
    load(WORD(args[1]));
    answer_if(TIOCSTI, eperm);
    answer_if(TIOCLINUX, eperm);
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);

    /* The kernel would end the supervisor by its own CPU limit. */
    add(BPF_JMP | BPF_JEQ | BPF_K, SYS_prlimit64, 0, 3);
    load(WORD(args[0]));
    answer_if(1, eperm);
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);

    struct sock_fprog filter = {.len = length, .filter = program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
        fatal("cannot arm the filter", errno);
}
