/* udp(7), and ipv6(7) for both transports. */
#include "t.h"
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <net/if.h>

static struct sockaddr_in here(int port)
{
	return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}
static int udp(int *port)
{
	int s = NEED(socket(AF_INET, SOCK_DGRAM, 0));
	if (port) {
		struct sockaddr_in a = here(0);
		socklen_t n = sizeof a;
		NEED(bind(s, (void *)&a, sizeof a));
		NEED(getsockname(s, (void *)&a, &n));
		*port = ntohs(a.sin_port);
	}
	return s;
}
static ssize_t to(int s, const char *text, size_t len, int port)
{
	struct sockaddr_in a = here(port);
	return sendto(s, text, len, 0, (void *)&a, sizeof a);
}

CASE(hop_counts)
{
	/* The TTL and the class a datagram came with. */
	int one = 1, ttl = 0;
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	socklen_t len = sizeof a;
	int r = NEED(socket(AF_INET6, SOCK_DGRAM, 0)), s = NEED(socket(AF_INET6, SOCK_DGRAM, 0));
	OK(bind(r, (void *)&a, sizeof a));
	OK(getsockname(r, (void *)&a, &len));
	OK(setsockopt(r, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &one, sizeof one));
	OK(setsockopt(r, IPPROTO_IPV6, IPV6_RECVTCLASS, &one, sizeof one));
	EQ(sendto(s, "x", 1, 0, (void *)&a, sizeof a), 1);
	char b[8], control[128];
	struct iovec iov = {b, sizeof b};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			   .msg_controllen = sizeof control};
	EQ(recvmsg(r, &m, 0), 1);
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	CHECK(c && c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_HOPLIMIT);
	if (c) {
		memcpy(&ttl, CMSG_DATA(c), sizeof ttl);
		EQ(ttl, 64);
		c = CMSG_NXTHDR(&m, c);
		CHECK(c && c->cmsg_type == IPV6_TCLASS);
	}
}

CASE(options_that_exist)
{
	int v = 1, s = NEED(socket(AF_INET, SOCK_DGRAM, 0)), t = NEED(socket(AF_INET, SOCK_STREAM, 0));
	socklen_t len = sizeof v;
	char none[160] = {0};
	ERR(setsockopt(s, IPPROTO_IP, 30, &v, sizeof v), ENOPROTOOPT);
	ERR(getsockopt(s, IPPROTO_IP, 30, &v, &len), ENOPROTOOPT);
	ERR(setsockopt(s, IPPROTO_UDP, 50, &v, sizeof v), ENOPROTOOPT);
	ERR(setsockopt(t, IPPROTO_TCP, 40, &v, sizeof v), ENOPROTOOPT);
	ERR(getsockopt(t, IPPROTO_UDP, 1, &v, &len), EOPNOTSUPP);
	ERR(getsockopt(t, 500, 1, &v, &len), EOPNOTSUPP);
	ERR(setsockopt(t, IPPROTO_TCP, TCP_CONGESTION, "nope", 4), ENOENT);
	OK(setsockopt(t, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5));
	ERR(setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, "nope", 5), ENODEV);
	OK(setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
	ERR(setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, none, 3), EINVAL);
	ERR(setsockopt(s, IPPROTO_IP, IP_DROP_MEMBERSHIP, none, 8), EADDRNOTAVAIL);
	ERR(setsockopt(s, IPPROTO_IP, MCAST_JOIN_GROUP, none, 3), EINVAL);
	ERR(setsockopt(s, IPPROTO_IP, IP_TTL, &(int){0}, sizeof v), EINVAL);
	ERR(setsockopt(t, IPPROTO_TCP, TCP_KEEPCNT, &(int){0}, sizeof v), EINVAL);
	ERR(socket(AF_INET, 0, 0), ESOCKTNOSUPPORT);
}

CASE(exchange)
{
	int pa, pb, a = udp(&pa), b = udp(&pb);
	char x[16] = "";
	EQ(to(a, "hello", 5, pb), 5);
	struct sockaddr_in from;
	socklen_t n = sizeof from;
	EQ(recvfrom(b, x, 16, 0, (void *)&from, &n), 5);
	STR(x, "hello");
	EQ(ntohs(from.sin_port), pa);
	EQ(n, 16);
	EQ(to(b, "", 0, pa), 0);
	EQ(recv(a, x, 16, 0), 0);
	ERR(recv(a, x, 16, MSG_DONTWAIT), EAGAIN);
}

CASE(truncation)
{
	int pa, a = udp(&pa);
	char x[16];
	EQ(to(a, "0123456789", 10, pa), 10);
	int n = 0;
	OK(ioctl(a, FIONREAD, &n));
	EQ(n, 10);
	EQ(recv(a, x, 4, MSG_PEEK), 4);
	EQ(recv(a, x, 4, MSG_TRUNC), 10);
	EQ(to(a, "0123456789", 10, pa), 10);
	struct iovec v = {x, 4};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	EQ(recvmsg(a, &m, 0), 4);
	EQ(m.msg_flags, MSG_TRUNC);
	ERR(recv(a, x, 4, MSG_DONTWAIT), EAGAIN);
	static char big[65536];
	ERR(to(a, big, 65508, pa), EMSGSIZE);
	EQ(to(a, big, 65507, pa), 65507);
	EQ(recv(a, big, sizeof big, 0), 65507);
}

CASE(connected)
{
	int pa, pb, pc, a = udp(&pa), b = udp(&pb), c = udp(&pc);
	char x[8];
	struct sockaddr_in t = here(pb);
	OK(connect(a, (void *)&t, sizeof t));
	EQ(send(a, "x", 1, 0), 1);
	EQ(recv(b, x, 8, 0), 1);
	/* Others are not heard. */
	EQ(to(c, "z", 1, pa), 1);
	EQ(to(b, "y", 1, pa), 1);
	EQ(recv(a, x, 8, 0), 1);
	EQ(x[0], 'y');
	ERR(recv(a, x, 8, MSG_DONTWAIT), EAGAIN);
	struct sockaddr_in p;
	socklen_t n = sizeof p;
	OK(getpeername(a, (void *)&p, &n));
	EQ(ntohs(p.sin_port), pb);
	t.sin_family = AF_UNSPEC;
	OK(connect(a, (void *)&t, sizeof t));
	ERR(getpeername(a, (void *)&p, &n), ENOTCONN);
	ERR(send(a, "x", 1, 0), EDESTADDRREQ);
}

CASE(refused)
{
	int pa, pb, a = udp(&pa), b = udp(&pb);
	struct sockaddr_in t = here(pb);
	OK(connect(a, (void *)&t, sizeof t));
	close(b);
	/* The ICMP error of one send is reported by the next call. */
	EQ(send(a, "x", 1, 0), 1);
	struct pollfd p = {a, POLLIN, 0};
	EQ(poll(&p, 1, 5000), 1);
	CHECK(p.revents & POLLERR);
	char x;
	ERR(recv(a, &x, 1, 0), ECONNREFUSED);
	ERR(recv(a, &x, 1, MSG_DONTWAIT), EAGAIN);
	/* Unconnected: not reported. */
	int u = udp(NULL);
	EQ(to(u, "x", 1, pb), 1);
	ERR(recv(u, &x, 1, MSG_DONTWAIT), EAGAIN);
}

CASE(ports_and_errors)
{
	int pa, s = udp(NULL);
	udp(&pa);
	struct sockaddr_in a = here(pa);
	ERR(bind(s, (void *)&a, sizeof a), EADDRINUSE);
	ERR(to(s, "x", 1, 0), EINVAL);
	ERR(sendto(s, "x", 1, 0, (void *)&a, 4), EINVAL);
	ERR(send(s, "x", 1, 0), EDESTADDRREQ);
	ERR(listen(s, 1), EOPNOTSUPP);
	ERR(accept(s, NULL, NULL), EOPNOTSUPP);
	a.sin_family = AF_INET6;
	ERR(sendto(s, "x", 1, 0, (void *)&a, sizeof a), EAFNOSUPPORT);
	/* A send without bind takes a port. */
	EQ(to(s, "x", 1, pa), 1);
	socklen_t n = sizeof a;
	OK(getsockname(s, (void *)&a, &n));
	CHECK(a.sin_port != 0);
	ERR(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP), EPROTONOSUPPORT);
}

CASE(waits_and_times_out)
{
	int pa, a = udp(&pa);
	char x;
	pid_t p = CHILD(msleep(30); EQ(to(udp(NULL), "x", 1, pa), 1));
	EQ(recv(a, &x, 1, 0), 1);
	EQ(reap(p), 0);
	struct timeval t = {0, 30000};
	OK(setsockopt(a, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	ERR(recv(a, &x, 1, 0), EAGAIN);
	struct pollfd f = {a, POLLIN | POLLOUT, 0};
	EQ(poll(&f, 1, 0), 1);
	EQ(f.revents, POLLOUT);
}

static struct sockaddr_in6 here6(int port)
{
	return (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
}
static int bind6(int s)
{
	struct sockaddr_in6 a = here6(0);
	socklen_t n = sizeof a;
	NEED(bind(s, (void *)&a, sizeof a));
	NEED(getsockname(s, (void *)&a, &n));
	EQ(n, 28);
	return ntohs(a.sin6_port);
}

CASE(tcp6)
{
	int l = NEED(socket(AF_INET6, SOCK_STREAM, 0)), port = bind6(l);
	OK(listen(l, 1));
	int c = NEED(socket(AF_INET6, SOCK_STREAM, 0));
	struct sockaddr_in6 a = here6(port);
	OK(connect(c, (void *)&a, sizeof a));
	socklen_t n = sizeof a;
	int s = NEED(accept(l, (void *)&a, &n));
	EQ(n, 28);
	CHECK(IN6_IS_ADDR_LOOPBACK(&a.sin6_addr));
	EQ(write(c, "six", 3), 3);
	char b[8] = "";
	EQ(read(s, b, 8), 3);
	STR(b, "six");
	a = here6(port);
	ERR(connect(NEED(socket(AF_INET6, SOCK_STREAM, 0)), (void *)&a, 20), EINVAL);
}

CASE(dual_stack)
{
	int l = NEED(socket(AF_INET6, SOCK_STREAM, 0)), off = 0;
	OK(setsockopt(l, IPPROTO_IPV6, IPV6_V6ONLY, &off, 4));
	struct sockaddr_in6 any = {.sin6_family = AF_INET6};
	OK(bind(l, (void *)&any, sizeof any));
	OK(listen(l, 1));
	socklen_t n = sizeof any;
	OK(getsockname(l, (void *)&any, &n));
	int c = NEED(socket(AF_INET, SOCK_STREAM, 0));
	struct sockaddr_in a = here(ntohs(any.sin6_port));
	OK(connect(c, (void *)&a, sizeof a));
	n = sizeof any;
	int s = NEED(accept(l, (void *)&any, &n));
	char t[64];
	inet_ntop(AF_INET6, &any.sin6_addr, t, sizeof t);
	STR(t, "::ffff:127.0.0.1");
	EQ(write(s, "x", 1), 1);
	char b;
	EQ(read(c, &b, 1), 1);
}

CASE(udp6)
{
	int s = NEED(socket(AF_INET6, SOCK_DGRAM, 0)), port = bind6(s);
	struct sockaddr_in6 a = here6(port);
	EQ(sendto(s, "self", 4, 0, (void *)&a, sizeof a), 4);
	char b[8] = "";
	socklen_t n = sizeof a;
	EQ(recvfrom(s, b, 8, 0, (void *)&a, &n), 4);
	EQ(ntohs(a.sin6_port), port);
	CHECK(IN6_IS_ADDR_LOOPBACK(&a.sin6_addr));
}

CASE(interfaces)
{
	EQ(if_nametoindex("lo"), 1);
	struct ifreq r = {0};
	strcpy(r.ifr_name, "lo");
	int s = udp(NULL);
	OK(ioctl(s, SIOCGIFFLAGS, &r));
	CHECK(r.ifr_flags & IFF_LOOPBACK);
	CHECK(r.ifr_flags & IFF_UP);
	OK(ioctl(s, SIOCGIFADDR, &r));
	EQ(ntohl(((struct sockaddr_in *)&r.ifr_addr)->sin_addr.s_addr), INADDR_LOOPBACK);
	strcpy(r.ifr_name, "nope0");
	ERR(ioctl(s, SIOCGIFFLAGS, &r), ENODEV);
}
MAIN
