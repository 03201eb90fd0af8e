//! The table's rows, one file per man-page family.

use super::table::Row;

/// Every family.
pub static FAMILIES: &[&[Row]] = &[];
