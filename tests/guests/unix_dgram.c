/* unix(7): datagram and seqpacket sockets. */
#include "t.h"
#include <sys/un.h>

static struct sockaddr_un addr(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strcpy(a.sun_path, path);
	return a;
}
static int dgram(const char *name)
{
	int s = NEED(socket(AF_UNIX, SOCK_DGRAM, 0));
	if (name) {
		struct sockaddr_un a = addr(name);
		NEED(bind(s, (void *)&a, sizeof a));
	}
	return s;
}
static ssize_t to(int s, const char *text, const char *name)
{
	struct sockaddr_un a = addr(name);
	return sendto(s, text, strlen(text), 0, (void *)&a, sizeof a);
}

CASE(boundaries)
{
	int s[2];
	char b[16] = "";
	NEED(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
	EQ(send(s[0], "one", 3, 0), 3);
	EQ(send(s[0], "", 0, 0), 0);
	EQ(send(s[0], "three", 5, 0), 5);
	EQ(recv(s[1], b, 16, 0), 3);
	EQ(recv(s[1], b, 16, 0), 0);
	/* The rest of a cut datagram is lost. */
	EQ(recv(s[1], b, 2, 0), 2);
	ERR(recv(s[1], b, 16, MSG_DONTWAIT), EAGAIN);
	EQ(send(s[0], "three", 5, 0), 5);
	EQ(recv(s[1], b, 2, MSG_TRUNC), 5);
	EQ(send(s[0], "abc", 3, 0), 3);
	int n = 0;
	OK(ioctl(s[1], FIONREAD, &n));
	EQ(n, 3);
}

CASE(names)
{
	int a = dgram("a"), b = dgram("b");
	char x[16] = "";
	struct sockaddr_un from;
	socklen_t n = sizeof from;
	EQ(to(a, "hello", "b"), 5);
	EQ(recvfrom(b, x, 16, 0, (void *)&from, &n), 5);
	STR(x, "hello");
	STR(from.sun_path, "a");
	EQ(to(b, "back", from.sun_path), 4);
	EQ(recv(a, x, 16, 0), 4);
	EQ(to(dgram(NULL), "anon", "b"), 4);
	n = sizeof from;
	EQ(recvfrom(b, x, 16, 0, (void *)&from, &n), 4);
	EQ(n, 0);
	ERR(to(a, "x", "none"), ENOENT);
	ERR(send(a, "x", 1, 0), ENOTCONN);
	close(b);
	ERR(to(a, "x", "b"), ECONNREFUSED);
}

CASE(connected)
{
	int a = dgram("a"), b = dgram("b"), c = dgram("c");
	struct sockaddr_un t = addr("b");
	OK(connect(a, (void *)&t, sizeof t));
	EQ(send(a, "x", 1, 0), 1);
	char x[8];
	EQ(recv(b, x, 8, 0), 1);
	/* Only its peer may send to it. */
	ERR(to(c, "y", "a"), EPERM);
	EQ(to(b, "y", "a"), 1);
	struct sockaddr_un p;
	socklen_t n = sizeof p;
	OK(getpeername(a, (void *)&p, &n));
	STR(p.sun_path, "b");
	/* AF_UNSPEC takes the connection back. */
	t.sun_family = AF_UNSPEC;
	OK(connect(a, (void *)&t, sizeof t));
	ERR(send(a, "x", 1, 0), ENOTCONN);
	ERR(getpeername(a, (void *)&p, &n), ENOTCONN);
	EQ(to(c, "z", "a"), 1);
}

CASE(wrong_kinds)
{
	dgram("d");
	int s = NEED(socket(AF_UNIX, SOCK_STREAM, 0));
	struct sockaddr_un t = addr("d");
	ERR(connect(s, (void *)&t, sizeof t), EPROTOTYPE);
	ERR(listen(dgram(NULL), 1), EOPNOTSUPP);
	ERR(accept(dgram(NULL), NULL, NULL), EOPNOTSUPP);
}

CASE(seqpacket)
{
	int s[2];
	char b[16];
	NEED(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s));
	EQ(send(s[0], "one", 3, 0), 3);
	EQ(send(s[0], "two two", 7, 0), 7);
	EQ(recv(s[1], b, 16, 0), 3);
	EQ(recv(s[1], b, 3, 0), 3);
	ERR(recv(s[1], b, 16, MSG_DONTWAIT), EAGAIN);
	close(s[0]);
	EQ(recv(s[1], b, 16, 0), 0);
	ERR(send(s[1], "x", 1, MSG_NOSIGNAL), EPIPE);
}

CASE(seqpacket_listen)
{
	int l = NEED(socket(AF_UNIX, SOCK_SEQPACKET, 0));
	struct sockaddr_un t = addr("q");
	OK(bind(l, (void *)&t, sizeof t));
	OK(listen(l, 5));
	int c = NEED(socket(AF_UNIX, SOCK_SEQPACKET, 0));
	OK(connect(c, (void *)&t, sizeof t));
	int s = NEED(accept(l, NULL, NULL));
	EQ(send(c, "abc", 3, 0), 3);
	struct iovec v[2] = {{(char[2]){0}, 2}, {(char[8]){0}, 8}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
	EQ(recvmsg(s, &m, 0), 3);
	EQ(m.msg_flags & MSG_TRUNC, 0);
	EQ(send(c, "abcdef", 6, 0), 6);
	m.msg_iovlen = 1;
	EQ(recvmsg(s, &m, 0), 2);
	EQ(m.msg_flags & MSG_TRUNC, MSG_TRUNC);
}

CASE(many_messages)
{
	int s[2];
	NEED(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
	struct mmsghdr m[3];
	struct iovec v[3] = {{"a", 1}, {"bb", 2}, {"ccc", 3}};
	memset(m, 0, sizeof m);
	for (int i = 0; i < 3; i++)
		m[i].msg_hdr = (struct msghdr){.msg_iov = &v[i], .msg_iovlen = 1};
	EQ(sendmmsg(s[0], m, 3, 0), 3);
	char b[4][8];
	struct mmsghdr r[4];
	struct iovec w[4];
	memset(r, 0, sizeof r);
	for (int i = 0; i < 4; i++) {
		w[i] = (struct iovec){b[i], 8};
		r[i].msg_hdr = (struct msghdr){.msg_iov = &w[i], .msg_iovlen = 1};
	}
	EQ(recvmmsg(s[1], r, 4, MSG_DONTWAIT, NULL), 3);
	say("%u %u %u", r[0].msg_len, r[1].msg_len, r[2].msg_len);
}

CASE(reader_waits)
{
	int s[2];
	NEED(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
	pid_t p = CHILD(msleep(30); EQ(send(s[1], "x", 1, 0), 1));
	char b;
	EQ(recv(s[0], &b, 1, 0), 1);
	EQ(reap(p), 0);
}

CASE(queue_limit)
{
	int s[2], n = 0;
	NEED(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, s));
	while (n < 100000 && send(s[0], "x", 1, 0) == 1)
		n++;
	EQ(errno, EAGAIN);
	CHECK(n >= 10 && n < 100000);
	char b;
	int back = 0;
	while (recv(s[1], &b, 1, 0) == 1)
		back++;
	EQ(back, n);
}
MAIN
