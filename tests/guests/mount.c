/* mount(2), umount2(2), pivot_root(2), unshare(2) of mount trees. Needs root. */
#include "t.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

/* A mount tree of its own, so that nothing is left behind. */
static void own(void)
{
	NEED(unshare(CLONE_NEWNS));
	NEED(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}
static bool shown(const char *at)
{
	char line[4096], want[4096];
	bool found = false;
	FILE *f = fopen("/proc/self/mounts", "r");
	snprintf(want, sizeof want, "%s ", at);
	while (f && fgets(line, sizeof line, f)) {
		char *space = strchr(line, ' ');
		found |= space && !strncmp(space + 1, want, strlen(want));
	}
	if (f)
		fclose(f);
	return found;
}

CASE(tmpfs)
{
	own();
	OK(mkdir("m", 0755));
	put("m/below", "x");
	char cwd[2000], at[2100];
	getcwd(cwd, sizeof cwd);
	snprintf(at, sizeof at, "%s/m", cwd);
	CHECK(!shown(at));
	OK(mount("src", "m", "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=700"));
	CHECK(shown(at));
	struct stat st;
	OK(stat("m", &st));
	EQ(st.st_mode & 07777, 0700);
	ERR(open("m/below", O_RDONLY), ENOENT);
	put("m/f", "data");
	int fd = NEED(open("m/f", O_RDWR));
	ERR(umount2("m", 0), EBUSY);
	static char big[100000];
	CHECK(pwrite(fd, big, sizeof big, 0) < (ssize_t)sizeof big);
	OK(close(fd));
	struct statfs s;
	OK(statfs("m", &s));
	EQ(s.f_blocks * s.f_bsize, 65536);
	OK(mount(NULL, "m", NULL, MS_REMOUNT | MS_RDONLY, NULL));
	ERR(open("m/g", O_CREAT | O_WRONLY, 0600), EROFS);
	OK(umount2("m", 0));
	STR(get("m/below"), "x");
	ERR(umount2("m", 0), EINVAL);
	ERR(umount2("m", 0x100), EINVAL);
	ERR(umount2("none", 0), ENOENT);
	CHECK(!shown(at));
}

CASE(refusals)
{
	own();
	OK(mkdir("m", 0755));
	put("f", "x");
	ERR(mount("none", "m", "nosuchfs", 0, NULL), ENODEV);
	ERR(mount("none", "none", "tmpfs", 0, NULL), ENOENT);
	ERR(mount("none", "f", "tmpfs", 0, NULL), ENOTDIR);
	ERR(mount("none", "m", NULL, 0, NULL), EINVAL);
	ERR(mount("none", "m", "tmpfs", 0, "nonsense=1"), EINVAL);
	ERR(mount("none", (char *)8, "tmpfs", 0, NULL), EFAULT);
	ERR(mount("f", "m", NULL, MS_BIND, NULL), ENOTDIR);
	ERR(mount("gone", "m", NULL, MS_BIND, NULL), ENOENT);
	ERR(mount(NULL, "m", NULL, MS_BIND, NULL), EINVAL);
	ERR(mount("m", "m", NULL, MS_MOVE, NULL), EINVAL);
	ERR(mount(NULL, "m", NULL, MS_REMOUNT, NULL), EINVAL);
	ERR(mount(NULL, "m", NULL, MS_PRIVATE, NULL), EINVAL);
	ERR(mount(NULL, "/", NULL, MS_PRIVATE | MS_SLAVE, NULL), EINVAL);
	EQ(reap(CHILD(NEED(setuid(12345)); ERR(mount("none", "m", "tmpfs", 0, NULL), EPERM); ERR(umount2("/proc", 0), EPERM);
		      ERR(unshare(CLONE_NEWNS), EPERM))),
	   0);
}

CASE(bind_and_move)
{
	own();
	OK(mkdir("a", 0755));
	OK(mkdir("a/in", 0755));
	OK(mkdir("b", 0755));
	OK(mkdir("c", 0755));
	put("a/f", "one");
	put("file", "two");
	put("over", "three");
	OK(mount("t", "a/in", "tmpfs", 0, NULL));
	put("a/in/g", "inner");
	OK(mount("a", "b", NULL, MS_BIND, NULL));
	STR(get("b/f"), "one");
	ERR(open("b/in/g", O_RDONLY), ENOENT);
	OK(umount2("b", 0));
	OK(mount("a", "b", NULL, MS_BIND | MS_REC, NULL));
	STR(get("b/in/g"), "inner");
	ERR(umount2("b", 0), EBUSY);
	OK(mount(NULL, "b", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
	ERR(open("b/new", O_CREAT | O_WRONLY, 0600), EROFS);
	put("a/new", "n");
	OK(mount("b", "c", NULL, MS_MOVE, NULL));
	STR(get("c/f"), "one");
	STR(get("c/in/g"), "inner");
	ERR(open("b/f", O_RDONLY), ENOENT);
	ERR(mount("c", "c/in", NULL, MS_MOVE, NULL), ELOOP);
	OK(umount2("c", MNT_DETACH));
	ERR(open("c/f", O_RDONLY), ENOENT);
	OK(mount("file", "over", NULL, MS_BIND, NULL));
	STR(get("over"), "two");
	ERR(unlink("over"), EBUSY);
	OK(umount2("over", 0));
	STR(get("over"), "three");
	OK(umount2("a/in", 0));
}

CASE(trees_of_their_own)
{
	own();
	OK(mkdir("m", 0755));
	char was[64] = "", now[64] = "";
	OK(readlink("/proc/self/ns/mnt", was, 63));
	pid_t p = CHILD(NEED(unshare(CLONE_NEWNS)); NEED(mount("t", "m", "tmpfs", 0, NULL)); put("m/child", "x");
			NEED(readlink("/proc/self/ns/mnt", now, 63)); CHECK(strcmp(was, now)); STR(get("m/child"), "x"));
	EQ(reap(p), 0);
	ERR(open("m/child", O_RDONLY), ENOENT);
	OK(readlink("/proc/self/ns/mnt", now, 63));
	STR(now, was);
	ERR(umount2("m", 0), EINVAL);
	/* What is mounted in another tree does not hold a directory here. */
	int held[2], go[2];
	OK(pipe(held));
	OK(pipe(go));
	OK(mkdir("n", 0755));
	p = CHILD(NEED(unshare(CLONE_NEWNS)); NEED(mount("t", "n", "tmpfs", 0, NULL)); char c = 0; write(held[1], &c, 1); close(go[1]); read(go[0], &c, 1));
	char c;
	EQ(read(held[0], &c, 1), 1);
	OK(rmdir("n"));
	close(go[1]);
	EQ(reap(p), 0);
}

CASE(pivot)
{
	own();
	OK(mkdir("root", 0755));
	ERR(syscall(SYS_pivot_root, "/", "/"), EBUSY);
	OK(mount("t", "root", "tmpfs", 0, NULL));
	OK(mkdir("root/old", 0755));
	put("root/here", "new root");
	ERR(syscall(SYS_pivot_root, "root", "/"), EBUSY);
	ERR(syscall(SYS_pivot_root, "none", "root/old"), ENOENT);
	ERR(syscall(SYS_pivot_root, "root/here", "root/old"), ENOTDIR);
	EQ(reap(CHILD(NEED(setuid(12345)); ERR(syscall(SYS_pivot_root, "root", "root/old"), EPERM))), 0);
	OK(chdir("root"));
	OK(syscall(SYS_pivot_root, ".", "old"));
	char b[64];
	STR(getcwd(b, sizeof b), "/");
	STR(get("/here"), "new root");
	struct stat st;
	OK(stat("/old/proc/self", &st));
	OK(chdir("/"));
	OK(umount2("/old", MNT_DETACH));
	ERR(stat("/old/proc", &st), ENOENT);
	OK(mkdir("/proc", 0755));
	OK(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
	CHECK(shown("/proc"));
	CHECK(shown("/"));
}

CASE(pivot_in_place)
{
	own();
	OK(mkdir("root", 0755));
	OK(mount("t", "root", "tmpfs", 0, NULL));
	put("root/here", "in place");
	OK(chdir("root"));
	OK(syscall(SYS_pivot_root, ".", "."));
	OK(umount2(".", MNT_DETACH));
	OK(chdir("/"));
	STR(get("/here"), "in place");
	struct stat st;
	ERR(stat("/etc", &st), ENOENT);
}

CASE(rooted)
{
	OK(mkdir("jail", 0755));
	OK(mkdir("jail/dir", 0755));
	put("jail/f", "jailed");
	EQ(reap(CHILD(NEED(chroot("jail")); NEED(chdir("/")); STR(get("/f"), "jailed"); STR(get("/dir/../../../f"), "jailed");
		      char b[64]; STR(getcwd(b, sizeof b), "/"))),
	   0);
	EQ(reap(CHILD(NEED(setuid(12345)); ERR(chroot("."), EPERM))), 0);
	ERR(chroot("jail/f"), ENOTDIR);
	ERR(chroot("none"), ENOENT);
}
MAIN
