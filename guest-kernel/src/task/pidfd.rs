//! Descriptors that refer to a process (pidfd_open(2)).

use std::{any::Any, sync::Arc};

use super::process::Process;
use crate::{
    fs::file::{FileOps, OpenFile, OpenFlags, Ready},
    wait::WaitQueue,
};

/// What a pidfd refers to.
pub struct PidFd {
    /// The process.
    pub process: Arc<Process>,
}

impl PidFd {
    /// A description for `process`.
    #[must_use]
    pub fn open(process: &Arc<Process>, nonblock: bool) -> Arc<OpenFile> {
        let flags = if nonblock { OpenFlags::NONBLOCK } else { OpenFlags::empty() };
        OpenFile::new(Arc::new(PidFd { process: process.clone() }), OpenFlags::RDWR | flags)
    }
}

impl FileOps for PidFd {
    fn moves(&self) -> (bool, bool) {
        (false, false)
    }
    fn positioned(&self) -> bool {
        false
    }
    fn poll(&self, _file: &OpenFile) -> Ready {
        if self.process.has_ended() { Ready::IN | Ready::RDNORM } else { Ready::empty() }
    }
    fn queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.process.exit_events.clone())
    }
    fn describe(&self) -> String {
        "anon_inode:[pidfd]".to_owned()
    }
    fn fdinfo(&self, _file: &OpenFile) -> String {
        let pid = if self.process.has_ended() { -1 } else { self.process.pid };
        format!("Pid:\t{pid}\nNSpid:\t{pid}\n")
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
