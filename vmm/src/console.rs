//! The guest's console on the user's terminal: keys go in through the event loop, and what the guest
//! prints comes out here.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use trapgate_kernel::{
    kernel::Kernel,
    tty,
    wait::{Parker, Wake},
};

use crate::terminal::RawTerminal;

/// A terminal in raw mode with a guest console behind it; restored when dropped.
pub struct Console {
    /// The guest's side.
    pub guest: Arc<tty::Console>,
    terminal: RawTerminal,
    parker: Arc<Parker>,
    ended: Arc<AtomicBool>,
    pump: Option<JoinHandle<()>>,
}

/// Where the terminal can be written to, even when some standard streams are redirected.
fn screen() -> io::Result<Box<dyn Write + Send>> {
    if io::stdout().is_terminal() {
        return Ok(Box::new(io::stdout()));
    }
    Ok(Box::new(File::options().write(true).open("/dev/tty")?))
}

impl Console {
    /// A console if standard input is a terminal.
    ///
    /// # Errors
    /// The host's error when the terminal refuses.
    pub fn new(kernel: &Arc<Kernel>) -> io::Result<Option<Console>> {
        let Some(terminal) = RawTerminal::new()? else { return Ok(None) };
        let refused = |errno: trapgate_kernel::error::Errno| {
            io::Error::from_raw_os_error(i32::from(errno.raw()))
        };
        let guest = Arc::new(tty::Console::new(kernel).map_err(refused)?);
        let (parker, ended) = (Parker::new(), Arc::new(AtomicBool::new(false)));
        let mut out = screen()?;
        let pump = {
            let (guest, parker, ended) = (guest.clone(), parker.clone(), ended.clone());
            std::thread::Builder::new().name("console".into()).spawn(move || {
                let waker: Arc<dyn Wake> = parker.clone();
                guest.output_queue().add(&waker);
                loop {
                    let last = ended.load(Ordering::Acquire);
                    let bytes = guest.take_output();
                    if !bytes.is_empty() {
                        // A terminal that is gone cannot be told so; the loop hears of it by itself.
                        let _ = out.write_all(&bytes).and_then(|()| out.flush());
                    } else if last {
                        return;
                    } else {
                        parker.park(None);
                    }
                }
            })?
        };
        let console = Console { guest, terminal, parker, ended, pump: Some(pump) };
        console.resize();
        Ok(Some(console))
    }
    /// Tells the guest how large the window is.
    pub fn resize(&self) {
        if let Some((rows, columns)) = self.terminal.size() {
            self.guest.resize(rows, columns);
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.parker.wake();
        if let Some(pump) = self.pump.take() {
            // A panic there was reported when it happened.
            let _ = pump.join();
        }
        self.terminal.restore();
    }
}
