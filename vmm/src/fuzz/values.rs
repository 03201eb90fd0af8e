//! Values that are worth trying, by what an argument is.

use trapgate_kernel::linux::{
    flags::{self, Set},
    table::Kind,
};

use super::rng::Rng;

const NUMBERS: &[u64] = &[
    0,
    0,
    0,
    1,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    16,
    31,
    32,
    63,
    64,
    65,
    100,
    127,
    128,
    255,
    256,
    511,
    1000,
    4095,
    4096,
    4097,
    8192,
    65535,
    65536,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
    u64::MAX - 1,
    u64::MAX - 4095,
];
const SIZES: &[u64] = &[
    0, 1, 1, 2, 3, 4, 7, 8, 8, 15, 16, 16, 31, 32, 64, 100, 255, 256, 512, 1000, 4095, 4096, 4097,
    8192,
];
const MODES: &[u64] = &[
    0o644, 0o755, 0o777, 0o600, 0o400, 0o200, 0, 0o1777, 0o4755, 0o2755, 0o7777, 0o100_644,
    0o170_000,
];
/// USR1, USR2, CHLD, the first real-time ones, URG, WINCH, ALRM, PIPE, TERM, IO, none, and wrong ones.
const SIGNALS: &[u64] =
    &[10, 10, 12, 12, 17, 34, 35, 23, 28, 14, 13, 15, 29, 18, 0, 0, 64, 65, u64::MAX];
/// Names of files that programs share.
pub const PATHS: &[&str] = &[
    "./file0",
    "./file0",
    "./file0",
    "./file1",
    "./file1",
    "./dir0",
    "./dir0",
    "./dir0/file0",
    "./dir0/file1",
    "./link0",
    ".",
    "./",
    "./file0/",
    "./dir0/.",
    "./dir0/..",
    "./dir1",
    "./none/file0",
    "",
    "/dev/null",
    "/dev/zero",
    "./sock0",
];
const TEXTS: &[&str] =
    &["user.a", "user.b", "trusted.a", "security.a", "name", "/mq0", "/mq1", "", "user.", "tmpfs"];

/// Values of enumerations that only programs have (`layouts` and `variants` use these names).
fn special(name: &str) -> Option<&'static [u64]> {
    Some(match name {
        "bool" => &[0, 1, 1, 2],
        "zero" => &[0, 0, 0, 0, 0, 0, 1, 6, 17],
        "few" => &[1, 1, 2, 3, 0],
        "four" => &[4, 4, 4, 4, 4, 3, 8, 0],
        "sixteen" => &[16, 16, 16, 8],
        "minus_one" => &[u64::MAX],
        // SO_REUSEADDR, TYPE, ERROR, BROADCAST, SNDBUF, KEEPALIVE, PASSCRED, LINGER, ACCEPTCONN, PROTOCOL, DOMAIN, none.
        "so_option" => &[2, 3, 4, 5, 6, 9, 16, 13, 30, 38, 39, 15, 200],
        "so_timeout" => &[20, 21],
        // TCP_NODELAY, MAXSEG, CORK, KEEPIDLE, KEEPINTVL, KEEPCNT, DEFER_ACCEPT, USER_TIMEOUT.
        "tcp_option" => &[1, 3, 4, 5, 6, 9, 18],
        "map_anon" => &[0x22, 0x22, 0x32, 0x32, 0x21, 0x31, 0x10_0032, 0x8032],
        "map_file" => &[0x1, 0x2, 0x11, 0x12, 0x12, 0x3],
        "page_offset" => &[0, 0, 0x1000, 0x1001, 0x2000],
        "ipc_creat" => &[0o1600, 0o1600, 0o1666, 0o1000, 0o3600],
        // Ports 20000 to 20002 and any, in network order.
        "port" => &[0x204e, 0x204e, 0x214e, 0x224e, 0],
        // 127.0.0.1, any.
        "in_addr" => &[0x0100_007f, 0x0100_007f, 0x0100_007f, 0, 0x0200_007f],
        "in6_high" => &[0],
        // ::1, ::.
        "in6_low" => &[0x0100_0000_0000_0000, 0x0100_0000_0000_0000, 0],
        "capability" => &[0x2008_0522, 0x2007_1026, 0x1998_0330, 0],
        _ => return None,
    })
}

/// Some bits of a set.
fn bits(rng: &mut Rng, names: &[(u64, &str)]) -> u64 {
    let count = *rng.pick(&[0, 0, 1, 1, 1, 2, 2, 3]);
    (0..count).fold(0, |value, _| value | rng.pick(names).0)
}

/// A value of a named set.
pub fn flag(rng: &mut Rng, name: &str) -> u64 {
    if let Some(values) = special(name) {
        return *rng.pick(values);
    }
    if rng.chance(1, 40) {
        return *rng.pick(NUMBERS);
    }
    match flags::set(name) {
        Some(Set::Bits(names)) => bits(rng, names),
        Some(Set::One(names)) => rng.pick(names).0,
        Some(Set::Mixed(_, modes, names)) => rng.pick(modes).0 | bits(rng, names),
        None => *rng.pick(NUMBERS),
    }
}

/// A plain number for an argument of this kind.
pub fn number(rng: &mut Rng, kind: Kind) -> u64 {
    match kind {
        Kind::Size => *rng.pick(SIZES),
        Kind::Mode => *rng.pick(MODES),
        Kind::Signal => *rng.pick(SIGNALS),
        Kind::Flags(name) | Kind::Enum(name) => flag(rng, name),
        // A sum of two comes near every boundary.
        _ if rng.chance(1, 8) => rng.pick(NUMBERS).wrapping_add(*rng.pick(NUMBERS)),
        _ if rng.chance(1, 2) => *rng.pick(&NUMBERS[..20]),
        _ => *rng.pick(NUMBERS),
    }
}

/// A string for an argument of this kind, with its NUL.
pub fn text(rng: &mut Rng, kind: Kind) -> Vec<u8> {
    let from = if matches!(kind, Kind::Path) { PATHS } else { TEXTS };
    let mut bytes = match rng.below(60) {
        0 => vec![b'x'; 255],
        1 => vec![b'y'; 256],
        _ => rng.pick(from).as_bytes().to_vec(),
    };
    bytes.push(0);
    bytes
}

/// Seconds and nanoseconds (or microseconds) that nobody has to wait for long.
pub fn moment(rng: &mut Rng) -> [u64; 2] {
    let seconds = *rng.pick(&[0, 0, 0, 0, 0, 0, 0, 0, 1, u64::MAX, 0x7fff_ffff_ffff_ffff]);
    let rest = *rng.pick(&[
        0,
        0,
        1,
        1000,
        1_000_000,
        999_999,
        1_000_000,
        999_999_999,
        1_000_000_000,
        u64::MAX,
    ]);
    // A second and more is waited for only if the kernel refuses it.
    if seconds == 1 { [0, rest.min(2_000_000)] } else { [seconds, rest] }
}

/// Bytes of data.
pub fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    let first = *rng.pick(&[b'a', b'A', 0, 0xff, b'0']);
    (0..len)
        .map(|i| if first == b'a' { b'a' + u8::try_from(i % 26).unwrap_or(0) } else { first })
        .collect()
}
