/* path_resolution(7): limits, loops, slashes, AT_* arguments. */
#include "t.h"

CASE(name_too_long)
{
	char n[300], p[5000];
	memset(n, 'a', 299);
	n[255] = 0;
	int fd = NEED(open(n, O_CREAT | O_RDWR, 0600));
	close(fd);
	OK(unlink(n));
	n[255] = 'a';
	n[256] = 0;
	ERR(open(n, O_CREAT | O_RDWR, 0600), ENAMETOOLONG);
	ERR(mkdir(n, 0700), ENAMETOOLONG);
	struct stat st;
	ERR(stat(n, &st), ENAMETOOLONG);
	/* 4096 with the terminator is the limit of a path. */
	memset(p, '/', sizeof p);
	p[4095] = 0;
	OK(stat(p, &st));
	p[4095] = '/';
	p[4096] = 0;
	ERR(stat(p, &st), ENAMETOOLONG);
	p[4999] = 0;
	ERR(open(p, O_RDONLY), ENAMETOOLONG);
}

CASE(loops)
{
	OK(symlink("a", "a"));
	struct stat st;
	ERR(stat("a", &st), ELOOP);
	ERR(open("a", O_RDONLY), ELOOP);
	ERR(open("a/b", O_RDONLY), ELOOP);
	OK(lstat("a", &st));
	OK(symlink("c", "b"));
	OK(symlink("b", "c"));
	ERR(stat("b", &st), ELOOP);
	/* 40 links are followed, 41 are not. */
	put("l0", "end");
	for (int i = 1; i <= 41; i++) {
		char f[16], t[16];
		snprintf(f, 16, "l%d", i);
		snprintf(t, 16, "l%d", i - 1);
		OK(symlink(t, f));
	}
	OK(stat("l40", &st));
	ERR(stat("l41", &st), ELOOP);
}

CASE(dots_and_slashes)
{
	OK(mkdir("d", 0755));
	OK(mkdir("d/e", 0755));
	put("d/f", "x");
	STR(get("d//f"), "x");
	STR(get("./d/./f"), "x");
	STR(get("d/e/../f"), "x");
	STR(get("d/none/../f"), "<ENOENT>");
	STR(get("d/f/../f"), "<ENOTDIR>");
	STR(get("d/f/."), "<ENOTDIR>");
	STR(get("d/f/"), "<ENOTDIR>");
	STR(get("///etc/../etc/hostname/x"), "<ENOTDIR>");
	struct stat a, b;
	OK(stat("d/e/..", &a));
	OK(stat("d/", &b));
	EQ(a.st_ino, b.st_ino);
	OK(stat("/", &a));
	OK(stat("/../../..", &b));
	EQ(a.st_ino, b.st_ino);
}

CASE(trailing_slash_on_links)
{
	OK(mkdir("d", 0755));
	put("f", "x");
	OK(symlink("d", "ld"));
	OK(symlink("f", "lf"));
	struct stat st;
	OK(lstat("ld", &st));
	CHECK(S_ISLNK(st.st_mode));
	OK(lstat("ld/", &st));
	CHECK(S_ISDIR(st.st_mode));
	ERR(lstat("lf/", &st), ENOTDIR);
	ERR(unlink("ld/"), ENOTDIR);
	ERR(rmdir("ld/"), ENOTDIR);
	ERR(rmdir("ld"), ENOTDIR);
	char b[8];
	ERR(readlink("ld/", b, 8), EINVAL);
	ERR(symlink("x", "new/"), ENOENT);
	ERR(rename("f", "g/"), ENOTDIR);
	OK(rename("d/", "dd/"));
}

CASE(link_through_link)
{
	OK(mkdir("d", 0755));
	OK(mkdir("d/e", 0755));
	put("d/e/f", "deep");
	OK(symlink("d/e", "s"));
	STR(get("s/f"), "deep");
	OK(symlink("../d/e", "d/up"));
	STR(get("d/up/f"), "deep");
	/* ".." of a link is the target's parent. */
	put("d/g", "parent");
	STR(get("s/../g"), "parent");
	char cwd[4096], t[5000];
	getcwd(cwd, sizeof cwd);
	snprintf(t, sizeof t, "%s/d", cwd);
	OK(symlink(t, "abs"));
	STR(get("abs/g"), "parent");
}

CASE(search_permission)
{
	OK(mkdir("d", 0755));
	put("d/f", "x");
	OK(chmod("d/f", 0644));
	if (geteuid() == 0) {
		pid_t p = CHILD(OK(setuid(1234)); STR(get("d/f"), "x"));
		EQ(reap(p), 0);
		OK(chmod("d", 0700));
		p = CHILD(OK(setuid(1234)); STR(get("d/f"), "<EACCES>"); STR(get("d/none"), "<EACCES>");
			  ERR(chdir("d"), EACCES); ERR(open("d", O_RDONLY), EACCES); ERR(unlink("d/f"), EACCES));
		EQ(reap(p), 0);
		OK(chmod("d", 0711));
		p = CHILD(OK(setuid(1234)); STR(get("d/f"), "x"); ERR(open("d", O_RDONLY), EACCES);
			  STR(get("d/none"), "<ENOENT>"); ERR(open("d/new", O_CREAT | O_RDWR, 0600), EACCES));
		EQ(reap(p), 0);
	}
}

CASE(empty_path)
{
	put("f", "xyz");
	struct stat st;
	int fd = NEED(open("f", O_RDONLY));
	OK(fstatat(fd, "", &st, AT_EMPTY_PATH));
	EQ(st.st_size, 3);
	ERR(fstatat(fd, "", &st, 0), ENOENT);
	ERR(fstatat(fd, "x", &st, 0), ENOTDIR);
	ERR(fstatat(999, "x", &st, 0), EBADF);
	OK(fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
	CHECK(S_ISDIR(st.st_mode));
	ERR(fstatat(AT_FDCWD, "f", &st, 0x40000000), EINVAL);
	OK(fchownat(fd, "", -1, -1, AT_EMPTY_PATH));
	OK(linkat(fd, "", AT_FDCWD, "named", AT_EMPTY_PATH));
	STR(get("named"), "xyz");
}

CASE(proc_self_fd)
{
	put("f", "through");
	int fd = NEED(open("f", O_RDONLY));
	char p[64], b[4096], cwd[4096];
	snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
	STR(get(p), "through");
	ssize_t n = OK(readlink(p, b, sizeof b - 1));
	b[n > 0 ? n : 0] = 0;
	getcwd(cwd, sizeof cwd);
	CHECK(strncmp(b, cwd, strlen(cwd)) == 0);
	STR(b + strlen(cwd), "/f");
	OK(unlink("f"));
	n = OK(readlink(p, b, sizeof b - 1));
	b[n > 0 ? n : 0] = 0;
	STR(b + strlen(cwd), "/f (deleted)");
	STR(get(p), "through");
	snprintf(p, sizeof p, "/dev/fd/%d", fd);
	STR(get(p), "through");
	int d = NEED(open(".", O_RDONLY));
	snprintf(p, sizeof p, "/proc/self/fd/%d/g", d);
	put(p, "into");
	STR(get("g"), "into");
}

CASE(deep_tree)
{
	int depth = 0;
	while (depth < 300 && mkdir("sub", 0755) == 0 && chdir("sub") == 0)
		depth++;
	EQ(depth, 300);
	char b[4096];
	CHECK(getcwd(b, sizeof b) != NULL);
	put("leaf", "bottom");
	STR(get("./leaf"), "bottom");
	for (int i = 0; i < 300; i++) {
		OK(unlink("leaf") == 0 || errno == ENOENT ? 0 : -1);
		OK(chdir(".."));
		OK(rmdir("sub"));
	}
}

CASE(getcwd_beyond_path_max)
{
	char n[201];
	memset(n, 'd', 200);
	n[200] = 0;
	int d[25];
	for (int i = 0; i < 25; i++) {
		OK(mkdir(n, 0755));
		d[i] = NEED(open(".", O_RDONLY | O_DIRECTORY));
		OK(chdir(n));
	}
	char b[8192];
	ERR(syscall(SYS_getcwd, b, 4096), ENAMETOOLONG);
	for (int i = 24; i >= 0; i--) {
		OK(fchdir(d[i]));
		OK(rmdir(n));
	}
}

CASE(bytes_are_bytes)
{
	put("\xff\xfe\x01 \n name", "odd");
	STR(get("\xff\xfe\x01 \n name"), "odd");
	put("-rf", "dash");
	STR(get("-rf"), "dash");
	put("...", "dots");
	STR(get("..."), "dots");
	OK(unlink("..."));
}
MAIN
