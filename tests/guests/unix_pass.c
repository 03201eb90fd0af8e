/* unix(7), cmsg(3): SCM_RIGHTS and SCM_CREDENTIALS. */
#include "t.h"

static int s[2];

static ssize_t give(int sock, const int *fds, int n, const char *text)
{
	char c[CMSG_SPACE(sizeof(int) * 300)];
	memset(c, 0, sizeof c);
	struct iovec v = {(char *)text, strlen(text)};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(h), fds, n * sizeof(int));
	return sendmsg(sock, &m, MSG_NOSIGNAL);
}
/* Descriptors received, -errno on failure; flags in *flags. */
static int take(int sock, int *fds, int max, char *text, size_t size, int how, int *flags)
{
	char c[CMSG_SPACE(sizeof(int) * 300)];
	struct iovec v = {text, size};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = CMSG_LEN(max * sizeof(int))};
	ssize_t n = recvmsg(sock, &m, how);
	if (n < 0)
		return -errno;
	text[n] = 0;
	if (flags)
		*flags = m.msg_flags;
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	if (!h || h->cmsg_type != SCM_RIGHTS)
		return 0;
	int k = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(h), k * sizeof(int));
	return k;
}

CASE(one_file)
{
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	put("f", "contents");
	int fd = NEED(open("f", O_RDONLY | O_CLOEXEC)), got[4], fl;
	char t[16];
	EQ(give(s[0], &fd, 1, "take"), 4);
	close(fd);
	EQ(take(s[1], got, 4, t, 15, 0, &fl), 1);
	STR(t, "take");
	EQ(fl, 0);
	EQ(fcntl(got[0], F_GETFD), 0);
	EQ(read(got[0], t, 15), 8);
	/* MSG_CMSG_CLOEXEC, and the shared offset. */
	fd = got[0];
	EQ(give(s[0], &fd, 1, "x"), 1);
	EQ(take(s[1], got, 4, t, 15, MSG_CMSG_CLOEXEC, &fl), 1);
	EQ(fcntl(got[0], F_GETFD), FD_CLOEXEC);
	EQ(fl, MSG_CMSG_CLOEXEC);
	EQ(lseek(got[0], 0, SEEK_CUR), 8);
}

CASE(to_another_process)
{
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	int p[2];
	pid_t c = CHILD(int g[2]; char t[8]; EQ(take(s[1], g, 2, t, 7, 0, NULL), 1); EQ(write(g[0], "via", 3), 3));
	NEED(pipe(p));
	EQ(give(s[0], &p[1], 1, "p"), 1);
	close(p[1]);
	char b[8] = "";
	EQ(read(p[0], b, 8), 3);
	STR(b, "via");
	EQ(read(p[0], b, 8), 0);
	EQ(reap(c), 0);
}

CASE(several_and_truncated)
{
	NEED(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
	int fds[3] = {0, 1, 2}, got[8], fl;
	char t[8];
	EQ(give(s[0], fds, 3, "x"), 1);
	EQ(take(s[1], got, 8, t, 7, 0, &fl), 3);
	EQ(give(s[0], fds, 3, "x"), 1);
	EQ(take(s[1], got, 2, t, 7, 0, &fl), 2);
	EQ(fl & MSG_CTRUNC, MSG_CTRUNC);
	/* No room at all: dropped, closed. */
	EQ(give(s[0], fds, 1, "x"), 1);
	EQ(recv(s[1], t, 7, 0), 1);
}

CASE(stream_messages_do_not_merge)
{
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	int fd = 0, got[4], fl;
	char t[16];
	EQ(write(s[0], "ab", 2), 2);
	EQ(give(s[0], &fd, 1, "cd"), 2);
	EQ(write(s[0], "ef", 2), 2);
	int n = take(s[1], got, 4, t, 15, 0, &fl);
	say("first read \"%s\" with %d", t, n);
	n = take(s[1], got, 4, t, 15, MSG_DONTWAIT, &fl);
	say("second read \"%s\" with %d", t, n);
}

CASE(errors)
{
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	int bad = 99, many[300];
	ERR(give(s[0], &bad, 1, "x"), EBADF);
	for (int i = 0; i < 300; i++)
		many[i] = 0;
	ERR(give(s[0], many, 254, "x"), EINVAL);
	EQ(give(s[0], many, 253, "x"), 1);
}

CASE(in_flight_closed)
{
	/* Descriptors in a queue nobody reads are released with it. */
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	int p[2];
	NEED(pipe(p));
	EQ(give(s[0], &p[1], 1, "x"), 1);
	close(p[1]);
	struct pollfd f = {p[0], POLLIN, 0};
	EQ(poll(&f, 1, 0), 0);
	close(s[0]);
	close(s[1]);
	EQ(poll(&f, 1, 5000), 1);
	EQ(f.revents, POLLHUP);
}

CASE(socket_through_itself)
{
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	int got[2];
	char t[8];
	EQ(give(s[0], &s[0], 1, "me"), 2);
	EQ(take(s[1], got, 2, t, 7, 0, NULL), 1);
	close(s[0]);
	EQ(write(got[0], "still", 5), 5);
	EQ(read(s[1], t, 7), 5);
	/* A cycle that is then dropped must not keep anything alive; nothing to see here but no hang. */
	EQ(give(got[0], &s[1], 1, "x"), 1);
	close(got[0]);
	close(s[1]);
}

CASE(credentials)
{
	int on = 1;
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	OK(setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
	pid_t p = CHILD(EQ(write(s[0], "x", 1), 1));
	EQ(reap(p), 0);
	char c[CMSG_SPACE(sizeof(struct ucred))], t;
	struct iovec v = {&t, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
	EQ(recvmsg(s[1], &m, 0), 1);
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	CHECK(h && h->cmsg_type == SCM_CREDENTIALS && h->cmsg_level == SOL_SOCKET);
	struct ucred u;
	memcpy(&u, CMSG_DATA(h), sizeof u);
	EQ(u.pid, p);
	EQ(u.uid, getuid());
	EQ(u.gid, getgid());
}

CASE(forged_credentials)
{
	if (geteuid() != 0)
		return;
	int on = 1;
	NEED(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
	OK(setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
	char c[CMSG_SPACE(sizeof(struct ucred))], t = 'x';
	struct iovec v = {&t, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
	memset(c, 0, sizeof c);
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_CREDENTIALS;
	h->cmsg_len = CMSG_LEN(sizeof(struct ucred));
	struct ucred u = {getpid(), 55, 66};
	memcpy(CMSG_DATA(h), &u, sizeof u);
	EQ(sendmsg(s[0], &m, 0), 1);
	struct msghdr r = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
	EQ(recvmsg(s[1], &r, 0), 1);
	memcpy(&u, CMSG_DATA(CMSG_FIRSTHDR(&r)), sizeof u);
	EQ(u.uid, 55);
	EQ(u.gid, 66);
	pid_t p = CHILD(OK(setuid(1234)); u = (struct ucred){getpid(), 0, 0}; memset(c, 0, sizeof c);
			h->cmsg_level = SOL_SOCKET; h->cmsg_type = SCM_CREDENTIALS; h->cmsg_len = CMSG_LEN(sizeof u);
			memcpy(CMSG_DATA(h), &u, sizeof u); ERR(sendmsg(s[0], &m, 0), EPERM));
	EQ(reap(p), 0);
}

CASE(malformed_control)
{
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	char c[64] = {0}, t = 'x';
	struct iovec v = {&t, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = 32};
	struct cmsghdr *h = (void *)c;
	h->cmsg_len = 3;
	ERR(sendmsg(s[0], &m, 0), EINVAL);
	h->cmsg_len = 1000;
	ERR(sendmsg(s[0], &m, 0), EINVAL);
	h->cmsg_len = 20;
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = 77;
	ERR(sendmsg(s[0], &m, 0), EINVAL);
	m.msg_control = (void *)8;
	ERR(sendmsg(s[0], &m, 0), EFAULT);
	m.msg_controllen = 0;
	EQ(sendmsg(s[0], &m, 0), 1);
	m.msg_iovlen = 5000;
	ERR(sendmsg(s[0], &m, 0), EMSGSIZE);
}
MAIN
