//! mq_open(2), mq_timedsend(2), mq_timedreceive(2), mq_notify(2), mq_getsetattr(2), mq_unlink(2).

use std::{sync::Arc, time::Duration};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{socket::file_of, time::read_timespec};
use crate::{
    call::Cx,
    error::{Errno, SysResult, Wait},
    fs::{
        dentry::NAME_MAX,
        file::{OpenFile, OpenFlags},
    },
    ipc::mqueue::{
        MAX_PRIORITY, Message, MqFile, MsgQueue, Notify, Receiving, Request, Sender, Size,
    },
    num::{Word, ret_i32},
    task::process::rlimit,
};

/// `struct mq_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct MqAttr {
    flags: i64,
    maxmsg: i64,
    msgsize: i64,
    curmsgs: i64,
    reserved: [i64; 4],
}

/// A queue's name, which the library has freed of its slash.
fn name(cx: &Cx<'_>, addr: u64) -> Result<Vec<u8>, Errno> {
    let name = cx.mm().read_cstr(addr, 4096, Errno::ENAMETOOLONG)?;
    match name.as_slice() {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EACCES),
        name if name.contains(&b'/') => Err(Errno::EACCES),
        name if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
        _ => Ok(name),
    }
}

/// mq_open(2).
pub fn mq_open(cx: &mut Cx<'_>, addr: u64, flags: u32, mode: u32, attr: u64) -> SysResult {
    let attr = if attr == 0 { None } else { Some(cx.mm().read_obj::<MqAttr>(attr)?) };
    let name = name(cx, addr)?;
    let flags = OpenFlags::from_bits_truncate(flags);
    let create = flags.contains(OpenFlags::CREAT);
    // What is negative fits no queue.
    let word = |n: i64| usize::try_from(n).unwrap_or(0);
    let size = attr.map(|attr| Size { messages: word(attr.maxmsg), bytes: word(attr.msgsize) });
    let want = match flags.bits() & 3 {
        0 => Some(4),
        1 => Some(2),
        2 => Some(6),
        _ => None,
    };
    let kernel = cx.kernel();
    let ask = Request {
        create,
        exclusive: flags.contains(OpenFlags::EXCL),
        want,
        mode: mode & !cx.task.fs().umask(),
        size,
        limit: cx.task.process.limit(rlimit::MSGQUEUE),
        id: kernel.fresh_id(),
        now: kernel.host.realtime(),
    };
    let queue = kernel.ipc.mqueues.open(&name, &ask, &cx.task.creds())?;
    let kept = flags & (OpenFlags::WRONLY | OpenFlags::RDWR | OpenFlags::NONBLOCK);
    let file = OpenFile::new(Arc::new(MqFile { queue, name }), kept);
    Ok(ret_i32(cx.install(file, true)?))
}

/// mq_unlink(2).
pub fn mq_unlink(cx: &mut Cx<'_>, addr: u64) -> SysResult {
    let name = name(cx, addr)?;
    cx.kernel().ipc.mqueues.unlink(&name, &cx.task.creds())?;
    Ok(0)
}

fn queue_of(file: &OpenFile) -> Result<Arc<MsgQueue>, Errno> {
    Ok(file.downcast::<MqFile>().ok_or(Errno::EBADF)?.queue.clone())
}

/// The deadline that an instant of CLOCK_REALTIME means.
fn deadline(cx: &mut Cx<'_>, timeout: u64) -> Result<Option<Duration>, Errno> {
    if timeout == 0 {
        return Ok(None);
    }
    let time = read_timespec(&cx.mm(), timeout)?;
    let left = time.saturating_sub(cx.kernel().host.realtime());
    let at = cx.now().saturating_add(left);
    Ok(Some(*cx.call.deadline.get_or_insert(at)))
}

/// Waits for the queue to change, unless the descriptor or the clock forbids.
fn wait(cx: &mut Cx<'_>, file: &OpenFile, queue: &MsgQueue, until: Option<Duration>) -> SysResult {
    if file.nonblock() {
        return Err(Errno::EAGAIN.into());
    }
    if until.is_some_and(|d| cx.now() >= d) {
        return Err(Errno::ETIMEDOUT.into());
    }
    Err(Wait::on(queue.queue.clone()).until(until).into())
}

/// mq_timedsend(2).
pub fn mq_timedsend(
    cx: &mut Cx<'_>,
    fd: i32,
    addr: u64,
    size: usize,
    priority: u32,
    timeout: u64,
) -> SysResult {
    let until = deadline(cx, timeout)?;
    if priority >= MAX_PRIORITY {
        return Err(Errno::EINVAL.into());
    }
    let file = cx.files().get(fd)?;
    let queue = queue_of(&file)?;
    if !file.writable() {
        return Err(Errno::EBADF.into());
    }
    if size > queue.size().bytes {
        return Err(Errno::EMSGSIZE.into());
    }
    let mut text = vec![0; size];
    cx.mm().read_bytes(addr, &mut text)?;
    let charge = cx.kernel().ipc.budget.take(size)?;
    let by = Sender { pid: cx.task.process.pid, uid: cx.task.creds().uid };
    match queue.send(Message { text, charge }, priority, by) {
        Ok(()) => Ok(0),
        Err(_) => wait(cx, &file, &queue, until),
    }
}

/// mq_timedreceive(2).
pub fn mq_timedreceive(
    cx: &mut Cx<'_>,
    fd: i32,
    addr: u64,
    size: usize,
    priority: u64,
    timeout: u64,
) -> SysResult {
    let until = deadline(cx, timeout)?;
    let file = cx.files().get(fd)?;
    let queue = queue_of(&file)?;
    if !file.readable() {
        return Err(Errno::EBADF.into());
    }
    if size < queue.size().bytes {
        return Err(Errno::EMSGSIZE.into());
    }
    match queue.receive() {
        Ok((rank, message)) => {
            if priority != 0 {
                cx.mm().write_obj(priority, &rank)?;
            }
            cx.mm().write_bytes(addr, &message.text)?;
            Ok(message.text.len() as u64)
        }
        Err(_) => {
            if cx.call.slot.is_none() {
                cx.call.slot = Some(Box::new(Receiving::new(&queue)));
            }
            wait(cx, &file, &queue, until)
        }
    }
}

/// mq_notify(2). Deviation: no SIGEV_THREAD, which needs a netlink socket.
pub fn mq_notify(cx: &mut Cx<'_>, fd: i32, event: u64) -> SysResult {
    const SIGNAL: i32 = 0;
    const NONE: i32 = 1;
    const THREAD: i32 = 2;
    let wanted = match event {
        0 => None,
        addr => {
            // A whole `struct sigevent`: value, signal and kind, then what is not used here.
            let [value, kind, ..]: [u64; 8] = cx.mm().read_obj(addr)?;
            let (signal, notify) = (kind.low_i32(), (kind >> 32).low_i32());
            let signal = match notify {
                NONE => None,
                // The null signal is one nobody hears of.
                SIGNAL => match u8::try_from(signal).map_err(|_| Errno::EINVAL)? {
                    0 => None,
                    number @ 1..=64 => Some(number),
                    _ => return Err(Errno::EINVAL.into()),
                },
                THREAD => {
                    // The cookie, and the netlink socket to which it would be sent.
                    cx.mm().read_obj::<[u64; 4]>(value)?;
                    file_of(cx, signal)?;
                    return Err(Errno::EINVAL.into());
                }
                _ => return Err(Errno::EINVAL.into()),
            };
            Some(Notify { process: Arc::downgrade(&cx.task.process), signal, value })
        }
    };
    let file = cx.files().get(fd)?;
    queue_of(&file)?.notify(&cx.task.process, wanted)?;
    Ok(0)
}

/// mq_getsetattr(2): only O_NONBLOCK can be set.
pub fn mq_getsetattr(cx: &mut Cx<'_>, fd: i32, new: u64, old: u64) -> SysResult {
    let nonblock = i64::from(OpenFlags::NONBLOCK.bits());
    let mm = cx.mm();
    let wanted = if new == 0 { None } else { Some(mm.read_obj::<MqAttr>(new)?.flags) };
    if wanted.is_some_and(|flags| flags & !nonblock != 0) {
        return Err(Errno::EINVAL.into());
    }
    let file = cx.files().get(fd)?;
    let queue = queue_of(&file)?;
    let word = |n: usize| (n as u64).cast_signed();
    let before = MqAttr {
        flags: i64::from(file.flags().bits()) & nonblock,
        maxmsg: word(queue.size().messages),
        msgsize: word(queue.size().bytes),
        curmsgs: word(queue.count()),
        ..MqAttr::default()
    };
    if let Some(flags) = wanted {
        let mut own = file.flags();
        own.set(OpenFlags::NONBLOCK, flags & nonblock != 0);
        file.set_flags(own);
    }
    if old != 0 {
        mm.write_obj(old, &before)?;
    }
    Ok(0)
}
