//! What a parent learns of its children (wait(2)).

use std::sync::Arc;

use super::{
    Task, Tid,
    exit::child_code,
    process::Process,
    status::{ExitStatus, Usage},
    table::TaskTable,
};
use crate::{
    error::Errno,
    signal::{
        StateChange,
        number::{SIGCHLD, SIGCONT},
        send::child,
    },
};

/// Which children.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Any.
    Any,
    /// This process.
    Pid(Tid),
    /// Members of this process group.
    Group(Tid),
}

/// What of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are wait(2)'s options, all independent")]
pub struct What {
    /// Ended (WEXITED).
    pub exited: bool,
    /// Stopped (WUNTRACED, WSTOPPED).
    pub stopped: bool,
    /// Continued (WCONTINUED).
    pub continued: bool,
    /// Leave it to be waited for again (WNOWAIT).
    pub keep: bool,
    /// Children whose exit signal is not SIGCHLD: `None` both kinds (__WALL), else only those
    /// (__WCLONE) or only the others.
    pub clones: Option<bool>,
}

/// A child's news.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct News {
    /// The child.
    pub pid: Tid,
    /// Its real user.
    pub uid: u32,
    /// The word wait4(2) stores.
    pub word: i32,
    /// si_code and si_status of waitid(2).
    pub code: (i32, i32),
    /// What it used, its own waited-for children included.
    pub usage: Usage,
}

/// Looks for news once; `None` if there are such children but no news yet.
///
/// # Errors
/// ECHILD if there is no such child.
pub fn look(task: &Arc<Task>, who: Who, what: What) -> Result<Option<News>, Errno> {
    let mut tree = task.kernel.tasks.tree();
    let parent = &task.process;
    let node = tree.nodes.get(&parent.pid).ok_or(Errno::ECHILD)?;
    let children: Vec<Tid> = node.children.iter().copied().collect();
    let mut any = false;
    for pid in children {
        let Some(node) = tree.nodes.get(&pid) else { continue };
        let fits = match who {
            Who::Any => true,
            Who::Pid(wanted) => pid == wanted,
            Who::Group(pgid) => node.pgid == pgid,
        };
        if !fits || what.clones.is_some_and(|clones| clones != (node.exit_signal != SIGCHLD)) {
            continue;
        }
        // One that has ended does nothing else any more.
        any |= node.zombie.is_none() || what.exited;
        let process = node.process.clone();
        if let Some(status) = node.zombie {
            if what.exited {
                let news = ended(&process, status);
                if !what.keep {
                    parent.state().children.add(&news.usage);
                    TaskTable::remove(&mut tree, pid);
                }
                return Ok(Some(news));
            }
        } else if let Some(change) =
            process.signals.state_change(what.stopped, what.continued, what.keep)
        {
            return Ok(Some(changed(&process, change)));
        }
    }
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}

fn total(process: &Process) -> Usage {
    let mut usage = process.usage();
    usage.add(&process.children_usage());
    usage
}

fn ended(process: &Process, status: ExitStatus) -> News {
    News {
        pid: process.pid,
        uid: process.uid(),
        word: status.wait_word(),
        code: child_code(status),
        usage: total(process),
    }
}

fn changed(process: &Process, change: StateChange) -> News {
    let (word, code) = match change {
        StateChange::Stopped(signal) => {
            (0x7f | i32::from(signal) << 8, (child::STOPPED, i32::from(signal)))
        }
        StateChange::Continued => (0xffff, (child::CONTINUED, i32::from(SIGCONT))),
    };
    News { pid: process.pid, uid: process.uid(), word, code, usage: total(process) }
}
