//! Opening a FIFO (fifo(7)): an open for reading waits for a writer and the other way round.
//!
//! The half-open end counts as present while it waits (that is what the peer's open looks for), so
//! it is kept in the call's slot across retries and goes with the call if a signal ends it.

use std::sync::Arc;

use super::{Opened, Pipe, PipeEnd};
use crate::{
    call::Cx,
    error::{Errno, Stop, Wait},
    fs::file::OpenFlags,
};

struct Opening {
    end: Arc<PipeEnd>,
    /// The peer's open count when this open began.
    seen: u64,
}

/// Opens the FIFO whose inode holds `pipe`, as `flags` ask; wrap the result in an `OpenFile`. The
/// handler is retried with the same `cx.call`, whose slot this uses.
///
/// # Errors
/// ENXIO for a non-blocking write-only open without a reader; the wait for a peer.
pub fn open_fifo(cx: &mut Cx<'_>, pipe: &Arc<Pipe>, flags: OpenFlags) -> Opened {
    if let Some(slot) = cx.call.slot.take() {
        let opening = slot.downcast::<Opening>().map_err(|_| Stop::Errno(Errno::EINTR))?;
        if !opening.end.has_partner(opening.seen) {
            cx.call.slot = Some(opening);
            return Err(Wait::on(pipe.queue().clone()).into());
        }
        return Ok(opening.end.clone());
    }
    let nonblock = flags.contains(OpenFlags::NONBLOCK);
    let both = flags.contains(OpenFlags::RDWR);
    let writes = both || flags.contains(OpenFlags::WRONLY);
    let reads = both || !writes;
    let (readers, writers, seen) = {
        let state = pipe.state();
        let seen = if reads { state.writer_opens } else { state.reader_opens };
        (state.readers, state.writers, seen)
    };
    if !reads && nonblock && readers == 0 {
        return Err(Errno::ENXIO.into());
    }
    let alone = !both && if reads { writers == 0 } else { readers == 0 };
    let end = PipeEnd::open(pipe, reads, writes, reads && alone);
    pipe.queue().wake();
    if alone && !nonblock {
        cx.call.slot = Some(Box::new(Opening { end, seen }));
        return Err(Wait::on(pipe.queue().clone()).into());
    }
    Ok(end)
}

impl PipeEnd {
    /// A peer has opened since the count was `seen` (it may have gone again).
    fn has_partner(&self, seen: u64) -> bool {
        let state = self.pipe.state();
        let now = if self.reads { state.writer_opens } else { state.reader_opens };
        now != seen
    }
}
