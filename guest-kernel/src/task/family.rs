//! Process groups and sessions (setpgid(2), setsid(2), credentials(7)).

use super::{Task, Tid};
use crate::error::Errno;

/// setpgid(2): moves `pid` (0: the caller) to the group `pgid` (0: its own).
///
/// # Errors
/// As setpgid(2).
pub fn set_group(task: &Task, pid: Tid, pgid: Tid) -> Result<(), Errno> {
    let own = task.process.pid;
    let pid = if pid == 0 { own } else { pid };
    let pgid = if pgid == 0 { pid } else { pgid };
    if pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let mut tree = task.kernel.tasks.tree();
    let own_session = tree.nodes.get(&own).ok_or(Errno::ESRCH)?.sid;
    let node = tree.nodes.get(&pid).ok_or(Errno::ESRCH)?;
    if pid != own {
        if node.parent != own {
            return Err(Errno::ESRCH);
        }
        if node.sid != own_session {
            return Err(Errno::EPERM);
        }
        if node.execed {
            return Err(Errno::EACCES);
        }
    }
    if node.sid == pid {
        return Err(Errno::EPERM);
    }
    if pgid != pid && !tree.group(pgid).any(|n| n.sid == own_session) {
        return Err(Errno::EPERM);
    }
    if let Some(node) = tree.nodes.get_mut(&pid) {
        node.pgid = pgid;
    }
    Ok(())
}

/// setsid(2): a new session and group led by the caller, without a terminal.
///
/// # Errors
/// EPERM if the caller leads a process group.
pub fn new_session(task: &Task) -> Result<Tid, Errno> {
    let pid = task.process.pid;
    let mut tree = task.kernel.tasks.tree();
    if tree.nodes.values().any(|n| n.pgid == pid || n.sid == pid) {
        return Err(Errno::EPERM);
    }
    let node = tree.nodes.get_mut(&pid).ok_or(Errno::EPERM)?;
    (node.pgid, node.sid) = (pid, pid);
    Ok(pid)
}
