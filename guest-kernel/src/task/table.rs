//! All tasks of a VM by id.

/// The pid table.
#[derive(Default)]
pub struct TaskTable {}
