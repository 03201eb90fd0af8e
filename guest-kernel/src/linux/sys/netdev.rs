//! ioctl(2) on sockets: queue sizes and the one interface there is (netdevice(7)).

use crate::{
    call::Cx,
    error::{Errno, SysResult},
    net::Socket,
    num::Word,
};

const FIONREAD: u32 = 0x541b;
const TIOCOUTQ: u32 = 0x5411;
const SIOCATMARK: u32 = 0x8905;
const SIOCGIFNAME: u32 = 0x8910;
const SIOCGIFCONF: u32 = 0x8912;
const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCGIFADDR: u32 = 0x8915;
const SIOCGIFNETMASK: u32 = 0x891b;
const SIOCGIFMTU: u32 = 0x8921;
const SIOCGIFHWADDR: u32 = 0x8927;
const SIOCGIFINDEX: u32 = 0x8933;
/// `sizeof(struct ifreq)`.
const IFREQ: usize = 40;
/// IFF_UP | IFF_LOOPBACK | IFF_RUNNING.
const FLAGS: u16 = 0x49;
const LO: &[u8; 16] = b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn inet(ip: [u8; 4]) -> [u8; 16] {
    let mut out = [0; 16];
    out[0] = 2;
    out[4..8].copy_from_slice(&ip);
    out
}

/// ioctl(2) on a socket.
pub fn ioctl(cx: &mut Cx<'_>, socket: &Socket, command: u32, arg: u64) -> SysResult {
    let mm = cx.mm();
    match command {
        FIONREAD => mm.write_obj(arg, &socket.ops.readable_bytes()?.low_i32())?,
        TIOCOUTQ => mm.write_obj(arg, &socket.ops.unsent_bytes().low_i32())?,
        SIOCATMARK => mm.write_obj(arg, &i32::from(socket.ops.at_mark()))?,
        SIOCGIFCONF => {
            let [head, buf]: [u64; 2] = mm.read_obj(arg)?;
            let room = head.low_i32();
            let len = if buf == 0 || room.size_or_zero() >= IFREQ { IFREQ } else { 0 };
            if buf != 0 && len > 0 {
                let mut entry = [0; IFREQ];
                entry[..16].copy_from_slice(LO);
                entry[16..32].copy_from_slice(&inet([127, 0, 0, 1]));
                mm.write_bytes(buf, &entry)?;
            }
            mm.write_obj(arg, &len.low_i32())?;
        }
        SIOCGIFNAME => {
            let mut entry = [0; IFREQ];
            mm.read_bytes(arg, &mut entry)?;
            if entry[16..20] != 1i32.to_ne_bytes() {
                return Err(Errno::ENODEV.into());
            }
            mm.write_bytes(arg, LO)?;
        }
        SIOCGIFFLAGS | SIOCGIFADDR | SIOCGIFNETMASK | SIOCGIFMTU | SIOCGIFHWADDR | SIOCGIFINDEX => {
            let mut name = [0; 16];
            mm.read_bytes(arg, &mut name)?;
            if name[..3] != LO[..3] {
                return Err(Errno::ENODEV.into());
            }
            let mut data = [0; 16];
            match command {
                SIOCGIFFLAGS => data[..2].copy_from_slice(&FLAGS.to_ne_bytes()),
                SIOCGIFADDR => data = inet([127, 0, 0, 1]),
                SIOCGIFNETMASK => data = inet([255, 0, 0, 0]),
                SIOCGIFMTU => data[..4].copy_from_slice(&65536i32.to_ne_bytes()),
                // ARPHRD_LOOPBACK with no address.
                SIOCGIFHWADDR => data[..2].copy_from_slice(&772u16.to_ne_bytes()),
                _ => data[..4].copy_from_slice(&1i32.to_ne_bytes()),
            }
            mm.write_bytes(arg + 16, &data)?;
        }
        _ => return Err(Errno::ENOTTY.into()),
    }
    Ok(0)
}

/// A signed length as a size, negative as nothing.
trait SizeOrZero {
    fn size_or_zero(self) -> usize;
}
impl SizeOrZero for i32 {
    fn size_or_zero(self) -> usize {
        usize::try_from(self).unwrap_or(0)
    }
}
