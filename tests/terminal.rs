//! The interactive terminal: `trapgate run -- bash -i` on a pty whose other end the test holds, as a
//! terminal emulator would. The same conversation is held with bash itself first.
//!
//! Invariant: no test leaves its program behind; [`Terminal`] ends it when dropped.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};
use trapgate_tests::Backend;
use trapgate_tests::backend::trapgate;
use trapgate_tests::run::signal;

const PATIENCE: Duration = Duration::from_secs(30);

/// A program on a terminal of its own.
struct Terminal {
    keyboard: File,
    slave: OwnedFd,
    screen: Arc<Mutex<String>>,
    seen: usize,
    child: Child,
}

impl Terminal {
    fn start(backend: Backend, program: &[&str]) -> Terminal {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        let keyboard = File::from(master);
        resize(&keyboard, 30, 100);
        // setsid(1) makes the terminal the controlling one and then becomes the program.
        let mut command = Command::new("setsid");
        command.arg("--ctty");
        let env = [("PS1", "T> "), ("TERM", "dumb"), ("HOME", "/tmp"), ("PATH", "/usr/bin:/bin")];
        if backend == Backend::Native {
            command.env_clear().envs(env);
        } else {
            command.arg(trapgate()).args(["run", "--backend", backend.name(), "--cwd", "/tmp"]);
            command.args(env.iter().flat_map(|(k, v)| ["--env".to_owned(), format!("{k}={v}")]));
            command.arg("--");
        }
        let end = || slave.try_clone().unwrap();
        let child = command.args(program).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let (shown, mut from) = (screen.clone(), keyboard.try_clone().unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n) = from.read(&mut buffer) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Terminal { keyboard, slave, screen, seen: 0, child }
    }
    fn keys(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }
    /// Waits until `text` appears after what was expected before.
    fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            {
                let screen = self.screen.lock().unwrap();
                if let Some(at) = screen[self.seen..].find(text) {
                    self.seen += at + text.len();
                    return;
                }
                let rest = &screen[self.seen..];
                assert!(Instant::now() < deadline, "{text:?} does not appear; there is {rest:?}");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
    /// Types a line and waits for `text`, then for the prompt.
    fn line(&mut self, keys: &str, text: &str) {
        self.keys(keys);
        self.keys("\r");
        self.expect(text);
        self.expect("T> ");
    }
    /// Waits until what was started has the terminal.
    fn settle(&self) {
        thread::sleep(Duration::from_millis(700));
    }
    fn modes(&self) -> Termios {
        tcgetattr(&self.slave).unwrap()
    }
    fn status(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}

fn same_modes(before: &Termios, after: &Termios) {
    let all = |t: &Termios| {
        let flags = (t.input_modes, t.output_modes, t.control_modes, t.local_modes);
        format!("{flags:?} {:?}", t.special_codes)
    };
    assert_eq!(all(before), all(after), "the terminal's modes are not restored");
}

fn bash(backend: Backend) {
    if !backend.usable("terminal") {
        return;
    }
    let mut t = Terminal::start(backend, &["bash", "--norc", "-i"]);
    let before = t.modes();
    t.expect("T> ");
    // Readline: rub out, go to the start of the line, recall the line before.
    t.line("echo abX\x7fc", "\r\nabc\r\n");
    t.line("cho start\x01e", "\r\nstart\r\n");
    t.line("\x1b[A", "\r\nstart\r\n");
    // The kernel's own line editing and end of file.
    t.keys("cat\r");
    t.settle();
    t.keys("one twoX\x7f\r");
    t.expect("\r\none two\r\n");
    t.keys("gone\x15kept\r");
    t.expect("\r\nkept\r\n");
    t.line("\x04echo", "\r\n");
    // Ctrl-C and Ctrl-\ end the foreground job and not bash.
    t.keys("sleep 100\r");
    t.settle();
    t.line("\x03", "^C");
    t.line("echo after $?", "\r\nafter 130\r\n");
    t.keys("(sleep 100; echo not reached)\r");
    t.settle();
    t.line("\x1c", "Quit");
    // Ctrl-C at the prompt gives a new one.
    t.line("half a line\x03", "^C");
    // Job control.
    t.keys("sleep 100\r");
    t.settle();
    t.line("\x1a", "Stopped");
    t.line("jobs", "[1]+  Stopped                 sleep 100");
    t.line("bg", "[1]+ sleep 100 &");
    t.line("jobs", "[1]+  Running                 sleep 100 &");
    t.keys("fg\r");
    t.expect("\r\nsleep 100\r\n");
    t.settle();
    t.line("\x03", "^C");
    t.line("echo after $?", "\r\nafter 130\r\n");
    t.line("cat < /dev/tty &", "[1]");
    t.line("sleep .3; jobs", "[1]+  Stopped");
    t.line("kill %1; sleep .5", "Terminated");
    // The window.
    t.line("stty size", "\r\n30 100\r\n");
    t.line("trap 'echo winch' WINCH", "\r\n");
    resize(&t.keyboard, 40, 120);
    t.settle();
    t.line("", "");
    t.line("stty size; echo $LINES $COLUMNS", "\r\n40 120\r\n40 120\r\n");
    t.line("tty; test -t 0 && test -t 2 && echo all", "all");
    // Programs that draw the whole screen.
    if Path::new("/usr/bin/less").exists() {
        t.keys("seq 500 | TERM=xterm less\r");
        t.expect("\x1b[?1049h");
        t.expect("39");
        t.keys("G");
        t.expect("500");
        t.keys("q");
        t.expect("\x1b[?1049l");
        t.expect("T> ");
    }
    if Path::new("/usr/bin/vim.basic").exists() {
        let file = format!("/tmp/trapgate-vi-{}", std::process::id());
        t.keys(&format!("TERM=xterm vim.basic -u NONE -n {file}\r"));
        t.expect("\x1b[?1049h");
        t.settle();
        t.keys("ihello\x1b:wq\r");
        t.expect("T> ");
        t.line(&format!("cat {file}; rm {file}"), "\r\nhello\r\n");
    }
    t.line("stty -a | grep -o ' icanon'", "\r\n icanon\r\n");
    t.keys("exit 3\r");
    assert_eq!(t.status(), Some(3));
    same_modes(&before, &t.modes());
}

/// The monitor is told to end while the terminal is raw.
fn killed(backend: Backend) {
    if !backend.usable("terminal, SIGTERM") || backend == Backend::Native {
        return;
    }
    for (program, how, status) in [
        (&["sleep", "100"][..], "TERM", 143),
        // A shell does not mind SIGTERM, but a hang-up ends it.
        (&["bash", "--norc", "-i"][..], "HUP", 129),
        (&["/no/such/program"][..], "TERM", 127),
    ] {
        let mut t = Terminal::start(backend, program);
        let before = t.modes();
        if status != 127 {
            let deadline = Instant::now() + PATIENCE;
            while t.modes().local_modes.contains(LocalModes::ICANON) {
                assert!(Instant::now() < deadline, "the terminal never becomes raw");
                thread::sleep(Duration::from_millis(10));
            }
            t.settle();
            signal(how, &[t.child.id()]);
        }
        assert_eq!(t.status(), Some(status), "{program:?} after SIG{how}");
        same_modes(&before, &t.modes());
    }
}

macro_rules! each {
    ($($name:ident)*) => {
        $(mod $name {
            use super::Backend;
            #[test]
            fn native() {
                super::$name(Backend::Native);
            }
            #[test]
            fn kvm() {
                super::$name(Backend::Kvm);
            }
            #[test]
            fn ptrace() {
                super::$name(Backend::Ptrace);
            }
        })*
    };
}
each! { bash killed }
