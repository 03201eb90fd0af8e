//! All tasks of a VM by id.

/// The pid table.
#[derive(Default)]
pub struct TaskTable {}

impl TaskTable {
    /// The live thread with this id.
    #[must_use]
    pub fn task(&self, _tid: super::Tid) -> Option<std::sync::Arc<super::Task>> {
        None
    }
    /// The process with this id, zombies included.
    #[must_use]
    pub fn process(&self, _pid: super::Tid) -> Option<std::sync::Arc<super::process::Process>> {
        None
    }
    /// All processes, zombies included.
    #[must_use]
    pub fn processes(&self) -> Vec<std::sync::Arc<super::process::Process>> {
        Vec::new()
    }
}
