//! wait4(2), waitid(2).

use bitflags::bitflags;

use crate::{
    call::Cx,
    error::{Errno, Stop, SysResult, Wait},
    linux::{siginfo::RawSigInfo, sys::resource::RawUsage},
    num::ret_i32,
    signal::{SigFields, SigInfo, number::SIGCHLD},
    task::{
        pidfd::PidFd,
        wait::{self, News, What, Who},
    },
};

bitflags! {
    /// Options of wait(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Options: u32 {
        const NOHANG = 1;
        const UNTRACED = 2;
        const EXITED = 4;
        const CONTINUED = 8;
        const NOWAIT = 0x0100_0000;
        const NOTHREAD = 0x2000_0000;
        const ALL = 0x4000_0000;
        const CLONE = 0x8000_0000;
    }
}

impl Options {
    fn what(self, exited: bool) -> What {
        What {
            exited,
            stopped: self.contains(Options::UNTRACED),
            continued: self.contains(Options::CONTINUED),
            keep: self.contains(Options::NOWAIT),
            clones: (!self.contains(Options::ALL)).then(|| self.contains(Options::CLONE)),
        }
    }
}

fn group(pgid: i32, cx: &Cx<'_>) -> i32 {
    if pgid == 0 { cx.task.process.pgid() } else { pgid }
}

/// Looks, and waits unless told not to; `None` is WNOHANG's "not yet".
fn look(cx: &mut Cx<'_>, who: Who, what: What, nohang: bool) -> Result<Option<News>, Stop> {
    match wait::look(cx.task, who, what)? {
        None if !nohang => Err(Stop::Wait(Wait::on(cx.task.process.child_events.clone()))),
        found => Ok(found),
    }
}

/// wait4(2). __WNOTHREAD is accepted; children are the whole process's.
pub fn wait4(cx: &mut Cx<'_>, pid: i32, status: u64, options: u32, usage: u64) -> SysResult {
    let allowed = Options::all() - Options::EXITED - Options::NOWAIT;
    let options = Options::from_bits(options).filter(|o| allowed.contains(*o));
    let options = options.ok_or(Errno::EINVAL)?;
    let who = match pid {
        i32::MIN => return Err(Errno::ESRCH.into()),
        -1 => Who::Any,
        0 => Who::Group(group(0, cx)),
        pid if pid < 0 => Who::Group(-pid),
        pid => Who::Pid(pid),
    };
    let Some(news) = look(cx, who, options.what(true), options.contains(Options::NOHANG))? else {
        return Ok(0);
    };
    let mm = cx.mm();
    if status != 0 {
        mm.write_obj(status, &news.word)?;
    }
    if usage != 0 {
        mm.write_obj(usage, &RawUsage::from(&news.usage))?;
    }
    Ok(ret_i32(news.pid))
}

/// waitid(2). As on Linux, a failed call clears the fields it would have stored, so that a bad
/// pointer is told before there being no child.
pub fn waitid(
    cx: &mut Cx<'_>,
    idtype: u32,
    id: i32,
    info: u64,
    options: u32,
    usage: u64,
) -> SysResult {
    let result = wait_for(cx, idtype, id, info, options, usage);
    if info != 0 && matches!(result, Err(Stop::Errno(_))) {
        let none = SigInfo { signal: 0, code: 0, errno: 0, fields: SigFields::None };
        store(cx, info, &none)?;
    }
    result
}

/// The kernel stores these fields one by one and leaves the rest of the union alone.
fn store(cx: &Cx<'_>, info: u64, told: &SigInfo) -> Result<(), Errno> {
    let raw = RawSigInfo::encode(told);
    cx.mm().write_bytes(info, &zerocopy::IntoBytes::as_bytes(&raw)[..28])
}

fn wait_for(
    cx: &mut Cx<'_>,
    idtype: u32,
    id: i32,
    info: u64,
    options: u32,
    usage: u64,
) -> SysResult {
    const P_ALL: u32 = 0;
    const P_PID: u32 = 1;
    const P_PGID: u32 = 2;
    const P_PIDFD: u32 = 3;
    let options = Options::from_bits(options).ok_or(Errno::EINVAL)?;
    if !options.intersects(Options::EXITED | Options::UNTRACED | Options::CONTINUED) {
        return Err(Errno::EINVAL.into());
    }
    let mut nonblock = false;
    let who = match idtype {
        P_ALL => Who::Any,
        P_PID if id > 0 => Who::Pid(id),
        P_PGID if id >= 0 => Who::Group(group(id, cx)),
        P_PIDFD if id >= 0 => {
            let file = cx.files().get(id)?;
            nonblock = file.nonblock();
            Who::Pid(file.downcast::<PidFd>().ok_or(Errno::EBADF)?.process.pid)
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    let nohang = options.contains(Options::NOHANG);
    let what = options.what(options.contains(Options::EXITED));
    let found = look(cx, who, what, nohang || nonblock)?;
    if found.is_none() && nonblock && !nohang {
        return Err(Errno::EAGAIN.into());
    }
    let mm = cx.mm();
    if usage != 0
        && let Some(news) = &found
    {
        mm.write_obj(usage, &RawUsage::from(&news.usage))?;
    }
    if info != 0 {
        let told = match &found {
            None => SigInfo { signal: 0, code: 0, errno: 0, fields: SigFields::None },
            Some(news) => SigInfo {
                signal: SIGCHLD,
                code: news.code.0,
                errno: 0,
                fields: SigFields::Child {
                    pid: news.pid,
                    uid: news.uid,
                    status: news.code.1,
                    utime: 0,
                    stime: 0,
                },
            },
        };
        store(cx, info, &told)?;
    }
    Ok(0)
}
