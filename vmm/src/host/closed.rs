//! Which standard streams were closed when the monitor started.
//!
//! Rust's runtime opens `/dev/null` in place of a closed standard stream before `main`, so that no
//! file of ours gets its number. A guest must see what a program on Linux sees instead: EBADF. So
//! the streams are looked at before the runtime starts, in a constructor.

use std::sync::atomic::{AtomicU8, Ordering};

static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Standard stream `number` was closed at start.
pub(super) fn at_start(number: u8) -> bool {
    CLOSED.load(Ordering::Relaxed) & (1 << number) != 0
}

extern "C" fn look() {
    for number in 0..3_u8 {
        // SAFETY: F_GETFD takes no argument and only looks; a closed descriptor is the error that
        // is asked for. libc is initialised before constructors run.
        if unsafe { libc::fcntl(i32::from(number), libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << number, Ordering::Relaxed);
        }
    }
}

// SAFETY: .init_array holds pointers to functions that the C runtime calls once, before main, with
// (argc, argv, envp); a function that takes none may ignore them in the System V ABI.
#[unsafe(link_section = ".init_array")]
#[used]
static LOOK: extern "C" fn() = look;
