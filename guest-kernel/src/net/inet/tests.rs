//! Ports, connections and their ends, datagrams.

use super::{tcp::TcpSocket, udp::UdpSocket, *};
use crate::{
    fs::{
        buf::{Sink, Source},
        file::Ready,
    },
    net::{
        Net, Protocol,
        addr::{Connect, Outgoing, Receive, Ucred},
    },
};
use std::sync::Arc;

const WHO: Ucred = Ucred { pid: 7, uid: 8, gid: 9 };

fn send(socket: &dyn Protocol, to: Option<Addr>, bytes: &[u8]) -> Result<usize, Errno> {
    socket.send(&mut Source::kernel(bytes), &mut Outgoing { to, ..Outgoing::default() })
}
fn recv(socket: &dyn Protocol) -> Result<(Vec<u8>, Option<Addr>), Errno> {
    let mut buf = vec![0; 100];
    let got = socket.recv(&mut Sink::kernel(&mut buf), Receive::default())?;
    buf.truncate(got.stored);
    Ok((buf, got.from))
}
fn how(nonblock: bool) -> Connect {
    Connect { nonblock, started: false, who: WHO, target: None }
}
fn v4(port: u16) -> Addr {
    Addr::V4(Host { ip: Ip::LOOPBACK4, port })
}

#[test]
fn connect_transfer_close() {
    let net = Arc::new(Net::default());
    let server = TcpSocket::new(&net, true, WHO);
    assert_eq!(server.bind(&Addr::V6(Host { ip: Ip::ANY6, port: 8080 }), false), Ok(()));
    let client = TcpSocket::new(&net, false, WHO);
    assert_eq!(client.connect(&v4(8080), &how(false)), Err(Errno::ECONNREFUSED));
    assert_eq!(server.listen(5, WHO), Ok(()));
    assert_eq!(client.connect(&v4(8080), &how(true)), Err(Errno::EINPROGRESS));
    assert!(client.poll().contains(Ready::OUT));
    assert_eq!(client.connect(&v4(8080), &how(true)), Ok(()));
    assert_eq!(client.connect(&v4(8080), &how(true)), Err(Errno::EISCONN));
    let (child, peer) = server.accept().expect("a connection");
    let Addr::V6(shown) = peer else { panic!("an IPv6 socket shows IPv6 addresses") };
    assert_eq!(shown.ip, Ip::LOOPBACK4);
    assert_eq!(client.local(), Addr::V4(shown));
    assert_eq!(send(&*client, None, b"ping"), Ok(4));
    assert_eq!(recv(&*child).map(|r| r.0), Ok(b"ping".to_vec()));
    assert_eq!(client.shutdown(false, true), Ok(()));
    assert_eq!(recv(&*child).map(|r| r.0), Ok(Vec::new()));
    assert_eq!(send(&*child, None, b"pong"), Ok(4));
    client.close();
    assert_eq!(recv(&*child).map(|r| r.0), Err(Errno::ECONNRESET));
    assert_eq!(send(&*child, None, b"x"), Err(Errno::EPIPE));
}

#[test]
fn port_rules() {
    let net = Arc::new(Net::default());
    let a = TcpSocket::new(&net, false, WHO);
    let b = TcpSocket::new(&net, false, WHO);
    assert_eq!(a.bind(&v4(80), false), Err(Errno::EACCES));
    assert_eq!(a.bind(&v4(9000), false), Ok(()));
    assert_eq!(b.bind(&v4(9000), false), Err(Errno::EADDRINUSE));
    let any = Addr::V4(Host { ip: Ip::ANY4, port: 9000 });
    assert_eq!(b.bind(&any, false), Err(Errno::EADDRINUSE));
    let outside = Addr::V4(Host { ip: Ip::v4([8, 8, 8, 8]), port: 53 });
    assert_eq!(b.bind(&outside, false), Err(Errno::EADDRNOTAVAIL));
    assert_eq!(b.connect(&outside, &how(false)), Err(Errno::ENETUNREACH));
    a.close();
    assert_eq!(b.bind(&any, false), Ok(()));
    assert_eq!(b.bind(&any, false), Err(Errno::EINVAL));
}

#[test]
fn datagrams() {
    let net = Arc::new(Net::default());
    let a = UdpSocket::new(&net, false, WHO);
    let b = UdpSocket::new(&net, false, WHO);
    assert_eq!(b.bind(&v4(5353), false), Ok(()));
    assert_eq!(send(&*a, Some(v4(5353)), b"hi"), Ok(2));
    let (data, from) = recv(&*b).expect("a datagram");
    assert_eq!(data, b"hi");
    let Some(Addr::V4(from)) = from else { panic!("no sender") };
    assert_eq!(from.ip, Ip::LOOPBACK4);
    assert_eq!(send(&*b, Some(Addr::V4(from)), b"back"), Ok(4));
    assert_eq!(recv(&*a).map(|r| r.1), Ok(Some(v4(5353))));
    b.close();
    assert_eq!(a.connect(&v4(5353), &how(false)), Ok(()));
    assert_eq!(send(&*a, None, b"x"), Ok(1));
    assert_eq!(send(&*a, None, b"x"), Err(Errno::ECONNREFUSED));
}
