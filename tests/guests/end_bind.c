/* What a program does with files of a bound directory ($T), beyond a shell's means. */
#include "t.h"
#undef MAIN

static void say_and_die(const char *what)
{
	dprintf(1, "%s: %s\n", what, strerrorname_np(errno));
	_exit(1);
}
#define MUST(c)                                 \
	do {                                    \
		if (!(c))                       \
			say_and_die(#c);        \
	} while (0)

int main(void)
{
	char b[64] = "";
	(void)t_main;
	MUST(chdir(getenv("T")) == 0);
	/* Stores through a mapping are read back, and writes show in the mapping. */
	put("mapped", "mapped and stored\n");
	int fd = open("mapped", O_RDWR), other = open("mapped", O_RDONLY);
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	char *priv = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	MUST(p != MAP_FAILED && priv != MAP_FAILED);
	p[0] = 'M';
	MUST(read(other, b, 6) == 6 && !memcmp(b, "Mapped", 6));
	MUST(pwrite(fd, "AND", 3, 7) == 3 && !memcmp(p + 7, "AND", 3));
	memcpy(p + 7, "and", 3);
	priv[1] = 'X';
	MUST(p[1] == 'a');
	MUST(msync(p, 4096, MS_SYNC) == 0);
	MUST(munmap(p, 4096) == 0);
	close(fd);
	/* A mapping outlives its descriptor; the end of the process writes it back. */
	pid_t c = fork();
	if (c == 0) {
		fd = open("shared", O_RDWR | O_CREAT | O_TRUNC, 0644);
		MUST(ftruncate(fd, 8192) == 0);
		p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		close(fd);
		memset(p, 's', 8192);
		_exit(0);
	}
	MUST(reap(c) == 0);
	fd = open("shared", O_RDONLY);
	MUST(pread(fd, b, 2, 8190) == 2 && !memcmp(b, "ss", 2));
	close(fd);
	/* Appends of several processes do not overlap. */
	for (int i = 0; i < 4; i++)
		if (fork() == 0) {
			fd = open("appended", O_WRONLY | O_CREAT | O_APPEND, 0644);
			for (int k = 0; k < 100; k++)
				MUST(write(fd, "0123456789", 10) == 10);
			_exit(0);
		}
	for (int i = 0; i < 4; i++)
		MUST(reap(-1) == 0);
	/* An unlinked file lives on. */
	put("unlinked", "still here");
	fd = open("unlinked", O_RDWR);
	MUST(unlink("unlinked") == 0);
	struct stat st;
	MUST(fstat(fd, &st) == 0 && st.st_size == 10 && st.st_nlink == 0);
	MUST(read(fd, b, 10) == 10 && !memcmp(b, "still here", 10));
	MUST(ftruncate(fd, 3) == 0 && fstat(fd, &st) == 0 && st.st_size == 3);
	close(fd);
	/* Made without permission to write, and yet open for it. */
	fd = open("readonly", O_RDWR | O_CREAT | O_EXCL, 0444);
	MUST(fd >= 0 && write(fd, "x", 1) == 1);
	close(fd);
	MUST(stat("readonly", &st) == 0 && (st.st_mode & 0777) == 0444);
	/* Renames of directories take what is below along. */
	MUST(mkdir("one", 0755) == 0 && mkdir("one/two", 0755) == 0);
	put("one/two/f", "deep");
	fd = open("one/two/f", O_RDWR);
	MUST(rename("one", "uno") == 0);
	MUST(stat("uno/two/f", &st) == 0 && fchmod(fd, 0600) == 0 && fstat(fd, &st) == 0);
	MUST((st.st_mode & 0777) == 0600);
	MUST(!strcmp(get("uno/two/f"), "deep"));
	MUST(rmdir("uno") < 0 && errno == ENOTEMPTY);
	put("a", "A");
	put("b", "B");
	MUST(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE) == 0);
	MUST(!strcmp(get("a"), "B") && !strcmp(get("b"), "A"));
	MUST(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE) < 0 && errno == EEXIST);
	/* What stands for something of this VM does not go to the host; natively it is made. */
	MUST(mkfifo("fifo", 0600) == 0 ? unlink("fifo") == 0 : errno == EPERM);
	MUST(open(".", O_TMPFILE | O_RDWR, 0600) >= 0 || errno == EOPNOTSUPP);
	/* A listing read in pieces while entries go. */
	MUST(mkdir("many", 0755) == 0);
	for (int i = 0; i < 300; i++) {
		snprintf(b, sizeof b, "many/%d", i);
		put(b, "");
	}
	DIR *d = opendir("many");
	struct dirent *e;
	int n = 0;
	while ((e = readdir(d)))
		if (e->d_name[0] != '.') {
			n++;
			MUST(unlinkat(dirfd(d), e->d_name, 0) == 0);
		}
	closedir(d);
	MUST(n == 300 && rmdir("many") == 0);
	return 0;
}
