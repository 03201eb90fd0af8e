//! prctl(2), arch_prctl(2), personality(2).

use std::sync::atomic::Ordering::Relaxed;

use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    num::Word,
    platform::USER_END,
};

mod op {
    pub const SET_PDEATHSIG: i32 = 1;
    pub const GET_PDEATHSIG: i32 = 2;
    pub const GET_DUMPABLE: i32 = 3;
    pub const SET_DUMPABLE: i32 = 4;
    pub const GET_KEEPCAPS: i32 = 7;
    pub const SET_KEEPCAPS: i32 = 8;
    pub const GET_TIMING: i32 = 13;
    pub const SET_NAME: i32 = 15;
    pub const GET_NAME: i32 = 16;
    pub const GET_SECCOMP: i32 = 21;
    pub const CAPBSET_READ: i32 = 23;
    pub const CAPBSET_DROP: i32 = 24;
    pub const GET_TSC: i32 = 25;
    pub const GET_SECUREBITS: i32 = 27;
    pub const SET_SECUREBITS: i32 = 28;
    pub const SET_TIMERSLACK: i32 = 29;
    pub const GET_TIMERSLACK: i32 = 30;
    pub const SET_CHILD_SUBREAPER: i32 = 36;
    pub const GET_CHILD_SUBREAPER: i32 = 37;
    pub const SET_NO_NEW_PRIVS: i32 = 38;
    pub const GET_NO_NEW_PRIVS: i32 = 39;
    pub const GET_TID_ADDRESS: i32 = 40;
    pub const SET_THP_DISABLE: i32 = 41;
    pub const GET_THP_DISABLE: i32 = 42;
    pub const CAP_AMBIENT: i32 = 47;
}

/// What a new task's timer slack is, and what 0 resets it to, in nanoseconds.
const DEFAULT_SLACK: u64 = 50_000;

/// prctl(2). PR_SET_SECCOMP, PR_SET_VMA, PR_SET_MM, PR_SET_PTRACER and speculation control: EINVAL.
pub fn prctl(cx: &mut Cx<'_>, what: i32, a: u64, b: u64, c: u64, d: u64) -> SysResult {
    let task = cx.task;
    let process = &task.process;
    let creds = task.creds();
    let flag = |on: bool| Ok(u64::from(on));
    match what {
        op::SET_PDEATHSIG => {
            let signal = u8::try_from(a).ok().filter(|s| *s <= 64).ok_or(Errno::EINVAL)?;
            task.pdeath_signal.store(signal, Relaxed);
        }
        op::GET_PDEATHSIG => {
            cx.mm().write_obj(a, &i32::from(task.pdeath_signal.load(Relaxed)))?;
        }
        op::GET_DUMPABLE => return Ok(u64::from(process.dumpable.load(Relaxed))),
        op::SET_DUMPABLE if a <= 1 => process.dumpable.store(a.low_u32(), Relaxed),
        op::GET_KEEPCAPS => return flag(creds.keep_caps),
        op::SET_KEEPCAPS if a <= 1 => {
            let mut new = (*creds).clone();
            new.keep_caps = a == 1;
            task.set_creds(new);
        }
        op::GET_TIMING => {}
        op::SET_NAME => {
            let mut name = [0; 16];
            let got = cx.mm().read_partial(a, &mut name[..15]);
            if got < 15 && !name[..got].contains(&0) {
                return Err(Errno::EFAULT.into());
            }
            task.set_name(&name);
        }
        op::GET_NAME => cx.mm().write_bytes(a, &task.comm())?,
        op::GET_SECCOMP => {}
        op::CAPBSET_READ if a < u64::from(cap::COUNT) => {
            return flag(creds.bounding & (1 << a) != 0);
        }
        op::CAPBSET_DROP => {
            if !creds.capable(cap::SETPCAP) {
                return Err(Errno::EPERM.into());
            }
            if a >= u64::from(cap::COUNT) {
                return Err(Errno::EINVAL.into());
            }
            let mut new = (*creds).clone();
            new.bounding &= !(1 << a);
            task.set_creds(new);
        }
        // PR_TSC_ENABLE.
        op::GET_TSC => cx.mm().write_obj(a, &1i32)?,
        op::GET_SECUREBITS => return Ok(u64::from(creds.securebits)),
        op::SET_SECUREBITS => {
            /// All of the bits and their locks.
            const KNOWN: u64 = 0xff;
            if !creds.capable(cap::SETPCAP) || a & !KNOWN != 0 {
                return Err(Errno::EPERM.into());
            }
            let mut new = (*creds).clone();
            new.securebits = a.low_u32();
            task.set_creds(new);
        }
        op::SET_TIMERSLACK => {
            let slack = if a.cast_signed() <= 0 { DEFAULT_SLACK } else { a };
            task.timer_slack.store(slack, Relaxed);
        }
        op::GET_TIMERSLACK => return Ok(task.timer_slack.load(Relaxed)),
        op::SET_CHILD_SUBREAPER => process.subreaper.store(a != 0, Relaxed),
        op::GET_CHILD_SUBREAPER => {
            cx.mm().write_obj(a, &i32::from(process.subreaper.load(Relaxed)))?;
        }
        op::SET_NO_NEW_PRIVS if a == 1 && [b, c, d] == [0; 3] => {
            let mut new = (*creds).clone();
            new.no_new_privs = true;
            task.set_creds(new);
        }
        op::GET_NO_NEW_PRIVS if [a, b, c, d] == [0; 4] => return flag(creds.no_new_privs),
        op::GET_TID_ADDRESS => {
            cx.mm().write_obj(a, &task.clear_child_tid.load(Relaxed))?;
        }
        // Huge pages are the host's business; the wish is granted by doing nothing.
        op::SET_THP_DISABLE if [b, c, d] == [0; 3] => {}
        op::GET_THP_DISABLE if [a, b, c, d] == [0; 4] => {}
        op::CAP_AMBIENT => return ambient(cx, a, b, c, d),
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// PR_CAP_AMBIENT.
fn ambient(cx: &Cx<'_>, what: u64, capability: u64, c: u64, d: u64) -> SysResult {
    const IS_SET: u64 = 1;
    const RAISE: u64 = 2;
    const LOWER: u64 = 3;
    const CLEAR_ALL: u64 = 4;
    let mut new = (*cx.task.creds()).clone();
    if c != 0 || d != 0 || (what == CLEAR_ALL && capability != 0) {
        return Err(Errno::EINVAL.into());
    }
    if what == CLEAR_ALL {
        new.ambient = 0;
        cx.task.set_creds(new);
        return Ok(0);
    }
    if capability >= u64::from(cap::COUNT) {
        return Err(Errno::EINVAL.into());
    }
    let bit = 1u64 << capability;
    match what {
        IS_SET => return Ok(u64::from(new.ambient & bit != 0)),
        RAISE if new.permitted & new.inheritable & bit == 0 => return Err(Errno::EPERM.into()),
        RAISE => new.ambient |= bit,
        LOWER => new.ambient &= !bit,
        _ => return Err(Errno::EINVAL.into()),
    }
    cx.task.set_creds(new);
    Ok(0)
}

/// arch_prctl(2). CPUID faulting is not offered: ENODEV.
pub fn arch_prctl(cx: &mut Cx<'_>, what: u32, addr: u64) -> SysResult {
    const SET_GS: u32 = 0x1001;
    const SET_FS: u32 = 0x1002;
    const GET_FS: u32 = 0x1003;
    const GET_GS: u32 = 0x1004;
    const GET_CPUID: u32 = 0x1011;
    const SET_CPUID: u32 = 0x1012;
    match what {
        SET_GS | SET_FS if addr >= USER_END => return Err(Errno::EPERM.into()),
        SET_GS => cx.regs.gs_base = addr,
        SET_FS => cx.regs.fs_base = addr,
        GET_FS => cx.mm().write_obj(addr, &cx.regs.fs_base)?,
        GET_GS => cx.mm().write_obj(addr, &cx.regs.gs_base)?,
        GET_CPUID => return Ok(1),
        SET_CPUID => return Err(Errno::ENODEV.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// personality(2): only ADDR_NO_RANDOMIZE has an effect.
pub fn personality(cx: &mut Cx<'_>, persona: u32) -> SysResult {
    let slot = &cx.task.process.personality;
    let old = slot.load(Relaxed);
    if persona != u32::MAX {
        slot.store(persona, Relaxed);
    }
    Ok(u64::from(old))
}
