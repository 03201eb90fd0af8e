//! Host threads for tasks and servers, kept for a while when their work is done: guests that start and
//! end processes in quick succession do not pay for a new host thread each time.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

/// Stack of a host thread that runs a task: handlers are shallow, and thousands may exist.
const STACK_BYTES: usize = 512 << 10;
/// Idle threads kept.
const SPARE: usize = 16;
/// How long one is kept.
const KEEP: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce() + Send>;

/// Where an idle thread finds its next job.
#[derive(Default)]
struct Desk {
    job: Mutex<Option<(String, Job)>>,
    bell: Condvar,
}

/// The threads.
#[derive(Default)]
pub(super) struct Threads {
    idle: Mutex<Vec<Arc<Desk>>>,
}

impl Threads {
    /// Runs `body` on an idle thread or a new one.
    ///
    /// # Errors
    /// The host's refusal (thread limits).
    pub(super) fn spawn(self: &Arc<Self>, name: &str, body: Job) -> io::Result<()> {
        let desk = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(desk) = desk {
            let mut job = desk.job.lock().unwrap_or_else(PoisonError::into_inner);
            *job = Some((name.to_owned(), body));
            drop(job);
            desk.bell.notify_one();
            return Ok(());
        }
        let threads = self.clone();
        let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
        builder.spawn(move || threads.work(body)).map(drop)
    }
    /// A thread's life: job after job until none comes for a while.
    fn work(&self, first: Job) {
        let desk = Arc::new(Desk::default());
        let mut job = first;
        loop {
            job();
            {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                if idle.len() >= SPARE {
                    return;
                }
                idle.push(desk.clone());
            }
            let Some((name, next)) = self.wait(&desk) else { return };
            // Only for people who look at the monitor from outside.
            let _ = std::ffi::CString::new(name).map(|name| rustix::thread::set_name(&name));
            job = next;
        }
    }
    /// The next job; `None` if none came in time.
    fn wait(&self, desk: &Arc<Desk>) -> Option<(String, Job)> {
        let empty = |job: &mut Option<(String, Job)>| job.is_none();
        let slot = desk.job.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut slot, _) =
            desk.bell.wait_timeout_while(slot, KEEP, empty).unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = slot.take() {
            return Some(next);
        }
        drop(slot);
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = idle.iter().position(|other| Arc::ptr_eq(other, desk)) {
                idle.remove(at);
                return None;
            }
        }
        // Taken off the list just now: the job is on its way.
        let slot = desk.job.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slot = desk.bell.wait_while(slot, empty).unwrap_or_else(PoisonError::into_inner);
        slot.take()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn jobs_all_run_and_threads_are_used_again() {
        let threads = Arc::<Threads>::default();
        let (send, receive) = channel();
        let mut seen = std::collections::HashSet::new();
        for n in 0..50 {
            let send = send.clone();
            let body = Box::new(move || send.send((n, std::thread::current().id())).unwrap());
            threads.spawn("job", body).unwrap();
            let (m, id) = receive.recv().unwrap();
            assert_eq!(m, n);
            seen.insert(id);
            // The thread is on its way to the list.
            while threads.idle.lock().unwrap().is_empty() {
                std::thread::yield_now();
            }
        }
        assert_eq!(seen.len(), 1);
    }
}
