/* execve(2), execveat(2), shebang lines, argument limits. */
#include "t.h"
#include <elf.h>
#include <sys/auxv.h>

extern char **environ;
static char self[4096];

/* The program run again as "+what": reports and ends. */
static int helper(int argc, char **argv)
{
	const char *w = argv[1] + 1;
	if (!strcmp(w, "args")) {
		for (int i = 0; i < argc; i++)
			printf("  arg %d [%s]\n", i, i ? argv[i] : "-");
		for (char **e = environ; *e; e++)
			printf("  env [%s]\n", *e);
		return 0;
	}
	if (!strcmp(w, "count")) {
		size_t n = 0;
		for (int i = 2; i < argc; i++)
			n += strlen(argv[i]);
		printf("  %d arguments of %zu bytes\n", argc - 2, n);
		return 0;
	}
	if (!strcmp(w, "fd"))
		return fcntl(atoi(argv[2]), F_GETFD) >= 0 ? 1 : 0;
	if (!strcmp(w, "signals")) {
		struct sigaction a, b;
		sigset_t m, p;
		sigaction(SIGUSR1, NULL, &a);
		sigaction(SIGUSR2, NULL, &b);
		sigprocmask(SIG_BLOCK, NULL, &m);
		sigpending(&p);
		stack_t s;
		sigaltstack(NULL, &s);
		printf("  handled %s, ignored %s, blocked %d, pending %d, altstack %s\n", a.sa_handler == SIG_DFL ? "default" : "kept",
		       b.sa_handler == SIG_IGN ? "ignored" : "lost", sigismember(&m, SIGTERM), sigismember(&p, SIGTERM),
		       s.ss_flags & SS_DISABLE ? "off" : "on");
		return 0;
	}
	if (!strcmp(w, "aux")) {
		printf("  pagesz %lu clktck %lu uid %lu secure %lu phent %lu random %d execfn %s\n", getauxval(AT_PAGESZ), getauxval(AT_CLKTCK),
		       getauxval(AT_UID) - getuid(), getauxval(AT_SECURE), getauxval(AT_PHENT), getauxval(AT_RANDOM) != 0,
		       strrchr((char *)getauxval(AT_EXECFN), '/'));
		printf("  platform %s vdso %d phnum %d\n", (char *)getauxval(AT_PLATFORM), getauxval(AT_SYSINFO_EHDR) != 0, getauxval(AT_PHNUM) > 2);
		return 0;
	}
	if (!strcmp(w, "pid"))
		return getpid() == atoi(argv[2]) ? 0 : 1;
	if (!strcmp(w, "comm")) {
		char b[32] = "";
		prctl(PR_GET_NAME, b);
		printf("  comm %s\n", b);
		return 0;
	}
	return 77;
}

#define RUN(...)                                                         \
	reap(CHILD(char *a_[] = {"exec", __VA_ARGS__, NULL}; execve(self, a_, (char *[]){"A=1", "B=two words", NULL}); _exit(111)))

CASE(arguments_and_environment)
{
	EQ(RUN("+args", "", "a b", "ünï"), 0);
}

CASE(no_arguments)
{
	/* Linux makes argc 1 of an empty argv. */
	put("s", "#!/bin/sh\necho \"  $# <$0>\"\n");
	EQ(reap(CHILD(execve("/bin/sh", (char *[]){"sh", "-c", "echo \"  $0 $#\"", NULL}, (char *[]){NULL}); _exit(111))), 0);
}

CASE(keeps_pid_and_closes)
{
	char n[16], m[16];
	int fd = NEED(open("/dev/null", O_RDONLY | O_CLOEXEC)), keep = NEED(open("/dev/null", O_RDONLY));
	snprintf(n, 16, "%d", fd);
	snprintf(m, 16, "%d", keep);
	EQ(RUN("+fd", n), 0);
	EQ(RUN("+fd", m), 1);
	EQ(reap(CHILD(char p[16]; snprintf(p, 16, "%d", getpid()); execl(self, "exec", "+pid", p, NULL))), 0);
}

static void nothing(int s)
{
}
CASE(signals_after)
{
	on(SIGUSR1, nothing, 0);
	on(SIGUSR2, SIG_IGN, 0);
	sigset_t s = sigs(SIGTERM, 0);
	sigprocmask(SIG_BLOCK, &s, NULL);
	EQ(reap(CHILD(static char st[65536]; stack_t ss = {.ss_sp = st, .ss_size = sizeof st}; sigaltstack(&ss, NULL);
		      raise(SIGTERM); execl(self, "exec", "+signals", NULL))), 0);
}

CASE(auxiliary_vector)
{
	EQ(RUN("+aux"), 0);
}

CASE(name_of_process)
{
	EQ(RUN("+comm"), 0);
	OK(symlink(self, "a-name-longer-than-fifteen"));
	EQ(reap(CHILD(execl("./a-name-longer-than-fifteen", "x", "+comm", NULL))), 0);
}

CASE(refusals)
{
	char *a[] = {"x", NULL}, *e[] = {NULL};
	put("plain", "x");
	ERR(execve("plain", a, e), EACCES);
	OK(chmod("plain", 0755));
	ERR(execve("plain", a, e), ENOEXEC);
	put("empty", "");
	OK(chmod("empty", 0755));
	ERR(execve("empty", a, e), ENOEXEC);
	ERR(execve("none", a, e), ENOENT);
	ERR(execve("", a, e), ENOENT);
	ERR(execve("plain/x", a, e), ENOTDIR);
	ERR(execve(".", a, e), EACCES);
	ERR(execve((char *)8, a, e), EFAULT);
	ERR(execve(self, (char **)8, e), EFAULT);
	char *bad[] = {"x", (char *)8, NULL};
	ERR(execve(self, bad, e), EFAULT);
	ERR(execve(self, a, (char **)8), EFAULT);
	OK(symlink("loop", "loop"));
	ERR(execve("loop", a, e), ELOOP);
	OK(mkfifo("fifo", 0777));
	ERR(execve("fifo", a, e), EACCES);
}

static void copy_self(const char *to, size_t n)
{
	int in = NEED(open(self, O_RDONLY)), out = NEED(open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755));
	static char b[1 << 20];
	ssize_t k;
	while (n && (k = read(in, b, n < sizeof b ? n : sizeof b)) > 0) {
		NEED(write(out, b, k));
		n -= k;
	}
	close(in);
	close(out);
}
static void poke(const char *f, off_t at, const void *p, size_t n)
{
	int fd = NEED(open(f, O_WRONLY));
	NEED(pwrite(fd, p, n, at));
	close(fd);
}

CASE(damaged_elf)
{
	char *a[] = {"x", "+pid", "0", NULL}, *e[] = {NULL};
	copy_self("c", -1);
	EQ(reap(CHILD(execve("./c", a, e))), 1);
	copy_self("c", 20);
	ERR(execve("./c", a, e), ENOEXEC);
	copy_self("c", 64);
	int r = execve("./c", a, e);
	CHECK(r == -1 && (errno == ENOEXEC || errno == EIO));
	copy_self("c", -1);
	poke("c", offsetof(Elf64_Ehdr, e_machine), "\x28\x00", 2);
	ERR(execve("./c", a, e), ENOEXEC);
	copy_self("c", -1);
	poke("c", offsetof(Elf64_Ehdr, e_type), "\x01\x00", 2);
	ERR(execve("./c", a, e), ENOEXEC);
	copy_self("c", -1);
	poke("c", offsetof(Elf64_Ehdr, e_phentsize), "\x01\x00", 2);
	ERR(execve("./c", a, e), ENOEXEC);
	copy_self("c", -1);
	poke("c", offsetof(Elf64_Ehdr, e_phnum), "\x00\x00", 2);
	ERR(execve("./c", a, e), ENOEXEC);
	copy_self("c", -1);
	poke("c", 0, "\x7f""ELG", 4);
	ERR(execve("./c", a, e), ENOEXEC);
}

CASE(scripts)
{
	put("s", "#!/bin/sh\necho \"  script $0: $*\"\n");
	OK(chmod("s", 0755));
	EQ(reap(CHILD(execl("./s", "ignored", "one", "two", NULL))), 0);
	/* One optional argument, blanks and all. */
	put("t", "#! /bin/echo   -a b  c  \n");
	OK(chmod("t", 0755));
	EQ(reap(CHILD(execl("./t", "t", "arg", NULL))), 0);
	/* An interpreter that is a script. */
	char cwd[2000], b[2100];
	getcwd(cwd, sizeof cwd);
	OK(rename("s", "/tmp/tg-exec-s") == 0 || errno == EXDEV ? 0 : -1);
	unlink("/tmp/tg-exec-s");
	put("inner", "#!/bin/sh\necho \"  inner $#\"\n");
	OK(chmod("inner", 0755));
	snprintf(b, sizeof b, "#!%s/inner -x\n", cwd);
	put("outer", b);
	OK(chmod("outer", 0755));
	EQ(reap(CHILD(execl("./outer", "outer", "y", "z", NULL))), 0);
	put("bad", "#!/does/not/exist\n");
	OK(chmod("bad", 0755));
	ERR(execl("./bad", "bad", NULL), ENOENT);
	put("none", "#!\n");
	OK(chmod("none", 0755));
	ERR(execl("./none", "none", NULL), ENOEXEC);
	put("dir", "#!/tmp\n");
	OK(chmod("dir", 0755));
	ERR(execl("./dir", "dir", NULL), EACCES);
	snprintf(b, sizeof b, "#!%s/rec\n", cwd);
	put("rec", b);
	OK(chmod("rec", 0755));
	ERR(execl("./rec", "rec", NULL), ELOOP);
}

CASE(no_newline_and_crlf)
{
	put("s", "#!/bin/sh");
	OK(chmod("s", 0755));
	EQ(reap(CHILD(execl("./s", "s", NULL))), 0);
}

CASE(descriptor)
{
	int fd = NEED(open(self, O_RDONLY | O_CLOEXEC));
	char *a[] = {"x", "+pid", "0", NULL};
	EQ(reap(CHILD(syscall(SYS_execveat, fd, "", a, environ, AT_EMPTY_PATH))), 1);
	EQ(reap(CHILD(fexecve(fd, a, environ))), 1);
	ERR(syscall(SYS_execveat, fd, "", a, environ, 0), ENOENT);
	ERR(syscall(SYS_execveat, 99, "x", a, environ, 0), EBADF);
	put("f", "x");
	OK(symlink(self, "l"));
	int d = NEED(open(".", O_PATH));
	ERR(syscall(SYS_execveat, d, "l", a, environ, AT_SYMLINK_NOFOLLOW), ELOOP);
	EQ(reap(CHILD(syscall(SYS_execveat, d, "l", a, environ, 0))), 1);
	ERR(syscall(SYS_execveat, d, "l", a, environ, 0x10), EINVAL);
	int m = NEED(memfd_create("code", 0));
	int in = NEED(open(self, O_RDONLY));
	static char b[1 << 16];
	ssize_t n;
	while ((n = read(in, b, sizeof b)) > 0)
		EQ(write(m, b, n), n);
	EQ(reap(CHILD(fexecve(m, a, environ))), 1);
}

CASE(limits)
{
	/* One string: 128 KiB. All: a quarter of the stack limit. */
	char *big = malloc(200000);
	memset(big, 'x', 200000);
	big[131071] = 0;
	EQ(RUN("+count", big), 0);
	big[131071] = 'x';
	big[131072] = 0;
	char *a[] = {"x", "+count", big, NULL};
	ERR(execve(self, a, environ), E2BIG);
	big[100000] = 0;
	static char *many[40];
	many[0] = "x";
	many[1] = "+count";
	for (int i = 2; i < 17; i++)
		many[i] = big;
	EQ(reap(CHILD(execve(self, many, environ))), 0);
	for (int i = 2; i < 39; i++)
		many[i] = big;
	ERR(execve(self, many, environ), E2BIG);
	struct rlimit r = {32 << 20, RLIM_INFINITY};
	EQ(reap(CHILD(setrlimit(RLIMIT_STACK, &r); execve(self, many, environ))), 0);
}

static void *sleeper(void *a)
{
	for (;;)
		pause();
	return a;
}
static void *execer(void *a)
{
	char p[16];
	snprintf(p, 16, "%d", getpid());
	execl(self, "exec", "+pid", p, NULL);
	return NULL;
}
CASE(from_a_threaded_process)
{
	/* All other threads end, and whichever called gets the group's id. */
	for (int k = 0; k < 5; k++)
		EQ(reap(CHILD(pthread_t t; for (int i = 0; i < 4; i++) pthread_create(&t, NULL, sleeper, NULL); execer(NULL))), 0);
	for (int k = 0; k < 5; k++)
		EQ(reap(CHILD(pthread_t t; for (int i = 0; i < 4; i++) pthread_create(&t, NULL, sleeper, NULL);
			      pthread_create(&t, NULL, execer, NULL); sleeper(NULL))), 0);
}

CASE(permissions)
{
	if (geteuid() != 0)
		return;
	OK(chmod(".", 0755));
	copy_self("c", -1);
	OK(chmod("c", 0700));
	EQ(reap(CHILD(OK(setuid(1234)); ERR(execl("./c", "c", "+pid", "0", NULL), EACCES))), 0);
	OK(chmod("c", 0711));
	EQ(reap(CHILD(OK(setuid(1234)); execl("./c", "c", "+pid", "0", NULL))), 1);
	OK(chmod("c", 0600));
	ERR(execl("./c", "c", "+pid", "0", NULL), EACCES);
}

CASE(busy_text)
{
	copy_self("c", -1);
	int fd = NEED(open("c", O_RDWR));
	ERR(execl("./c", "c", "+pid", "0", NULL), ETXTBSY);
	close(fd);
	/* And the other way round. */
	ERR(open(self, O_WRONLY), ETXTBSY);
	ERR(open(self, O_RDONLY | O_TRUNC), ETXTBSY);
	ERR(truncate(self, 0), ETXTBSY);
	NEED(open(self, O_RDONLY));
}

int main(int argc, char **argv)
{
	if (argc > 1 && argv[1][0] == '+')
		return helper(argc, argv);
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	self[n > 0 ? n : 0] = 0;
	return t_main(argc, argv);
}
