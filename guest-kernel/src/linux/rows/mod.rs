//! The table's rows, one file per man-page family.

mod absent;
mod fs;
mod futex;
mod io;
mod ipc;
mod mm;
mod net;
mod poll;
mod process;
mod signal;
mod system;
mod time;

use super::table::Row;

/// Every family.
#[rustfmt::skip]
pub static FAMILIES: &[&[Row]] = &[
    fs::ROWS,
    futex::ROWS,
    io::ROWS,
    ipc::ROWS,
    mm::ROWS,
    net::ROWS,
    poll::ROWS,
    process::ROWS,
    signal::ROWS,
    system::ROWS,
    time::ROWS,
];

/// What no family has: refused or absent.
pub static ABSENT: &[Row] = absent::ROWS;
