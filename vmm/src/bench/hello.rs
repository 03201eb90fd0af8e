//! The smallest static program: writes a line and exits. Built as bytes, so that a bench needs no
//! compiler.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Where the one segment is loaded.
const BASE: u64 = 0x40_0000;
/// File offset of the code: after the ELF header and one program header.
const CODE: u64 = 0x78;

/// The image: write(1, "hello\n", 6); exit(0).
fn image() -> Vec<u8> {
    let code: &[u8] = &[
        0xb8, 1, 0, 0, 0, // mov eax, SYS_write
        0xbf, 1, 0, 0, 0, // mov edi, 1
        0x48, 0x8d, 0x35, 16, 0, 0, 0, // lea rsi, [rip + 16]
        0xba, 6, 0, 0, 0, // mov edx, 6
        0x0f, 0x05, // syscall
        0xb8, 60, 0, 0, 0, // mov eax, SYS_exit
        0x31, 0xff, // xor edi, edi
        0x0f, 0x05, // syscall
        b'h', b'e', b'l', b'l', b'o', b'\n',
    ];
    let size = CODE + code.len() as u64;
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |value: u16, out: &mut Vec<u8>| out.extend(value.to_le_bytes());
    half(2, &mut out); // ET_EXEC
    half(62, &mut out); // EM_X86_64
    out.extend(1_u32.to_le_bytes());
    for word in [BASE + CODE, 64, 0] {
        out.extend(word.to_le_bytes()); // e_entry, e_phoff, e_shoff
    }
    out.extend(0_u32.to_le_bytes());
    for value in [64, 56, 1, 64, 0, 0] {
        half(value, &mut out); // sizes and counts of headers
    }
    out.extend(1_u32.to_le_bytes()); // PT_LOAD
    out.extend(5_u32.to_le_bytes()); // PF_R | PF_X
    for word in [0, BASE, BASE, size, size, 0x1000] {
        out.extend(word.to_le_bytes());
    }
    out.extend(code);
    out
}

/// The program as a file, removed when dropped.
pub struct Hello {
    /// Where it lies.
    pub path: PathBuf,
}

impl Hello {
    /// Writes the file.
    ///
    /// # Errors
    /// What went wrong, in one line.
    pub fn write() -> Result<Hello, String> {
        let name = format!("trapgate-hello-{}", std::process::id());
        // /var/tmp, because the guest's /tmp is its own.
        let path = Path::new("/var/tmp").join(name);
        let fail = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
        std::fs::write(&path, image()).map_err(fail)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(fail)?;
        Ok(Hello { path })
    }
}

impl Drop for Hello {
    fn drop(&mut self) {
        // It is ours and tiny; a leftover does no harm.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn runs_natively() {
        let hello = super::Hello::write().expect("written");
        let output = std::process::Command::new(&hello.path).output().expect("started");
        assert!(output.status.success());
        assert_eq!(output.stdout, b"hello\n");
    }
}
