/* inotify(7): what is reported, in which order, and what is not. */
#include "t.h"
#include <sys/inotify.h>
#include <sys/sendfile.h>
#include <sys/xattr.h>
#include <utime.h>

static const char *const bit[] = {
	"ACCESS", "MODIFY", "ATTRIB", "CLOSE_WRITE", "CLOSE_NOWRITE", "OPEN", "MOVED_FROM", "MOVED_TO",
	"CREATE", "DELETE", "DELETE_SELF", "MOVE_SELF", "1000", "UNMOUNT", "Q_OVERFLOW", "IGNORED",
};

/* Everything queued, as "wd:EVENT,ISDIR/name" words; cookies as c1, c2, ... in order. */
static const char *events(int fd)
{
	static char out[65536];
	static char raw[65536] __attribute__((aligned(8)));
	uint32_t cookies[16];
	int known = 0;
	size_t o = 0;
	int avail = 0;
	EQ(ioctl(fd, FIONREAD, &avail), 0);
	struct pollfd p = {fd, POLLIN, 0};
	EQ(poll(&p, 1, 0), avail > 0);
	out[0] = 0;
	ssize_t n = read(fd, raw, sizeof raw);
	if (n < 0) {
		EQ(errno, EAGAIN);
		EQ(avail, 0);
		return "";
	}
	EQ(avail, n);
	for (ssize_t at = 0; at < n;) {
		struct inotify_event *e = (void *)(raw + at);
		o += sprintf(out + o, "%s%d:", o ? " " : "", e->wd);
		const char *sep = "";
		for (int i = 0; i < 16; i++)
			if (e->mask & (1u << i))
				o += sprintf(out + o, "%s%s", sep, bit[i]), sep = ",";
		if (e->mask & IN_ISDIR)
			o += sprintf(out + o, ",ISDIR");
		if (e->mask & ~(0xffffu | IN_ISDIR))
			o += sprintf(out + o, ",%x", e->mask);
		if (e->len) {
			EQ(e->len % 16, 0);
			CHECK(strlen(e->name) < e->len);
			o += sprintf(out + o, "/%s", e->name);
		}
		if (e->cookie) {
			int c = 0;
			while (c < known && cookies[c] != e->cookie)
				c++;
			if (c == known)
				cookies[known++] = e->cookie;
			o += sprintf(out + o, "c%d", c + 1);
		}
		at += sizeof *e + e->len;
	}
	return out;
}
static int new(void)
{
	return NEED(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
}
#define SEES(fd, text) STR(events(fd), text)

CASE(arguments)
{
	ERR(inotify_init1(1), EINVAL);
	int fd = new ();
	EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	EQ(fcntl(fd, F_GETFL), O_NONBLOCK);
	char link[64], name[64];
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	link[NEED(readlink(name, link, sizeof link - 1))] = 0;
	STR(link, "anon_inode:inotify");
	put("f", "x");
	ERR(inotify_add_watch(fd, "f", 0), EINVAL);
	ERR(inotify_add_watch(fd, "f", 0x1000), EINVAL);
	ERR(inotify_add_watch(fd, "f", IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE), EINVAL);
	ERR(inotify_add_watch(fd, "none", IN_OPEN), ENOENT);
	ERR(inotify_add_watch(fd, "", IN_OPEN), ENOENT);
	ERR(inotify_add_watch(fd, "f", IN_OPEN | IN_ONLYDIR), ENOTDIR);
	ERR(inotify_add_watch(fd, (void *)8, IN_OPEN), EFAULT);
	ERR(inotify_add_watch(99, "f", IN_OPEN), EBADF);
	ERR(inotify_add_watch(1, "f", IN_OPEN), EINVAL);
	ERR(inotify_rm_watch(1, 1), EINVAL);
	ERR(inotify_rm_watch(99, 1), EBADF);
	ERR(inotify_rm_watch(fd, 1), EINVAL);
	ERR(write(fd, "x", 1), EBADF);
	EQ(lseek(fd, 5, SEEK_SET), 0);
	EQ(inotify_add_watch(fd, "f", IN_OPEN), 1);
	EQ(inotify_add_watch(fd, ".", IN_OPEN), 2);
	EQ(inotify_add_watch(fd, "f", IN_ACCESS), 1);
	ERR(inotify_add_watch(fd, "f", IN_ACCESS | IN_MASK_CREATE), EEXIST);
	OK(inotify_rm_watch(fd, 1));
	ERR(inotify_rm_watch(fd, 1), EINVAL);
	SEES(fd, "1:IGNORED");
	EQ(inotify_add_watch(fd, "f", IN_OPEN | IN_MASK_CREATE), 3);
	OK(symlink("f", "l"));
	EQ(inotify_add_watch(fd, "l", IN_OPEN), 3);
	EQ(inotify_add_watch(fd, "l", IN_OPEN | IN_DONT_FOLLOW), 4);
}

CASE(a_file)
{
	put("f", "content");
	int fd = new ();
	EQ(inotify_add_watch(fd, "f", IN_ALL_EVENTS), 1);
	int f = NEED(open("f", O_RDWR));
	SEES(fd, "1:OPEN");
	char b[8];
	EQ(read(f, b, 4), 4);
	EQ(read(f, b, 3), 3);
	SEES(fd, "1:ACCESS");
	EQ(read(f, b, 1), 0);
	SEES(fd, "");
	EQ(write(f, "x", 1), 1);
	EQ(write(f, "", 0), 0);
	EQ(pread(f, b, 1, 0), 1);
	EQ(pwrite(f, b, 1, 0), 1);
	SEES(fd, "1:MODIFY 1:ACCESS 1:MODIFY");
	OK(ftruncate(f, 3));
	OK(fchmod(f, 0600));
	OK(fchown(f, getuid(), -1));
	SEES(fd, "1:MODIFY 1:ATTRIB");
	OK(truncate("f", 2));
	struct timespec both[2] = {{1, 0}, {2, 0}}, a[2] = {{1, 0}, {0, UTIME_OMIT}}, m[2] = {{0, UTIME_OMIT}, {1, 0}};
	OK(futimens(f, both));
	OK(utimensat(AT_FDCWD, "f", a, 0));
	OK(futimens(f, m));
	SEES(fd, "1:MODIFY 1:ATTRIB 1:ACCESS 1:MODIFY");
	int g = dup(f);
	close(f);
	SEES(fd, "");
	close(g);
	SEES(fd, "1:CLOSE_WRITE");
	close(NEED(open("f", O_RDONLY)));
	close(NEED(open("f", O_PATH)));
	SEES(fd, "1:OPEN 1:CLOSE_NOWRITE");
	OK(link("f", "g"));
	SEES(fd, "1:ATTRIB");
	OK(rename("f", "h"));
	SEES(fd, "1:MOVE_SELF");
	OK(unlink("h"));
	SEES(fd, "1:ATTRIB");
	close(NEED(open("g", O_WRONLY)));
	OK(unlink("g"));
	SEES(fd, "1:OPEN 1:CLOSE_WRITE 1:ATTRIB 1:DELETE_SELF 1:IGNORED");
	ERR(inotify_rm_watch(fd, 1), EINVAL);
}

CASE(a_directory)
{
	OK(mkdir("d", 0755));
	int fd = new ();
	EQ(inotify_add_watch(fd, "d", IN_ALL_EVENTS), 1);
	int f = NEED(open("d/f", O_CREAT | O_WRONLY, 0644));
	EQ(write(f, "12", 2), 2);
	close(f);
	SEES(fd, "1:CREATE/f 1:OPEN/f 1:MODIFY/f 1:CLOSE_WRITE/f");
	OK(mkdir("d/s", 0755));
	OK(symlink("nowhere", "d/l"));
	OK(mkfifo("d/p", 0644));
	OK(link("d/f", "d/k"));
	SEES(fd, "1:CREATE,ISDIR/s 1:CREATE/l 1:CREATE/p 1:CREATE/k");
	OK(chmod("d/f", 0600));
	OK(chmod("d/s", 0700));
	OK(chmod("d", 0700));
	SEES(fd, "1:ATTRIB/f 1:ATTRIB,ISDIR/s 1:ATTRIB,ISDIR");
	DIR *d = opendir("d");
	SEES(fd, "1:OPEN,ISDIR");
	while (readdir(d))
		;
	closedir(d);
	SEES(fd, "1:ACCESS,ISDIR 1:CLOSE_NOWRITE,ISDIR");
	OK(unlink("d/l"));
	OK(unlink("d/k"));
	OK(rmdir("d/s"));
	SEES(fd, "1:DELETE/l 1:DELETE/k 1:DELETE,ISDIR/s");
	put("d/s2", "");
	events(fd);
	put("d/a_name_of_just_sixteen", "");
	SEES(fd, "1:CREATE/a_name_of_just_sixteen 1:OPEN/a_name_of_just_sixteen 1:CLOSE_WRITE/a_name_of_just_sixteen");
	OK(mkdir("d/t", 0755));
	put("d/t/deep", "");
	SEES(fd, "1:CREATE,ISDIR/t");
	OK(unlink("d/t/deep"));
	OK(rmdir("d/t"));
	OK(unlink("d/f"));
	OK(unlink("d/p"));
	OK(unlink("d/s2"));
	OK(unlink("d/a_name_of_just_sixteen"));
	events(fd);
	OK(rmdir("d"));
	SEES(fd, "1:DELETE_SELF 1:IGNORED");
}

CASE(renames)
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	put("a/f", "");
	put("b/over", "");
	int fd = new ();
	EQ(inotify_add_watch(fd, "a", IN_ALL_EVENTS), 1);
	EQ(inotify_add_watch(fd, "b", IN_ALL_EVENTS), 2);
	EQ(inotify_add_watch(fd, "a/f", IN_ALL_EVENTS), 3);
	EQ(inotify_add_watch(fd, "b/over", IN_ALL_EVENTS), 4);
	OK(rename("a/f", "a/g"));
	SEES(fd, "1:MOVED_FROM/fc1 1:MOVED_TO/gc1 3:MOVE_SELF");
	OK(rename("a/g", "b/over"));
	SEES(fd, "1:MOVED_FROM/gc1 2:MOVED_TO/overc1 4:ATTRIB 3:MOVE_SELF 4:DELETE_SELF 4:IGNORED");
	OK(mkdir("a/d", 0755));
	OK(rename("a/d", "b/d"));
	SEES(fd, "1:CREATE,ISDIR/d 1:MOVED_FROM,ISDIR/dc1 2:MOVED_TO,ISDIR/dc1");
	put("a/x", "");
	events(fd);
	OK(renameat2(AT_FDCWD, "a/x", AT_FDCWD, "b/over", RENAME_EXCHANGE));
	SEES(fd, "1:MOVED_FROM/xc1 2:MOVED_TO/overc1 2:MOVED_FROM/overc2 1:MOVED_TO/xc2 3:MOVE_SELF");
	OK(rename("a", "c"));
	SEES(fd, "1:MOVE_SELF");
}

CASE(an_open_file_outlives_its_name)
{
	put("f", "x");
	int fd = new ();
	EQ(inotify_add_watch(fd, "f", IN_ALL_EVENTS), 1);
	EQ(inotify_add_watch(fd, ".", IN_ALL_EVENTS), 2);
	int f = NEED(open("f", O_RDWR));
	SEES(fd, "2:OPEN/f 1:OPEN");
	OK(unlink("f"));
	SEES(fd, "1:ATTRIB 2:DELETE/f");
	char c;
	EQ(read(f, &c, 1), 1);
	SEES(fd, "2:ACCESS/f 1:ACCESS");
	close(f);
	SEES(fd, "2:CLOSE_WRITE/f 1:CLOSE_WRITE 1:DELETE_SELF 1:IGNORED");
}

CASE(excl_unlink)
{
	put("f", "x");
	put("g", "x");
	int fd = new ();
	EQ(inotify_add_watch(fd, ".", IN_ALL_EVENTS | IN_EXCL_UNLINK), 1);
	int f = NEED(open("f", O_RDWR)), g = NEED(open("g", O_RDWR));
	OK(unlink("f"));
	char c;
	EQ(read(f, &c, 1), 1);
	close(f);
	EQ(read(g, &c, 1), 1);
	close(g);
	SEES(fd, "1:OPEN/f 1:OPEN/g 1:DELETE/f 1:ACCESS/g 1:CLOSE_WRITE/g");
}

CASE(masks)
{
	put("f", "x");
	int fd = new ();
	EQ(inotify_add_watch(fd, "f", IN_OPEN), 1);
	close(NEED(open("f", O_RDONLY)));
	SEES(fd, "1:OPEN");
	EQ(inotify_add_watch(fd, "f", IN_CLOSE | IN_MASK_ADD), 1);
	close(NEED(open("f", O_RDONLY)));
	SEES(fd, "1:OPEN 1:CLOSE_NOWRITE");
	EQ(inotify_add_watch(fd, "f", IN_CLOSE), 1);
	close(NEED(open("f", O_RDONLY)));
	SEES(fd, "1:CLOSE_NOWRITE");
	EQ(inotify_add_watch(fd, "f", IN_OPEN | IN_CLOSE | IN_ONESHOT), 1);
	close(NEED(open("f", O_RDONLY)));
	SEES(fd, "1:OPEN 1:IGNORED");
	ERR(inotify_rm_watch(fd, 1), EINVAL);
}

CASE(equal_events_are_one)
{
	put("f", "x");
	int fd = new ();
	EQ(inotify_add_watch(fd, "f", IN_OPEN), 1);
	EQ(inotify_add_watch(fd, ".", IN_OPEN | IN_ATTRIB), 2);
	OK(chmod("f", 0600));
	OK(chmod("f", 0644));
	close(NEED(open("f", O_RDONLY)));
	close(NEED(open("f", O_RDONLY)));
	SEES(fd, "2:ATTRIB/f 2:OPEN/f 1:OPEN 2:OPEN/f 1:OPEN");
}

CASE(small_reads)
{
	int fd = new ();
	EQ(inotify_add_watch(fd, ".", IN_CREATE), 1);
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	OK(mkdir("cdefghijklmnopqrstuvw", 0755));
	char b[64];
	ERR(read(fd, b, 16), EINVAL);
	ERR(read(fd, b, 31), EINVAL);
	EQ(read(fd, b, 33), 32);
	struct inotify_event *e = (void *)b;
	EQ(e->len, 16);
	STR(e->name, "a");
	EQ(read(fd, b, 64), 32);
	STR(e->name, "b");
	EQ(read(fd, b, 64), 48);
	EQ(e->len, 32);
	ERR(read(fd, b, 64), EAGAIN);
}

CASE(overflow)
{
	long most = atol(get("/proc/sys/fs/inotify/max_queued_events"));
	CHECK(most > 0 && most <= 65536);
	put("f", "x");
	int fd = new ();
	EQ(inotify_add_watch(fd, "f", IN_OPEN | IN_CLOSE), 1);
	for (long i = 0; i < most / 2 + 20; i++)
		close(NEED(open("f", O_RDONLY)));
	int avail;
	OK(ioctl(fd, FIONREAD, &avail));
	EQ(avail, (most + 1) * 16);
	char *b = malloc(avail);
	EQ(read(fd, b, avail), avail);
	struct inotify_event *last = (void *)(b + most * 16);
	EQ(last->wd, -1);
	EQ(last->mask, IN_Q_OVERFLOW);
	close(NEED(open("f", O_RDONLY)));
	SEES(fd, "1:OPEN 1:CLOSE_NOWRITE");
}

CASE(waits)
{
	int fd = NEED(inotify_init()), ready[2];
	OK(pipe(ready));
	EQ(inotify_add_watch(fd, ".", IN_CREATE), 1);
	pid_t p = CHILD(char b[64]; EQ(read(fd, b, sizeof b), 32); STR(b + 16, "x"));
	ASLEEP(p);
	put("x", "");
	EQ(reap(p), 0);
	pid_t q = CHILD(struct pollfd w = {fd, POLLIN, 0}; EQ(poll(&w, 1, 5000), 1); EQ(w.revents, POLLIN));
	ASLEEP(q);
	put("y", "");
	EQ(reap(q), 0);
}

CASE(by_any_way)
{
	put("from", "some bytes");
	put("to", "");
	int fd = new ();
	EQ(inotify_add_watch(fd, "from", IN_ACCESS | IN_ATTRIB), 1);
	EQ(inotify_add_watch(fd, "to", IN_MODIFY), 2);
	int f = NEED(open("from", O_RDONLY)), t = NEED(open("to", O_RDWR | O_TRUNC));
	SEES(fd, "2:MODIFY");
	off_t at = 0;
	EQ(sendfile(t, f, &at, 4), 4);
	CHECK(strstr(events(fd), "2:MODIFY"));
	EQ(fallocate(t, 0, 0, 100), 0);
	SEES(fd, "2:MODIFY");
	struct iovec v = {(char[4]){0}, 4};
	EQ(readv(f, &v, 1), 4);
	EQ(writev(t, &v, 1), 4);
	SEES(fd, "1:ACCESS 2:MODIFY");
	char *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, t, 0);
	m[0] = 1;
	SEES(fd, "");
}

CASE(instances)
{
	long most = atol(get("/proc/sys/fs/inotify/max_user_instances"));
	put("f", "x");
	int a = new (), b = new ();
	EQ(inotify_add_watch(a, "f", IN_OPEN), 1);
	EQ(inotify_add_watch(b, "f", IN_CLOSE), 1);
	close(NEED(open("f", O_RDONLY)));
	SEES(a, "1:OPEN");
	SEES(b, "1:CLOSE_NOWRITE");
	close(a);
	close(NEED(open("f", O_RDONLY)));
	SEES(b, "1:CLOSE_NOWRITE");
	if (most > 0 && most <= 256) {
		int n = 0;
		while (n <= most && inotify_init1(IN_NONBLOCK) >= 0)
			n++;
		EQ(errno, EMFILE);
		CHECK(n < most);
	}
}

static void *stir(void *stop)
{
	while (!*(atomic_bool *)stop) {
		put("x", "1");
		rename("x", "y");
		unlink("y");
	}
	return NULL;
}

CASE(storm)
{
	atomic_bool stop = false;
	pthread_t t[2];
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, stir, &stop);
	static char b[65536];
	for (int i = 0; i < 150; i++) {
		int fd = new ();
		int w = NEED(inotify_add_watch(fd, ".", IN_ALL_EVENTS));
		int x = inotify_add_watch(fd, "x", IN_ALL_EVENTS);
		if (x >= 0)
			inotify_rm_watch(fd, x);
		CHECK(read(fd, b, sizeof b) != 0);
		OK(inotify_rm_watch(fd, w));
		close(fd);
	}
	stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	unlink("x");
	unlink("y");
}
MAIN
