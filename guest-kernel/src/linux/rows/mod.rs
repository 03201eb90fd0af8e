//! The table's rows, one file per man-page family.

mod futex;
mod io;
mod mm;
mod poll;
mod process;
mod signal;
mod time;

use super::table::Row;

/// Every family.
pub static FAMILIES: &[&[Row]] =
    &[poll::ROWS, process::ROWS, mm::ROWS, futex::ROWS, io::ROWS, signal::ROWS, time::ROWS];
