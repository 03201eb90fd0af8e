//! Which platform runs the guest, and why.

use std::sync::Arc;

use trapgate_kernel::platform::Platform;

use crate::{
    cli::Backend,
    exit,
    memory::GuestRam,
    platform::{
        kvm::{KvmOptions, KvmPlatform},
        ptrace::PtracePlatform,
    },
};

/// Starts the platform `wanted` on `ram`; `auto` falls back to ptrace and says so in one line.
///
/// # Errors
/// The reason and the fix, in one line.
pub fn start(
    wanted: Backend,
    ram: &GuestRam,
    options: KvmOptions,
) -> Result<Arc<dyn Platform>, String> {
    let ptrace = || -> Result<Arc<dyn Platform>, String> {
        Ok(PtracePlatform::new(ram).map_err(|error| error.to_string())?)
    };
    let kvm = || -> Result<Arc<dyn Platform>, String> {
        Ok(KvmPlatform::new(ram, options).map_err(|error| error.to_string())?)
    };
    match wanted {
        Backend::Kvm => kvm(),
        Backend::Ptrace => ptrace(),
        Backend::Auto => match kvm() {
            Ok(platform) => Ok(platform),
            Err(reason) => {
                let reason = reason.replace(", or use --backend ptrace", "");
                let reason = reason.replace("; use --backend ptrace", "");
                exit::complain(&format!("using the ptrace backend: {reason}"));
                ptrace()
            }
        },
    }
}
