//! The table's rows, one file per man-page family.

mod mm;
mod poll;
mod process;

use super::table::Row;

/// Every family.
pub static FAMILIES: &[&[Row]] = &[poll::ROWS, process::ROWS, mm::ROWS];
