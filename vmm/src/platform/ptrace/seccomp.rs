//! The seccomp floor of stub processes: what they may ask of the host if ever they run untraced.
//!
//! A guest's SYSCALL never gets here: PTRACE_SYSEMU stops it first and skips it (since Linux 4.8
//! seccomp runs after the tracer's entry stop). The filter is for our own mistakes, for calls made
//! from the stub's code page, and for the vsyscall page, which the host serves without a tracer.

use libc::sock_filter;

use super::layout::CODE;

const LD_W_ABS: u16 = 0x20;
const JEQ: u16 = 0x15;
const RET: u16 = 0x06;
const ALU_AND: u16 = 0x54;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const TRAP: u32 = libc::SECCOMP_RET_TRAP;

// struct seccomp_data (seccomp(2)), little endian.
const NR: u32 = 0;
const ARCH: u32 = 4;
const IP_LOW: u32 = 8;
const IP_HIGH: u32 = 12;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// Upper half of every address of the vsyscall page.
const VSYSCALL_HIGH: u32 = 0xffff_ffff;

/// Calls the stub code makes: batches, births, parking.
const ALLOWED: [i64; 10] = [
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_clone,
    libc::SYS_pause,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_prctl,
    libc::SYS_exit_group,
];

fn op(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}
/// Goes on if the accumulator equals `k`, else kills.
fn require(filter: &mut Vec<sock_filter>, k: u32) {
    filter.extend([sock_filter { code: JEQ, jt: 1, jf: 0, k }, op(RET, KILL)]);
}
/// Answers `answer` if the accumulator equals `k`, else goes on.
fn answer(filter: &mut Vec<sock_filter>, k: u32, answer: u32) {
    filter.extend([sock_filter { code: JEQ, jt: 0, jf: 1, k }, op(RET, answer)]);
}

/// The filter.
pub fn floor() -> Vec<sock_filter> {
    let low = u32::try_from(CODE & 0xffff_f000).unwrap_or(0);
    let high = u32::try_from(CODE >> 32).unwrap_or(0);
    let mut filter = vec![op(LD_W_ABS, IP_HIGH)];
    // A call through the vsyscall page becomes SIGSYS, which the tracer turns into a fault.
    answer(&mut filter, VSYSCALL_HIGH, TRAP);
    require(&mut filter, high);
    filter.extend([op(LD_W_ABS, IP_LOW), op(ALU_AND, 0xffff_f000)]);
    require(&mut filter, low);
    filter.push(op(LD_W_ABS, ARCH));
    require(&mut filter, AUDIT_ARCH_X86_64);
    filter.push(op(LD_W_ABS, NR));
    for number in ALLOWED {
        answer(&mut filter, u32::try_from(number).unwrap_or(u32::MAX), ALLOW);
    }
    filter.push(op(RET, KILL));
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the host would (only the instructions used here).
    fn run(nr: u32, arch: u32, ip: u64) -> u32 {
        let filter = floor();
        let mut a = 0u32;
        let mut pc = 0usize;
        loop {
            let i = filter[pc];
            pc += 1;
            match i.code {
                LD_W_ABS => {
                    a = match i.k {
                        NR => nr,
                        ARCH => arch,
                        IP_LOW => u32::try_from(ip & 0xffff_ffff).unwrap(),
                        IP_HIGH => u32::try_from(ip >> 32).unwrap(),
                        _ => unreachable!(),
                    }
                }
                ALU_AND => a &= i.k,
                JEQ => pc += usize::from(if a == i.k { i.jt } else { i.jf }),
                RET => return i.k,
                _ => unreachable!(),
            }
        }
    }

    #[test]
    fn only_from_the_stub() {
        let number = |call| u32::try_from(call).unwrap();
        let mmap = number(libc::SYS_mmap);
        assert_eq!(run(mmap, AUDIT_ARCH_X86_64, CODE + 2), ALLOW);
        assert_eq!(run(mmap, AUDIT_ARCH_X86_64, CODE + 0xffe), ALLOW);
        assert_eq!(run(mmap, AUDIT_ARCH_X86_64, CODE + 0x1000), KILL);
        assert_eq!(run(mmap, AUDIT_ARCH_X86_64, CODE - 1), KILL);
        assert_eq!(run(mmap, AUDIT_ARCH_X86_64, 0x40_0000), KILL);
        assert_eq!(run(mmap, AUDIT_ARCH_X86_64, CODE & 0xffff_ffff), KILL);
        assert_eq!(run(mmap, 0x4000_0003, CODE + 2), KILL);
        assert_eq!(run(number(libc::SYS_execve), AUDIT_ARCH_X86_64, CODE + 2), KILL);
        assert_eq!(run(0x4000_0000 | mmap, AUDIT_ARCH_X86_64, CODE + 2), KILL);
        assert_eq!(run(96, AUDIT_ARCH_X86_64, 0xffff_ffff_ff60_0000), TRAP);
    }
}
