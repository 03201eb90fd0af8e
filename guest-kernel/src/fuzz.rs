//! Bodies of the fuzz targets in `guest-kernel/fuzz`, one per decoder of hostile bytes.
//!
//! A body takes any bytes and panics only if the kernel has a bug. `tests` runs each body on damaged good
//! inputs, the same ones each time, and keeps those inputs as corpora; `cargo fuzz` looks for new ones.

mod program;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use zerocopy::IntoBytes;

pub use self::program::{Sendmsg, SignalFrames};
pub use crate::mm::rewrite::hostile_site as sites;
use crate::{
    creds::Creds,
    error::Errno,
    fs::{
        buf::{Sink, Source},
        file::OpenFile,
    },
    kernel::Kernel,
    linux::{
        cmsg::{self, Control, Message, Messages},
        elf::{Ehdr, Phdr},
        exec_image, sockaddr,
    },
    net::{
        Family, Net, Protocol,
        addr::{Outgoing, Receive, Ucred},
        netlink::{NetlinkSocket, ROUTE},
    },
    testing::{self, FixedFile, check},
    tty::{
        line::Line,
        termios::{Input, Local, Output},
    },
};

/// The program loader (execve(2)): ELF files, their interpreters, scripts.
pub struct Loader(Arc<Kernel>);

impl Default for Loader {
    fn default() -> Loader {
        let loader = Loader(testing::kernel(32));
        // What all programs share is made for the first one.
        drop(loader.load(&elf(3, 0, false)));
        loader
    }
}

impl Loader {
    /// Loads `bytes`, which are also any interpreter they ask for. Whatever comes of it, the address
    /// space is sound, and nothing is left once it is gone.
    ///
    /// # Panics
    /// On a bug.
    pub fn one(&self, bytes: &[u8]) {
        let free = self.0.frames.free();
        if let Ok(image) = self.load(bytes) {
            check(&image.mm);
        }
        assert_eq!(self.0.frames.free(), free, "frames are left");
    }
    fn load(&self, bytes: &[u8]) -> Result<exec_image::Image, Errno> {
        let kernel = &self.0;
        let open = |path: &[u8]| -> Result<Arc<OpenFile>, Errno> {
            if path.is_empty() { Err(Errno::ENOENT) } else { Ok(FixedFile::open(kernel, bytes)) }
        };
        exec_image::load(exec_image::Request {
            kernel,
            file: FixedFile::open(kernel, bytes),
            path: b"/program",
            argv: vec![b"program".to_vec(), b"argument".to_vec()],
            envp: vec![b"K=V".to_vec()],
            creds: &Creds::user(0, 0),
            stack_limit: 8 << 20,
            randomize: true,
            open: &open,
        })
    }
}

/// A program of two segments at `base`, which asks for an interpreter if `interpreter`.
fn elf(kind: u16, base: u64, interpreter: bool) -> Vec<u8> {
    let header = Ehdr {
        e_ident: *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
        e_type: kind,
        e_machine: 62,
        e_version: 1,
        e_entry: base + 0x140,
        e_phoff: 64,
        e_ehsize: 64,
        e_phentsize: 56,
        e_phnum: 4,
        ..Ehdr::default()
    };
    let text = Phdr {
        p_type: 1,
        p_flags: 5,
        p_vaddr: base,
        p_filesz: 0x200,
        p_memsz: 0x200,
        p_align: 4096,
        ..Phdr::default()
    };
    let data = Phdr {
        p_flags: 6,
        p_offset: 0x1000,
        p_vaddr: base + 0x1000,
        p_filesz: 0x80,
        p_memsz: 0x3000,
        ..text
    };
    let path =
        Phdr { p_type: if interpreter { 3 } else { 0 }, p_offset: 0x180, p_filesz: 4, ..text };
    let stack = Phdr { p_type: 0x6474_e551, p_flags: 6, ..Phdr::default() };
    let mut bytes = header.as_bytes().to_vec();
    for segment in [text, data, path, stack] {
        bytes.extend_from_slice(segment.as_bytes());
    }
    bytes.resize(0x180, 0x90);
    bytes.extend_from_slice(b"/ld\0");
    bytes.resize(0x1080, 0x55);
    bytes
}

/// Netlink requests (netlink(7)).
pub struct Netlink(Arc<NetlinkSocket>);

impl Default for Netlink {
    /// # Panics
    /// Never: the protocol exists.
    fn default() -> Netlink {
        let owner = Ucred { pid: 7, uid: 0, gid: 0 };
        Netlink(NetlinkSocket::new(&Arc::new(Net::default()), ROUTE, owner).expect("a protocol"))
    }
}

impl Netlink {
    /// Sends `bytes` and reads what the kernel answers.
    ///
    /// # Panics
    /// On a bug.
    pub fn one(&self, bytes: &[u8]) {
        let sent = self.0.send(&mut Source::kernel(bytes), &mut Outgoing::default());
        assert!(matches!(sent, Ok(_) | Err(Errno::EMSGSIZE)), "{sent:?}");
        let mut buffer = [0; 8192];
        while let Ok(got) = self.0.recv(&mut Sink::kernel(&mut buffer), Receive::default()) {
            assert!(got.full >= 16 && got.stored <= got.full);
        }
    }
}

/// Socket addresses: what is decoded is encoded again the same.
///
/// # Panics
/// On a bug.
pub fn addresses(bytes: &[u8]) {
    for family in [Family::Unix, Family::V4, Family::V6, Family::Netlink] {
        if let Ok(addr) = sockaddr::decode(bytes, family) {
            let bytes = sockaddr::encode(&addr);
            // The longest path has no room for its NUL, which is told all the same (unix(7), BUGS).
            if bytes.len() <= sockaddr::UN_SIZE {
                assert_eq!(sockaddr::decode(&bytes, family), Ok(addr));
            }
        }
    }
}

/// The terminal's line discipline: the first bytes are its modes, the others are typed and printed.
///
/// # Panics
/// On a bug.
pub fn terminal(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_at_checked(31) else { return };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let mut line = Line::default();
    let mut modes = line.termios;
    modes.input = Input::from_bits_retain(word(0));
    modes.output = Output::from_bits_retain(word(4));
    modes.local = Local::from_bits_retain(word(8));
    modes.chars.copy_from_slice(&head[12..31]);
    line.set(modes);
    for piece in rest.chunks(7) {
        line.type_in(piece);
        line.print(piece);
        let before = line.pending();
        let read = line.read(5).map_or(0, |bytes| bytes.len());
        assert!(read <= 5 && line.pending() <= before);
        line.take_output(11);
    }
    line.set(Line::default().termios);
    while line.read(4096).is_some_and(|bytes| !bytes.is_empty()) {}
}

/// Control messages: what is decoded is laid out and decoded again the same, and in too small a buffer never
/// past its end. The first byte is the size of that buffer.
///
/// # Panics
/// On a bug.
pub fn control(bytes: &[u8]) {
    let Some((room, bytes)) = bytes.split_first() else { return };
    fn decode(bytes: &[u8]) -> Vec<Message<'_>> {
        Messages::new(bytes).map_while(Result::ok).collect()
    }
    let messages = decode(bytes);
    let mut whole = Control::new(usize::MAX);
    let mut small = Control::new(usize::from(*room));
    for Message { level, kind, data } in &messages {
        let fds: Vec<u8> = cmsg::descriptors(data).flat_map(i32::to_ne_bytes).collect();
        assert!(fds == data[..data.len() / 4 * 4]);
        if let Some(creds) = cmsg::credentials(data) {
            assert!(cmsg::ucred(creds) == **data);
        }
        whole.put(*level, *kind, data);
        small.put(*level, *kind, data);
        assert!(small.bytes.len() <= usize::from(*room));
    }
    assert!(!whole.truncated && decode(&whole.bytes) == messages);
    // But for the padding of the last one.
    assert!(small.truncated || whole.bytes.starts_with(&small.bytes));
}
