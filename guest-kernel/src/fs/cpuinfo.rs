//! /proc/cpuinfo: what CPUID says of the host's processor, whose instructions guests run.

use std::{arch::x86_64::__cpuid_count, fmt::Write as _};

/// Registers of a CPUID leaf.
#[derive(Clone, Copy)]
enum Reg {
    A,
    B,
    C,
    D,
}
use Reg::{A, B, C, D};

/// A word of feature bits and its names by bit; an empty name is a bit Linux does not show.
struct Word {
    leaf: u32,
    sub: u32,
    reg: Reg,
    names: &'static str,
}

/// In the order of Linux's own words (asm/cpufeatures.h); `-` skips a bit.
#[rustfmt::skip]
const WORDS: &[Word] = &[
    Word { leaf: 1, sub: 0, reg: D, names: "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe" },
    Word { leaf: 0x8000_0001, sub: 0, reg: D, names: "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow" },
    Word { leaf: 0x8000_0007, sub: 0, reg: D, names: "- - - - - - - - constant_tsc" },
    Word { leaf: 1, sub: 0, reg: C, names: "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave - avx f16c rdrand hypervisor" },
    Word { leaf: 0x8000_0001, sub: 0, reg: C, names: "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx" },
    Word { leaf: 7, sub: 0, reg: B, names: "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl" },
    Word { leaf: 0xd, sub: 1, reg: A, names: "xsaveopt xsavec xgetbv1 xsaves" },
    Word { leaf: 7, sub: 1, reg: A, names: "- - - - avx_vnni avx512_bf16" },
    Word { leaf: 0x8000_0008, sub: 0, reg: B, names: "clzero irperf xsaveerptr" },
    Word { leaf: 6, sub: 0, reg: A, names: "dtherm ida arat" },
    Word { leaf: 7, sub: 0, reg: C, names: "- avx512vbmi umip pku - waitpkg avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - movdiri movdir64b enqcmd" },
    Word { leaf: 7, sub: 0, reg: D, names: "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - md_clear - - - serialize - tsxldtrk - - - ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 - - flush_l1d arch_capabilities" },
];

fn read(leaf: u32, sub: u32, reg: Reg) -> u32 {
    let most = __cpuid_count(leaf & 0x8000_0000, 0).eax;
    if leaf > most {
        return 0;
    }
    let got = __cpuid_count(leaf, sub);
    match reg {
        A => got.eax,
        B => got.ebx,
        C => got.ecx,
        D => got.edx,
    }
}

fn flags() -> String {
    let mut out: Vec<&str> = Vec::new();
    for word in WORDS {
        let bits = read(word.leaf, word.sub, word.reg);
        let names = word.names.split(' ').enumerate();
        out.extend(names.filter(|(bit, n)| *n != "-" && bits >> bit & 1 != 0).map(|(_, n)| n));
    }
    out.join(" ")
}

fn ascii(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
}

/// The file for `cpus` processors.
#[must_use]
pub fn text(cpus: usize) -> String {
    let zero = __cpuid_count(0, 0);
    let vendor = ascii(&[zero.ebx, zero.edx, zero.ecx]);
    let signature = read(1, 0, A);
    let base = signature >> 8 & 15;
    let family = if base == 15 { base + (signature >> 20 & 0xff) } else { base };
    let model = (signature >> 4 & 15) | if base >= 6 { signature >> 12 & 0xf0 } else { 0 };
    let stepping = signature & 15;
    let brand: Vec<u32> = (0x8000_0002..=0x8000_0004)
        .flat_map(|leaf| [A, B, C, D].map(|reg| read(leaf, 0, reg)))
        .collect();
    let brand = ascii(&brand);
    let flags = flags();
    let line = (read(1, 0, B) >> 8 & 0xff) * 8;
    let sizes = read(0x8000_0008, 0, A);
    let (physical, linear) = (sizes & 0xff, sizes >> 8 & 0xff);
    let level = zero.eax;
    let mut out = String::new();
    for cpu in 0..cpus {
        let _ = write!(
            out,
            "processor\t: {cpu}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n\
             model name\t: {brand}\nstepping\t: {stepping}\ncpu MHz\t\t: 2000.000\n\
             cache size\t: 1024 KB\nphysical id\t: 0\nsiblings\t: {cpus}\ncore id\t\t: {cpu}\n\
             cpu cores\t: {cpus}\napicid\t\t: {cpu}\ninitial apicid\t: {cpu}\nfpu\t\t: yes\n\
             fpu_exception\t: yes\ncpuid level\t: {level}\nwp\t\t: yes\nflags\t\t: {flags}\n\
             bugs\t\t:\nbogomips\t: 4000.00\nclflush size\t: {line}\ncache_alignment\t: {line}\n\
             address sizes\t: {physical} bits physical, {linear} bits virtual\npower management:\n\n"
        );
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_processor_has_a_paragraph() {
        let text = super::text(3);
        assert_eq!(text.matches("processor\t: ").count(), 3);
        // x86-64 has these.
        assert!(text.lines().any(|l| l.starts_with("flags\t\t: fpu") && l.contains(" sse2")));
    }

    #[test]
    fn no_word_has_more_than_32_names() {
        for word in super::WORDS {
            assert!(word.names.split(' ').count() <= 32, "{}", word.names);
        }
    }
}
