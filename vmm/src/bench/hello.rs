//! The smallest static programs: one writes a line and exits, one only exits. Built as bytes, so that
//! nothing of a C library's start is measured with them.

/// Where the one segment is loaded.
const BASE: u64 = 0x40_0000;
/// File offset of the code: after the ELF header and one program header.
const CODE: u64 = 0x78;

/// The image of write(1, "hello\n", 6); exit(0).
#[must_use]
pub fn hello() -> Vec<u8> {
    image(&[
        0xb8, 1, 0, 0, 0, // mov eax, SYS_write
        0xbf, 1, 0, 0, 0, // mov edi, 1
        0x48, 0x8d, 0x35, 16, 0, 0, 0, // lea rsi, [rip + 16]
        0xba, 6, 0, 0, 0, // mov edx, 6
        0x0f, 0x05, // syscall
        0xb8, 60, 0, 0, 0, // mov eax, SYS_exit
        0x31, 0xff, // xor edi, edi
        0x0f, 0x05, // syscall
        b'h', b'e', b'l', b'l', b'o', b'\n',
    ])
}

/// The image of exit(0).
#[must_use]
pub fn nothing() -> Vec<u8> {
    image(&[
        0xb8, 60, 0, 0, 0, // mov eax, SYS_exit
        0x31, 0xff, // xor edi, edi
        0x0f, 0x05, // syscall
    ])
}

fn image(code: &[u8]) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, process::Command};

    #[test]
    fn run_natively() {
        for (image, wanted) in [(super::hello(), &b"hello\n"[..]), (super::nothing(), b"")] {
            let name = format!("trapgate-hello-{}-{}", wanted.len(), std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, image).expect("written");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("made executable");
            let output = Command::new(&path).output().expect("started");
            std::fs::remove_file(&path).expect("removed");
            assert!(output.status.success());
            assert_eq!(output.stdout, wanted);
        }
    }
}
