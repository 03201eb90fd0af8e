//! What is measured: the one table of items.

use std::time::Duration;

use super::{
    Refusal,
    model::{Kind, Unit},
    workloads::{self, Workload},
};

/// How an item is measured.
#[derive(Clone, Copy)]
pub enum Task {
    /// The guest program's loop of that name tells its own time.
    Loop,
    /// The static hello, from start to end.
    StaticHello,
    /// The dynamic hello, from start to end.
    DynamicHello,
    /// Memory of a program that waits.
    Idle,
    /// A real program, from start to end.
    Workload(&'static Workload),
}

/// One item.
#[derive(Clone, Copy)]
pub struct Item {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// What one operation is.
    pub about: &'static str,
    /// How it is measured.
    pub task: Task,
}

const fn micro(name: &'static str, about: &'static str) -> Item {
    Item { name, about, task: Task::Loop }
}

/// Items other than workloads.
const SMALL: &[Item] = &[
    micro("getpid", "getpid(2) by SYSCALL"),
    micro("getppid", "getppid(2) by SYSCALL"),
    micro("clock-vdso", "clock_gettime(2) by the vDSO"),
    micro("clock-syscall", "clock_gettime(2) by SYSCALL"),
    micro("read", "read 1 byte of /dev/zero"),
    micro("pipe", "one byte to another process and back, through two pipes"),
    micro("conversation", "one byte to another thread and back, through two pipes"),
    micro("futex", "a turn handed to another thread and back, by futex(2)"),
    micro("signal", "a signal to itself, with a handler"),
    micro("fork", "fork and wait"),
    micro("fork-exec", "fork, exec of a static program that does nothing, wait"),
    micro("posix-spawn", "posix_spawn of the same, wait"),
    micro("thread", "create and join a thread"),
    micro("mmap", "map and unmap 4 KiB, untouched"),
    micro("map", "map and unmap 48 MiB, untouched"),
    micro("mprotect", "a touched page made read-only and writable again"),
    micro("fault", "first touch of a 4 KiB anonymous page"),
    micro("touch", "map 64 MiB, touch every page, unmap"),
    micro("open", "open(2) and close(2) of /etc/passwd"),
    micro("stat", "stat(2) of /etc/passwd"),
    micro("pwrite", "write 4 KiB to a file in /tmp, always the same"),
    micro("tcp", "one byte to another thread and back, through TCP on loopback"),
    micro("epoll", "one of 1,000 watched eventfds written, found by epoll, read"),
    micro("cpu", "1,000 steps of integer work, no system call"),
    Item {
        name: "hello-static",
        about: "start to end of a static program that prints one line",
        task: Task::StaticHello,
    },
    Item {
        name: "hello-dynamic",
        about: "start to end of a dynamic program that prints one line",
        task: Task::DynamicHello,
    },
    Item {
        name: "idle-memory",
        about: "memory of the whole process tree while a static program waits",
        task: Task::Idle,
    },
];

/// Every item, in the order of reports.
pub fn all() -> impl Iterator<Item = Item> {
    let workload =
        |w: &'static Workload| Item { name: w.name, about: w.about, task: Task::Workload(w) };
    SMALL.iter().copied().chain(workloads::ALL.iter().map(workload))
}

impl Item {
    /// Its group.
    pub fn kind(&self) -> Kind {
        match self.task {
            Task::Loop => Kind::Micro,
            Task::StaticHello | Task::DynamicHello => Kind::Start,
            Task::Idle => Kind::Memory,
            Task::Workload(_) => Kind::Workload,
        }
    }
    /// What its figures count.
    pub fn unit(&self) -> Unit {
        match self.task {
            Task::Idle => Unit::Bytes,
            _ => Unit::Nanoseconds,
        }
    }
    /// Rounds to count when `asked` are wanted: workloads are long, and steadier for it.
    pub fn rounds(&self, asked: u32) -> u32 {
        match self.task {
            Task::Workload(_) => asked.min(3),
            _ => asked,
        }
    }
    /// About how long one run takes, natively or in a VM; only progress and the time announced depend on it.
    pub fn expected(&self) -> Duration {
        match self.task {
            Task::Loop => Duration::from_millis(180),
            Task::StaticHello | Task::DynamicHello => Duration::from_millis(15),
            Task::Idle => Duration::from_millis(500),
            Task::Workload(w) => w.expected,
        }
    }
    /// How long one run may take.
    pub fn limit(&self) -> Duration {
        match self.task {
            Task::Workload(_) => Duration::from_secs(120),
            _ => Duration::from_secs(60),
        }
    }
}

/// The items that `--filter` wants: each term is an item's name, a kind, or a part of names.
///
/// # Errors
/// A term that matches nothing.
pub fn chosen(filter: &[String]) -> Result<Vec<Item>, Refusal> {
    if filter.is_empty() {
        return Ok(all().collect());
    }
    let mut wanted = vec![];
    for term in filter {
        let exact: Vec<&str> =
            all().filter(|i| i.name == term || i.kind().name() == term).map(|i| i.name).collect();
        let parts = || all().filter(|i| i.name.contains(term.as_str())).map(|i| i.name).collect();
        let found: Vec<&str> = if exact.is_empty() { parts() } else { exact };
        if found.is_empty() {
            let message = format!("no item matches '{term}'; see `trapgate bench --list`");
            return Err(Refusal::new(message));
        }
        wanted.extend(found);
    }
    Ok(all().filter(|item| wanted.contains(&item.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(filter: &[&str]) -> Vec<&'static str> {
        let filter: Vec<String> = filter.iter().map(|t| (*t).to_owned()).collect();
        chosen(&filter).map(|items| items.iter().map(|i| i.name).collect()).unwrap_or_default()
    }

    #[test]
    fn filters() {
        assert_eq!(names(&["fork"]), ["fork"]);
        assert_eq!(names(&["hello", "getppid"]), ["getppid", "hello-static", "hello-dynamic"]);
        assert_eq!(names(&["memory"]), ["idle-memory"]);
        assert_eq!(names(&["no-such-item"]), Vec::<&str>::new());
        assert_eq!(names(&[]).len(), all().count());
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = all().map(|i| i.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count());
    }
}
