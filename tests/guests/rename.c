/* rename(2), renameat2(2). */
#include "t.h"

static int re2(const char *a, const char *b, unsigned f)
{
	return syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, f);
}

CASE(files)
{
	put("a", "A");
	OK(rename("a", "b"));
	STR(get("b"), "A");
	ERR(rename("a", "b"), ENOENT);
	put("a", "new");
	int old = NEED(open("b", O_RDONLY));
	OK(rename("a", "b"));
	STR(get("b"), "new");
	char c;
	EQ(read(old, &c, 1), 1);
	EQ(c, 'A');
	struct stat st;
	OK(fstat(old, &st));
	EQ(st.st_nlink, 0);
	/* Two names of one file: nothing happens. */
	OK(link("b", "c"));
	OK(rename("b", "c"));
	OK(access("b", F_OK));
	OK(rename("b", "b"));
}

CASE(directories)
{
	OK(mkdir("d", 0755));
	put("d/f", "in");
	OK(rename("d", "e"));
	STR(get("e/f"), "in");
	OK(mkdir("empty", 0755));
	OK(rename("e", "empty"));
	STR(get("empty/f"), "in");
	OK(mkdir("x", 0755));
	ERR(rename("x", "empty"), ENOTEMPTY);
	put("file", "");
	ERR(rename("x", "file"), ENOTDIR);
	ERR(rename("file", "x"), EISDIR);
	ERR(rename("x", "x/sub"), EINVAL);
	ERR(rename("empty", "empty/a/b"), ENOENT);
	OK(mkdir("empty/a", 0755));
	ERR(rename("empty", "empty/a/b"), EINVAL);
	ERR(rename("empty/a", "empty"), ENOTEMPTY);
	ERR(rename(".", "z"), EBUSY);
	ERR(rename("x", ".."), EBUSY);
	ERR(rename("x/..", "z"), EBUSY);
}

CASE(parent_follows)
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	OK(mkdir("a/m", 0755));
	struct stat s1, s2;
	OK(rename("a/m", "b/m"));
	OK(stat("b/m/..", &s1));
	OK(stat("b", &s2));
	EQ(s1.st_ino, s2.st_ino);
	EQ(s2.st_nlink, 3);
	OK(stat("a", &s2));
	EQ(s2.st_nlink, 2);
}

CASE(noreplace)
{
	put("a", "A");
	put("b", "B");
	ERR(re2("a", "b", RENAME_NOREPLACE), EEXIST);
	OK(re2("a", "c", RENAME_NOREPLACE));
	STR(get("c"), "A");
	ERR(re2("none", "d", RENAME_NOREPLACE), ENOENT);
}

CASE(exchange)
{
	put("a", "A");
	OK(mkdir("d", 0755));
	put("d/f", "F");
	OK(re2("a", "d", RENAME_EXCHANGE));
	STR(get("d"), "A");
	STR(get("a/f"), "F");
	ERR(re2("a", "none", RENAME_EXCHANGE), ENOENT);
	ERR(re2("a", "d", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
	ERR(re2("a", "d", 64), EINVAL);
}

CASE(links_are_renamed_not_followed)
{
	put("f", "F");
	OK(symlink("f", "l"));
	OK(rename("l", "m"));
	struct stat st;
	OK(lstat("m", &st));
	CHECK(S_ISLNK(st.st_mode));
	put("g", "G");
	OK(rename("g", "m"));
	OK(lstat("m", &st));
	CHECK(S_ISREG(st.st_mode));
	STR(get("f"), "F");
}

CASE(across_mounts)
{
	put("f", "F");
	ERR(rename("f", "/proc/f"), EXDEV);
}

CASE(long_names)
{
	char n[300];
	memset(n, 'n', 299);
	n[256] = 0;
	put("f", "");
	ERR(rename("f", n), ENAMETOOLONG);
	n[255] = 0;
	OK(rename("f", n));
	OK(rename(n, "f"));
}

CASE(at_descriptors)
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	put("a/f", "F");
	int a = NEED(open("a", O_RDONLY)), b = NEED(open("b", O_RDONLY));
	OK(renameat(a, "f", b, "g"));
	STR(get("b/g"), "F");
	ERR(renameat(a, "f", b, "g"), ENOENT);
	ERR(renameat(99, "f", b, "g"), EBADF);
}

CASE(sticky)
{
	if (geteuid() != 0)
		return;
	OK(mkdir("t", 0755));
	OK(chmod("t", 01777));
	put("t/f", "root's");
	OK(chmod(".", 0755));
	pid_t p = CHILD(OK(setuid(1234)); ERR(unlink("t/f"), EPERM); ERR(rename("t/f", "t/g"), EPERM);
			int fd = OK(open("t/mine", O_CREAT | O_RDWR, 0600)); close(fd); OK(rename("t/mine", "t/m2"));
			ERR(rename("t/m2", "t/f"), EPERM); OK(unlink("t/m2")));
	EQ(reap(p), 0);
}
MAIN
