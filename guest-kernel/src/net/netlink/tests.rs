//! Netlink messages that lie, and a dump taken apart.

use std::sync::Arc;

use super::{
    NetlinkSocket, ROUTE,
    message::{Builder, messages},
};
use crate::{
    error::Errno,
    fs::buf::{Sink, Source},
    net::{
        Net, Protocol,
        addr::{Addr, Outgoing, Receive, Ucred},
    },
};

fn socket() -> Arc<NetlinkSocket> {
    let owner = Ucred { pid: 7, uid: 0, gid: 0 };
    NetlinkSocket::new(&Arc::new(Net::default()), ROUTE, owner).unwrap()
}

fn ask(socket: &NetlinkSocket, bytes: &[u8]) -> Vec<Vec<u8>> {
    socket.send(&mut Source::kernel(bytes), &mut Outgoing::default()).unwrap();
    let mut out = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(got) = socket.recv(&mut Sink::kernel(&mut buffer), Receive::default()) {
        assert_eq!(got.stored, got.full);
        out.push(buffer[..got.stored].to_vec());
    }
    out
}

fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Builder::new(kind, 1 | flags, 42, 0);
    out.bytes(body);
    out.finish()
}

#[test]
fn a_dump_shows_lo_and_ends() {
    let socket = socket();
    let got = ask(&socket, &request(18, 0x300, &[0; 16]));
    assert_eq!(socket.local(), Addr::Netlink { pid: 7, groups: 0 });
    assert_eq!(got.len(), 2);
    let link = messages(&got[0]).next().unwrap();
    assert_eq!((link.kind, link.sequence), (16, 42));
    assert_eq!(link.attribute(16, 3), Some(&b"lo\0"[..]));
    assert_eq!(messages(&got[1]).next().unwrap().kind, 3);
}

#[test]
fn refusals_are_acknowledgements() {
    let socket = socket();
    for (kind, body, errno) in [
        (16, &[0; 16][..], Errno::EPERM),
        (18, &[0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], Errno::ENODEV),
        (200, &[0; 4][..], Errno::EOPNOTSUPP),
    ] {
        let got = ask(&socket, &request(kind, 4, body));
        let ack = messages(&got[0]).next().unwrap();
        assert_eq!((ack.kind, ack.word(0)), (2, (-i32::from(errno.raw())).cast_unsigned()));
    }
}

#[test]
fn lying_lengths_end_the_datagram() {
    for bytes in [&[][..], &[16, 0, 0, 0], &[15; 16], &[0xff; 64]] {
        assert_eq!(messages(bytes).count(), 0);
    }
    let mut short = request(18, 0x300, &[0; 16]);
    short[0] = 17;
    assert!(messages(&short).next().is_some_and(|m| m.body.len() == 1));
}
