//! Futexes.

use crate::{
    linux::{sys::futex, table::Row},
    row,
};

/// The rows.
pub static ROWS: &[Row] = &[
    row!(202, futex(uaddr: StructIn("int"), futex_op: Flags("futex"), val: Uint, timeout: StructIn("timespec"),
        uaddr2: StructIn("int"), val3: Uint) => futex::futex, Partial,
        "no priorities are inherited; FUTEX_WAIT_REQUEUE_PI and FUTEX_CMP_REQUEUE_PI are ENOSYS"),
    row!(273, set_robust_list(head: StructIn("robust_list_head"), len: Size) => futex::set_robust_list, Full),
    row!(274, get_robust_list(pid: Pid, head_ptr: StructOut("address"), len_ptr: StructOut("size"))
        => futex::get_robust_list, Full),
    row!(449, futex_waitv(waiters: StructIn("futex_waitv"), nr_futexes: Uint, flags: Hex,
        timeout: StructIn("timespec"), clockid: Enum("clock")) => futex::futex_waitv, Full),
];
