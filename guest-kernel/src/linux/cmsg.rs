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

/// One message of a sender's. What it means is the socket's to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// cmsg_level.
    pub level: i32,
    /// cmsg_type.
    pub kind: i32,
    /// What follows the header, without padding.
    pub data: &'a [u8],
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
        Some(Ok(Message { level: word(header, 8), kind: word(header, 12), data }))
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

/// The `struct ucred` of an SCM_CREDENTIALS, if it is one.
#[must_use]
pub fn credentials(data: &[u8]) -> Option<Ucred> {
    (data.len() == UCRED).then(|| Ucred {
        pid: word(data, 0),
        uid: word(data, 4).cast_unsigned(),
        gid: word(data, 8).cast_unsigned(),
    })
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
        let read: Vec<_> = Messages::new(&control.bytes).map_while(Result::ok).collect();
        let [creds, other, rights] = read[..] else { panic!("{read:?}") };
        assert_eq!(credentials(creds.data), Some(me));
        assert_eq!(other, Message { level: 0, kind: 8, data: b"other" });
        assert_eq!(rights, Message { level: SOL_SOCKET, kind: SCM_RIGHTS, data: &[] });
        assert_eq!(credentials(&creds.data[..11]), None);
        assert_eq!(descriptors(&[3, 0, 0, 0, 255, 255, 255, 255, 9]).collect::<Vec<_>>(), [3, -1]);
    }

    #[test]
    fn a_length_that_lies_ends_it() {
        for size in [0, 15, 33, u64::MAX, u64::MAX - 6] {
            let bytes = [&size.to_ne_bytes()[..], &[1; 24]].concat();
            let mut messages = Messages::new(&bytes);
            assert_eq!(messages.next(), Some(Err(Errno::EINVAL)), "{size}");
            assert_eq!(messages.next(), None);
        }
        assert_eq!(Messages::new(&[0; 15]).next(), None);
    }
}
