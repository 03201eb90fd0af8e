//! Memory: mappings, locking, advice, policies, SysV shared memory.

use crate::{
    linux::{
        sys::{mempolicy, mm, mm_lock, process_vm, shm},
        table::Row,
    },
    row,
};

/// The rows.
pub static ROWS: &[Row] = &[
    row!(9, mmap(addr: Addr, length: Size, prot: Flags("mmap_prot"), flags: Flags("mmap"), fd: Fd,
        offset: Hex) => mm::mmap, Partial, "no huge pages to reserve"),
    row!(10, mprotect(addr: Addr, len: Size, prot: Flags("mmap_prot")) => mm::mprotect, Full),
    row!(11, munmap(addr: Addr, length: Size) => mm::munmap, Full),
    row!(12, brk(addr: Addr) => mm::brk, Full),
    row!(25, mremap(old_address: Addr, old_size: Size, new_size: Size, flags: Flags("mremap"),
        new_address: Addr) => mm::mremap, Full),
    row!(26, msync(addr: Addr, length: Size, flags: Flags("msync")) => mm::msync, Full),
    row!(27, mincore(addr: Addr, length: Size, vec: StructOut("mincore")) => mm::mincore, Full),
    row!(28, madvise(addr: Addr, length: Size, advice: Enum("madvise")) => mm::madvise, Partial,
        "hints are accepted and do nothing"),
    row!(29, shmget(key: Int, size: Size, shmflg: Hex) => shm::shmget, Full),
    row!(30, shmat(shmid: Id("shm"), shmaddr: Addr, shmflg: Hex) => shm::shmat, Full),
    row!(31, shmctl(shmid: Id("shm"), cmd: Int, buf: StructOut("shmid_ds")) => shm::shmctl, Full),
    row!(67, shmdt(shmaddr: Addr) => shm::shmdt, Full),
    row!(149, mlock(addr: Addr, len: Size) => mm_lock::mlock, Full),
    row!(150, munlock(addr: Addr, len: Size) => mm_lock::munlock, Full),
    row!(151, mlockall(flags: Hex) => mm_lock::mlockall, Full),
    row!(152, munlockall() => mm_lock::munlockall, Full),
    row!(325, mlock2(addr: Addr, len: Size, flags: Hex) => mm_lock::mlock2, Full),
    row!(216, remap_file_pages(addr: Addr, size: Size, prot: Hex, pgoff: Uint, flags: Hex)
        => mm::remap_file_pages, Full),
    row!(237, mbind(addr: Addr, len: Size, mode: Int, nodemask: Addr, maxnode: Uint, flags: Hex)
        => mempolicy::mbind, Partial, "one node"),
    row!(238, set_mempolicy(mode: Int, nodemask: Addr, maxnode: Uint) => mempolicy::set_mempolicy,
        Partial, "one node; the policy is not kept"),
    row!(239, get_mempolicy(mode: Addr, nodemask: Addr, maxnode: Uint, addr: Addr, flags: Hex)
        => mempolicy::get_mempolicy, Partial, "always the default policy"),
    row!(256, migrate_pages(pid: Pid, maxnode: Uint, old_nodes: Addr, new_nodes: Addr)
        => mempolicy::migrate_pages, Partial, "one node"),
    row!(279, move_pages(pid: Pid, count: Uint, pages: Addr, nodes: Addr, status: Addr, flags: Hex)
        => mempolicy::move_pages, Partial, "one node"),
    row!(310, process_vm_readv(pid: Pid, local_iov: IovOut(2), liovcnt: Uint, remote_iov: IovIn(4),
        riovcnt: Uint, flags: Hex) => process_vm::readv, Full),
    row!(311, process_vm_writev(pid: Pid, local_iov: IovIn(2), liovcnt: Uint, remote_iov: IovIn(4),
        riovcnt: Uint, flags: Hex) => process_vm::writev, Full),
    row!(329, pkey_mprotect(addr: Addr, len: Size, prot: Flags("mmap_prot"), pkey: Int)
        => mm::pkey_mprotect, Stub, "no protection keys"),
    row!(330, pkey_alloc(flags: Hex, access_rights: Hex) => mm::pkey_alloc, Stub,
        "no protection keys"),
    row!(331, pkey_free(pkey: Int) => mm::pkey_free, Stub, "no protection keys"),
];
