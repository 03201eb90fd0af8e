//! ioctl_tty(2) on both sides of a terminal.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    call::Cx,
    error::{Errno, SysResult},
    fs::{file::OpenFlags, inode::Actor},
    num::{Word, ret_i32},
    signal::{SigInfo, number::SIGTTOU, send::send_group},
    task::table::Terminal,
    tty::{
        Tty,
        pty::open_peer,
        termios::{Input, Local, Output, Termios},
    },
};

/// `struct termios` of the kernel (asm-generic/termbits.h).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Old {
    modes: [u32; 4],
    line: u8,
    chars: [u8; 19],
}

/// `struct termios2`: speeds of their own.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct New {
    old: Old,
    speeds: [u32; 2],
}

impl Old {
    fn of(termios: &Termios) -> Old {
        let (input, output) = (termios.input.bits(), termios.output.bits());
        Old {
            modes: [input, output, termios.control, termios.local.bits()],
            line: termios.line,
            chars: termios.chars,
        }
    }
    fn apply(&self, to: &mut Termios) {
        let [input, output, control, local] = self.modes;
        to.input = Input::from_bits_retain(input);
        to.output = Output::from_bits_retain(output);
        to.control = control;
        to.local = Local::from_bits_retain(local);
        to.line = self.line;
        to.chars = self.chars;
    }
}

/// ioctl(2) numbers of ioctl_tty(2).
mod num {
    pub const TCGETS: u32 = 0x5401;
    pub const TCSETSF: u32 = 0x5404;
    pub const TCSBRK: u32 = 0x5409;
    pub const TCXONC: u32 = 0x540a;
    pub const TCFLSH: u32 = 0x540b;
    pub const TIOCEXCL: u32 = 0x540c;
    pub const TIOCNXCL: u32 = 0x540d;
    pub const TIOCSCTTY: u32 = 0x540e;
    pub const TIOCGPGRP: u32 = 0x540f;
    pub const TIOCSPGRP: u32 = 0x5410;
    pub const TIOCOUTQ: u32 = 0x5411;
    pub const TIOCSTI: u32 = 0x5412;
    pub const TIOCGWINSZ: u32 = 0x5413;
    pub const TIOCSWINSZ: u32 = 0x5414;
    pub const FIONREAD: u32 = 0x541b;
    pub const TIOCPKT: u32 = 0x5420;
    pub const TIOCNOTTY: u32 = 0x5422;
    pub const TCSBRKP: u32 = 0x5425;
    pub const TIOCGSID: u32 = 0x5429;
    pub const TCGETS2: u32 = 0x802c_542a;
    pub const TCSETS2: u32 = 0x402c_542b;
    pub const TCSETSF2: u32 = 0x402c_542d;
    pub const TIOCGPTN: u32 = 0x8004_5430;
    pub const TIOCSPTLCK: u32 = 0x4004_5431;
    pub const TIOCSIG: u32 = 0x4004_5436;
    pub const TIOCGPTPEER: u32 = 0x5441;
}

/// ioctl(2) on a terminal, by its `master` or a program's side.
pub fn ioctl(cx: &mut Cx<'_>, tty: &Arc<Tty>, master: bool, command: u32, arg: u64) -> SysResult {
    match command {
        num::TCGETS..=num::TCSETSF | num::TCGETS2 | num::TCSETS2..=num::TCSETSF2 => {
            modes(cx, tty, master, command, arg)
        }
        num::TIOCSCTTY | num::TIOCGPGRP | num::TIOCSPGRP | num::TIOCNOTTY | num::TIOCGSID => {
            job_control(cx, tty, master, command, arg)
        }
        num::TIOCGPTN | num::TIOCSPTLCK | num::TIOCSIG | num::TIOCGPTPEER | num::TIOCPKT => {
            if !master {
                return Err(Errno::ENOTTY.into());
            }
            pty(cx, tty, command, arg)
        }
        _ => plain(cx, tty, master, command, arg),
    }
}

/// Modes. The master sees and sets the program's side's.
fn modes(cx: &mut Cx<'_>, tty: &Arc<Tty>, master: bool, command: u32, arg: u64) -> SysResult {
    let mm = cx.mm();
    let mut termios = tty.with_line(|line| line.termios);
    match command {
        num::TCGETS => mm.write_obj(arg, &Old::of(&termios))?,
        num::TCGETS2 => {
            let speeds = [termios.in_speed, termios.out_speed];
            mm.write_obj(arg, &New { old: Old::of(&termios), speeds })?;
        }
        _ => {
            if command >= num::TCSETS2 {
                let new: New = mm.read_obj(arg)?;
                new.old.apply(&mut termios);
                [termios.in_speed, termios.out_speed] = new.speeds;
            } else {
                mm.read_obj::<Old>(arg)?.apply(&mut termios);
            }
            if !master {
                tty.admit(cx.task, SIGTTOU)?;
            }
            let flush = matches!(command, num::TCSETSF | num::TCSETSF2);
            tty.with_line(|line| {
                if flush {
                    line.flush_input();
                }
                line.set(termios);
            });
        }
    }
    Ok(0)
}

/// Sessions and groups.
fn job_control(cx: &mut Cx<'_>, tty: &Arc<Tty>, master: bool, command: u32, arg: u64) -> SysResult {
    let mm = cx.mm();
    let own = tty.session() == Some(cx.task.process.sid());
    match command {
        num::TIOCSCTTY => {
            let steal = arg == 1 && cx.task.creds().capable(crate::creds::cap::SYS_ADMIN);
            tty.control(cx.task, steal)?;
        }
        num::TIOCNOTTY => tty.release_control(cx.task)?,
        num::TIOCGPGRP => {
            if !own && !master {
                return Err(Errno::ENOTTY.into());
            }
            mm.write_obj(arg, &tty.foreground().unwrap_or(0))?;
        }
        num::TIOCSPGRP => {
            tty.admit(cx.task, SIGTTOU)?;
            let group: i32 = mm.read_obj(arg)?;
            tty.set_foreground(cx.task, group)?;
        }
        _ => {
            if !own && !master {
                return Err(Errno::ENOTTY.into());
            }
            mm.write_obj(arg, &tty.session().ok_or(Errno::ENOTTY)?)?;
        }
    }
    Ok(0)
}

/// What only a master has.
fn pty(cx: &mut Cx<'_>, tty: &Arc<Tty>, command: u32, arg: u64) -> SysResult {
    let mm = cx.mm();
    match command {
        num::TIOCGPTN => mm.write_obj(arg, &tty.index)?,
        num::TIOCSPTLCK => tty.set_locked(mm.read_obj::<i32>(arg)? != 0),
        num::TIOCPKT => {
            if mm.read_obj::<i32>(arg)? != 0 {
                return Err(Errno::EINVAL.into());
            }
        }
        num::TIOCSIG => {
            let signal = u8::try_from(arg).ok().filter(|s| (1..=64).contains(s));
            let signal = signal.ok_or(Errno::EINVAL)?;
            if let Some(group) = tty.foreground() {
                send_group(cx.kernel(), group, SigInfo::kernel(signal));
            }
        }
        _ => {
            let flags = OpenFlags::from_bits_truncate(arg.low_u32());
            let file = open_peer(&Actor::of(cx.task), tty, flags)?;
            return Ok(ret_i32(cx.install(file, flags.contains(OpenFlags::CLOEXEC))?));
        }
    }
    Ok(0)
}

/// The rest.
fn plain(cx: &mut Cx<'_>, tty: &Arc<Tty>, master: bool, command: u32, arg: u64) -> SysResult {
    let mm = cx.mm();
    match command {
        num::TIOCGWINSZ => mm.write_obj(arg, &tty.size())?,
        num::TIOCSWINSZ => tty.resize(mm.read_obj(arg)?),
        num::FIONREAD => {
            let count =
                tty.with_line(|line| if master { line.output_len() } else { line.pending() });
            mm.write_obj(arg, &count.low_i32())?;
        }
        num::TIOCOUTQ => mm.write_obj(arg, &tty.with_line(|line| line.output_len()).low_i32())?,
        num::TIOCEXCL => tty.set_exclusive(true),
        num::TIOCNXCL => tty.set_exclusive(false),
        num::TCFLSH => {
            if arg > 2 {
                return Err(Errno::EINVAL.into());
            }
            tty.with_line(|line| {
                if arg != 1 {
                    line.flush_input();
                }
                if arg != 0 {
                    line.flush_output();
                }
            });
        }
        num::TCXONC => match arg {
            0 | 1 => tty.with_line(|line| line.stopped = arg == 0),
            2 | 3 => {}
            _ => return Err(Errno::EINVAL.into()),
        },
        num::TCSBRK | num::TCSBRKP => {}
        num::TIOCSTI => return Err(Errno::EIO.into()),
        _ => return Err(Errno::ENOTTY.into()),
    }
    Ok(0)
}
