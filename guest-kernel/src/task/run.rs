//! A task's life on its host thread.
