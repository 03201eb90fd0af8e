//! Sockets.

use crate::{
    linux::{
        sys::{message, socket, sockopt},
        table::Row,
    },
    row,
};

/// The rows.
pub static ROWS: &[Row] = &[
    row!(41, socket(domain: Enum("socket_domain"), kind: Flags("socket_type"), protocol: Int)
        => socket::socket, Partial, "AF_UNIX, AF_INET and AF_INET6 on loopback; no raw sockets, no netlink"),
    row!(42, connect(sockfd: Fd, addr: StructIn("sockaddr"), addrlen: Size)
        => socket::connect, Partial, "reaches loopback addresses only"),
    row!(43, accept(sockfd: Fd, addr: StructOut("sockaddr"), addrlen: StructIn("int"))
        => socket::accept, Full),
    row!(288, accept4(sockfd: Fd, addr: StructOut("sockaddr"), addrlen: StructIn("int"),
        flags: Flags("socket_flags")) => socket::accept4, Full),
    row!(44, sendto(sockfd: Fd, buf: In(2), len: Size, flags: Flags("msg"),
        dest_addr: StructIn("sockaddr"), addrlen: Size) => message::sendto, Full),
    row!(45, recvfrom(sockfd: Fd, buf: Out(2), len: Size, flags: Flags("msg"),
        src_addr: StructOut("sockaddr"), addrlen: StructIn("int")) => message::recvfrom, Full),
    row!(46, sendmsg(sockfd: Fd, msg: StructIn("msghdr"), flags: Flags("msg"))
        => message::sendmsg, Full),
    row!(47, recvmsg(sockfd: Fd, msg: StructOut("msghdr"), flags: Flags("msg"))
        => message::recvmsg, Full),
    row!(307, sendmmsg(sockfd: Fd, msgvec: StructIn("mmsghdr"), vlen: Uint, flags: Flags("msg"))
        => message::sendmmsg, Full),
    row!(299, recvmmsg(sockfd: Fd, msgvec: StructOut("mmsghdr"), vlen: Uint, flags: Flags("msg"),
        timeout: StructIn("timespec")) => message::recvmmsg, Full),
    row!(48, shutdown(sockfd: Fd, how: Enum("shutdown")) => socket::shutdown, Full),
    row!(49, bind(sockfd: Fd, addr: StructIn("sockaddr"), addrlen: Size) => socket::bind, Full),
    row!(50, listen(sockfd: Fd, backlog: Uint) => socket::listen, Full),
    row!(51, getsockname(sockfd: Fd, addr: StructOut("sockaddr"), addrlen: StructIn("int"))
        => socket::getsockname, Full),
    row!(52, getpeername(sockfd: Fd, addr: StructOut("sockaddr"), addrlen: StructIn("int"))
        => socket::getpeername, Full),
    row!(53, socketpair(domain: Enum("socket_domain"), kind: Flags("socket_type"), protocol: Int,
        sv: StructOut("fds")) => socket::socketpair, Full),
    row!(54, setsockopt(sockfd: Fd, level: Int, optname: Int, optval: In(4), optlen: Size)
        => sockopt::setsockopt, Partial, "TCP and IP options without meaning on loopback are stored only"),
    row!(55, getsockopt(sockfd: Fd, level: Int, optname: Int, optval: StructOut("bytes"), optlen: StructIn("int"))
        => sockopt::getsockopt, Partial, "TCP_INFO holds the state only"),
];
