//! What programs may be made of: every call of the kernel's table as a description with types.
//!
//! A call that the table gains is described here without another line. [`VARIANTS`] narrow calls whose
//! arguments mean different things by the value of another (`fcntl$F_SETLK`), in syzkaller's manner.

use std::collections::HashMap;

use trapgate_kernel::linux::{
    layouts::{self, Layout, Member, layout},
    rows::FAMILIES,
    table::{Kind, Row, Support, Table},
};

use super::variants::{VARIANTS, Variant};

/// What an argument, a structure's member or memory behind a pointer is.
#[derive(Clone, Debug)]
pub enum Type {
    /// A number of so many bytes.
    Number(usize, Kind),
    /// A number of so many bytes that has one right value.
    Fixed(usize, u64),
    /// Bytes that no text shows; they are zero. Two kernels may differ in them.
    Hidden(usize),
    /// So many bytes of data.
    Bytes(usize),
    /// A file name in so many bytes.
    Name(usize),
    /// A pointer.
    Pointer(Way, Box<Type>),
    /// Bytes; how many, another argument says: that of this number in the same list.
    Data(usize),
    /// A string that ends with NUL.
    Text(Kind),
    /// Some of these.
    Array(Box<Type>),
    /// Members in order.
    Struct(&'static str, Vec<Type>),
    /// One of these.
    Union(Vec<(&'static str, Type)>),
    /// The pointers of an execve(2) argument list.
    Strings,
}

/// What a number is of which nothing is known.
pub const HEX: Kind = Kind::Hex;

/// Who uses what is behind a pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The call reads it.
    In,
    /// The call writes it, and may read it.
    Out,
}

impl Type {
    /// Bytes in memory; 0 where only a value tells.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Type::Number(size, _) | Type::Fixed(size, _) => *size,
            Type::Hidden(size) | Type::Bytes(size) | Type::Name(size) => *size,
            Type::Pointer(..) => 8,
            Type::Data(_) | Type::Text(_) | Type::Array(_) | Type::Strings => 0,
            Type::Struct(_, members) => members.iter().map(Type::size).sum(),
            Type::Union(variants) => variants.iter().map(|(_, of)| of.size()).max().unwrap_or(0),
        }
    }
    /// Marks what two kernels may differ in, from `at` on, in `mask` (true: compared).
    pub fn mask(&self, at: usize, mask: &mut [bool]) {
        match self {
            // Who is meant is compared by returned values alone.
            Type::Hidden(size) | Type::Number(size, Kind::Pid) => {
                let end = (at + size).min(mask.len());
                if at < end {
                    mask[at..end].fill(false);
                }
            }
            Type::Struct(_, members) => {
                let mut at = at;
                for member in members {
                    member.mask(at, mask);
                    at += member.size();
                }
            }
            Type::Array(of) if of.size() > 0 => {
                (at..mask.len()).step_by(of.size()).for_each(|at| of.mask(at, mask));
            }
            _ => {}
        }
    }
    /// A file's name, or a descriptor of a directory it is looked up in.
    #[must_use]
    pub fn is_path(&self) -> bool {
        match self {
            Type::Pointer(_, to) => matches!(**to, Type::Text(Kind::Path)),
            _ => false,
        }
    }
    /// A structure of which the call writes a part, though it is read as well.
    fn is_answered(name: &str) -> bool {
        matches!(name, "pollfd" | "int" | "offset" | "fd_set" | "mmsghdr" | "robust_list_head")
    }
}

/// One call, or one variant of it.
pub struct Desc {
    /// `openat` or `fcntl$F_SETLK`.
    pub name: String,
    /// Its row of the table.
    pub row: &'static Row,
    /// Its arguments.
    pub args: Vec<Type>,
    /// What its return value is ([`layouts::returns`]).
    pub returns: Option<&'static str>,
    /// The number of its man-page family.
    pub family: usize,
}

impl Desc {
    /// The call without its variant.
    #[must_use]
    pub fn call(&self) -> &'static str {
        self.row.name
    }
    /// Kinds of results its registers want: `"fd"`, `"timer"`.
    #[must_use]
    pub fn wants(&self) -> Vec<&'static str> {
        let kind = |kind: &Type| match kind {
            Type::Number(_, Kind::Fd) => Some("fd"),
            Type::Number(_, Kind::Id(name)) => Some(*name),
            _ => None,
        };
        let mut wants: Vec<&str> = self.args.iter().filter_map(kind).collect();
        wants.dedup();
        wants
    }
}

fn family(row: &Row) -> usize {
    let holds = |family: &&[Row]| family.iter().any(|r| r.number == row.number);
    FAMILIES.iter().position(holds).unwrap_or(0)
}

/// All descriptions, in order of numbers, variants after their calls.
pub struct Descs {
    all: Vec<Desc>,
    by_name: HashMap<String, usize>,
}

impl Descs {
    /// From the kernel's table.
    #[must_use]
    pub fn new() -> Descs {
        let mut all = Vec::new();
        for row in Table::new().iter().filter(|row| row.support != Support::Absent) {
            let args = row.args.iter().map(|(_, kind)| argument(*kind)).collect();
            let returns = layouts::returns(row.name);
            let family = family(row);
            all.push(Desc { name: row.name.to_owned(), row, args, returns, family });
            all.extend(VARIANTS.iter().filter(|v| v.call == row.name).map(|v| variant(row, v)));
        }
        let by_name = all.iter().enumerate().map(|(i, d)| (d.name.clone(), i)).collect();
        Descs { all, by_name }
    }
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }
    /// How many families there are.
    #[must_use]
    pub fn families(&self) -> usize {
        FAMILIES.len()
    }
    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
    /// The description with this index.
    #[must_use]
    pub fn get(&self, index: usize) -> &Desc {
        &self.all[index]
    }
    /// The index of the description with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
    /// All, with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Desc)> {
        self.all.iter().enumerate()
    }
}

impl Default for Descs {
    fn default() -> Descs {
        Descs::new()
    }
}

fn variant(row: &'static Row, variant: &Variant) -> Desc {
    let mut args: Vec<Type> = row.args.iter().map(|(_, kind)| argument(*kind)).collect();
    for (index, value) in variant.fixed {
        args[*index] = Type::Fixed(8, *value);
    }
    for (index, kind) in variant.kinds {
        args[*index] = argument(*kind);
    }
    args.truncate(variant.args.unwrap_or(args.len()));
    let returns = variant.returns.or_else(|| layouts::returns(row.name));
    let name = format!("{}${}", row.name, variant.suffix);
    Desc { name, row, args, returns, family: family(row) }
}

/// A register's type.
fn argument(kind: Kind) -> Type {
    let pointer = |way, to| Type::Pointer(way, Box::new(to));
    match kind {
        Kind::Path | Kind::Str => pointer(Way::In, Type::Text(kind)),
        Kind::StrArray => pointer(Way::In, Type::Strings),
        Kind::In(len) => pointer(Way::In, Type::Data(len)),
        Kind::Out(len) => pointer(Way::Out, Type::Data(len)),
        Kind::IovIn(_) => pointer(Way::In, named("iovec_in")),
        Kind::IovOut(_) => pointer(Way::In, named("iovec_out")),
        Kind::StructIn(name) if Type::is_answered(name) => pointer(Way::Out, named(name)),
        Kind::StructIn(name) => pointer(Way::In, named(name)),
        Kind::StructOut(name) => pointer(Way::Out, named(name)),
        scalar => Type::Number(8, scalar),
    }
}

fn named(name: &'static str) -> Type {
    match layout(name) {
        Some(Layout::Struct(members)) => {
            Type::Struct(name, members.iter().map(|m| member(*m)).collect())
        }
        Some(Layout::Array(of)) => Type::Array(Box::new(named(of))),
        Some(Layout::Union(variants)) => {
            Type::Union(variants.iter().map(|(name, of)| (*name, named(of))).collect())
        }
        None => Type::Bytes(64),
    }
}

fn member(member: Member) -> Type {
    match member {
        Member::Number(size, kind) => Type::Number(size, kind),
        Member::Fixed(size, value) => Type::Fixed(size, value),
        Member::Opaque(size) | Member::Pad(size) => Type::Hidden(size),
        Member::Bytes(size) => Type::Bytes(size),
        Member::Name(size) => Type::Name(size),
        Member::Pointer(kind) => argument(kind),
        Member::Of(name) => named(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_described() {
        let descs = Descs::new();
        for row in Table::new().iter().filter(|row| row.support != Support::Absent) {
            let desc = descs.get(descs.find(row.name).expect(row.name));
            assert_eq!(desc.args.len(), row.args.len(), "{}", row.name);
        }
    }

    #[test]
    fn variants_name_calls_and_arguments_that_exist() {
        let descs = Descs::new();
        for v in VARIANTS {
            assert!(descs.find(&format!("{}${}", v.call, v.suffix)).is_some(), "{}", v.call);
        }
    }

    #[test]
    fn times_and_inode_numbers_are_not_compared() {
        let Type::Pointer(Way::Out, stat) =
            &Descs::new().all[Descs::new().find("fstat").unwrap()].args[1]
        else {
            panic!("fstat's second argument is a pointer to what it writes");
        };
        let mut mask = vec![true; stat.size()];
        stat.mask(0, &mut mask);
        assert!(!mask[0] && !mask[15] && mask[16] && mask[24] && !mask[72] && !mask[143]);
    }
}
