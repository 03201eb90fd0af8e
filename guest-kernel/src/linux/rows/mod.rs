//! The table's rows, one file per man-page family.

mod poll;

use super::table::Row;

/// Every family.
pub static FAMILIES: &[&[Row]] = &[poll::ROWS];
