//! Control messages (cmsg(3)): those that sendmsg(2) is given, and those that recvmsg(2) lays out.
//!
//! A sender's buffer is the program's word, copied once before it comes here.

use crate::{error::Errno, net::addr::Ucred, num::Word};

/// SOL_SOCKET.
pub const SOL_SOCKET: i32 = 1;
/// SCM_RIGHTS.
pub const SCM_RIGHTS: i32 = 1;
/// SCM_CREDENTIALS.
pub const SCM_CREDENTIALS: i32 = 2;

/// `sizeof(struct cmsghdr)`.
const HEADER: usize = 16;
/// `sizeof(struct ucred)`.
const UCRED: usize = 12;

/// One message of a sender's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// SCM_RIGHTS: descriptors, as [`descriptors`] reads them.
    Rights(&'a [u8]),
    /// SCM_CREDENTIALS: what the sender says it is.
    Credentials(Ucred),
    /// SCM_CREDENTIALS of another size than theirs.
    OddCredentials,
    /// Of another level, which has no meaning for our sockets.
    Other,
}

/// The messages in a sender's buffer, in order; after a mistake there are no more.
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Of the whole buffer.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Messages<'a> {
        Messages { rest: bytes }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Errno>;
    fn next(&mut self) -> Option<Self::Item> {
        let all = std::mem::take(&mut self.rest);
        let (header, _) = all.split_first_chunk::<HEADER>()?;
        let [size @ .., _, _, _, _, _, _, _, _] = *header;
        let size = u64::from_ne_bytes(size).size();
        let Some(data) = all.get(HEADER..size) else { return Some(Err(Errno::EINVAL)) };
        // Beyond the buffer where the last message has no padding.
        self.rest = all.get(size.next_multiple_of(8)..).unwrap_or_default();
        let message = match (word(header, 8), word(header, 12)) {
            (SOL_SOCKET, SCM_RIGHTS) => Ok(Message::Rights(data)),
            (SOL_SOCKET, SCM_CREDENTIALS) if data.len() != UCRED => Ok(Message::OddCredentials),
            (SOL_SOCKET, SCM_CREDENTIALS) => Ok(Message::Credentials(Ucred {
                pid: word(data, 0),
                uid: word(data, 4).cast_unsigned(),
                gid: word(data, 8).cast_unsigned(),
            })),
            (SOL_SOCKET, _) => Err(Errno::EINVAL),
            _ => Ok(Message::Other),
        };
        if message.is_err() {
            self.rest = &[];
        }
        Some(message)
    }
}

/// The int at `at`, which lies in `bytes`.
fn word(bytes: &[u8], at: usize) -> i32 {
    i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The descriptors of an SCM_RIGHTS; an odd end is passed over.
pub fn descriptors(data: &[u8]) -> impl ExactSizeIterator<Item = i32> {
    data.chunks_exact(4).map(|fd| word(fd, 0))
}

/// `struct ucred`.
#[must_use]
pub fn ucred(creds: Ucred) -> [u8; UCRED] {
    let mut data = [0; UCRED];
    data[..4].copy_from_slice(&creds.pid.to_ne_bytes());
    data[4..8].copy_from_slice(&creds.uid.to_ne_bytes());
    data[8..].copy_from_slice(&creds.gid.to_ne_bytes());
    data
}

/// Lays out control messages in a buffer of the receiver's size.
pub struct Control {
    /// What is there so far.
    pub bytes: Vec<u8>,
    room: usize,
    /// Something did not fit (MSG_CTRUNC).
    pub truncated: bool,
}

impl Control {
    /// For a buffer of `room` bytes.
    #[must_use]
    pub fn new(room: usize) -> Control {
        Control { bytes: Vec::new(), room, truncated: false }
    }
    /// Adds a message, as much of it as fits.
    pub fn put(&mut self, level: i32, kind: i32, data: &[u8]) {
        let left = self.room.saturating_sub(self.bytes.len());
        if left < HEADER {
            self.truncated = true;
            return;
        }
        let size = data.len().min(left - HEADER);
        self.truncated |= size < data.len();
        self.bytes.extend((HEADER + size).to_ne_bytes());
        self.bytes.extend(level.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(&data[..size]);
        let padded = self.bytes.len().next_multiple_of(8).min(self.room);
        self.bytes.resize(padded.max(self.bytes.len()), 0);
    }
    /// Room for descriptors.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        self.room.saturating_sub(self.bytes.len() + HEADER) / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_out_is_read_again() {
        let mut control = Control::new(72);
        let me = Ucred { pid: 7, uid: 1000, gid: u32::MAX };
        control.put(SOL_SOCKET, SCM_CREDENTIALS, &ucred(me));
        control.put(0, 8, b"other");
        control.put(SOL_SOCKET, SCM_RIGHTS, &[3, 0, 0, 0, 255, 255, 255, 255]);
        assert!(control.truncated, "32 + 24 + 16 bytes hold no descriptor");
        let mut messages = Messages::new(&control.bytes);
        assert_eq!(messages.next(), Some(Ok(Message::Credentials(me))));
        assert_eq!(messages.next(), Some(Ok(Message::Other)));
        assert_eq!(messages.next(), Some(Ok(Message::Rights(&[]))));
        assert_eq!(messages.next(), None);
        assert_eq!(descriptors(&[3, 0, 0, 0, 255, 255, 255, 255, 9]).collect::<Vec<_>>(), [3, -1]);
    }

    #[test]
    fn a_length_that_lies_ends_it() {
        let message = |size: u64, kind: i32| {
            let mut bytes = size.to_ne_bytes().to_vec();
            bytes.extend(SOL_SOCKET.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 16]);
            bytes
        };
        for (size, kind) in [(15, 1), (33, 1), (u64::MAX, 1), (u64::MAX - 6, 1), (27, 2), (32, 3)] {
            let bytes = message(size, kind);
            let mut messages = Messages::new(&bytes);
            assert_eq!(messages.next(), Some(Err(Errno::EINVAL)), "{size} {kind}");
            assert_eq!(messages.next(), None);
        }
        assert_eq!(Messages::new(&[0; 15]).next(), None);
    }
}
