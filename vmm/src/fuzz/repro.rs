//! A program as C that does the same by itself.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use super::{
    desc::Descs,
    encode::{Instruction, Operand, encode, instructions},
    load, needs,
    prog::{DATA_BASE, DATA_SIZE, Program},
};

/// The C of `program`.
#[must_use]
pub fn source(program: &Program, descs: &Descs) -> String {
    let encoded = encode(program, descs, 0, needs::of(program, descs));
    let mut slots = BTreeSet::new();
    let mut calls = program.calls.iter();
    let mut body = String::new();
    let operand = |operand: &Operand, slots: &mut BTreeSet<u64>| match operand {
        Operand::Value(value) => format!("{value:#x}"),
        Operand::Slot(slot, default) => {
            slots.insert(*slot);
            format!("(r{slot} == -1 ? {default:#x} : r{slot})")
        }
    };
    let mut after: Vec<String> = Vec::new();
    for instruction in instructions(&encoded.words[4..]) {
        match instruction {
            Instruction::CopyIn { address, size, value } => {
                let value = operand(&value, &mut slots);
                let _ = writeln!(body, "\t*(uint{0}_t *){address:#x} = (uint{0}_t){value};", size * 8);
            }
            Instruction::Data { address, bytes } => {
                let text: String = bytes.iter().map(|b| format!("\\x{b:02x}")).collect();
                let _ =
                    writeln!(body, "\tmemcpy((void *){address:#x}, \"{text}\", {});", bytes.len());
            }
            Instruction::Call { number, is_async, slot, args } => {
                body.extend(after.drain(..));
                let mut line = String::new();
                let call = calls.next();
                if let Some(call) = call {
                    call.write(descs, &mut line);
                }
                let args: Vec<String> = args.iter().map(|arg| operand(arg, &mut slots)).collect();
                let list: String = args.iter().map(|arg| format!(", {arg}")).collect();
                let _ = writeln!(body, "\n\t// {line}");
                let name = call.map_or("?", |call| descs.get(call.desc).call());
                if is_async {
                    let _ = writeln!(
                        body,
                        "\t{{\n\t\tstatic struct call call;\n\t\tpthread_t thread;\n\
                         \t\tcall = (struct call){{{{{number}{list}}}}};\n\
                         \t\tpthread_create(&thread, NULL, beside, &call);\n\t}}"
                    );
                } else {
                    let _ = writeln!(body, "\tresult = syscall({number}{list});");
                    let _ = writeln!(body, "\tsay(\"{name}\", result);");
                }
                if let (Some(slot), false) = (slot, is_async) {
                    slots.insert(slot);
                    let _ = writeln!(body, "\tif (result != -1)\n\t\tr{slot} = result;");
                }
            }
            Instruction::CopyOut { slot, address, size } => {
                slots.insert(slot);
                let _ = writeln!(
                    body,
                    "\tif (result != -1)\n\t\tr{slot} = *(uint{}_t *){address:#x};",
                    size * 8
                );
            }
            Instruction::Region { .. } => {}
        }
    }
    let slots: String =
        slots.iter().map(|slot| format!("static uint64_t r{slot} = -1;\n")).collect();
    let thread = if body.contains("pthread_create") { THREAD } else { "" };
    format!(
        "// Made by trapgate fuzz. Build: cc -static -pthread -o repro repro.c\n\
         #define _GNU_SOURCE\n#include <errno.h>\n#include <pthread.h>\n#include <stdint.h>\n#include <stdio.h>\n\
         #include <string.h>\n#include <sys/mman.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n\n\
         {slots}\nstatic void say(const char *call, long result)\n{{\n\
         \tif (result == -1)\n\t\tprintf(\"%s = -1 (%s)\\n\", call, strerrorname_np(errno));\n\
         \telse\n\t\tprintf(\"%s = %#lx\\n\", call, result);\n\tfflush(stdout);\n}}\n\n{thread}\
         int main(void)\n{{\n\tlong result;\n\
         \tmmap((void *){DATA_BASE:#x}, {DATA_SIZE:#x}, PROT_READ | PROT_WRITE,\n\
         \t     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);\n{body}\treturn 0;\n}}\n"
    )
}

/// Calls on threads of their own, as the executor makes them.
const THREAD: &str = "\
struct call {\n\tlong args[7];\n};\n\nstatic void *beside(void *p)\n{\n\tlong *a = ((struct call *)p)->args;\n\
\tsyscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]);\n\treturn NULL;\n}\n\n";

/// Prints the C of the program in `file`; the exit status.
///
/// # Errors
/// In words for the user.
pub fn command(file: &Path) -> Result<u8, String> {
    let descs = Descs::new();
    let program = load(file, &descs)?;
    print!("{}", source(&program, &descs));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::{super::parse, *};

    #[test]
    fn names_calls_and_passes_results_on() {
        let descs = Descs::new();
        let text = "r0 = openat(-100, &(0x7f0000000000)='a\\x00', 0x42, 0x1ff)\nclose(r0)";
        let source = source(&parse::program(text, &descs).unwrap(), &descs);
        for part in [
            "memcpy((void *)0x20000000, \"\\x61\\x00\", 2);",
            "syscall(257, ",
            "r0 = result;",
            "syscall(3, (r0 == -1",
        ] {
            assert!(source.contains(part), "{part} in\n{source}");
        }
    }
}
