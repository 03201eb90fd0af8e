//! Last suite: did the others run anything where they could have?

use trapgate_tests::Backend;
use trapgate_tests::backend::{kvm_present, loud};

#[test]
fn a_present_kvm_was_used() {
    let native = Backend::Native.runs_so_far();
    let [kvm, ptrace] = Backend::GUESTS.map(Backend::runs_so_far);
    loud(&format!("runs in this test: native {native}, kvm {kvm}, ptrace {ptrace}"));
    if native == 0 {
        // Asked for alone: there is nothing to judge.
        return;
    }
    assert!(ptrace > 0, "tests ran natively, but none on ptrace");
    if kvm_present() {
        assert!(kvm > 0, "/dev/kvm can be opened, but no test ran on it");
    } else {
        loud("the KVM half of every suite was NOT RUN: no usable /dev/kvm");
    }
}
