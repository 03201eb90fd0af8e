//! The table's rows, one file per man-page family.

mod futex;
mod io;
mod mm;
mod net;
mod poll;
mod process;
mod signal;
mod time;

use super::table::Row;

/// Every family.
pub static FAMILIES: &[&[Row]] = &[
    futex::ROWS,
    io::ROWS,
    mm::ROWS,
    net::ROWS,
    poll::ROWS,
    process::ROWS,
    signal::ROWS,
    time::ROWS,
];
