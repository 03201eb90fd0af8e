//! `siginfo_t`, `struct signalfd_siginfo` and `stack_t` of x86-64 (sigaction(2), signalfd(2),
//! sigaltstack(2)).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    num::Word,
    signal::{SigFields, SigInfo, Signal},
};

/// SI_KERNEL: sent by the kernel.
pub const SI_KERNEL: i32 = 0x80;
/// SI_USER: kill(2).
pub const SI_USER: i32 = 0;
/// SI_QUEUE: sigqueue(3).
pub const SI_QUEUE: i32 = -1;
/// SI_TIMER: a POSIX timer.
pub const SI_TIMER: i32 = -2;
/// SI_TKILL: tkill(2), tgkill(2).
pub const SI_TKILL: i32 = -6;
const SI_SIGIO: i32 = -5;

/// `siginfo_t`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawSigInfo {
    /// si_signo.
    pub signo: i32,
    /// si_errno.
    pub errno: i32,
    /// si_code.
    pub code: i32,
    pad: i32,
    /// The union.
    pub fields: [u8; 112],
}

/// Bytes of the union the kernel keeps (its own siginfo is 48 bytes long).
const KEPT: usize = 32;

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    to[at..at + bytes.len()].copy_from_slice(bytes);
}
fn word(from: &[u8], at: usize) -> u32 {
    from.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}
fn long(from: &[u8], at: usize) -> u64 {
    from.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

impl RawSigInfo {
    /// The layout of `info`.
    #[must_use]
    pub fn encode(info: &SigInfo) -> RawSigInfo {
        let mut f = [0u8; 112];
        match &info.fields {
            SigFields::None => {}
            SigFields::Kill { pid, uid } => {
                put(&mut f, 0, &pid.to_le_bytes());
                put(&mut f, 4, &uid.to_le_bytes());
            }
            SigFields::Queue { pid, uid, value } => {
                put(&mut f, 0, &pid.to_le_bytes());
                put(&mut f, 4, &uid.to_le_bytes());
                put(&mut f, 8, &value.to_le_bytes());
            }
            SigFields::Timer { id, overrun, value } => {
                put(&mut f, 0, &id.to_le_bytes());
                put(&mut f, 4, &overrun.to_le_bytes());
                put(&mut f, 8, &value.to_le_bytes());
            }
            SigFields::Child { pid, uid, status, utime, stime } => {
                put(&mut f, 0, &pid.to_le_bytes());
                put(&mut f, 4, &uid.to_le_bytes());
                put(&mut f, 8, &status.to_le_bytes());
                put(&mut f, 16, &utime.to_le_bytes());
                put(&mut f, 24, &stime.to_le_bytes());
            }
            SigFields::Fault { addr } => put(&mut f, 0, &addr.to_le_bytes()),
            SigFields::Poll { band, fd } => {
                put(&mut f, 0, &band.to_le_bytes());
                put(&mut f, 8, &fd.to_le_bytes());
            }
            SigFields::Raw(bytes) => put(&mut f, 0, &bytes[..KEPT]),
        }
        let signo = i32::from(info.signal);
        RawSigInfo { signo, errno: info.errno, code: info.code, pad: 0, fields: f }
    }
    /// Something is said in the part that is not kept, for a code of `signal` whose layout the kernel
    /// does not know (`known_siginfo_layout()`).
    #[must_use]
    pub fn is_cut(&self, signal: i32) -> bool {
        /// SI_DETHREAD, SI_ASYNCNL.
        const LOWEST: i32 = -7;
        const ASYNCNL: i32 = -60;
        let highest = match signal {
            4 => 11,  // SIGILL
            8 => 15,  // SIGFPE
            11 => 10, // SIGSEGV
            7 => 5,   // SIGBUS
            31 => 2,  // SIGSYS
            _ => 6,   // SIGTRAP, SIGCHLD, SIGPOLL, and SI_* of any other
        };
        let known =
            matches!(self.code, SI_KERNEL | ASYNCNL) || (LOWEST..=highest).contains(&self.code);
        !known && self.fields[KEPT..].iter().any(|b| *b != 0)
    }
    /// What rt_sigqueueinfo(2) was given, as signal `signal`.
    #[must_use]
    pub fn decode(&self, signal: Signal) -> SigInfo {
        let mut raw = [0u8; 48];
        raw[..KEPT].copy_from_slice(&self.fields[..KEPT]);
        SigInfo { signal, code: self.code, errno: self.errno, fields: SigFields::Raw(raw) }
    }
}

/// `struct signalfd_siginfo`.
#[repr(C)]
#[derive(Clone, Copy, Default, IntoBytes, Immutable, FromBytes)]
pub struct SignalfdInfo {
    signo: u32,
    errno: i32,
    code: i32,
    pid: u32,
    uid: u32,
    fd: i32,
    tid: u32,
    band: u32,
    overrun: u32,
    trapno: u32,
    status: i32,
    int: i32,
    ptr: u64,
    utime: u64,
    stime: u64,
    addr: u64,
    addr_lsb: u16,
    pad: [u16; 3],
    rest: [u64; 5],
}

impl SignalfdInfo {
    /// The layout of `info`.
    #[must_use]
    pub fn encode(info: &SigInfo) -> SignalfdInfo {
        let mut out = SignalfdInfo {
            signo: u32::from(info.signal),
            errno: info.errno,
            code: info.code,
            ..SignalfdInfo::default()
        };
        let with_value = |out: &mut SignalfdInfo, value: u64| {
            out.ptr = value;
            out.int = value.low_i32();
        };
        match &info.fields {
            SigFields::None => {}
            SigFields::Kill { pid, uid } => {
                out.pid = pid.cast_unsigned();
                out.uid = *uid;
            }
            SigFields::Queue { pid, uid, value } => {
                out.pid = pid.cast_unsigned();
                out.uid = *uid;
                with_value(&mut out, *value);
            }
            SigFields::Timer { id, overrun, value } => {
                out.tid = id.cast_unsigned();
                out.overrun = overrun.cast_unsigned();
                with_value(&mut out, *value);
            }
            SigFields::Child { pid, uid, status, utime, stime } => {
                out.pid = pid.cast_unsigned();
                out.uid = *uid;
                out.status = *status;
                out.utime = *utime;
                out.stime = *stime;
            }
            SigFields::Fault { addr } => out.addr = *addr,
            SigFields::Poll { band, fd } => {
                out.band = band.cast_unsigned().low_u32();
                out.fd = *fd;
            }
            SigFields::Raw(raw) if info.code == SI_TIMER => {
                out.tid = word(raw, 0);
                out.overrun = word(raw, 4);
                with_value(&mut out, long(raw, 8));
            }
            SigFields::Raw(raw) if info.code == SI_SIGIO => {
                out.band = word(raw, 0);
                out.fd = word(raw, 8).low_i32();
            }
            SigFields::Raw(raw) => {
                out.pid = word(raw, 0);
                out.uid = word(raw, 4);
                with_value(&mut out, long(raw, 8));
            }
        }
        out
    }
}

/// `stack_t`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
pub struct RawStack {
    /// ss_sp.
    pub sp: u64,
    /// ss_flags.
    pub flags: u32,
    pub(super) pad: u32,
    /// ss_size.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_abi() {
        assert_eq!(size_of::<RawSigInfo>(), 128);
        assert_eq!(size_of::<SignalfdInfo>(), 128);
        assert_eq!(size_of::<RawStack>(), 24);
    }

    #[test]
    fn queued_information_passes_through() {
        let mut raw = RawSigInfo { signo: 0, errno: 3, code: SI_QUEUE, pad: 0, fields: [0; 112] };
        put(&mut raw.fields, 0, &77u32.to_le_bytes());
        put(&mut raw.fields, 8, &0xdead_beefu64.to_le_bytes());
        let info = raw.decode(34);
        let back = RawSigInfo::encode(&info);
        assert_eq!((back.signo, back.errno, back.code), (34, 3, SI_QUEUE));
        assert_eq!(back.fields, raw.fields);
        let fd = SignalfdInfo::encode(&info);
        assert_eq!((fd.pid, fd.ptr), (77, 0xdead_beef));
    }
}
