//! clone(2), fork(2), vfork(2): flags checked, ids stored, a vfork parent waiting.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    call::Cx,
    creds::{Creds, cap},
    error::{Errno, Restart, Stop, SysResult, Wait},
    num::{Word, ret_i32},
    signal::number::SIGCHLD,
    task::{
        Tid, VforkDone,
        clone::{self, CloneFlags, CloneSpec},
        pidfd::PidFd,
    },
};

/// The exit signal's bits in clone(2)'s flags.
const CSIGNAL: u64 = 0xff;

/// `struct clone_args` (clone(2)).
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A vfork parent waiting for its child.
struct Vforking {
    done: Arc<VforkDone>,
    child: Tid,
}

/// fork(2).
pub fn fork(cx: &mut Cx<'_>) -> SysResult {
    run(cx, &CloneArgs { exit_signal: u64::from(SIGCHLD), ..CloneArgs::default() })
}

/// vfork(2).
pub fn vfork(cx: &mut Cx<'_>) -> SysResult {
    let flags = (CloneFlags::VFORK | CloneFlags::VM).bits();
    run(cx, &CloneArgs { flags, exit_signal: u64::from(SIGCHLD), ..CloneArgs::default() })
}

/// clone(2), the raw call: CLONE_PIDFD stores through the parent_tid argument.
pub fn clone(
    cx: &mut Cx<'_>,
    flags: u64,
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    tls: u64,
) -> SysResult {
    // The register's high half is not looked at, and unknown low bits are ignored, as in Linux.
    let flags = u64::from(flags.low_u32());
    let (exit_signal, flags) = (flags & CSIGNAL, flags & !CSIGNAL);
    let both = CloneFlags::PIDFD.bits() | CloneFlags::PARENT_SETTID.bits();
    if flags & both == both {
        return Err(Errno::EINVAL.into());
    }
    let args = CloneArgs {
        flags,
        pidfd: parent_tid,
        child_tid,
        parent_tid,
        exit_signal,
        stack,
        tls,
        ..CloneArgs::default()
    };
    run(cx, &args)
}

/// clone3(2). Namespaces, cgroups and chosen ids are refused.
pub fn clone3(cx: &mut Cx<'_>, addr: u64, size: usize) -> SysResult {
    const FIRST_VERSION: usize = 64;
    if size > 4096 {
        return Err(Errno::E2BIG.into());
    }
    if size < FIRST_VERSION {
        return Err(Errno::EINVAL.into());
    }
    let known = size.min(size_of::<CloneArgs>());
    let mm = cx.mm();
    let mut args = CloneArgs::default();
    mm.read_bytes(addr, &mut args.as_mut_bytes()[..known])?;
    if size > known {
        let mut rest = vec![0; size - known];
        mm.read_bytes(addr + known as u64, &mut rest)?;
        if rest.iter().any(|b| *b != 0) {
            return Err(Errno::E2BIG.into());
        }
    }
    let flags = args.flags;
    let bad = CloneFlags::from_bits(flags).is_none()
        || flags & CloneFlags::DETACHED.bits() != 0
        || flags & CSIGNAL & !CloneFlags::NEWTIME.bits() != 0
        || args.exit_signal > 64
        || (args.stack == 0) != (args.stack_size == 0)
        || (args.exit_signal != 0 && flags & (CloneFlags::THREAD | CloneFlags::PARENT).bits() != 0)
        || args.set_tid_size > 32
        || (args.set_tid == 0) != (args.set_tid_size == 0);
    if bad || flags & CloneFlags::INTO_CGROUP.bits() != 0 {
        return Err(Errno::EINVAL.into());
    }
    if args.set_tid_size != 0 {
        return Err(Errno::EPERM.into());
    }
    if args.stack != 0 {
        args.stack = args.stack.checked_add(args.stack_size).ok_or(Errno::EINVAL)?;
    }
    run(cx, &args)
}

fn run(cx: &mut Cx<'_>, args: &CloneArgs) -> SysResult {
    if let Some(vforking) = cx.call.slot.as_ref().and_then(|s| s.downcast_ref::<Vforking>()) {
        let (done, child) = (vforking.done.clone(), vforking.child);
        return finish(&done, child);
    }
    let flags = CloneFlags::from_bits_truncate(args.flags);
    check(flags, &cx.task.creds())?;
    let spec = CloneSpec {
        flags,
        exit_signal: if flags.contains(CloneFlags::THREAD) {
            0
        } else {
            u8::try_from(args.exit_signal).ok().filter(|s| *s <= 64).ok_or(Errno::EINVAL)?
        },
        stack: (args.stack != 0).then_some(args.stack),
        tls: args.tls,
        parent_tid: args.parent_tid,
        child_tid: args.child_tid,
    };
    if flags.contains(CloneFlags::SETTLS) && args.tls >= crate::platform::USER_END {
        return Err(Errno::EPERM.into());
    }
    let born = clone::make(cx.task, cx.regs, cx.cpu, &spec)?;
    let tid = born.task.tid;
    if flags.contains(CloneFlags::PIDFD) {
        let stored = give_pidfd(cx, &born, args.pidfd);
        if let Err(errno) = stored {
            born.abandon();
            return Err(errno.into());
        }
    }
    if flags.contains(CloneFlags::PARENT_SETTID) {
        // Linux does not look whether this worked.
        let _ = cx.mm().write_obj(args.parent_tid, &tid);
    }
    let vfork = born.vfork.clone();
    born.launch()?;
    match vfork {
        None => Ok(ret_i32(tid)),
        Some(done) => {
            cx.call.slot = Some(Box::new(Vforking { done: done.clone(), child: tid }));
            finish(&done, tid)
        }
    }
}

fn finish(done: &Arc<VforkDone>, child: Tid) -> SysResult {
    if done.is_done() {
        return Ok(ret_i32(child));
    }
    Err(Stop::Wait(Wait::on(done.queue.clone()).restart(Restart::Killable)))
}

fn give_pidfd(cx: &Cx<'_>, born: &clone::Born, addr: u64) -> Result<(), Errno> {
    let fd = cx.install(PidFd::open(&born.task.process, false), true)?;
    let stored = cx.mm().write_obj(addr, &fd);
    if stored.is_err() {
        drop(cx.files().close(fd));
    }
    stored
}

/// The combinations copy_process() refuses.
fn check(flags: CloneFlags, creds: &Creds) -> Result<(), Errno> {
    let spaces = CloneFlags::NEWNS
        | CloneFlags::NEWCGROUP
        | CloneFlags::NEWUTS
        | CloneFlags::NEWIPC
        | CloneFlags::NEWUSER
        | CloneFlags::NEWPID
        | CloneFlags::NEWNET
        | CloneFlags::NEWTIME;
    if flags.contains(CloneFlags::FS) && flags.intersects(CloneFlags::NEWNS | CloneFlags::NEWUSER) {
        return Err(Errno::EINVAL);
    }
    let needs = |one, other| flags.contains(one) && !flags.contains(other);
    if needs(CloneFlags::THREAD, CloneFlags::SIGHAND) || needs(CloneFlags::SIGHAND, CloneFlags::VM)
    {
        return Err(Errno::EINVAL);
    }
    let clear = CloneFlags::SIGHAND | CloneFlags::CLEAR_SIGHAND;
    if flags.contains(clear) {
        return Err(Errno::EINVAL);
    }
    if flags.contains(CloneFlags::PIDFD)
        && flags.intersects(CloneFlags::DETACHED | CloneFlags::THREAD)
    {
        return Err(Errno::EINVAL);
    }
    // Of namespaces there are mount trees.
    if flags.intersects(spaces - CloneFlags::NEWNS) {
        return Err(Errno::EPERM);
    }
    if flags.contains(CloneFlags::NEWNS) && !creds.capable(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    Ok(())
}
