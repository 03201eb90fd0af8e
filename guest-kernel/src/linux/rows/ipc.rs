//! Semaphores and message queues: System V's and POSIX's.

use crate::{
    linux::{
        sys::{mqueue, msg, sem},
        table::Row,
    },
    row,
};

/// The rows.
pub static ROWS: &[Row] = &[
    row!(64, semget(key: Hex, nsems: Int, semflg: Hex) => sem::semget, Full),
    row!(65, semop(semid: Id("sem"), sops: StructIn("sembuf"), nsops: Size) => sem::semop, Partial,
        "waiters are not served in order"),
    row!(66, semctl(semid: Id("sem"), semnum: Int, cmd: Int, arg: Hex) => sem::semctl, Full),
    row!(68, msgget(key: Hex, msgflg: Hex) => msg::msgget, Full),
    row!(69, msgsnd(msqid: Id("msg"), msgp: StructIn("msgbuf"), msgsz: Size, msgflg: Hex) => msg::msgsnd, Full),
    row!(70, msgrcv(msqid: Id("msg"), msgp: StructOut("msgbuf"), msgsz: Size, msgtyp: Int, msgflg: Hex)
        => msg::msgrcv, Full),
    row!(71, msgctl(msqid: Id("msg"), cmd: Int, buf: StructOut("msqid_ds")) => msg::msgctl, Full),
    row!(220, semtimedop(semid: Id("sem"), sops: StructIn("sembuf"), nsops: Size, timeout: StructIn("timespec"))
        => sem::semtimedop, Partial, "waiters are not served in order"),
    row!(240, mq_open(name: Str, oflag: Flags("open"), mode: Mode, attr: StructIn("mq_attr"))
        => mqueue::mq_open, Partial, "no /dev/mqueue"),
    row!(241, mq_unlink(name: Str) => mqueue::mq_unlink, Full),
    row!(242, mq_timedsend(mqdes: Fd, msg_ptr: In(2), msg_len: Size, msg_prio: Uint,
        abs_timeout: StructIn("timespec")) => mqueue::mq_timedsend, Full),
    row!(243, mq_timedreceive(mqdes: Fd, msg_ptr: Out(2), msg_len: Size, msg_prio: StructOut("int"),
        abs_timeout: StructIn("timespec")) => mqueue::mq_timedreceive, Full),
    row!(244, mq_notify(mqdes: Fd, sevp: StructIn("sigevent")) => mqueue::mq_notify, Partial, "no SIGEV_THREAD"),
    row!(245, mq_getsetattr(mqdes: Fd, newattr: StructIn("mq_attr"), oldattr: StructOut("mq_attr"))
        => mqueue::mq_getsetattr, Full),
];
