//! Pipes, event counters, watched files, and waiting for many files at once.

use crate::{
    linux::{
        sys::{epoll, eventfd, inotify, pipe, poll},
        table::Row,
    },
    row,
};

/// The rows.
pub static ROWS: &[Row] = &[
    row!(22, pipe(pipefd: StructOut("fds")) => pipe::pipe, Full),
    row!(293, pipe2(pipefd: StructOut("fds"), flags: Flags("open")) => pipe::pipe2, Full),
    row!(284, eventfd(initval: Uint) => eventfd::eventfd, Full),
    row!(290, eventfd2(initval: Uint, flags: Flags("eventfd")) => eventfd::eventfd2, Full),
    row!(253, inotify_init() => inotify::inotify_init, Partial,
        "nothing of what the host changes; no IN_UNMOUNT"),
    row!(294, inotify_init1(flags: Flags("eventfd")) => inotify::inotify_init1, Partial,
        "nothing of what the host changes; no IN_UNMOUNT"),
    row!(254, inotify_add_watch(fd: Fd, pathname: Path, mask: Flags("inotify"))
        => inotify::inotify_add_watch, Full),
    row!(255, inotify_rm_watch(fd: Fd, wd: Id("watch")) => inotify::inotify_rm_watch, Full),
    row!(7, poll(fds: StructIn("pollfd"), nfds: Uint, timeout: Int) => poll::poll, Full),
    row!(271, ppoll(fds: StructIn("pollfd"), nfds: Uint, tmo_p: StructIn("timespec"),
        sigmask: StructIn("sigset"), sigsetsize: Size) => poll::ppoll, Full),
    row!(23, select(nfds: Int, readfds: StructIn("fd_set"), writefds: StructIn("fd_set"), exceptfds: StructIn("fd_set"),
        timeout: StructIn("timeval")) => poll::select, Full),
    row!(270, pselect6(nfds: Int, readfds: StructIn("fd_set"), writefds: StructIn("fd_set"), exceptfds: StructIn("fd_set"),
        timeout: StructIn("timespec"), sigmask: StructIn("sigset_argpack")) => poll::pselect6, Full),
    row!(213, epoll_create(size: Int) => epoll::epoll_create, Full),
    row!(291, epoll_create1(flags: Flags("epoll_create")) => epoll::epoll_create1, Full),
    row!(233, epoll_ctl(epfd: Fd, op: Enum("epoll_ctl"), fd: Fd, event: StructIn("epoll_event"))
        => epoll::epoll_ctl, Full),
    row!(232, epoll_wait(epfd: Fd, events: StructOut("epoll_events"), maxevents: Int, timeout: Int)
        => epoll::epoll_wait, Full),
    row!(281, epoll_pwait(epfd: Fd, events: StructOut("epoll_events"), maxevents: Int, timeout: Int,
        sigmask: StructIn("sigset"), sigsetsize: Size) => epoll::epoll_pwait, Full),
    row!(441, epoll_pwait2(epfd: Fd, events: StructOut("epoll_events"), maxevents: Int,
        timeout: StructIn("timespec"), sigmask: StructIn("sigset"), sigsetsize: Size)
        => epoll::epoll_pwait2, Full),
];
