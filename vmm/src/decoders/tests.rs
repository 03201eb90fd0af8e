//! A short form of every target, and the corpora they start from.
//!
//! `WRITE_CORPUS=1 cargo test -p trapgate --lib decoders` writes the corpora anew.

use std::{
    fs,
    path::{Path, PathBuf},
};

use trapgate_firmware::{abi::Header, layout};

use super::*;
use crate::fuzz::rng::Rng;

/// Rounds of damage for each good input.
const ROUNDS: usize = 1000;

/// Runs `one` on the good inputs and on damaged ones; the good ones are the corpus of `target`.
fn damaged(seed: u64, target: &str, good: &[Vec<u8>], one: impl FnMut(&[u8])) {
    let dir = corpus(target);
    for (nth, input) in good.iter().enumerate() {
        let file = dir.join(format!("{nth}"));
        assert!(input.len() < 4096, "{}: {} bytes", file.display(), input.len());
        if std::env::var_os("WRITE_CORPUS").is_some() {
            fs::create_dir_all(&dir).unwrap();
            fs::write(&file, input).unwrap();
        }
        assert!(fs::read(&file).ok().as_ref() == Some(input), "{} is out of date", file.display());
    }
    rounds(seed, good, one);
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn rounds(seed: u64, good: &[Vec<u8>], mut one: impl FnMut(&[u8])) {
    let mut rng = Rng::new(seed);
    for input in good {
        one(input);
        for _ in 0..ROUNDS {
            one(&damage(&mut rng, input));
        }
    }
}

/// `input` with one to four damages.
fn damage(rng: &mut Rng, input: &[u8]) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(out.len());
        let piece = match rng.below(5) {
            0 => {
                out.truncate(at);
                continue;
            }
            1 => {
                let from = rng.below(out.len());
                out[from..].iter().copied().take(16).collect()
            }
            2 => vec![*rng.pick(&[0, 1, 0x7f, 0x80, 0xff]); *rng.pick(&[1, 2, 4, 8])],
            3 => rng.draw().to_le_bytes()[..*rng.pick(&[1, 2, 4, 8])].to_vec(),
            _ => vec![*rng.pick(b"0x1f&(){}[]@=,<>r'\"# \n")],
        };
        out.iter_mut().skip(at).zip(piece).for_each(|(b, p)| *b = p);
    }
    out
}

/// A ring page with a call in `state`, for a vCPU that stops at `rip` in the ring-3 gate.
fn ring_page(state: u32, number: u64, rip: u16) -> Vec<u8> {
    let mut bytes = vec![0; RING_HEAD + 1400];
    bytes[2..4].copy_from_slice(&rip.to_le_bytes());
    let mut put = |offset: u64, word: u64| {
        let at = RING_HEAD + usize::try_from(offset).unwrap();
        bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    };
    put(layout::RING_NUMBER, number);
    put(layout::RING_CALLER, 0x40_1000);
    put(layout::RING_STATE, state.into());
    for i in 0..16 {
        put(layout::RING_REGISTERS + i * 8, 0x1000 + i);
    }
    for (i, word) in (0..).zip([0x40_1000, 0x33, 0x246, 0x7fff_f000, 0x2b]) {
        put(layout::RING_FRAME + i * 8, word);
    }
    // The control words, and which components there are.
    put(layout::RING_XSAVE, 0x37f);
    put(layout::RING_XSAVE + 24, 0x1f80);
    put(layout::RING_XSAVE + 512, 7);
    bytes
}

#[test]
fn ring_entries() {
    let good = [
        ring_page(layout::STATE_POSTED, 0, 0x40),
        ring_page(layout::STATE_POSTED, 1, 0x60),
        ring_page(layout::STATE_FULL, 15, 0xa0),
        ring_page(layout::STATE_LOAD, 15, 0xfff),
    ];
    let target = RingEntries::default();
    // Wherever it stops.
    for page in &good {
        for rip in 0..4096u16 {
            let mut page = page.clone();
            page[2..4].copy_from_slice(&rip.to_le_bytes());
            target.one(&page);
        }
    }
    damaged(0x7269_6e67, "ring_entries", &good, |bytes| target.one(bytes));
}

#[test]
fn words_of_the_gate() {
    let header = Header::CURRENT;
    let words =
        [header.magic, header.version, header.gate, header.vectors, header.ring0, header.idt];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend((0..14u64).flat_map(|phase| (0x1000 + phase * 8).to_le_bytes()));
    let frame =
        |offset: u16, vector: u8| [&offset.to_le_bytes()[..], &[vector], &bytes, &[0; 64]].concat();
    let good = [frame(0x40, 14), frame(0x48, 3), frame(0xfd0, 13)];
    damaged(0x6761_7465, "gate_words", &good, gate_words);
}

#[test]
fn texts_of_programs() {
    // Copies of programs in tests/fuzz, which are the corpus itself.
    let dir = corpus("program_text");
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let good: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    for text in &good {
        assert!(parse::program(std::str::from_utf8(text).unwrap(), &DESCS).is_ok());
    }
    rounds(0x7465_7874, &good, program_text);
}

#[test]
fn records_of_executors() {
    let record = |kind: u32, words: &[u32]| {
        let mut out = kind.to_le_bytes().to_vec();
        out.extend(u32::try_from(words.len() * 4).unwrap().to_le_bytes());
        out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        out
    };
    let state = |text: &[u8]| {
        let len = u32::try_from(text.len()).unwrap();
        [&5u32.to_le_bytes()[..], &len.to_le_bytes(), text].concat()
    };
    let (begin, completed) = (record(1, &[9, 0]), record(6, &[9, 0, 0, 0]));
    let call = |index, finished, value: i32| {
        let high = if value < 0 { u32::MAX } else { 0 };
        record(2, &[index, finished, value.cast_unsigned(), high])
    };
    let memory = record(3, &[2, 0, 0x0807_0605, 0x0c0b_0a09]);
    let signal = record(4, &[1, 11, 1]);
    let killed = record(6, &[9, 0, 1, 9]);
    let good = [
        [begin.clone(), call(0, 1, 57), call(1, 1, -9), completed.clone()].concat(),
        [
            begin.clone(),
            call(2, 1, 8),
            memory,
            state(b"fd 0 reg 644\nvma 1-2 r--\ncwd /\n"),
            killed,
        ]
        .concat(),
        [begin.clone(), call(2, 0, 0), signal, record(6, &[9, 0, 3, 2]), begin, completed].concat(),
        [&7u32.to_le_bytes()[..], &5u32.to_le_bytes(), b"no /w"].concat(),
    ];
    damaged(0x7265_6364, "executor_records", &good, executor_records);
}
