//! execve(2), execveat(2).

use std::sync::Arc;

use crate::{
    call::Cx,
    error::{Errno, Restart, Stop, SysResult, Wait},
    fs::{file::OpenFile, inode::Actor, mount::MountFlags, vfs},
    linux::exec_image::{self, Request},
    mm::Mm,
    signal::number::SIGKILL,
    task::{
        exec::{self, Became, Loaded},
        process::rlimit,
        status::ExitStatus,
    },
};

/// Longest single argument, its NUL included (MAX_ARG_STRLEN).
const MAX_STRING: usize = 128 << 10;
/// Most bytes of all arguments and environment strings together.
const MAX_TOTAL: usize = 6 << 20;
/// PATH_MAX.
const PATH_MAX: usize = 4096;
const AT_FDCWD: i32 = -100;
const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
const AT_EMPTY_PATH: u32 = 0x1000;
/// personality(2)'s ADDR_NO_RANDOMIZE.
const NO_RANDOMIZE: u32 = 0x0004_0000;

/// execve(2).
pub fn execve(cx: &mut Cx<'_>, path: u64, argv: u64, envp: u64) -> SysResult {
    execveat(cx, AT_FDCWD, path, argv, envp, 0)
}

/// execveat(2).
pub fn execveat(
    cx: &mut Cx<'_>,
    dirfd: i32,
    path: u64,
    argv: u64,
    envp: u64,
    flags: u32,
) -> SysResult {
    if !cx.call.slot.as_ref().is_some_and(|s| s.is::<Loaded>()) {
        let loaded = load(cx, dirfd, path, argv, envp, flags)?;
        cx.call.slot = Some(Box::new(loaded));
    }
    if !exec::alone(cx.task) {
        let gone = cx.task.process.thread_events.clone();
        return Err(Stop::Wait(Wait::on(gone).restart(Restart::Killable)));
    }
    let slot = cx.call.slot.take().and_then(|s| s.downcast::<Loaded>().ok());
    let loaded = slot.ok_or(Errno::EIO)?;
    match exec::commit(cx.task, cx.regs, cx.cpu, *loaded) {
        Ok(Became::Replaced) => Err(Stop::Replaced),
        Ok(Became::Moved) => Err(Stop::Exit),
        Err(error) => {
            cx.kernel().note_failure(&format!("execve: {error}"));
            let status = ExitStatus::Signaled { signal: SIGKILL, core: false };
            cx.task.process.begin_exit(status);
            Err(Stop::Exit)
        }
    }
}

fn load(
    cx: &Cx<'_>,
    dirfd: i32,
    path: u64,
    argv: u64,
    envp: u64,
    flags: u32,
) -> Result<Loaded, Errno> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let mm = cx.mm();
    let path = mm.read_cstr(path, PATH_MAX, Errno::ENAMETOOLONG)?;
    let who = Actor::of(cx.task);
    let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
    if path.is_empty() && flags & AT_EMPTY_PATH == 0 {
        return Err(Errno::ENOENT);
    }
    let (file, name) = if path.starts_with(b"/") || dirfd == AT_FDCWD {
        if path.is_empty() {
            // The current directory, which is no program.
            return Err(Errno::EACCES);
        }
        (vfs::open_exec(&who, &cx.task.fs().cwd(), &path, follow)?, path)
    } else {
        let base = cx.files().get(dirfd)?;
        let base = base.path.clone().ok_or(Errno::EACCES)?;
        let mut name = format!("/dev/fd/{dirfd}").into_bytes();
        if path.is_empty() {
            (vfs::open_exec_at(&who, &base)?, name)
        } else {
            let file = vfs::open_exec(&who, &base, &path, follow)?;
            name.push(b'/');
            name.extend(&path);
            (file, name)
        }
    };
    let mut budget = MAX_TOTAL;
    let argv = read_strings(&mm, argv, &mut budget)?;
    let envp = read_strings(&mm, envp, &mut budget)?;
    let process = &cx.task.process;
    let personality = process.personality.load(std::sync::atomic::Ordering::Relaxed);
    let program = Program {
        file,
        name: &name,
        argv,
        envp,
        stack_limit: process.limit(rlimit::STACK),
        randomize: personality & NO_RANDOMIZE == 0,
    };
    load_program(&who, program)
}

/// A program found and about to be loaded.
pub struct Program<'a> {
    /// Its file.
    pub file: Arc<OpenFile>,
    /// Its path as given.
    pub name: &'a [u8],
    /// Arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
    /// RLIMIT_STACK.
    pub stack_limit: u64,
    /// Addresses are random.
    pub randomize: bool,
}

/// Loads a program for `who`.
///
/// # Errors
/// As execve(2).
pub fn load_program(who: &Actor, program: Program<'_>) -> Result<Loaded, Errno> {
    let open = |path: &[u8]| vfs::open_exec(who, &who.fs.cwd(), path, true);
    let attr = program.file.attr()?;
    let honour =
        program.file.path.as_ref().is_some_and(|p| !p.mount.flags().contains(MountFlags::NOSUID));
    // A script's own set-id bits mean nothing.
    let script = is_script(&program.file);
    let creds = exec::creds_after(&who.creds, &attr, honour && !script);
    let image = exec_image::load(Request {
        kernel: &who.kernel,
        file: program.file,
        path: program.name,
        argv: program.argv,
        envp: program.envp,
        creds: &creds,
        stack_limit: program.stack_limit,
        randomize: program.randomize,
        open: &open,
    })?;
    Ok(Loaded { image, creds })
}

fn is_script(file: &OpenFile) -> bool {
    let mut head = [0; 2];
    let mut sink = crate::fs::buf::Sink::kernel(&mut head);
    let read = file.ops.read_at(file, &mut sink, 0);
    read == Ok(2) && head == *b"#!"
}

/// A NULL-terminated array of strings; a null array is empty, as on Linux.
fn read_strings(mm: &Mm, array: u64, budget: &mut usize) -> Result<Vec<Vec<u8>>, Errno> {
    let mut out = Vec::new();
    if array == 0 {
        return Ok(out);
    }
    for index in 0u64.. {
        let at = index.checked_mul(8).and_then(|o| array.checked_add(o)).ok_or(Errno::EFAULT)?;
        let pointer: u64 = mm.read_obj(at)?;
        if pointer == 0 {
            break;
        }
        let text = mm.read_cstr(pointer, MAX_STRING, Errno::E2BIG)?;
        *budget = budget.checked_sub(text.len() + 9).ok_or(Errno::E2BIG)?;
        out.push(text);
    }
    Ok(out)
}
