/* pty(7), termios(3), tty_ioctl(2): pairs, line discipline, job control. */
#include "t.h"
#include <pty.h>
#include <termios.h>

static int m, s;
static char name[64];
static void start(void)
{
	m = NEED(posix_openpt(O_RDWR | O_NOCTTY));
	NEED(grantpt(m));
	NEED(unlockpt(m));
	NEED(ptsname_r(m, name, sizeof name));
	s = NEED(open(name, O_RDWR | O_NOCTTY));
}

CASE(pair)
{
	start();
	CHECK(!strncmp(name, "/dev/pts/", 9));
	EQ(isatty(s), 1);
	EQ(isatty(m), 1);
	char b[64] = "";
	EQ(write(m, "line\n", 5), 5);
	EQ(read(s, b, 64), 5);
	STR(b, "line\n");
	/* Echoed, with the newline mapped. */
	memset(b, 0, 64);
	EQ(read(m, b, 64), 6);
	STR(b, "line\r\n");
	EQ(write(s, "out\n", 4), 4);
	memset(b, 0, 64);
	EQ(read(m, b, 64), 5);
	STR(b, "out\r\n");
}

CASE(canonical_editing)
{
	start();
	char b[64] = "";
	EQ(write(m, "abX\177c\n", 6), 6);
	EQ(read(s, b, 64), 4);
	STR(b, "abc\n");
	EQ(write(m, "gone\025kept\n", 10), 10);
	memset(b, 0, 64);
	EQ(read(s, b, 64), 5);
	STR(b, "kept\n");
	EQ(write(m, "\004", 1), 1);
	EQ(read(s, b, 64), 0);
	EQ(write(m, "par\004", 4), 4);
	EQ(read(s, b, 64), 3);
	fcntl(s, F_SETFL, O_NONBLOCK);
	EQ(write(m, "no newline", 10), 10);
	ERR(read(s, b, 64), EAGAIN);
}

CASE(raw)
{
	start();
	struct termios t, o;
	OK(tcgetattr(s, &o));
	t = o;
	cfmakeraw(&t);
	OK(tcsetattr(s, TCSANOW, &t));
	char b[64] = "";
	EQ(write(m, "a\003", 2), 2);
	EQ(read(s, b, 64), 2);
	EQ(b[1], 3);
	EQ(write(s, "x\n", 2), 2);
	EQ(read(m, b, 64), 2);
	say("default iflag %o oflag %o cflag %o lflag %o", o.c_iflag, o.c_oflag, o.c_cflag, o.c_lflag);
	int n = -1;
	EQ(write(m, "12345", 5), 5);
	/* Input passes to the line discipline asynchronously on Linux. */
	UNTIL(ioctl(s, FIONREAD, &n) == 0 && n == 5);
	OK(tcflush(s, TCIFLUSH));
	OK(ioctl(s, FIONREAD, &n));
	EQ(n, 0);
}

static volatile sig_atomic_t winch;
static void on_winch(int x)
{
	winch++;
}
CASE(window_size)
{
	start();
	struct winsize w = {24, 80, 0, 0}, g;
	OK(ioctl(m, TIOCSWINSZ, &w));
	OK(ioctl(s, TIOCGWINSZ, &g));
	EQ(g.ws_row, 24);
	EQ(g.ws_col, 80);
	pid_t p = CHILD(on(SIGWINCH, on_winch, 0); NEED(setsid()); NEED(ioctl(s, TIOCSCTTY, 0)); EQ(write(s, "r", 1), 1); UNTIL(winch));
	char b;
	EQ(read(m, &b, 1), 1);
	w.ws_row = 50;
	OK(ioctl(m, TIOCSWINSZ, &w));
	EQ(reap(p), 0);
}

CASE(interrupt_and_job_control)
{
	start();
	pid_t p = CHILD(NEED(setsid()); NEED(ioctl(s, TIOCSCTTY, 0)); EQ(tcgetpgrp(s), getpid()); EQ(tcgetsid(s), getpid());
			int t = NEED(open("/dev/tty", O_RDWR)); EQ(write(t, "r", 1), 1); for (;;) pause());
	char b[64];
	EQ(read(m, b, 64), 1);
	EQ(write(m, "\003", 1), 1);
	EQ(reap(p), 1000 + SIGINT);
	/* A background process that reads is stopped. */
	start();
	p = CHILD(NEED(setsid()); NEED(ioctl(s, TIOCSCTTY, 0));
		  pid_t k = CHILD(setpgid(0, 0); char c; read(s, &c, 1));
		  int st; EQ(waitpid(k, &st, WUNTRACED), k); CHECK(WIFSTOPPED(st)); EQ(WSTOPSIG(st), SIGTTIN); kill(k, SIGKILL);
		  EQ(reap(k), 1000 + SIGKILL));
	EQ(reap(p), 0);
}

CASE(hangup)
{
	start();
	close(s);
	char b;
	ERR(read(m, &b, 1), EIO);
	start();
	close(m);
	EQ(read(s, &b, 1), 0);
	ERR(write(s, "x", 1), EIO);
	struct pollfd f = {s, POLLIN, 0};
	EQ(poll(&f, 1, 0), 1);
	CHECK(f.revents & POLLHUP);
}

CASE(session_leader_death)
{
	start();
	pid_t p = CHILD(NEED(setsid()); NEED(ioctl(s, TIOCSCTTY, 0)); CHILD(signal(SIGHUP, SIG_DFL); pause()); msleep(30));
	EQ(reap(p), 0);
	close(s);
	char b;
	/* The foreground child got SIGHUP, so the last user of the terminal goes. */
	ERR(read(m, &b, 1), EIO);
}
MAIN
