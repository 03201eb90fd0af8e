//! The system as a whole: uname(2), sysinfo(2), getrandom(2), and what a guest may not do to it.

use std::sync::PoisonError;

use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    kernel::Names,
    num::Word,
};

/// `__NEW_UTS_LEN`.
const NAME_MAX: usize = 64;
/// What uname(2) says the kernel's version is: the ABI this kernel answers to.
pub const RELEASE: &str = "6.1.0-trapgate";

/// And its build.
pub const VERSION: &str = concat!("#1 SMP trapgate ", env!("CARGO_PKG_VERSION"));

/// uname(2).
pub fn uname(cx: &mut Cx<'_>, addr: u64) -> SysResult {
    let names = cx.kernel().names.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let fields: [&[u8]; 6] =
        [b"Linux", &names.node, RELEASE.as_bytes(), VERSION.as_bytes(), b"x86_64", &names.domain];
    let mut out = [0; 6 * (NAME_MAX + 1)];
    for (slot, text) in out.chunks_exact_mut(NAME_MAX + 1).zip(fields) {
        let len = text.len().min(NAME_MAX);
        slot[..len].copy_from_slice(&text[..len]);
    }
    cx.mm().write_bytes(addr, &out)?;
    Ok(0)
}

fn set_name(cx: &Cx<'_>, addr: u64, len: i32, slot: fn(&mut Names) -> &mut Vec<u8>) -> SysResult {
    if !cx.task.creds().capable(cap::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    let len = usize::try_from(len).ok().filter(|l| *l <= NAME_MAX).ok_or(Errno::EINVAL)?;
    let mut name = vec![0; len];
    cx.mm().read_bytes(addr, &mut name)?;
    *slot(&mut cx.kernel().names.lock().unwrap_or_else(PoisonError::into_inner)) = name;
    Ok(0)
}
/// sethostname(2).
pub fn sethostname(cx: &mut Cx<'_>, addr: u64, len: i32) -> SysResult {
    set_name(cx, addr, len, |names| &mut names.node)
}
/// setdomainname(2).
pub fn setdomainname(cx: &mut Cx<'_>, addr: u64, len: i32) -> SysResult {
    set_name(cx, addr, len, |names| &mut names.domain)
}

/// sysinfo(2): load averages are 0.
pub fn sysinfo(cx: &mut Cx<'_>, addr: u64) -> SysResult {
    let kernel = cx.kernel();
    let page = 4096;
    let total = kernel.frames.total() as u64 * page;
    let free = kernel.frames.free() as u64 * page;
    let procs = u16::try_from(kernel.tasks.live()).unwrap_or(u16::MAX);
    // struct sysinfo: uptime, loads[3], totalram, freeram, sharedram, bufferram, totalswap,
    // freeswap, procs + padding, totalhigh, freehigh, mem_unit + padding.
    let words: [u64; 14] = [
        kernel.host.boottime().as_secs(),
        0,
        0,
        0,
        total,
        free,
        0,
        0,
        0,
        0,
        u64::from(procs),
        0,
        0,
        1,
    ];
    cx.mm().write_obj(addr, &words)?;
    Ok(0)
}

/// getrandom(2): the pool is always ready.
pub fn getrandom(cx: &mut Cx<'_>, addr: u64, len: usize, flags: u32) -> SysResult {
    const NONBLOCK: u32 = 1;
    const RANDOM: u32 = 2;
    const INSECURE: u32 = 4;
    let both = flags & (RANDOM | INSECURE) == RANDOM | INSECURE;
    if flags & !(NONBLOCK | RANDOM | INSECURE) != 0 || both {
        return Err(Errno::EINVAL.into());
    }
    let len = len.min(i32::MAX as usize);
    let mm = cx.mm();
    let mut buffer = [0; 4096];
    let mut done = 0usize;
    while done < len {
        let want = (len - done).min(buffer.len());
        cx.kernel().host.random(&mut buffer[..want]);
        let at = addr.checked_add(done as u64).ok_or(Errno::EFAULT)?;
        let put = mm.write_partial(at, &buffer[..want]);
        done += put;
        if put < want {
            if done == 0 {
                return Err(Errno::EFAULT.into());
            }
            break;
        }
        // A large request ends early when a signal is there, as Linux's does.
        if cx.task.has_work() {
            break;
        }
    }
    Ok(done as u64)
}

/// syslog(2): an empty log.
pub fn syslog(cx: &mut Cx<'_>, what: i32, _buffer: u64, len: i32) -> SysResult {
    const READ_ALL: i32 = 3;
    const SIZE_BUFFER: i32 = 10;
    if !cx.task.creds().capable(cap::SYS_ADMIN) && what != READ_ALL && what != SIZE_BUFFER {
        return Err(Errno::EPERM.into());
    }
    match what {
        0 | 1 | 5..=7 | 9 => Ok(0),
        2..=4 if len < 0 => Err(Errno::EINVAL.into()),
        2..=4 => Ok(0),
        8 if (1..=8).contains(&len) => Ok(0),
        SIZE_BUFFER => Ok(1 << 17),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// For calls that only a privileged host process may make: EPERM, as a container's get.
pub fn eperm(_cx: &mut Cx<'_>) -> SysResult {
    Err(Errno::EPERM.into())
}
/// For calls that are absent.
pub fn enosys(_cx: &mut Cx<'_>) -> SysResult {
    Err(Errno::ENOSYS.into())
}

/// unshare(2) of what threads share and of the mount tree; other namespaces are refused.
pub fn unshare(cx: &mut Cx<'_>, flags: u64) -> SysResult {
    use crate::task::clone::CloneFlags;
    let flags = CloneFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let own = CloneFlags::FS | CloneFlags::FILES | CloneFlags::SYSVSEM;
    let alone = CloneFlags::THREAD | CloneFlags::SIGHAND | CloneFlags::VM;
    let spaces = CloneFlags::NEWNS
        | CloneFlags::NEWCGROUP
        | CloneFlags::NEWUTS
        | CloneFlags::NEWIPC
        | CloneFlags::NEWUSER
        | CloneFlags::NEWPID
        | CloneFlags::NEWNET
        | CloneFlags::NEWTIME;
    if !(own | alone | spaces).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let trees = flags.contains(CloneFlags::NEWNS);
    let may = !trees || cx.task.creds().capable(cap::SYS_ADMIN);
    if flags.intersects(spaces - CloneFlags::NEWNS) || !may {
        return Err(Errno::EPERM.into());
    }
    if flags.intersects(alone) && cx.task.process.tasks().len() > 1 {
        return Err(Errno::EINVAL.into());
    }
    if flags.contains(CloneFlags::FILES) {
        drop(cx.task.set_files(cx.task.files().duplicate()));
    }
    if trees {
        drop(cx.task.set_fs(cx.task.fs().isolate(&cx.kernel().fs)));
    } else if flags.contains(CloneFlags::FS) {
        drop(cx.task.set_fs(cx.task.fs().duplicate()));
    }
    Ok(0)
}

/// kcmp(2): processes by what they share.
pub fn kcmp(cx: &mut Cx<'_>, one: i32, other: i32, what: i32, a: u64, b: u64) -> SysResult {
    use std::sync::Arc;
    let tasks = &cx.kernel().tasks;
    let one = tasks.task(one).ok_or(Errno::ESRCH)?;
    let other = tasks.task(other).ok_or(Errno::ESRCH)?;
    let order = |x: usize, y: usize| {
        Ok(match x.cmp(&y) {
            std::cmp::Ordering::Equal => 0,
            std::cmp::Ordering::Less => 1,
            std::cmp::Ordering::Greater => 2,
        })
    };
    match what {
        0 => {
            let x = one.files().get(a.low_i32())?.address();
            order(x, other.files().get(b.low_i32())?.address())
        }
        1 => {
            let id = |t: &crate::task::Task| t.try_mm().map_or(0, |m| m.id().size());
            order(id(&one), id(&other))
        }
        2 => order(Arc::as_ptr(&one.files()).addr(), Arc::as_ptr(&other.files()).addr()),
        3 => order(Arc::as_ptr(&one.fs()).addr(), Arc::as_ptr(&other.fs()).addr()),
        4 => {
            let id = |t: &crate::task::Task| Arc::as_ptr(&t.process.signals.actions()).addr();
            order(id(&one), id(&other))
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
