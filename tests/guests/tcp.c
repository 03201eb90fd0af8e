/* tcp(7), ip(7) over the loopback interface. */
#include "t.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

static struct sockaddr_in here(int port)
{
	return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}
static int tcp(int flags)
{
	return NEED(socket(AF_INET, SOCK_STREAM | flags, 0));
}
static int do_bind(int s, int port)
{
	struct sockaddr_in a = here(port);
	return bind(s, (void *)&a, sizeof a);
}
static int do_connect(int s, int port)
{
	struct sockaddr_in a = here(port);
	return connect(s, (void *)&a, sizeof a);
}
static int port_of(int s)
{
	struct sockaddr_in a;
	socklen_t n = sizeof a;
	NEED(getsockname(s, (void *)&a, &n));
	return ntohs(a.sin_port);
}
/* A listener on a port of the kernel's choice. */
static int listener(int *port)
{
	int l = tcp(0);
	NEED(do_bind(l, 0));
	NEED(listen(l, 10));
	*port = port_of(l);
	return l;
}
/* A connected pair. */
static void pair(int s[2])
{
	int port, l = listener(&port);
	s[0] = tcp(0);
	NEED(do_connect(s[0], port));
	s[1] = NEED(accept(l, NULL, NULL));
	close(l);
}
static int so_error(int s)
{
	int v = -1;
	socklen_t n = 4;
	OK(getsockopt(s, SOL_SOCKET, SO_ERROR, &v, &n));
	return v;
}

CASE(hello)
{
	int port, l = listener(&port), c = tcp(0);
	CHECK(port > 1024);
	OK(do_connect(c, port));
	struct sockaddr_in a;
	socklen_t n = sizeof a;
	int s = NEED(accept(l, (void *)&a, &n));
	EQ(n, 16);
	EQ(a.sin_family, AF_INET);
	EQ(ntohl(a.sin_addr.s_addr), INADDR_LOOPBACK);
	EQ(ntohs(a.sin_port), port_of(c));
	EQ(port_of(s), port);
	n = sizeof a;
	OK(getpeername(c, (void *)&a, &n));
	EQ(ntohs(a.sin_port), port);
	EQ(write(c, "hello", 5), 5);
	char b[16] = "";
	EQ(read(s, b, 16), 5);
	STR(b, "hello");
	EQ(send(s, "world", 5, 0), 5);
	EQ(recv(c, b, 16, 0), 5);
	close(c);
	EQ(read(s, b, 16), 0);
}

CASE(refused)
{
	int port, l = listener(&port);
	close(l);
	ERR(do_connect(tcp(0), port), ECONNREFUSED);
	int c = tcp(SOCK_NONBLOCK);
	int r = do_connect(c, port);
	CHECK(r == -1 && (errno == EINPROGRESS || errno == ECONNREFUSED));
	if (errno == EINPROGRESS) {
		struct pollfd p = {c, POLLOUT, 0};
		EQ(poll(&p, 1, 5000), 1);
		CHECK(p.revents & POLLERR);
		EQ(so_error(c), ECONNREFUSED);
		EQ(so_error(c), 0);
	}
}

CASE(nonblocking_connect)
{
	int port, l = listener(&port), c = tcp(SOCK_NONBLOCK);
	int r = do_connect(c, port);
	CHECK(r == 0 || errno == EINPROGRESS);
	struct pollfd p = {c, POLLOUT, 0};
	EQ(poll(&p, 1, 5000), 1);
	EQ(p.revents, POLLOUT);
	EQ(so_error(c), 0);
	fcntl(l, F_SETFL, O_NONBLOCK);
	int s = NEED(accept(l, NULL, NULL));
	/* O_NONBLOCK is not inherited. */
	EQ(fcntl(s, F_GETFL) & O_NONBLOCK, 0);
	ERR(accept(l, NULL, NULL), EAGAIN);
	char b;
	ERR(read(c, &b, 1), EAGAIN);
	EQ(do_connect(c, port) == 0 || errno == EISCONN, 1);
}

CASE(shutdown_half)
{
	int s[2];
	char b[8];
	pair(s);
	EQ(write(s[0], "req", 3), 3);
	OK(shutdown(s[0], SHUT_WR));
	EQ(read(s[1], b, 8), 3);
	EQ(read(s[1], b, 8), 0);
	EQ(write(s[1], "answer", 6), 6);
	EQ(read(s[0], b, 8), 6);
	ERR(send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
	struct pollfd p = {s[1], POLLIN | POLLOUT | POLLRDHUP, 0};
	EQ(poll(&p, 1, 5000), 1);
	EQ(p.revents, POLLIN | POLLOUT | POLLRDHUP);
	close(s[1]);
	p = (struct pollfd){s[0], POLLIN, 0};
	EQ(poll(&p, 1, 5000), 1);
	EQ(read(s[0], b, 8), 0);
	ERR(shutdown(tcp(0), SHUT_WR), ENOTCONN);
}

CASE(reset)
{
	int s[2];
	char b[8];
	pair(s);
	struct linger lg = {1, 0};
	OK(setsockopt(s[1], SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
	close(s[1]);
	struct pollfd p = {s[0], POLLIN, 0};
	EQ(poll(&p, 1, 5000), 1);
	CHECK((p.revents & (POLLERR | POLLHUP)) == (POLLERR | POLLHUP));
	ERR(read(s[0], b, 8), ECONNRESET);
	EQ(read(s[0], b, 8), 0);
	ERR(send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
}

CASE(close_with_unread_data_resets)
{
	int s[2];
	char b[8];
	pair(s);
	EQ(write(s[0], "unread", 6), 6);
	struct pollfd p = {s[1], POLLIN, 0};
	EQ(poll(&p, 1, 5000), 1);
	close(s[1]);
	p = (struct pollfd){s[0], POLLIN, 0};
	EQ(poll(&p, 1, 5000), 1);
	ERR(read(s[0], b, 8), ECONNRESET);
}

CASE(sigpipe)
{
	int s[2];
	pair(s);
	OK(shutdown(s[0], SHUT_WR));
	pid_t p = CHILD(write(s[0], "x", 1));
	EQ(reap(p), 1000 + SIGPIPE);
}

CASE(ports)
{
	int port, l = listener(&port), t = tcp(0);
	ERR(do_bind(t, port), EADDRINUSE);
	OK(do_bind(t, 0));
	CHECK(port_of(t) != port);
	ERR(do_bind(t, 0), EINVAL);
	/* Closing the listener frees the port at once. */
	close(l);
	OK(do_bind(tcp(0), port));
	struct sockaddr_in a = here(0);
	a.sin_addr.s_addr = htonl(0x01020304);
	ERR(bind(tcp(0), (void *)&a, sizeof a), EADDRNOTAVAIL);
	a = here(0);
	ERR(bind(tcp(0), (void *)&a, 4), EINVAL);
	a.sin_family = AF_UNIX;
	ERR(bind(tcp(0), (void *)&a, sizeof a), EAFNOSUPPORT);
	a = here(0);
	a.sin_addr.s_addr = htonl(INADDR_ANY);
	t = tcp(0);
	OK(bind(t, (void *)&a, sizeof a));
	OK(listen(t, 1));
	OK(do_connect(tcp(0), port_of(t)));
	if (geteuid() == 0) {
		pid_t p = CHILD(OK(setuid(1234)); int r = do_bind(tcp(0), 81);
				/* A container may open low ports to all. */
				CHECK(r == 0 || errno == EACCES));
		EQ(reap(p), 0);
	}
}

CASE(reuse_address)
{
	int port, l = listener(&port), on = 1, s = tcp(0);
	OK(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, 4));
	OK(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, 4));
	/* Not over a listener. */
	ERR(do_bind(s, port), EADDRINUSE);
	/* Over TIME_WAIT, yes. */
	int c = tcp(0);
	OK(do_connect(c, port));
	int a = NEED(accept(l, NULL, NULL));
	close(a);
	char b;
	EQ(read(c, &b, 1), 0);
	close(c);
	close(l);
	OK(do_bind(s, port));
	OK(listen(s, 1));
}

CASE(not_connected)
{
	int s = tcp(0);
	char b[4];
	struct sockaddr_in a;
	socklen_t n = sizeof a;
	ERR(read(s, b, 4), ENOTCONN);
	ERR(send(s, "x", 1, MSG_NOSIGNAL), EPIPE);
	ERR(getpeername(s, (void *)&a, &n), ENOTCONN);
	ERR(accept(s, NULL, NULL), EINVAL);
	OK(getsockname(s, (void *)&a, &n));
	EQ(a.sin_port, 0);
	EQ(a.sin_addr.s_addr, 0);
	struct pollfd p = {s, POLLIN | POLLOUT, 0};
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLOUT | POLLHUP);
	/* listen without bind picks a port. */
	OK(listen(s, 1));
	CHECK(port_of(s) != 0);
	ERR(read(s, b, 4), ENOTCONN);
	ERR(do_connect(s, 1), EISCONN);
}

CASE(peek_and_dontwait)
{
	int s[2];
	char b[8] = "";
	pair(s);
	ERR(recv(s[1], b, 8, MSG_DONTWAIT), EAGAIN);
	EQ(write(s[0], "abcdef", 6), 6);
	EQ(recv(s[1], b, 3, MSG_PEEK), 3);
	STR(b, "abc");
	int n = 0;
	OK(ioctl(s[1], FIONREAD, &n));
	EQ(n, 6);
	EQ(recv(s[1], b, 8, 0), 6);
}

CASE(waitall)
{
	int s[2];
	char b[16] = "";
	pair(s);
	pid_t p = CHILD(EQ(write(s[0], "abc", 3), 3); msleep(30); EQ(write(s[0], "def", 3), 3));
	EQ(recv(s[1], b, 6, MSG_WAITALL), 6);
	STR(b, "abcdef");
	EQ(reap(p), 0);
}

CASE(options)
{
	int s = tcp(0), v;
	socklen_t n = 4;
	static const struct {
		int level, name, set, want;
	} o[] = {
		{SOL_SOCKET, SO_REUSEADDR, 1, 1}, {SOL_SOCKET, SO_KEEPALIVE, 1, 1}, {SOL_SOCKET, SO_BROADCAST, 1, 1},
		{SOL_SOCKET, SO_REUSEPORT, 1, 1}, {SOL_SOCKET, SO_OOBINLINE, 1, 1}, {IPPROTO_TCP, TCP_NODELAY, 1, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, 30, 30}, {IPPROTO_TCP, TCP_KEEPINTVL, 5, 5}, {IPPROTO_TCP, TCP_KEEPCNT, 3, 3},
		{IPPROTO_IP, IP_TOS, 8, 8}, {IPPROTO_IP, IP_TTL, 33, 33}, {IPPROTO_TCP, TCP_CORK, 0, 0},
	};
	for (unsigned i = 0; i < sizeof o / sizeof *o; i++) {
		v = o[i].set;
		int r = setsockopt(s, o[i].level, o[i].name, &v, 4);
		v = -1;
		int g = getsockopt(s, o[i].level, o[i].name, &v, &n);
		say("option %d/%d: %d %d -> %d", o[i].level, o[i].name, r, g, v);
		EQ(v, o[i].want);
	}
	OK(getsockopt(s, SOL_SOCKET, SO_TYPE, &v, &n));
	EQ(v, SOCK_STREAM);
	OK(getsockopt(s, SOL_SOCKET, SO_PROTOCOL, &v, &n));
	EQ(v, IPPROTO_TCP);
	v = 50000;
	OK(setsockopt(s, SOL_SOCKET, SO_SNDBUF, &v, 4));
	OK(getsockopt(s, SOL_SOCKET, SO_SNDBUF, &v, &n));
	EQ(v, 100000);
	OK(setsockopt(s, SOL_SOCKET, SO_RCVBUF, &v, 4));
	ERR(setsockopt(s, 9999, 1, &v, 4), ENOPROTOOPT);
	ERR(getsockopt(s, IPPROTO_TCP, 9999, &v, &n), ENOPROTOOPT);
	ERR(setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, (void *)8, 4), EFAULT);
	ERR(setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &v, 1), EINVAL);
	n = 1;
	OK(getsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &v, &n));
	EQ(n, 1);
}

CASE(bulk)
{
	int s[2];
	pair(s);
	pid_t p = CHILD(close(s[1]); static unsigned char b[65536]; for (int k = 0; k < 64; k++) {
		for (int i = 0; i < 65536; i++) b[i] = i * 5 + k;
		size_t at = 0;
		while (at < sizeof b) at += NEED(write(s[0], b + at, sizeof b - at));
	});
	close(s[0]);
	static unsigned char b[50000];
	unsigned long h = 1, total = 0;
	ssize_t n;
	while ((n = read(s[1], b, sizeof b)) > 0) {
		for (int i = 0; i < n; i++)
			h = h * 33 + b[i];
		total += n;
	}
	say("%lu bytes hash %lx", total, h);
	EQ(reap(p), 0);
}

CASE(backpressure)
{
	int s[2];
	static char b[65536];
	pair(s);
	fcntl(s[0], F_SETFL, O_NONBLOCK);
	long out = 0, in = 0;
	ssize_t n;
	while ((n = write(s[0], b, sizeof b)) > 0)
		out += n;
	EQ(errno, EAGAIN);
	struct pollfd p = {s[0], POLLOUT, 0};
	pid_t c = CHILD(close(s[0]); while ((n = read(s[1], b, sizeof b)) > 0) in += n; EQ(in >= out + 1, 1));
	close(s[1]);
	EQ(poll(&p, 1, 10000), 1);
	CHECK(write(s[0], b, 1) == 1);
	close(s[0]);
	EQ(reap(c), 0);
}

CASE(many_clients)
{
	int port, l = listener(&port);
	pid_t p[8];
	for (int k = 0; k < 8; k++)
		p[k] = CHILD(int c = tcp(0); NEED(do_connect(c, port)); int v = k; EQ(write(c, &v, 4), 4); EQ(read(c, &v, 4), 4); EQ(v, k * k));
	for (int k = 0; k < 8; k++) {
		int s = NEED(accept(l, NULL, NULL)), v;
		EQ(recv(s, &v, 4, MSG_WAITALL), 4);
		v *= v;
		EQ(write(s, &v, 4), 4);
		close(s);
	}
	for (int k = 0; k < 8; k++)
		EQ(reap(p[k]), 0);
}

static void nothing(int s)
{
}
CASE(interrupted_accept)
{
	int port, l = listener(&port);
	pid_t p = CHILD(on(SIGUSR1, nothing, 0); ERR(accept(l, NULL, NULL), EINTR));
	msleep(30);
	ASLEEP(p);
	kill(p, SIGUSR1);
	EQ(reap(p), 0);
}
MAIN
