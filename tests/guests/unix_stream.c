/* unix(7): stream sockets, names, socketpair(2). */
#include "t.h"
#include <sys/un.h>

static struct sockaddr_un at(const char *path, socklen_t *len)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	if (path[0] == '@') {
		memcpy(a.sun_path + 1, path + 1, strlen(path) - 1);
		*len = offsetof(struct sockaddr_un, sun_path) + strlen(path);
	} else {
		strcpy(a.sun_path, path);
		*len = offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1;
	}
	return a;
}
static int do_bind(int s, const char *path)
{
	socklen_t l;
	struct sockaddr_un a = at(path, &l);
	return bind(s, (void *)&a, l);
}
static int do_connect(int s, const char *path)
{
	socklen_t l;
	struct sockaddr_un a = at(path, &l);
	return connect(s, (void *)&a, l);
}
static int stream(void)
{
	return NEED(socket(AF_UNIX, SOCK_STREAM, 0));
}

CASE(pair)
{
	int s[2];
	char b[16] = "";
	NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
	EQ(fcntl(s[0], F_GETFD), FD_CLOEXEC);
	EQ(write(s[0], "to", 2), 2);
	EQ(write(s[0], "gether", 6), 6);
	EQ(read(s[1], b, 16), 8);
	STR(b, "together");
	EQ(send(s[1], "back", 4, 0), 4);
	EQ(recv(s[0], b, 2, MSG_PEEK), 2);
	EQ(recv(s[0], b, 16, 0), 4);
	ERR(recv(s[0], b, 16, MSG_DONTWAIT), EAGAIN);
	close(s[1]);
	EQ(read(s[0], b, 1), 0);
	ERR(send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
	pid_t p = CHILD(write(s[0], "x", 1));
	EQ(reap(p), 1000 + SIGPIPE);
	ERR(socketpair(AF_UNIX, SOCK_STREAM, 5, s), EPROTONOSUPPORT);
	ERR(socketpair(AF_INET, SOCK_STREAM, 0, s), EOPNOTSUPP);
	ERR(socket(AF_UNIX, 99, 0), EINVAL);
	ERR(socket(99, SOCK_STREAM, 0), EAFNOSUPPORT);
}

CASE(unread_data_resets)
{
	int s[2];
	char b[4];
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	EQ(write(s[0], "abc", 3), 3);
	close(s[1]);
	ERR(read(s[0], b, 4), ECONNRESET);
	EQ(read(s[0], b, 4), 0);
}

CASE(listen_connect_accept)
{
	int l = stream();
	OK(do_bind(l, "sock"));
	struct stat st;
	OK(stat("sock", &st));
	CHECK(S_ISSOCK(st.st_mode));
	int c = stream();
	ERR(do_connect(c, "sock"), ECONNREFUSED);
	OK(listen(l, 5));
	OK(do_connect(c, "sock"));
	struct sockaddr_un a;
	socklen_t n = sizeof a;
	memset(&a, 0x55, sizeof a);
	int s = NEED(accept(l, (void *)&a, &n));
	/* An unbound peer has only a family. */
	EQ(n, 2);
	EQ(a.sun_family, AF_UNIX);
	EQ(write(c, "hi", 2), 2);
	char b[8] = "";
	EQ(read(s, b, 8), 2);
	STR(b, "hi");
	n = sizeof a;
	OK(getpeername(c, (void *)&a, &n));
	STR(a.sun_path, "sock");
	EQ(n, 7);
	n = sizeof a;
	OK(getsockname(s, (void *)&a, &n));
	STR(a.sun_path, "sock");
	n = sizeof a;
	OK(getsockname(c, (void *)&a, &n));
	EQ(n, 2);
	ERR(do_bind(stream(), "sock"), EADDRINUSE);
	ERR(do_connect(c, "sock"), EISCONN);
	OK(unlink("sock"));
	OK(do_bind(stream(), "sock"));
	ERR(do_connect(stream(), "none"), ENOENT);
	put("plain", "");
	ERR(do_connect(stream(), "plain"), ECONNREFUSED);
	ERR(do_bind(l, "again"), EINVAL);
	ERR(listen(c, 1), EINVAL);
	ERR(accept(c, NULL, NULL), EINVAL);
	ERR(accept(open("plain", O_RDONLY), NULL, NULL), ENOTSOCK);
	ERR(getpeername(l, (void *)&a, &n), ENOTCONN);
}

CASE(abstract_names)
{
	char name[64];
	snprintf(name, sizeof name, "@tg-test-%d", getpid());
	int l = stream();
	OK(do_bind(l, name));
	OK(listen(l, 1));
	ERR(do_bind(stream(), name), EADDRINUSE);
	int c = stream();
	OK(do_connect(c, name));
	close(NEED(accept(l, NULL, NULL)));
	struct sockaddr_un a;
	socklen_t n = sizeof a;
	OK(getpeername(c, (void *)&a, &n));
	EQ(a.sun_path[0], 0);
	EQ(n, 2 + strlen(name));
	close(l);
	close(c);
	ERR(do_connect(stream(), name), ECONNREFUSED);
	OK(do_bind(stream(), name));
	/* Autobind: the kernel makes five hex digits. */
	int u = stream();
	a.sun_family = AF_UNIX;
	OK(bind(u, (void *)&a, 2));
	n = sizeof a;
	OK(getsockname(u, (void *)&a, &n));
	EQ(n, 8);
}

CASE(bad_addresses)
{
	struct sockaddr_un a = {.sun_family = AF_INET};
	ERR(bind(stream(), (void *)&a, sizeof a), EINVAL);
	a.sun_family = AF_UNIX;
	ERR(bind(stream(), (void *)&a, 1), EINVAL);
	ERR(bind(stream(), (void *)&a, 200), EINVAL);
	ERR(bind(stream(), (void *)8, 20), EFAULT);
	ERR(bind(stream(), (void *)&a, -1), EINVAL);
	ERR(do_bind(stream(), "none/sock"), ENOENT);
}

CASE(backlog_and_nonblock)
{
	int l = stream();
	OK(do_bind(l, "s"));
	OK(listen(l, 0));
	fcntl(l, F_SETFL, O_NONBLOCK);
	ERR(accept(l, NULL, NULL), EAGAIN);
	int n = 0, c;
	for (; n < 10; n++) {
		c = NEED(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
		if (do_connect(c, "s") < 0)
			break;
	}
	EQ(errno, EAGAIN);
	say("%d connected with backlog 0", n);
	struct pollfd p = {l, POLLIN, 0};
	EQ(poll(&p, 1, 0), 1);
	int s = NEED(accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
	EQ(fcntl(s, F_GETFD), FD_CLOEXEC);
	CHECK(fcntl(s, F_GETFL) & O_NONBLOCK);
	ERR(accept4(l, NULL, NULL, 1), EINVAL);
}

CASE(accept_waits)
{
	int l = stream();
	OK(do_bind(l, "s"));
	OK(listen(l, 5));
	pid_t p = CHILD(msleep(30); int c = stream(); OK(do_connect(c, "s")); EQ(write(c, "late", 4), 4));
	int s = NEED(accept(l, NULL, NULL));
	char b[8] = "";
	EQ(read(s, b, 8), 4);
	STR(b, "late");
	EQ(reap(p), 0);
	EQ(read(s, b, 8), 0);
}

CASE(shutdowns)
{
	int s[2];
	char b[8];
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	EQ(write(s[0], "last", 4), 4);
	OK(shutdown(s[0], SHUT_WR));
	signal(SIGPIPE, SIG_IGN);
	ERR(write(s[0], "x", 1), EPIPE);
	EQ(read(s[1], b, 8), 4);
	EQ(read(s[1], b, 8), 0);
	EQ(write(s[1], "yes", 3), 3);
	EQ(read(s[0], b, 8), 3);
	OK(shutdown(s[0], SHUT_RD));
	EQ(read(s[0], b, 8), 0);
	ERR(write(s[1], "x", 1), EPIPE);
	ERR(shutdown(s[0], 9), EINVAL);
	OK(shutdown(stream(), SHUT_RD));
	ERR(shutdown(99, SHUT_RD), EBADF);
}

CASE(options)
{
	int s = stream(), v = -1, pair[2];
	socklen_t n = 4;
	OK(getsockopt(s, SOL_SOCKET, SO_TYPE, &v, &n));
	EQ(v, SOCK_STREAM);
	OK(getsockopt(s, SOL_SOCKET, SO_DOMAIN, &v, &n));
	EQ(v, AF_UNIX);
	OK(getsockopt(s, SOL_SOCKET, SO_ERROR, &v, &n));
	EQ(v, 0);
	OK(getsockopt(s, SOL_SOCKET, SO_ACCEPTCONN, &v, &n));
	EQ(v, 0);
	OK(do_bind(s, "s"));
	OK(listen(s, 1));
	OK(getsockopt(s, SOL_SOCKET, SO_ACCEPTCONN, &v, &n));
	EQ(v, 1);
	ERR(getsockopt(s, SOL_SOCKET, 9999, &v, &n), ENOPROTOOPT);
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	struct ucred u;
	n = sizeof u;
	OK(getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &u, &n));
	EQ(u.pid, getpid());
	EQ(u.uid, geteuid());
	EQ(u.gid, getegid());
	v = 1;
	OK(setsockopt(s, SOL_SOCKET, SO_PASSCRED, &v, 4));
	n = 4;
	v = 0;
	OK(getsockopt(s, SOL_SOCKET, SO_PASSCRED, &v, &n));
	EQ(v, 1);
	ERR(setsockopt(s, SOL_SOCKET, SO_PASSCRED, &v, 2), EINVAL);
	ERR(setsockopt(99, SOL_SOCKET, SO_PASSCRED, &v, 4), EBADF);
	ERR(setsockopt(0, SOL_SOCKET, SO_PASSCRED, &v, 4), ENOTSOCK);
}

CASE(receive_timeout)
{
	int s[2];
	char b;
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	struct timeval t = {0, 40000};
	OK(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	long from = now_ms();
	ERR(read(s[0], &b, 1), EAGAIN);
	CHECK(now_ms() - from >= 39);
}

CASE(send_timeout)
{
	int s[2];
	static char b[1 << 20];
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	struct timeval t = {0, 40000};
	OK(setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
	long from = now_ms();
	/* What fitted is the result; then nothing fits. */
	ssize_t n = write(s[0], b, sizeof b);
	CHECK(n > 0 && n < (ssize_t)sizeof b);
	ERR(write(s[0], b, sizeof b), EAGAIN);
	CHECK(now_ms() - from >= 78);
}

CASE(waitall_and_trunc)
{
	int s[2];
	char b[16] = "";
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	pid_t p = CHILD(EQ(write(s[1], "abc", 3), 3); msleep(30); EQ(write(s[1], "def", 3), 3));
	EQ(recv(s[0], b, 6, MSG_WAITALL), 6);
	STR(b, "abcdef");
	EQ(reap(p), 0);
	EQ(write(s[1], "xyz", 3), 3);
	close(s[1]);
	EQ(recv(s[0], b, 10, MSG_WAITALL), 3);
}

CASE(fills_up)
{
	int s[2];
	static char b[4096];
	NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s));
	long total = 0;
	ssize_t n;
	while ((n = write(s[0], b, sizeof b)) > 0)
		total += n;
	EQ(errno, EAGAIN);
	CHECK(total >= 65536);
	struct pollfd p = {s[0], POLLOUT, 0};
	EQ(poll(&p, 1, 0), 0);
	long back = 0;
	while ((n = read(s[1], b, sizeof b)) > 0)
		back += n;
	EQ(back, total);
	EQ(poll(&p, 1, 0), 1);
}

CASE(bulk)
{
	int s[2];
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	pid_t p = CHILD(close(s[0]); static unsigned char b[60000]; for (int k = 0; k < 40; k++) {
		for (int i = 0; i < 60000; i++) b[i] = i * 3 + k;
		size_t at = 0;
		while (at < sizeof b) at += NEED(write(s[1], b + at, sizeof b - at));
	});
	close(s[1]);
	static unsigned char b[33333];
	unsigned long h = 1, total = 0;
	ssize_t n;
	while ((n = read(s[0], b, sizeof b)) > 0) {
		for (int i = 0; i < n; i++)
			h = h * 33 + b[i];
		total += n;
	}
	say("%lu bytes hash %lx", total, h);
	EQ(reap(p), 0);
}

CASE(fionread)
{
	int s[2], n = -1;
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	EQ(write(s[0], "abcde", 5), 5);
	OK(ioctl(s[1], FIONREAD, &n));
	EQ(n, 5);
}
MAIN
