/* netlink(7), rtnetlink(7): `lo` as getifaddrs(3), if_nametoindex(3) and a bare dump show it.
   A machine may have more interfaces, so only what concerns `lo` is looked at. */
#include "t.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netpacket/packet.h>

CASE(getifaddrs_shows_lo)
{
	struct ifaddrs *all;
	NEED(getifaddrs(&all));
	int v4 = 0, v6 = 0, link = 0;
	for (struct ifaddrs *i = all; i; i = i->ifa_next) {
		char b[64], m[64];
		if (strcmp(i->ifa_name, "lo") || !i->ifa_addr)
			continue;
		EQ(i->ifa_flags & (IFF_UP | IFF_LOOPBACK | IFF_RUNNING), IFF_UP | IFF_LOOPBACK | IFF_RUNNING);
		if (i->ifa_addr->sa_family == AF_INET) {
			struct sockaddr_in *a = (void *)i->ifa_addr, *n = (void *)i->ifa_netmask;
			STR(inet_ntop(AF_INET, &a->sin_addr, b, sizeof b), "127.0.0.1");
			STR(inet_ntop(AF_INET, &n->sin_addr, m, sizeof m), "255.0.0.0");
			v4++;
		} else if (i->ifa_addr->sa_family == AF_INET6) {
			struct sockaddr_in6 *a = (void *)i->ifa_addr, *n = (void *)i->ifa_netmask;
			STR(inet_ntop(AF_INET6, &a->sin6_addr, b, sizeof b), "::1");
			STR(inet_ntop(AF_INET6, &n->sin6_addr, m, sizeof m), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
			v6++;
		} else if (i->ifa_addr->sa_family == AF_PACKET) {
			struct sockaddr_ll *l = (void *)i->ifa_addr;
			EQ(l->sll_ifindex, 1);
			EQ(l->sll_hatype, 772);
			EQ(l->sll_halen, 6);
			CHECK(i->ifa_data != NULL);
			link++;
		}
	}
	freeifaddrs(all);
	EQ(v4, 1);
	EQ(v6, 1);
	EQ(link, 1);
	EQ(if_nametoindex("lo"), 1);
	char name[IF_NAMESIZE];
	STR(if_indextoname(1, name), "lo");
}

static int ask(int fd, int type, int flags, const void *body, size_t len)
{
	struct {
		struct nlmsghdr h;
		char body[256];
	} q = {{NLMSG_LENGTH(len), type, NLM_F_REQUEST | flags, 77, 0}, {0}};
	memcpy(q.body, body, len);
	return send(fd, &q, q.h.nlmsg_len, 0);
}
static int new(int type)
{
	int fd = NEED(socket(AF_NETLINK, type | SOCK_CLOEXEC, NETLINK_ROUTE));
	struct sockaddr_nl me = {.nl_family = AF_NETLINK};
	OK(bind(fd, (void *)&me, sizeof me));
	return fd;
}
/* The error an acknowledgement carries, or 1 for another message. */
static int acknowledged(int fd)
{
	char b[8192];
	ssize_t n = recv(fd, b, sizeof b, 0);
	struct nlmsghdr *h = (void *)b;
	CHECK(n >= (ssize_t)sizeof *h);
	EQ(h->nlmsg_seq, 77);
	return h->nlmsg_type == NLMSG_ERROR ? -((struct nlmsgerr *)NLMSG_DATA(h))->error : 1;
}

CASE(sockets)
{
	ERR(socket(AF_NETLINK, SOCK_STREAM, 0), ESOCKTNOSUPPORT);
	ERR(socket(AF_NETLINK, SOCK_RAW, 99), EPROTONOSUPPORT);
	int fd = NEED(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)), v;
	socklen_t len = sizeof v;
	OK(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &v, &len));
	EQ(v, AF_NETLINK);
	OK(getsockopt(fd, SOL_SOCKET, SO_TYPE, &v, &len));
	EQ(v, SOCK_RAW);
	struct sockaddr_nl a = {.nl_family = AF_NETLINK}, b;
	len = sizeof b;
	OK(getsockname(fd, (void *)&b, &len));
	EQ(len, sizeof b);
	EQ(b.nl_family, AF_NETLINK);
	EQ(b.nl_pid, 0);
	ERR(bind(fd, (void *)&a, 4), EINVAL);
	OK(bind(fd, (void *)&a, sizeof a));
	OK(getsockname(fd, (void *)&b, &len));
	EQ(b.nl_pid, getpid());
	int other = new (SOCK_DGRAM);
	OK(getsockname(other, (void *)&b, &len));
	CHECK(b.nl_pid != (unsigned)getpid() && b.nl_pid != 0);
	a.nl_pid = getpid();
	int third = NEED(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
	ERR(bind(third, (void *)&a, sizeof a), EADDRINUSE);
	close(fd);
	OK(bind(third, (void *)&a, sizeof a));
	ERR(listen(third, 1), EOPNOTSUPP);
	ERR(recv(third, &v, sizeof v, MSG_DONTWAIT), EAGAIN);
	struct pollfd p = {third, POLLIN | POLLOUT, 0};
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLOUT);
	v = 1;
	OK(setsockopt(third, 270, NETLINK_EXT_ACK, &v, sizeof v));
	OK(setsockopt(third, 270, NETLINK_GET_STRICT_CHK, &v, sizeof v));
	ERR(setsockopt(third, 270, 99, &v, sizeof v), ENOPROTOOPT);
}

CASE(a_dump_of_links)
{
	int fd = new (SOCK_RAW);
	struct ifinfomsg q = {.ifi_family = AF_UNSPEC};
	EQ(ask(fd, RTM_GETLINK, NLM_F_DUMP, &q, sizeof q), NLMSG_LENGTH(sizeof q));
	struct sockaddr_nl from = {0}, me;
	socklen_t len = sizeof me;
	OK(getsockname(fd, (void *)&me, &len));
	static char b[32768];
	/* Looking at the length first takes nothing away. */
	ssize_t want = recv(fd, NULL, 0, MSG_PEEK | MSG_TRUNC);
	struct iovec v = {b, 20};
	struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &v, .msg_iovlen = 1};
	EQ(recvmsg(fd, &m, MSG_PEEK), 20);
	EQ(m.msg_flags & MSG_TRUNC, MSG_TRUNC);
	EQ(m.msg_namelen, sizeof from);
	EQ(from.nl_family, AF_NETLINK);
	EQ(from.nl_pid, 0);
	bool lo = false, done = false;
	ssize_t n = recv(fd, b, sizeof b, 0);
	EQ(n, want);
	while (!done && n > 0) {
		int left = n;
		for (struct nlmsghdr *h = (void *)b; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			EQ(h->nlmsg_seq, 77);
			EQ(h->nlmsg_pid, me.nl_pid);
			EQ(h->nlmsg_flags & NLM_F_MULTI, NLM_F_MULTI);
			if (h->nlmsg_type == NLMSG_DONE) {
				done = true;
				break;
			}
			EQ(h->nlmsg_type, RTM_NEWLINK);
			struct ifinfomsg *i = NLMSG_DATA(h);
			if (i->ifi_index != 1)
				continue;
			lo = true;
			EQ(i->ifi_type, 772);
			EQ(i->ifi_flags & (IFF_UP | IFF_LOOPBACK | IFF_RUNNING), IFF_UP | IFF_LOOPBACK | IFF_RUNNING);
			int rest = IFLA_PAYLOAD(h);
			for (struct rtattr *a = IFLA_RTA(i); RTA_OK(a, rest); a = RTA_NEXT(a, rest)) {
				if (a->rta_type == IFLA_IFNAME)
					STR(RTA_DATA(a), "lo");
				if (a->rta_type == IFLA_MTU)
					EQ(*(int *)RTA_DATA(a), 65536);
				if (a->rta_type == IFLA_ADDRESS)
					EQ(RTA_PAYLOAD(a), 6);
			}
		}
		if (!done)
			n = recv(fd, b, sizeof b, 0);
	}
	CHECK(lo && done);
	ERR(recv(fd, b, sizeof b, MSG_DONTWAIT), EAGAIN);
}

CASE(one_link)
{
	int fd = new (SOCK_RAW);
	struct ifinfomsg q = {.ifi_index = 1};
	OK(ask(fd, RTM_GETLINK, 0, &q, sizeof q));
	char b[8192];
	CHECK(recv(fd, b, sizeof b, 0) > 0);
	EQ(((struct nlmsghdr *)b)->nlmsg_type, RTM_NEWLINK);
	q.ifi_index = 4711;
	OK(ask(fd, RTM_GETLINK, 0, &q, sizeof q));
	EQ(acknowledged(fd), ENODEV);
	OK(ask(fd, NLMSG_NOOP, NLM_F_ACK, "", 0));
	EQ(acknowledged(fd), 0);
	OK(ask(fd, 999, 0, &q, sizeof q));
	EQ(acknowledged(fd), EOPNOTSUPP);
	/* Not a whole message: nothing happens. */
	EQ(send(fd, b, 5, 0), 5);
	struct nlmsghdr lies = {4000, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0};
	EQ(send(fd, &lies, sizeof lies, 0), sizeof lies);
	ERR(recv(fd, b, sizeof b, MSG_DONTWAIT), EAGAIN);
}

CASE(a_route_to_oneself)
{
	int fd = new (SOCK_RAW);
	struct {
		struct rtmsg m;
		struct rtattr a;
		unsigned char ip[4];
	} q = {{.rtm_family = AF_INET, .rtm_dst_len = 32}, {8, RTA_DST}, {127, 0, 0, 1}};
	OK(ask(fd, RTM_GETROUTE, 0, &q, sizeof q));
	char b[8192];
	CHECK(recv(fd, b, sizeof b, 0) > 0);
	struct nlmsghdr *h = (void *)b;
	EQ(h->nlmsg_type, RTM_NEWROUTE);
	struct rtmsg *r = NLMSG_DATA(h);
	EQ(r->rtm_type, RTN_LOCAL);
	EQ(r->rtm_dst_len, 32);
	EQ(r->rtm_flags & RTM_F_CLONED, RTM_F_CLONED);
	int rest = RTM_PAYLOAD(h), oif = 0;
	for (struct rtattr *a = RTM_RTA(r); RTA_OK(a, rest); a = RTA_NEXT(a, rest))
		if (a->rta_type == RTA_OIF)
			oif = *(int *)RTA_DATA(a);
	EQ(oif, 1);
}

CASE(without_rights)
{
	if (getuid() == 0)
		OK(setuid(65534));
	int fd = new (SOCK_RAW);
	struct ifinfomsg q = {.ifi_index = 1, .ifi_change = IFF_UP};
	OK(ask(fd, RTM_NEWLINK, NLM_F_ACK, &q, sizeof q));
	EQ(acknowledged(fd), EPERM);
	struct ifaddrs *all;
	OK(getifaddrs(&all));
}

CASE(waits)
{
	int fd = new (SOCK_RAW);
	struct timeval t = {0, 50000};
	OK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	char b[64];
	ERR(recv(fd, b, sizeof b, 0), EAGAIN);
}
MAIN
