//! Nothing is left behind.

use std::time::Duration;
use trapgate_kernel::platform::Cpu;
use trapgate_kernel::platform::Platform;
use trapgate_kernel::platform::Registers;

use super::calls::syscalls;
use super::cpus::spin;
use super::harness::*;

/// Tests that count processes run alone, in a process of their own.
fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os("PTRACE_TEST_ALONE").is_some() {
        return body();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("PTRACE_TEST_ALONE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
#[test]
fn nothing_is_left_after_200_spaces() {
    alone("ends::nothing_is_left_after_200_spaces", || {
        let machine = Machine::new();
        let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let churn = |count: u32| {
            for i in 0..count {
                let guest = machine.space(syscalls);
                std::thread::scope(|s| {
                    for _ in 0..i % 3 {
                        s.spawn(|| run(&mut machine.cpu(&guest), &mut start()));
                    }
                });
                let mut cpu = machine.cpu(&guest);
                run(&mut cpu, &mut start());
                let next = machine.space(syscalls);
                cpu.switch(&next.space).unwrap();
                run(&mut cpu, &mut start());
            }
        };
        churn(5);
        eventually("stubs end", || stubs() <= 3);
        let (files, free) = (fds(), machine.ram.frames.free());
        churn(200);
        assert_eq!(machine.platform.in_use(), [("stub processes", 0), ("stub threads", 0)]);
        eventually("only the zygote and its spares are left", || stubs() <= 3);
        assert_eq!((fds(), machine.ram.frames.free()), (files, free));
        drop(machine);
        eventually("and then nothing", || stubs() == 0);
    });
}

#[test]
fn a_killed_monitor_leaves_no_process() {
    const NAME: &str = "ends::a_killed_monitor_leaves_no_process";
    if std::env::var_os("PTRACE_TEST_VICTIM").is_some() {
        // The monitor: three spaces, two of them spinning, then silence.
        let machine = Machine::new();
        std::thread::scope(|s| {
            for code in [spin, spin, syscalls] {
                s.spawn({
                    let machine = &machine;
                    move || {
                        let guest = machine.space(code);
                        let mut cpu = machine.cpu(&guest);
                        println!("stub {}", cpu.stub_thread());
                        let mut regs = Registers { rdi: DATA, ..start() };
                        run(&mut cpu, &mut regs);
                        std::thread::sleep(Duration::from_secs(60));
                    }
                });
            }
        });
        return;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env("PTRACE_TEST_VICTIM", "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut tids: Vec<String> = Vec::new();
    while tids.len() < 3 {
        let line = lines.next().unwrap().unwrap();
        if let Some((_, tid)) = line.split_once("stub ") {
            tids.push(tid.trim().to_owned());
        }
    }
    std::thread::sleep(Duration::from_millis(50));
    // The zygote and its spares die too: find them by their session.
    let session = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(stat.rsplit_once(") ")?.1.split(' ').nth(3)?.to_owned())
    };
    let own = session(&tids[0]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("no stub is left", || {
        std::fs::read_dir("/proc").unwrap().all(|entry| {
            let pid = entry.unwrap().file_name().into_string().unwrap();
            session(&pid).is_none_or(|s| s != own)
        })
    });
}

guest!(read_all: "2:", "add rax, [rdi]", "add rdi, 8192", "dec rcx", "jnz 2b", "syscall", "ud2");
