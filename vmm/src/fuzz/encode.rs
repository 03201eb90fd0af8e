//! From a program to the words that the executor interprets (guest/executor.h has their format).

use std::collections::{BTreeSet, HashMap};

use super::{
    desc::{Descs, Type, Way},
    needs,
    prog::{Arg, Call, DATA_BASE, DATA_SIZE, Program},
};

/// The first word of a frame: "TRGPRGM1".
pub const MAGIC: u64 = 0x314d_4752_5047_5254;
/// Most bytes of memory that are looked at after a call.
pub const MAX_REGION: usize = 4096;

const COPY_IN: u64 = 1;
const DATA: u64 = 2;
const CALL: u64 = 3;
const COPY_OUT: u64 = 4;
const REGION: u64 = 5;
const NO_SLOT: u64 = u64::MAX;

/// What to record besides the calls' results, and how to run.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one bit each in the frame")]
pub struct Options {
    /// In a process of its own.
    pub fresh: bool,
    /// Descriptors.
    pub fds: bool,
    /// Mappings.
    pub vmas: bool,
    /// Signal masks and actions.
    pub signals: bool,
    /// The working directory's files.
    pub files: bool,
    /// Identity, children, timers.
    pub process: bool,
    /// Milliseconds without progress after which it counts as waiting for ever; 0: the executor's own.
    pub patience: u32,
}

/// Memory that is recorded after a call, and which bytes of it two kernels must agree on.
#[derive(Clone, Debug)]
pub struct Region {
    /// The call's index.
    pub call: usize,
    /// True: compared.
    pub mask: Vec<bool>,
}

/// A program for the executor.
pub struct Encoded {
    /// A whole frame.
    pub words: Vec<u64>,
    /// What is recorded, in the order in which it is.
    pub regions: Vec<Region>,
}

/// Encodes `program` as frame `id`.
#[must_use]
pub fn encode(program: &Program, descs: &Descs, id: u64, options: Options) -> Encoded {
    let bits =
        [options.fresh, options.fds, options.vmas, options.signals, options.files, options.process];
    let flags = bits.iter().rev().fold(0, |flags, bit| flags << 1 | u64::from(*bit));
    let flags = flags | u64::from(options.patience) << 32;
    let mut writer = Writer { words: vec![MAGIC, id, flags, 0], ..Writer::default() };
    for (index, call) in program.calls.iter().enumerate() {
        writer.call(index, call, descs);
    }
    writer.words[3] = writer.words.len() as u64 - 4;
    Encoded { words: writer.words, regions: writer.regions }
}

#[derive(Default)]
struct Writer {
    words: Vec<u64>,
    regions: Vec<Region>,
    slots: HashMap<u32, u64>,
    /// What follows the call in hand.
    outs: Vec<(u64, u64, u64)>,
    looks: Vec<(u64, Vec<bool>)>,
    /// All that the call in hand writes differs from run to run.
    varies: bool,
    /// Offsets of bytes that are not compared.
    hidden: BTreeSet<u64>,
}

impl Writer {
    fn slot(&mut self, number: u32) -> u64 {
        let next = self.slots.len() as u64;
        *self.slots.entry(number).or_insert(next)
    }
    fn operand(&mut self, arg: &Arg) -> Vec<u64> {
        match arg {
            Arg::Value(value) | Arg::Define(_, value) => vec![0, *value],
            Arg::Result(number, default) => vec![1, self.slot(*number), *default],
            Arg::Pointer(offset, _) => vec![0, DATA_BASE + offset],
            // Bytes where a register is meant: nothing sensible, but the same everywhere.
            _ => vec![0, 0],
        }
    }
    fn call(&mut self, index: usize, call: &Call, descs: &Descs) {
        let desc = descs.get(call.desc);
        self.varies = needs::varies(desc.call(), "memory");
        for (position, (arg, kind)) in call.args.iter().zip(&desc.args).enumerate() {
            let len = |of: usize| match call.args.get(of) {
                Some(Arg::Value(len)) if of != position => Some(*len),
                _ => None,
            };
            self.register(arg, kind, &len);
        }
        let slot = call.result.map_or(NO_SLOT, |number| self.slot(number));
        let args: Vec<Vec<u64>> = call.args.iter().map(|arg| self.operand(arg)).collect();
        let count = args.len() as u64;
        self.words.extend([CALL, desc.row.number, u64::from(call.is_async), slot, count]);
        self.words.extend(args.into_iter().flatten());
        for (slot, address, size) in std::mem::take(&mut self.outs) {
            self.words.extend([COPY_OUT, slot, address, size]);
        }
        for (address, mask) in std::mem::take(&mut self.looks) {
            self.words.extend([REGION, address, mask.len() as u64]);
            self.regions.push(Region { call: index, mask });
        }
    }
    /// What a register points to, if anything.
    fn register(&mut self, arg: &Arg, kind: &Type, len: &dyn Fn(usize) -> Option<u64>) {
        let Arg::Pointer(offset, to) = arg else { return };
        let (way, of) = match kind {
            Type::Pointer(way, of) => (*way, Some(&**of)),
            _ => (Way::In, None),
        };
        let mut size = match to {
            Some(to) => self.memory(to, of, *offset),
            None => of.map_or(0, |of| of.size() as u64),
        };
        if way == Way::Out {
            if let Some(Type::Data(index)) = of {
                size = size.max(len(*index).unwrap_or(0));
            }
            let size = usize::try_from(size.min(DATA_SIZE - offset)).unwrap_or(0).min(MAX_REGION);
            let mut mask = vec![true; size];
            if let Some(of) = of {
                of.mask(0, &mut mask);
            }
            if self.varies {
                mask.fill(false);
            }
            // What an earlier call put there by its own lights is no better for being looked at again.
            for at in &self.hidden {
                if let Some(place) = at.checked_sub(*offset)
                    && let Some(bit) = usize::try_from(place).ok().and_then(|i| mask.get_mut(i))
                {
                    *bit = false;
                }
            }
            self.hidden.extend((*offset..).zip(&mask).filter(|(_, shown)| !**shown).map(|(at, _)| at));
            if mask.contains(&true) {
                self.looks.push((DATA_BASE + offset, mask));
            }
        }
    }
    /// Puts a value into memory; its bytes.
    fn memory(&mut self, arg: &Arg, kind: Option<&Type>, offset: u64) -> u64 {
        let address = DATA_BASE + offset;
        match (arg, kind) {
            (Arg::Data(bytes), _) => {
                self.data(address, bytes);
                bytes.len() as u64
            }
            (Arg::Room(len), _) => *len,
            (Arg::Group(values), Some(Type::Struct(_, members))) => {
                let mut at = offset;
                let mut values = values.iter();
                let numbers: Vec<&Arg> = values.clone().collect();
                let shown: Vec<usize> = (0..members.len())
                    .filter(|i| !matches!(members[*i], Type::Hidden(_)))
                    .collect();
                let len = |of: usize| {
                    let place = shown.iter().position(|i| *i == of)?;
                    match numbers.get(place) {
                        Some(Arg::Value(len)) => Some(*len),
                        _ => None,
                    }
                };
                for member in members {
                    if !matches!(member, Type::Hidden(_))
                        && let Some(value) = values.next()
                    {
                        self.register(value, member, &len);
                        self.memory(value, Some(member), at);
                    }
                    at += member.size() as u64;
                }
                at - offset
            }
            (Arg::Group(values), Some(Type::Array(of))) => {
                let mut at = offset;
                for value in values {
                    at += self.memory(value, Some(of), at);
                }
                at - offset
            }
            (Arg::Group(values), Some(Type::Strings)) => {
                for (value, at) in values.iter().zip((offset..).step_by(8)) {
                    self.register(value, &Type::Number(8, super::desc::HEX), &|_| None);
                    self.memory(value, None, at);
                }
                values.len() as u64 * 8
            }
            (Arg::Variant(name, value), Some(Type::Union(variants))) => {
                let of = variants.iter().find(|(n, _)| n == name).map(|(_, of)| of);
                self.memory(value, of, offset);
                kind.map_or(0, |kind| kind.size() as u64)
            }
            (Arg::Value(_) | Arg::Result(..) | Arg::Define(..) | Arg::Pointer(..), kind) => {
                let size = match kind.map_or(8, Type::size) {
                    size @ (1 | 2 | 4 | 8) => size as u64,
                    _ => 8,
                };
                let operand = self.operand(arg);
                self.words.extend([COPY_IN, address, size]);
                self.words.extend(operand);
                if let Arg::Define(number, _) = arg {
                    let slot = self.slot(*number);
                    self.outs.push((slot, address, size));
                }
                size
            }
            (Arg::Group(_) | Arg::Variant(..), _) => 0,
        }
    }
    fn data(&mut self, address: u64, bytes: &[u8]) {
        self.words.extend([DATA, address, bytes.len() as u64]);
        self.words.extend(bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        }));
    }
}

/// An operand of an instruction.
pub enum Operand {
    /// A number.
    Value(u64),
    /// A slot's value, or the number while it has none.
    Slot(u64, u64),
}

/// One instruction of a frame.
#[expect(missing_docs, reason = "guest/executor.h tells what each does")]
pub enum Instruction {
    CopyIn { address: u64, size: u64, value: Operand },
    Data { address: u64, bytes: Vec<u8> },
    Call { number: u64, is_async: bool, slot: Option<u64>, args: Vec<Operand> },
    CopyOut { slot: u64, address: u64, size: u64 },
    Region { address: u64, len: u64 },
}

/// The instructions of a frame's words, as far as they are well formed.
#[must_use]
pub fn instructions(words: &[u64]) -> Vec<Instruction> {
    let mut words = words.iter().copied();
    let mut out = Vec::new();
    while let Some(instruction) = instruction(&mut words) {
        out.push(instruction);
    }
    out
}

fn instruction(words: &mut impl Iterator<Item = u64>) -> Option<Instruction> {
    Some(match words.next()? {
        COPY_IN => Instruction::CopyIn {
            address: words.next()?,
            size: words.next()?,
            value: operand(words)?,
        },
        DATA => {
            let (address, len) = (words.next()?, usize::try_from(words.next()?).ok()?);
            let mut bytes: Vec<u8> =
                words.take(len.div_ceil(8)).flat_map(u64::to_le_bytes).collect();
            bytes.truncate(len);
            Instruction::Data { address, bytes }
        }
        CALL => {
            let (number, flags, slot) = (words.next()?, words.next()?, words.next()?);
            let count = words.next()?.min(6);
            let args = (0..count).map(|_| operand(words)).collect::<Option<Vec<_>>>()?;
            let slot = Some(slot).filter(|slot| *slot != NO_SLOT);
            Instruction::Call { number, is_async: flags & 1 != 0, slot, args }
        }
        COPY_OUT => Instruction::CopyOut {
            slot: words.next()?,
            address: words.next()?,
            size: words.next()?,
        },
        REGION => Instruction::Region { address: words.next()?, len: words.next()? },
        _ => return None,
    })
}

fn operand(words: &mut impl Iterator<Item = u64>) -> Option<Operand> {
    match words.next()? {
        0 => Some(Operand::Value(words.next()?)),
        1 => Some(Operand::Slot(words.next()?, words.next()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parse, *};

    fn encoded(text: &str) -> Encoded {
        let descs = Descs::new();
        encode(&parse::program(text, &descs).unwrap(), &descs, 7, Options::default())
    }

    #[test]
    fn a_pipe_gives_two_results() {
        let text = "pipe(&(0x7f0000000080)={<r1=>0x0, <r2=>0x0})\nclose(r2)";
        let Encoded { words, regions } = encoded(text);
        assert_eq!(words[..4], [MAGIC, 7, 0, words.len() as u64 - 4]);
        let address = DATA_BASE + 0x80;
        let expected = [
            [COPY_IN, address, 4, 0, 0].as_slice(),
            &[COPY_IN, address + 4, 4, 0, 0],
            &[CALL, 22, 0, NO_SLOT, 1, 0, address],
            &[COPY_OUT, 0, address, 4, COPY_OUT, 1, address + 4, 4],
            &[REGION, address, 8],
            &[CALL, 3, 0, NO_SLOT, 1, 1, 1, u64::MAX],
        ]
        .concat();
        assert_eq!(words[4..], expected);
        assert_eq!(regions.len(), 1);
    }

    #[test]
    fn buffers_are_as_long_as_their_lengths_say() {
        let Encoded { regions, .. } = encoded("read(0x0, &(0x7f0000000000), 0x20)");
        assert_eq!(regions[0].mask.len(), 0x20);
        let Encoded { regions, .. } = encoded("read(0x0, &(0x7f00003fffff), 0xffffffff)");
        assert_eq!(regions[0].mask.len(), 1);
    }

    #[test]
    fn strings_and_nested_pointers_are_placed() {
        let text = "writev(0x1, &(0x7f0000000000)={{&(0x7f0000000100)='abc\\x00', 0x3}}, 0x1)";
        let Encoded { words, .. } = encoded(text);
        let abc = u64::from(u32::from_le_bytes(*b"abc\0"));
        assert!(words.windows(4).any(|w| w == [DATA, DATA_BASE + 0x100, 4, abc]));
        assert!(words.windows(5).any(|w| w == [COPY_IN, DATA_BASE, 8, 0, DATA_BASE + 0x100]));
        assert!(words.windows(5).any(|w| w == [COPY_IN, DATA_BASE + 8, 8, 0, 3]));
    }
}
