/* mkdir(2), rmdir(2), link(2), unlink(2), symlink(2), getdents64(2), getcwd(2), chdir(2), mknod(2). */
#include "t.h"

CASE(mkdir_rmdir)
{
	OK(mkdir("d", 0755));
	ERR(mkdir("d", 0755), EEXIST);
	ERR(mkdir("x/y", 0755), ENOENT);
	put("f", "");
	ERR(mkdir("f", 0755), EEXIST);
	ERR(mkdir("f/d", 0755), ENOTDIR);
	OK(mkdir("slash/", 0755));
	put("d/f", "");
	ERR(rmdir("d"), ENOTEMPTY);
	ERR(rmdir("f"), ENOTDIR);
	ERR(rmdir("none"), ENOENT);
	ERR(rmdir("slash/."), EINVAL);
	ERR(rmdir("slash/.."), ENOTEMPTY);
	OK(rmdir("slash/"));
	OK(unlink("d/f"));
	OK(rmdir("d"));
	ERR(rmdir("d"), ENOENT);
	ERR(mkdir("/", 0755), EEXIST);
	ERR(mkdir("", 0755), ENOENT);
}

CASE(link_counts)
{
	struct stat st;
	OK(mkdir("d", 0755));
	OK(stat("d", &st));
	EQ(st.st_nlink, 2);
	OK(mkdir("d/a", 0755));
	OK(mkdir("d/b", 0755));
	put("d/f", "");
	OK(stat("d", &st));
	EQ(st.st_nlink, 4);
	OK(rmdir("d/a"));
	OK(stat("d", &st));
	EQ(st.st_nlink, 3);
	OK(link("d/f", "d/g"));
	OK(stat("d/g", &st));
	EQ(st.st_nlink, 2);
	OK(unlink("d/f"));
	OK(stat("d/g", &st));
	EQ(st.st_nlink, 1);
}

CASE(links)
{
	put("f", "x");
	ERR(link("f", "f"), EEXIST);
	ERR(link("none", "g"), ENOENT);
	OK(mkdir("d", 0755));
	ERR(link("d", "e"), EPERM);
	ERR(link("f", "d"), EEXIST);
	ERR(link("f", "none/g"), ENOENT);
	OK(symlink("f", "l"));
	/* link(2) names the symbolic link itself, linkat with FOLLOW its target. */
	OK(link("l", "l2"));
	struct stat st;
	OK(lstat("l2", &st));
	CHECK(S_ISLNK(st.st_mode));
	EQ(st.st_nlink, 2);
	OK(linkat(AT_FDCWD, "l", AT_FDCWD, "f2", AT_SYMLINK_FOLLOW));
	OK(lstat("f2", &st));
	CHECK(S_ISREG(st.st_mode));
	ERR(linkat(AT_FDCWD, "f", AT_FDCWD, "f3", 0x8000), EINVAL);
}

CASE(symlinks)
{
	OK(symlink("target/not/there", "l"));
	char b[64];
	EQ(readlink("l", b, 64), 16);
	EQ(readlink("l", b, 3), 3);
	MEM(b, "tar", 3);
	ERR(readlink("l", b, 0), EINVAL);
	ERR(symlink("x", "l"), EEXIST);
	ERR(symlink("", "m"), ENOENT);
	put("f", "");
	ERR(readlink("f", b, 64), EINVAL);
	ERR(readlink("none", b, 64), ENOENT);
	ERR(readlink("f/x", b, 64), ENOTDIR);
	struct stat st;
	OK(lstat("l", &st));
	EQ(st.st_size, 16);
	EQ(st.st_mode & 07777, 0777);
	ERR(stat("l", &st), ENOENT);
	int d = NEED(open(".", O_RDONLY));
	OK(symlinkat("f", d, "m"));
	EQ(readlinkat(d, "m", b, 64), 1);
}

CASE(unlinks)
{
	OK(mkdir("d", 0755));
	put("f", "");
	ERR(unlink("d"), EISDIR);
	ERR(unlink("none"), ENOENT);
	ERR(unlink("f/"), ENOTDIR);
	ERR(unlink(""), ENOENT);
	ERR(unlinkat(AT_FDCWD, "f", AT_REMOVEDIR), ENOTDIR);
	ERR(unlinkat(AT_FDCWD, "d", 0), EISDIR);
	ERR(unlinkat(AT_FDCWD, "f", 0x10000000), EINVAL);
	OK(unlinkat(AT_FDCWD, "d", AT_REMOVEDIR));
	OK(symlink("f", "l"));
	OK(unlink("l"));
	OK(access("f", F_OK));
	ERR(rmdir("."), EINVAL);
	ERR(unlink("."), EISDIR);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char **)a, *(char **)b);
}

static void list(const char *dir)
{
	char *names[300], all[4096] = "";
	int n = 0;
	DIR *d = opendir(dir);
	struct dirent *e;
	CHECK(d != NULL);
	while (d && (e = readdir(d)) && n < 300) {
		char t[300];
		snprintf(t, sizeof t, "%s:%d", e->d_name, e->d_type);
		names[n++] = strdup(t);
	}
	closedir(d);
	qsort(names, n, sizeof *names, by_name);
	for (int i = 0; i < n; i++)
		snprintf(all + strlen(all), sizeof all - strlen(all), " %s", names[i]);
	say("%s:%s", dir, all);
}

CASE(listing)
{
	put("f", "");
	OK(mkdir("d", 0755));
	OK(symlink("f", "l"));
	OK(mkfifo("p", 0600));
	list(".");
	list("d");
	OK(unlink("f"));
	list(".");
}

CASE(many_entries)
{
	char b[16];
	for (int i = 0; i < 1000; i++) {
		snprintf(b, sizeof b, "n%d", i);
		int fd = open(b, O_CREAT | O_WRONLY, 0600);
		CHECK(fd >= 0);
		close(fd);
	}
	DIR *d = opendir(".");
	int n = 0;
	long sum = 0;
	struct dirent *e;
	while ((e = readdir(d)))
		if (e->d_name[0] == 'n') {
			n++;
			sum += atoi(e->d_name + 1);
		}
	say("%d entries, sum %ld", n, sum);
	/* Removing while reading loses none. */
	rewinddir(d);
	n = 0;
	while ((e = readdir(d)))
		if (e->d_name[0] == 'n') {
			OK(unlink(e->d_name));
			n++;
		}
	EQ(n, 1000);
	closedir(d);
}

CASE(tell_and_seek)
{
	for (int i = 0; i < 50; i++) {
		char b[16];
		snprintf(b, sizeof b, "%d", i);
		put(b, "");
	}
	DIR *d = opendir(".");
	for (int i = 0; i < 20; i++)
		readdir(d);
	long at = telldir(d);
	char next[64];
	struct dirent *e = readdir(d);
	strcpy(next, e->d_name);
	while (readdir(d))
		;
	seekdir(d, at);
	e = readdir(d);
	CHECK(e != NULL);
	STR(e ? e->d_name : "?", next);
	closedir(d);
}

CASE(getdents_raw)
{
	put("f", "");
	int d = NEED(open(".", O_RDONLY | O_DIRECTORY));
	char b[4096];
	ERR(syscall(SYS_getdents64, d, b, 8), EINVAL);
	CHECK(syscall(SYS_getdents64, d, b, sizeof b) > 0);
	EQ(syscall(SYS_getdents64, d, b, sizeof b), 0);
	EQ(lseek(d, 0, SEEK_SET), 0);
	CHECK(syscall(SYS_getdents64, d, b, sizeof b) > 0);
	int f = NEED(open("f", O_RDONLY));
	ERR(syscall(SYS_getdents64, f, b, sizeof b), ENOTDIR);
	ERR(syscall(SYS_getdents64, 99, b, sizeof b), EBADF);
	EQ(lseek(d, 0, SEEK_SET), 0);
	ERR(syscall(SYS_getdents64, d, NULL, 4096), EFAULT);
}

CASE(removed_directory)
{
	OK(mkdir("d", 0755));
	int d = NEED(open("d", O_RDONLY | O_DIRECTORY));
	OK(rmdir("d"));
	struct stat st;
	OK(fstat(d, &st));
	EQ(st.st_nlink, 0);
	char b[4096];
	ERR(syscall(SYS_getdents64, d, b, sizeof b), ENOENT);
	OK(fchdir(d));
	ERR(syscall(SYS_getcwd, b, sizeof b), ENOENT);
	ERR(open("x", O_CREAT | O_RDWR, 0600), ENOENT);
	ERR(mkdir("x", 0700), ENOENT);
	/* ".." still leads out. */
	OK(chdir(".."));
}

CASE(cwd)
{
	char a[4096], b[4096];
	CHECK(getcwd(a, sizeof a) != NULL);
	EQ(a[0], '/');
	OK(mkdir("d", 0755));
	OK(chdir("d"));
	CHECK(getcwd(b, sizeof b) != NULL);
	STR(b + strlen(a), "/d");
	EQ(syscall(SYS_getcwd, b, sizeof b), strlen(a) + 3);
	ERR(syscall(SYS_getcwd, b, 3), ERANGE);
	ERR(syscall(SYS_getcwd, NULL, 100), EFAULT);
	OK(chdir(".."));
	OK(symlink("d", "l"));
	OK(chdir("l"));
	CHECK(getcwd(b, sizeof b) != NULL);
	STR(b + strlen(a), "/d");
	OK(chdir("../d/.././d/"));
	OK(rename("../d", "../renamed"));
	CHECK(getcwd(b, sizeof b) != NULL);
	STR(b + strlen(a), "/renamed");
	ERR(chdir("none"), ENOENT);
	OK(chdir(".."));
	put("f", "");
	ERR(chdir("f"), ENOTDIR);
	int f = NEED(open("f", O_RDONLY));
	ERR(fchdir(f), ENOTDIR);
	ERR(fchdir(99), EBADF);
	OK(chdir("/"));
	CHECK(getcwd(b, sizeof b) != NULL);
	STR(b, "/");
	OK(chdir("/.."));
	CHECK(getcwd(b, sizeof b) != NULL);
	STR(b, "/");
}

CASE(cwd_is_per_process)
{
	char a[4096], b[4096];
	getcwd(a, sizeof a);
	pid_t p = CHILD(OK(chdir("/")));
	EQ(reap(p), 0);
	getcwd(b, sizeof b);
	STR(b, a);
}

CASE(fifos_and_nodes)
{
	OK(mkfifo("p", 0640));
	struct stat st;
	OK(stat("p", &st));
	CHECK(S_ISFIFO(st.st_mode));
	EQ(st.st_mode & 07777, 0640);
	ERR(mkfifo("p", 0640), EEXIST);
	OK(mknod("r", S_IFREG | 0600, 0));
	OK(stat("r", &st));
	CHECK(S_ISREG(st.st_mode));
	ERR(mknod("z", S_IFDIR | 0600, 0), EPERM);
	ERR(mknod("z", 0170000, 0), EINVAL);
	OK(mknod("s", S_IFSOCK | 0600, 0));
	ERR(open("s", O_RDWR), ENXIO);
	/* A FIFO with no reader. */
	ERR(open("p", O_WRONLY | O_NONBLOCK), ENXIO);
	int r = NEED(open("p", O_RDONLY | O_NONBLOCK));
	int w = NEED(open("p", O_WRONLY | O_NONBLOCK));
	EQ(write(w, "abc", 3), 3);
	char b[8];
	EQ(read(r, b, 8), 3);
	ERR(read(r, b, 8), EAGAIN);
	close(w);
	EQ(read(r, b, 8), 0);
	close(r);
	int rw = NEED(open("p", O_RDWR));
	EQ(write(rw, "q", 1), 1);
	EQ(read(rw, b, 1), 1);
}

CASE(fifo_rendezvous)
{
	OK(mkfifo("p", 0600));
	pid_t p = CHILD(int w = NEED(open("p", O_WRONLY)); EQ(write(w, "hello", 5), 5));
	int r = NEED(open("p", O_RDONLY));
	char b[8] = "";
	EQ(read(r, b, 8), 5);
	STR(b, "hello");
	EQ(reap(p), 0);
	EQ(read(r, b, 8), 0);
}

CASE(chroots)
{
	OK(mkdir("jail", 0755));
	put("jail/f", "inside");
	pid_t p = CHILD(OK(chroot("jail")); OK(chdir("/")); STR(get("/f"), "inside");
			STR(get("/../f"), "inside"); char b[64]; CHECK(getcwd(b, 64)); STR(b, "/");
			ERR(chroot("none"), ENOENT); ERR(chroot("f"), ENOTDIR));
	EQ(reap(p), 0);
}
MAIN
