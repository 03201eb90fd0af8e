//! Streams, records, datagrams, descriptors in flight, ends.

use super::*;
use crate::{
    fs::file::{OpenFile, OpenFlags},
    pipe::Pipe,
};

const WHO: Ucred = Ucred { pid: 7, uid: 8, gid: 9 };

fn net() -> Arc<Net> {
    Arc::new(Net::default())
}
fn send(socket: &UnixSocket, bytes: &[u8]) -> Result<usize, Errno> {
    let mut out = Outgoing { creds: Some(WHO), ..Outgoing::default() };
    socket.send(&mut Source::kernel(bytes), &mut out)
}
fn recv(socket: &UnixSocket, len: usize) -> Result<(Vec<u8>, Received), Errno> {
    let mut buf = vec![0; len];
    let got = socket.recv(&mut Sink::kernel(&mut buf), Receive::default())?;
    buf.truncate(got.stored);
    Ok((buf, got))
}
fn bytes(socket: &UnixSocket, len: usize) -> Result<Vec<u8>, Errno> {
    recv(socket, len).map(|got| got.0)
}
fn connect(nonblock: bool) -> Connect {
    Connect { nonblock, started: false, who: WHO, target: None }
}

#[test]
fn streams_merge_and_records_do_not() {
    let net = net();
    let [a, b] = UnixSocket::pair(&net, Kind::Stream, WHO);
    assert_eq!(send(&a, b"one"), Ok(3));
    assert_eq!(send(&a, b"two"), Ok(3));
    assert_eq!(bytes(&b, 4), Ok(b"onet".to_vec()));
    assert_eq!(bytes(&b, 4), Ok(b"wo".to_vec()));
    assert_eq!(bytes(&b, 4), Err(Errno::EAGAIN));
    let [a, b] = UnixSocket::pair(&net, Kind::SeqPacket, WHO);
    assert_eq!(send(&a, b"one"), Ok(3));
    assert_eq!(send(&a, b"two"), Ok(3));
    assert_eq!(bytes(&b, 2), Ok(b"on".to_vec()));
    assert_eq!(bytes(&b, 9), Ok(b"two".to_vec()));
}

#[test]
fn descriptors_end_a_read() {
    let [a, b] = UnixSocket::pair(&net(), Kind::Stream, WHO);
    assert_eq!(send(&a, b"x"), Ok(1));
    let (r, w) = Pipe::pair(1, (0, 0), OpenFlags::empty());
    let mut out = Outgoing { creds: Some(WHO), files: vec![w], ..Outgoing::default() };
    assert_eq!(a.send(&mut Source::kernel(b"yz"), &mut out), Ok(2));
    assert_eq!(send(&a, b"after"), Ok(5));
    let (data, got) = recv(&b, 100).expect("data");
    assert_eq!((data, got.files.len()), (b"xyz".to_vec(), 1));
    assert!(!r.ops.poll(&r).contains(Ready::HUP));
    drop(got);
    assert!(r.ops.poll(&r).contains(Ready::HUP));
    assert_eq!(bytes(&b, 100), Ok(b"after".to_vec()));
}

#[test]
fn deep_chains_of_sockets_in_flight_close() {
    let net = net();
    let mut carried: Option<Arc<OpenFile>> = None;
    for _ in 0..20_000 {
        let [a, b] = UnixSocket::pair(&net, Kind::Datagram, WHO);
        let files = carried.take().into_iter().collect();
        let mut out = Outgoing { files, ..Outgoing::default() };
        assert_eq!(a.send(&mut Source::kernel(b"x"), &mut out), Ok(1));
        let socket = crate::net::Socket {
            id: 1,
            nameless: crate::fs::nameless::Nameless::default(),
            family: crate::net::Family::Unix,
            kind: Kind::Datagram,
            protocol: 0,
            ops: b,
        };
        carried = Some(OpenFile::new(Arc::new(socket), OpenFlags::RDWR));
    }
    drop(carried);
}

#[test]
fn ends_are_heard() {
    let [a, b] = UnixSocket::pair(&net(), Kind::Stream, WHO);
    assert_eq!(send(&a, b"last"), Ok(4));
    assert_eq!(a.shutdown(false, true), Ok(()));
    assert_eq!(send(&a, b"x"), Err(Errno::EPIPE));
    assert!(b.poll().contains(Ready::RDHUP) && !b.poll().contains(Ready::HUP));
    assert_eq!(send(&b, b"still"), Ok(5));
    assert_eq!(bytes(&b, 9), Ok(b"last".to_vec()));
    assert_eq!(bytes(&b, 9), Ok(Vec::new()));
    a.close();
    assert!(b.poll().contains(Ready::HUP | Ready::ERR));
    assert_eq!(bytes(&b, 9).err(), Some(Errno::ECONNRESET), "the peer left bytes unread");
    assert_eq!(bytes(&b, 9), Ok(Vec::new()));
    assert_eq!(send(&b, b"x"), Err(Errno::EPIPE));
}

#[test]
fn names_listen_accept() {
    let net = net();
    let name = Addr::Unix(UnixName::Abstract(b"svc".to_vec()));
    let server = UnixSocket::new(&net, Kind::Stream, WHO);
    let client = UnixSocket::new(&net, Kind::Stream, WHO);
    assert_eq!(client.connect(&name, &connect(true)), Err(Errno::ECONNREFUSED));
    assert_eq!(server.bind(&name, false), Ok(()));
    assert_eq!(client.bind(&name, false), Err(Errno::EADDRINUSE));
    assert_eq!(client.connect(&name, &connect(true)), Err(Errno::ECONNREFUSED));
    assert_eq!(server.listen(0, WHO), Ok(()));
    assert_eq!(server.accept().err(), Some(Errno::EAGAIN));
    assert_eq!(client.connect(&name, &connect(true)), Ok(()));
    let second = UnixSocket::new(&net, Kind::Stream, WHO);
    assert_eq!(second.connect(&name, &connect(true)), Err(Errno::EAGAIN));
    assert!(server.poll().contains(Ready::IN));
    assert_eq!(send(&client, b"hi"), Ok(2));
    let (child, peer) = server.accept().expect("a connection");
    assert_eq!(peer, Addr::Unix(UnixName::Unnamed));
    assert_eq!(child.local(), name);
    assert_eq!(client.peer(), Ok(name.clone()));
    let child = child.as_any().downcast_ref::<UnixSocket>().expect("unix");
    assert_eq!(bytes(child, 9), Ok(b"hi".to_vec()));
    server.close();
    let other = UnixSocket::new(&net, Kind::Stream, WHO);
    assert_eq!(other.bind(&name, false), Ok(()));
}

#[test]
fn datagrams_keep_sender_and_bounds() {
    let net = net();
    let name = Addr::Unix(UnixName::Abstract(b"box".to_vec()));
    let a = UnixSocket::new(&net, Kind::Datagram, WHO);
    let b = UnixSocket::new(&net, Kind::Datagram, WHO);
    assert_eq!(b.bind(&name, false), Ok(()));
    assert_eq!(a.bind(&Addr::Unix(UnixName::Unnamed), false), Ok(()));
    assert_eq!(send(&a, b"x"), Err(Errno::ENOTCONN));
    assert_eq!(a.connect(&name, &connect(false)), Ok(()));
    assert_eq!(send(&a, b"hello"), Ok(5));
    assert_eq!(send(&a, b""), Ok(0));
    let (data, got) = recv(&b, 2).expect("a datagram");
    assert_eq!((data, got.full, got.from), (b"he".to_vec(), 5, Some(a.local())));
    assert_eq!(bytes(&b, 2), Ok(Vec::new()));
    assert_eq!(bytes(&b, 2), Err(Errno::EAGAIN));
    b.close();
    assert_eq!(send(&a, b"x"), Err(Errno::ECONNREFUSED));
}
