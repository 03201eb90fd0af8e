//! The guest side of the bench: loops that run the same natively and in a VM and print nanoseconds
//! per operation.
//!
//! The program is the `trapgate` binary itself, so that native and guest runs execute the same
//! instructions. Safe library calls only; each is one system call, or none.

use std::{
    hint::black_box,
    io::{Read, Write},
    time::{Duration, Instant},
};

/// How long one measurement should take at least: long against clock and scheduling noise.
const ENOUGH: Duration = Duration::from_millis(60);

/// One measured loop.
pub struct Item {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// What one operation is.
    pub about: &'static str,
    body: fn(u64) -> std::io::Result<()>,
}

/// Every loop.
pub const ITEMS: &[Item] = &[
    Item { name: "getppid", about: "getppid(2), which no library caches", body: getppid },
    Item { name: "getpid", about: "getpid(2), which no library caches", body: getpid },
    Item { name: "cpu", about: "1,000 steps of integer work, no system call", body: cpu },
    Item { name: "touch", about: "first touch of a 4 KiB anonymous page", body: touch },
    Item { name: "read", about: "read 1 byte of /dev/zero", body: read_zero },
    Item { name: "pipe", about: "write and read 1 byte of a pipe", body: pipe },
    Item {
        name: "conversation",
        about: "one byte to another thread and back, through two pipes",
        body: conversation,
    },
    Item { name: "tcp", about: "the same through a TCP connection on loopback", body: tcp },
    Item {
        name: "map",
        about: "map and unmap 48 MiB, touching nothing but malloc's own word",
        body: map,
    },
    Item { name: "stat", about: "stat(2) of /etc/passwd", body: stat },
    Item { name: "open", about: "open(2) and close(2) of /etc/passwd", body: open },
    Item {
        name: "spawn",
        about: "fork, exec and wait for this program doing nothing",
        body: spawn,
    },
    Item { name: "thread", about: "create and join a thread", body: thread },
];

fn getppid(rounds: u64) -> std::io::Result<()> {
    for _ in 0..rounds {
        black_box(nix::unistd::getppid());
    }
    Ok(())
}

fn getpid(rounds: u64) -> std::io::Result<()> {
    for _ in 0..rounds {
        black_box(nix::unistd::getpid());
    }
    Ok(())
}

/// Sends a byte and waits for it to come back, while another thread returns what it gets.
fn converse(
    rounds: u64,
    (mut to, mut from): (impl Write, impl Read),
    (mut other_from, mut other_to): (impl Read + Send + 'static, impl Write + Send + 'static),
) -> std::io::Result<()> {
    let echo = std::thread::spawn(move || {
        let mut byte = [0];
        for _ in 0..rounds {
            other_from.read_exact(&mut byte)?;
            other_to.write_all(&byte)?;
        }
        Ok::<(), std::io::Error>(())
    });
    let mut byte = [1];
    for _ in 0..rounds {
        to.write_all(&byte)?;
        from.read_exact(&mut byte)?;
    }
    echo.join().map_err(|_| std::io::Error::other("a thread panicked"))?
}

fn conversation(rounds: u64) -> std::io::Result<()> {
    let (there, here) = (std::io::pipe()?, std::io::pipe()?);
    converse(rounds, (there.1, here.0), (there.0, here.1))
}

fn tcp(rounds: u64) -> std::io::Result<()> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let mine = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    mine.set_nodelay(true)?;
    other.set_nodelay(true)?;
    converse(rounds, (mine.try_clone()?, mine), (other.try_clone()?, other))
}

fn map(rounds: u64) -> std::io::Result<()> {
    for _ in 0..rounds {
        // Above M_MMAP_THRESHOLD's largest value, so that malloc(3) maps it; never touched.
        black_box(Vec::<u8>::with_capacity(48 << 20));
    }
    Ok(())
}

fn cpu(rounds: u64) -> std::io::Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..rounds {
        for _ in 0..1000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        }
    }
    black_box(state);
    Ok(())
}

/// Pages touched in one mapping. Above the 32 MiB up to which glibc raises M_MMAP_THRESHOLD (mallopt(3)), so
/// that each round maps and unmaps fresh memory.
const TOUCH_PAGES: usize = 64 << 20 >> 12;

fn touch(rounds: u64) -> std::io::Result<()> {
    let mut left = usize::try_from(rounds).unwrap_or(usize::MAX);
    while left > 0 {
        let pages = left.min(TOUCH_PAGES);
        let mut memory = vec![0_u8; TOUCH_PAGES * 4096];
        for page in 0..pages {
            memory[page * 4096] = 1;
        }
        black_box(&mut memory);
        left -= pages;
    }
    Ok(())
}

fn read_zero(rounds: u64) -> std::io::Result<()> {
    let mut zero = std::fs::File::open("/dev/zero")?;
    let mut byte = [0];
    for _ in 0..rounds {
        zero.read_exact(&mut byte)?;
    }
    Ok(())
}

fn pipe(rounds: u64) -> std::io::Result<()> {
    let (mut reader, mut writer) = std::io::pipe()?;
    let mut byte = [0];
    for _ in 0..rounds {
        writer.write_all(&byte)?;
        reader.read_exact(&mut byte)?;
    }
    Ok(())
}

fn stat(rounds: u64) -> std::io::Result<()> {
    for _ in 0..rounds {
        black_box(std::fs::metadata("/etc/passwd")?);
    }
    Ok(())
}

fn open(rounds: u64) -> std::io::Result<()> {
    for _ in 0..rounds {
        black_box(std::fs::File::open("/etc/passwd")?);
    }
    Ok(())
}

fn spawn(rounds: u64) -> std::io::Result<()> {
    let program = std::env::current_exe()?;
    for _ in 0..rounds {
        let status = std::process::Command::new(&program)
            .args(["bench-guest", "nothing"])
            .stdout(std::process::Stdio::null())
            .status()?;
        if !status.success() {
            return Err(std::io::Error::other(format!("the child ended with {status}")));
        }
    }
    Ok(())
}

fn thread(rounds: u64) -> std::io::Result<()> {
    for _ in 0..rounds {
        std::thread::Builder::new()
            .spawn(|| {})?
            .join()
            .map_err(|_| std::io::Error::other("a thread panicked"))?;
    }
    Ok(())
}

/// Runs the loop `name` long enough and returns nanoseconds per operation.
///
/// # Errors
/// What went wrong, in one line.
pub fn measure(name: &str) -> Result<f64, String> {
    if name == "nothing" {
        return Ok(0.0);
    }
    let item = ITEMS.iter().find(|i| i.name == name).ok_or_else(|| format!("no item '{name}'"))?;
    let mut rounds = 1_u64;
    loop {
        let start = Instant::now();
        (item.body)(rounds).map_err(|error| format!("{name}: {error}"))?;
        let spent = start.elapsed();
        if spent >= ENOUGH {
            #[expect(clippy::cast_precision_loss, reason = "a count of loops is small")]
            return Ok(spent.as_secs_f64() * 1e9 / rounds as f64);
        }
        // Aim a little past the goal so that one more round is usually enough.
        let factor = (ENOUGH.as_secs_f64() * 1.2 / spent.as_secs_f64().max(1e-9)).min(100.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "the factor is between 1.2 and 100"
        )]
        let next = (rounds as f64 * factor) as u64;
        rounds = next.max(rounds + 1);
    }
}
