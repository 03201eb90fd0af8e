//! Netlink messages (netlink(7)): taken apart, and put together.
//!
//! What is decoded is the guest's: lengths are checked, and a message that lies about its own ends
//! the datagram, as in Linux.

use crate::{error::Errno, num::Word};

/// `sizeof(struct nlmsghdr)`.
pub const HEADER: usize = 16;
/// NLMSG_ERROR.
const ERROR: u16 = 2;
/// NLMSG_DONE.
const DONE: u16 = 3;
/// NLMSG_MIN_TYPE: below it are control messages.
const MIN_TYPE: u16 = 16;
/// NLM_F_REQUEST.
const REQUEST: u16 = 1;
/// NLM_F_MULTI.
pub const MULTI: u16 = 2;
/// NLM_F_ACK.
const ACK: u16 = 4;
/// NLM_F_CAPPED: an acknowledgement has the request's header only.
const CAPPED: u16 = 0x100;
/// NLM_F_DUMP.
const DUMP: u16 = 0x300;

fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes)
}
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// nlmsg_type.
    pub kind: u16,
    /// nlmsg_flags.
    pub flags: u16,
    /// nlmsg_seq.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
    whole: &'a [u8],
}

/// The messages of a datagram, up to the first that is not whole.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.len() < HEADER {
            return None;
        }
        let len = u64::from(word(rest, 0)).size();
        let whole = rest.get(..len)?;
        let body = whole.get(HEADER..)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        let (kind, flags, sequence) = (half(whole, 4), half(whole, 6), word(whole, 8));
        Some(Message { kind, flags, sequence, body, whole })
    })
}

impl<'a> Message<'a> {
    /// It asks the kernel for something.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.flags & REQUEST != 0
    }
    /// It is about the connection itself.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.kind < MIN_TYPE
    }
    /// It asks for all there is.
    #[must_use]
    pub fn is_dump(&self) -> bool {
        self.flags & DUMP != 0
    }
    /// A byte of the body, 0 past its end.
    #[must_use]
    pub fn byte(&self, at: usize) -> u8 {
        self.body.get(at).copied().unwrap_or(0)
    }
    /// A word of the body, 0 past its end.
    #[must_use]
    pub fn word(&self, at: usize) -> u32 {
        word(self.body, at)
    }
    /// The attribute `wanted` after a fixed part of `fixed` bytes.
    #[must_use]
    pub fn attribute(&self, fixed: usize, wanted: u16) -> Option<&'a [u8]> {
        /// NLA_TYPE_MASK leaves the flags out.
        const TYPE: u16 = 0x3fff;
        let mut rest = self.body.get(fixed..)?;
        while rest.len() >= 4 {
            let len = usize::from(half(rest, 0));
            let data = rest.get(4..len)?;
            if half(rest, 2) & TYPE == wanted {
                return Some(data);
            }
            rest = rest.get(len.next_multiple_of(4)..)?;
        }
        None
    }
    /// The acknowledgement to `port`, if one is due.
    #[must_use]
    pub fn acknowledge(&self, port: u32, error: Option<Errno>) -> Vec<Vec<u8>> {
        if error.is_none() && self.flags & ACK == 0 {
            return Vec::new();
        }
        let code = error.map_or(0, |errno| -i32::from(errno.raw()));
        let flags = if error.is_none() { CAPPED } else { 0 };
        let mut out = Builder::new(ERROR, flags, self.sequence, port);
        out.bytes(&code.to_ne_bytes());
        out.bytes(if error.is_some() { self.whole } else { &self.whole[..HEADER] });
        vec![out.finish()]
    }
    /// The end of the answer to a dump.
    #[must_use]
    pub fn done(&self, port: u32) -> Vec<u8> {
        let mut out = Builder::new(DONE, MULTI, self.sequence, port);
        out.bytes(&0i32.to_ne_bytes());
        out.finish()
    }
}

/// A message in the making.
pub struct Builder(Vec<u8>);

impl Builder {
    /// Its header; the length follows at the end.
    #[must_use]
    pub fn new(kind: u16, flags: u16, sequence: u32, port: u32) -> Builder {
        let mut out = vec![0; 4];
        out.extend(kind.to_ne_bytes());
        out.extend(flags.to_ne_bytes());
        out.extend(sequence.to_ne_bytes());
        out.extend(port.to_ne_bytes());
        Builder(out)
    }
    /// A fixed part.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
    /// An attribute.
    pub fn attribute(&mut self, kind: u16, data: &[u8]) {
        let len = ((data.len() + 4) as u64).low_u16();
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.bytes(data);
    }
    /// An attribute that is one word.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }
    /// The whole message.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let len = (self.0.len() as u64).low_u32();
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0
    }
}
