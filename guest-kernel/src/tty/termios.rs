//! Terminal modes (termios(3)), with the values of x86-64 Linux.
#![expect(missing_docs, reason = "termios(3) names the modes")]

use bitflags::bitflags;

bitflags! {
    /// c_iflag.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Input: u32 {
        const ISTRIP = 0o40;
        const INLCR = 0o100;
        const IGNCR = 0o200;
        const ICRNL = 0o400;
        const IXON = 0o2000;
        const IXANY = 0o4000;
        const IMAXBEL = 0o20000;
        const IUTF8 = 0o40000;
        const _ = !0;
    }
    /// c_oflag.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Output: u32 {
        const OPOST = 1;
        const ONLCR = 4;
        const OCRNL = 0o10;
        const _ = !0;
    }
    /// c_lflag.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Local: u32 {
        const ISIG = 1;
        const ICANON = 2;
        const ECHO = 0o10;
        const ECHOE = 0o20;
        const ECHOK = 0o40;
        const ECHONL = 0o100;
        const NOFLSH = 0o200;
        const TOSTOP = 0o400;
        const ECHOCTL = 0o1000;
        const ECHOKE = 0o4000;
        const IEXTEN = 0o100000;
        const _ = !0;
    }
}

/// Indices into c_cc.
pub mod cc {
    pub const INTR: usize = 0;
    pub const QUIT: usize = 1;
    pub const ERASE: usize = 2;
    pub const KILL: usize = 3;
    pub const EOF: usize = 4;
    pub const TIME: usize = 5;
    pub const MIN: usize = 6;
    pub const START: usize = 8;
    pub const STOP: usize = 9;
    pub const SUSP: usize = 10;
    pub const EOL: usize = 11;
    pub const WERASE: usize = 14;
    pub const LNEXT: usize = 15;
    pub const EOL2: usize = 16;
}

/// A terminal's modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Termios {
    pub input: Input,
    pub output: Output,
    pub control: u32,
    pub local: Local,
    pub line: u8,
    pub chars: [u8; 19],
    pub in_speed: u32,
    pub out_speed: u32,
}

impl Default for Termios {
    /// What a fresh tty has (tty_std_termios).
    fn default() -> Termios {
        Termios {
            input: Input::ICRNL | Input::IXON,
            output: Output::OPOST | Output::ONLCR,
            // B38400 | CS8 | CREAD.
            control: 0o277,
            local: Local::ISIG
                | Local::ICANON
                | Local::ECHO
                | Local::ECHOE
                | Local::ECHOK
                | Local::ECHOCTL
                | Local::ECHOKE
                | Local::IEXTEN,
            line: 0,
            chars: [3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0],
            in_speed: 38400,
            out_speed: 38400,
        }
    }
}
