//! Decoders that read a program's memory: the bytes lie at `BUFFER` in the memory of a task.

use std::sync::Arc;

use crate::{
    call::{Call, Cx},
    fs::{
        buf::Sink,
        file::{OpenFile, OpenFlags},
        nameless::Nameless,
    },
    linux::{sigframe, sys::message},
    net::{
        Family, Kind, Protocol, Socket,
        addr::{Receive, Ucred},
        unix::UnixSocket,
    },
    platform::{Registers, USER_END},
    signal::{
        SigFields, SigInfo, SigSet,
        action::{Action, ActionFlags},
        number::SIGUSR1,
        state::AltStack,
    },
    task::Task,
    testing::{self, BUFFER, BUFFER_SIZE, FakeCpu},
};

/// Fills the task's memory with `bytes` and zeros.
fn fill(task: &Task, bytes: &[u8]) {
    let size = usize::try_from(BUFFER_SIZE).expect("small");
    let mut memory = bytes[..bytes.len().min(size)].to_vec();
    memory.resize(size, 0);
    task.mm().write_bytes(BUFFER, &memory).expect("mapped");
}

/// Signal frames (rt_sigreturn(2)).
pub struct SignalFrames(pub(super) Arc<Task>);

impl Default for SignalFrames {
    fn default() -> SignalFrames {
        SignalFrames(testing::task(&testing::kernel(4)))
    }
}

impl SignalFrames {
    /// RFLAGS a frame must not change: all but AC, RF, OF, DF, TF, SF, ZF, AF, PF, CF.
    const KEPT: u64 = !0x5_0dd5;
    /// What a program runs with: IF, and bit 1, which is always set.
    const FLAGS: u64 = 0x202;

    /// Returns by the frame that `bytes` are, without its first word, which the handler's return has popped;
    /// then, if the registers that came of it have room for another frame, enters a handler and returns from it.
    ///
    /// # Panics
    /// On a bug.
    pub fn one(&self, bytes: &[u8]) {
        let task = &self.0;
        fill(task, bytes);
        {
            let mut own = task.signals.lock();
            (own.mask, own.altstack) = (SigSet::default(), AltStack::default());
        }
        let mut cpu = FakeCpu::default();
        let old = Registers {
            rsp: BUFFER,
            rflags: Self::FLAGS,
            fs_base: 0x1111_0000,
            gs_base: 0x2222_0000,
            ..Registers::default()
        };
        let mut regs = old;
        let restored = sigframe::restore(task, &mut regs, &mut cpu);
        assert_eq!(regs.rflags & Self::KEPT, Self::FLAGS, "privileged flags");
        assert_eq!((regs.fs_base, regs.gs_base), (old.fs_base, old.gs_base));
        let stack = {
            let own = task.signals.lock();
            assert_eq!(own.mask, own.mask.blockable());
            own.altstack
        };
        assert!(stack.size == 0 && stack == AltStack::default() || stack.size >= 2048);
        if restored.is_ok() {
            assert!(regs.rip < USER_END + 0x1000 || regs.rip >= 0xffff_8000_0000_0000);
            self.enter_and_return(regs, &mut cpu, stack);
        }
    }
    fn enter_and_return(&self, before: Registers, cpu: &mut FakeCpu, stack: AltStack) {
        let fields = SigFields::Kill { pid: 1, uid: 0 };
        let info = SigInfo { signal: SIGUSR1, code: 0, errno: 0, fields };
        let flags = ActionFlags::RESTORER | ActionFlags::ONSTACK;
        let action = Action { flags, restorer: 0x40_0000, ..Action::default() };
        let mask = self.0.signals.lock().mask;
        let frame = sigframe::Frame { info: &info, action: &action, entry: 0x41_0000, mask };
        let (mut regs, mut fpu) = (before, cpu.fpu.clone());
        if sigframe::push(&self.0, &mut regs, cpu, &frame).is_err() {
            assert_eq!(regs, before, "changed, though no handler is entered");
            return;
        }
        assert_eq!((regs.rip, regs.rsp % 16), (frame.entry, 8));
        // The handler's return pops the restorer's address.
        regs.rsp += 8;
        sigframe::restore(&self.0, &mut regs, cpu).expect("a frame of ours");
        assert_eq!(regs, before);
        // As Linux, a frame always claims x87 and SSE; its software bytes are its own.
        fpu[512] |= 3;
        fpu[464..512].fill(0);
        assert!(cpu.fpu == fpu);
        let own = self.0.signals.lock();
        assert_eq!((own.mask, own.altstack), (mask, stack));
    }
}

/// sendmsg(2) and recvmsg(2), whose messages lie in the program's memory with all that they point to.
pub struct Sendmsg {
    task: Arc<Task>,
    files: Vec<Arc<OpenFile>>,
}

impl Default for Sendmsg {
    fn default() -> Sendmsg {
        let task = testing::task(&testing::kernel(4));
        let owner = Ucred { pid: task.process.pid, uid: 0, gid: 0 };
        let mut files = Vec::new();
        for kind in [Kind::Datagram, Kind::Stream] {
            for ops in UnixSocket::pair(&task.kernel.net, kind, owner) {
                ops.endpoint().options().pass_cred = true;
                let id = task.kernel.fresh_id();
                let nameless = Nameless::default();
                let socket = Socket { id, family: Family::Unix, kind, protocol: 0, ops, nameless };
                files.push(OpenFile::new(Arc::new(socket), OpenFlags::RDWR));
            }
        }
        for file in &files {
            task.files().install(file.clone(), false, 0, 16).expect("few descriptors");
        }
        Sendmsg { task, files }
    }
}

impl Sendmsg {
    /// Sends the `struct msghdr` at the beginning of `bytes`, which lie at `BUFFER`, by a datagram and a stream
    /// socket, and receives into what lies there then. No descriptor on its way is lost or kept.
    ///
    /// # Panics
    /// On a bug.
    pub fn one(&self, bytes: &[u8]) {
        const DONTWAIT: u32 = 0x40;
        let counts = || self.files.iter().map(Arc::strong_count).collect::<Vec<_>>();
        let before = counts();
        for (from, to) in [(0, 1), (2, 3)] {
            fill(&self.task, bytes);
            let sent = self.call(|cx| message::sendmsg(cx, from, BUFFER, DONTWAIT));
            assert!(sent.is_none_or(|n| n <= 0x7fff_f000));
            fill(&self.task, bytes);
            self.call(|cx| message::recvmsg(cx, to, BUFFER, DONTWAIT));
        }
        for file in &self.files {
            let socket = file.downcast::<Socket>().expect("a socket");
            let mut buffer = [0; 4096];
            while let Ok(got) = socket.ops.recv(&mut Sink::kernel(&mut buffer), Receive::default())
                && (got.full > 0 || !got.files.is_empty() || socket.kind == Kind::Datagram)
            {
            }
        }
        let table = self.task.files();
        for (fd, _) in table.list().into_iter().skip(self.files.len()) {
            drop(table.close(fd));
        }
        assert_eq!(counts(), before, "descriptors are left");
    }
    pub(super) fn call(
        &self,
        body: impl FnOnce(&mut Cx<'_>) -> crate::error::SysResult,
    ) -> Option<u64> {
        let mut regs = Registers::default();
        body(&mut Cx {
            task: &self.task,
            call: &mut Call::with(0, [0; 6]),
            regs: &mut regs,
            cpu: &mut FakeCpu::default(),
        })
        .ok()
    }
}
