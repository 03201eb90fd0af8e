//! New calls for programs, from their descriptions.

use trapgate_kernel::linux::table::Kind;

use super::{
    desc::{Desc, Descs, Type, Way},
    needs,
    prog::{Arg, Call, Program},
    rng::Rng,
    values,
};

/// Where programs' buffers lie; what they map and unmap lies above.
const BUFFERS: u64 = 0x10_0000;
/// Where programs map and unmap, 16 pages.
const PAGES: u64 = 0x20_0000;
/// Most calls a fresh program gets.
const FRESH_CALLS: usize = 12;

/// Which calls are made, and how often.
pub struct Choices {
    /// Enabled descriptions, a frequent one several times.
    calls: Vec<usize>,
    /// The same by family.
    families: Vec<Vec<usize>>,
    /// The same without calls that need a process of their own.
    light: Vec<usize>,
    /// Those by family.
    light_families: Vec<Vec<usize>>,
}

impl Choices {
    /// Of all calls for which `enabled` says so.
    #[must_use]
    pub fn new(descs: &Descs, enabled: &dyn Fn(&Desc) -> bool) -> Choices {
        let mut calls = Vec::new();
        let mut families = vec![Vec::new(); descs.families()];
        let (mut light, mut light_families) = (calls.clone(), families.clone());
        for (index, desc) in descs.iter().filter(|(_, desc)| enabled(desc)) {
            let weight = if needs::is_rare(desc.call()) { 1 } else { 8 };
            calls.extend(std::iter::repeat_n(index, weight));
            families[desc.family].extend(std::iter::repeat_n(index, weight));
            if !needs::is_fresh(desc.call()) {
                light.extend(std::iter::repeat_n(index, weight));
                light_families[desc.family].extend(std::iter::repeat_n(index, weight));
            }
        }
        if light.is_empty() {
            light.clone_from(&calls);
            light_families.clone_from(&families);
        }
        Choices { calls, families, light, light_families }
    }
    /// How many descriptions there are in it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.calls.iter().collect::<std::collections::BTreeSet<_>>().len()
    }
    /// Nothing is enabled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
    fn pick(&self, rng: &mut Rng, program: &Program, descs: &Descs, heavy: bool) -> usize {
        let (calls, families) =
            if heavy { (&self.calls, &self.families) } else { (&self.light, &self.light_families) };
        if rng.chance(2, 3) && !program.calls.is_empty() {
            // What goes together stands in one family.
            let near = &families[descs.get(rng.pick(&program.calls).desc).family];
            if !near.is_empty() {
                return *rng.pick(near);
            }
        }
        *rng.pick(calls)
    }
}

/// Makes programs and parts of them.
pub struct Generator<'a> {
    /// What there is.
    pub descs: &'a Descs,
    /// What of it is made.
    pub choices: &'a Choices,
    /// By this chance.
    pub rng: Rng,
    /// The program in hand may have what needs a process of its own: a few do, for those cost as much as a
    /// hundred others.
    pub heavy: bool,
}

/// One program in so many may be heavy.
const LIGHT: usize = 32;

/// What a program has at a place: results by kind, and memory that is still free.
struct Scope {
    results: Vec<(u32, &'static str, usize)>,
    next: u32,
    /// Where the next buffer lies.
    memory: u64,
    /// Where the next one among the buffers does.
    low: u64,
}

impl Scope {
    /// Before the call with index `at`.
    fn new(program: &Program, descs: &Descs, at: usize) -> Scope {
        let mut scope = Scope { results: Vec::new(), next: program.results(), memory: 0, low: 0 };
        for (index, call) in program.calls.iter().enumerate() {
            for (arg, kind) in call.args.iter().zip(&descs.get(call.desc).args) {
                let written = match kind {
                    Type::Pointer(_, to) => to.size() as u64,
                    _ => 0,
                };
                arg.walk(&mut |arg| match arg {
                    Arg::Pointer(offset, to) if *offset < BUFFERS => {
                        let len = to.as_ref().map_or(0, |to| length(to)).max(written).max(1);
                        scope.memory = scope.memory.max((offset + len).next_multiple_of(0x40));
                    }
                    Arg::Define(number, _) if index < at => {
                        scope.results.push((*number, "fd", call.desc))
                    }
                    _ => {}
                });
            }
            if let (Some(number), Some(kind), true) =
                (call.result, descs.get(call.desc).returns, index < at)
            {
                scope.results.push((number, kind, call.desc));
            }
        }
        scope.low = scope.memory;
        scope
    }
    fn place(&mut self, len: u64) -> u64 {
        let at = self.memory;
        let end = (at + len.max(1)).next_multiple_of(0x40);
        if at < BUFFERS && end > BUFFERS {
            self.memory = 0;
            return self.place(len.min(0x1000));
        }
        // A place among the pages is for one buffer only.
        if at < BUFFERS {
            self.memory = end;
            self.low = end;
        } else {
            self.memory = self.low;
        }
        at
    }
}

impl Generator<'_> {
    /// Decides what kind of program comes next, one like `base`.
    pub fn begin(&mut self, base: &Program) {
        let fresh = needs::of(base, self.descs).fresh;
        // A heavy one's children would be all heavy, and soon the whole corpus.
        self.heavy = if fresh { self.rng.chance(1, 2) } else { self.rng.chance(1, LIGHT) };
    }
    /// A new program.
    pub fn program(&mut self) -> Program {
        self.heavy = self.rng.chance(1, LIGHT);
        let mut program = Program::default();
        let count = 1 + self.rng.below(FRESH_CALLS);
        while program.calls.len() < count {
            let end = program.calls.len();
            self.insert(&mut program, end);
        }
        program.tidy();
        program
    }
    /// Puts a new call, and what it needs before it, at index `at`.
    pub fn insert(&mut self, program: &mut Program, at: usize) {
        let desc = self.choices.pick(&mut self.rng, program, self.descs, self.heavy);
        self.place(program, at, desc, 0);
    }
    /// Makes the arguments of the call at `at` anew.
    pub fn again(&mut self, program: &mut Program, at: usize) {
        let desc = program.calls[at].desc;
        program.remove(at);
        self.place(program, at, desc, 1);
    }
    fn place(&mut self, program: &mut Program, mut at: usize, desc: usize, depth: usize) {
        let descs = self.descs;
        let described = descs.get(desc);
        let mut scope = Scope::new(program, descs, at);
        if depth < 2 {
            for kind in described.wants() {
                let here = |r: &&(u32, &str, usize)| r.1 == kind && self.fits(described, r.2);
                let missing = !scope.results.iter().any(|r| here(&r));
                if missing || self.rng.chance(1, 12) {
                    let makers = self.makers(described, kind);
                    if !makers.is_empty() {
                        let maker = *self.rng.pick(&makers);
                        let before = program.calls.len();
                        self.place(program, at, maker, depth + 1);
                        at += program.calls.len() - before;
                        scope = Scope::new(program, descs, at);
                    }
                }
            }
        }
        let mut args: Vec<Arg> = Vec::with_capacity(described.args.len());
        for index in 0..described.args.len() {
            let arg = self.argument(described, index, &mut scope);
            args.push(arg);
        }
        fill_lengths(&mut self.rng, &described.args, &mut args);
        needs::tame(described, &mut args, &mut self.rng);
        let result = described.returns.map(|_| {
            scope.next += 1;
            scope.next - 1
        });
        let is_async = self.heavy && self.rng.chance(1, 10);
        program.calls.insert(at, Call { desc, args, result, is_async, expect: None });
    }
    /// What was made by `maker` is likely of use to `user`.
    fn fits(&self, user: &Desc, maker: usize) -> bool {
        let makers = needs::makers(user.call());
        makers.is_empty() || makers.iter().any(|name| self.descs.get(maker).name.starts_with(name))
    }
    /// Calls that give what `user` wants.
    fn makers(&self, user: &Desc, kind: &str) -> Vec<usize> {
        let named = needs::makers(user.call());
        let names: &[&str] = match kind {
            "fd" if named.is_empty() => &[
                "openat",
                "openat",
                "openat",
                "pipe2",
                "memfd_create",
                "eventfd2",
                "socketpair$unix",
                "socket$udp",
            ],
            "fd" => named,
            "pid" if self.heavy => &["clone$fork", "getpid"],
            "pid" => &["getpid"],
            "timer" => &["timer_create"],
            "watch" => &["inotify_add_watch"],
            "shm" => &["shmget$private"],
            "msg" => &["msgget$private"],
            "sem" => &["semget$private"],
            _ => &[],
        };
        let find =
            |name: &&str| self.descs.find(name).filter(|index| self.choices.calls.contains(index));
        names.iter().filter_map(find).collect()
    }
    fn argument(&mut self, desc: &Desc, index: usize, scope: &mut Scope) -> Arg {
        let name = desc.row.args.get(index).map_or("", |arg| arg.0);
        match (&desc.args[index], name) {
            (Type::Number(_, Kind::Int), "timeout") => {
                Arg::Value(*self.rng.pick(&[0, 0, 0, 0, 0, 1, 1, 2]))
            }
            (Type::Number(_, Kind::Uint), "seconds") => Arg::Value(*self.rng.pick(&[0, 1, 1000])),
            (kind, _) => self.value(desc, kind, scope),
        }
    }
    fn value(&mut self, desc: &Desc, kind: &Type, scope: &mut Scope) -> Arg {
        match kind {
            Type::Number(_, kind) => self.number(desc, *kind, scope),
            Type::Fixed(_, value) if self.rng.chance(39, 40) => Arg::Value(*value),
            Type::Fixed(..) => Arg::Value(values::number(&mut self.rng, Kind::Int)),
            Type::Hidden(_) => Arg::Value(0),
            Type::Bytes(len) => Arg::Data(values::bytes(&mut self.rng, (*len).min(32))),
            Type::Name(len) => {
                let mut name = values::text(&mut self.rng, Kind::Path);
                name.truncate(*len);
                Arg::Data(name)
            }
            Type::Pointer(way, to) => self.pointer(desc, *way, to, scope),
            Type::Data(_) => {
                let len = self.rng.below(4) * self.rng.below(40) + 1;
                Arg::Data(values::bytes(&mut self.rng, len))
            }
            Type::Text(kind) => Arg::Data(values::text(&mut self.rng, *kind)),
            Type::Array(of) => {
                let count = *self.rng.pick(&[0, 1, 1, 1, 2, 3]);
                Arg::Group((0..count).map(|_| self.value(desc, of, scope)).collect())
            }
            Type::Struct("timespec" | "timeval", _) => {
                Arg::Group(values::moment(&mut self.rng).map(Arg::Value).to_vec())
            }
            Type::Struct(_, members) => self.members(desc, members, scope),
            Type::Union(variants) => {
                let (name, of) = self.rng.pick(variants);
                Arg::Variant((*name).to_owned(), Box::new(self.value(desc, of, scope)))
            }
            Type::Strings => Arg::Group(vec![Arg::Value(0)]),
        }
    }
    fn members(&mut self, desc: &Desc, members: &[Type], scope: &mut Scope) -> Arg {
        let mut values: Vec<Arg> = members.iter().map(|m| self.value(desc, m, scope)).collect();
        fill_lengths(&mut self.rng, members, &mut values);
        let shown = members.iter().map(|m| !matches!(m, Type::Hidden(_)));
        let mut shown = shown.collect::<Vec<_>>().into_iter();
        values.retain(|_| shown.next().unwrap_or(true));
        Arg::Group(values)
    }
    fn pointer(&mut self, desc: &Desc, way: Way, to: &Type, scope: &mut Scope) -> Arg {
        // Some calls mean something by no pointer, and all must survive wrong ones.
        match self.rng.below(40) {
            0 | 1 => return Arg::Value(0),
            2 => {
                return Arg::Value(*self.rng.pick(&[
                    1,
                    0x1000,
                    u64::MAX,
                    0x7fff_ffff_f000,
                    0xffff_8000_0000_0000,
                ]));
            }
            3 => return Arg::Pointer(PAGES + 0xfff0, None),
            // What programs unmap and protect is also used.
            4 | 5 => scope.memory = PAGES + 0x1000 * self.rng.below(16) as u64,
            _ => {}
        }
        match (way, to) {
            (Way::Out, Type::Struct("fds", members)) => {
                let at = scope.place(8);
                let defined = members.iter().map(|_| {
                    scope.next += 1;
                    Arg::Define(scope.next - 1, u64::MAX)
                });
                Arg::Pointer(at, Some(Box::new(Arg::Group(defined.collect()))))
            }
            (Way::Out, Type::Struct("timer", _)) => {
                let at = scope.place(8);
                scope.next += 1;
                Arg::Pointer(
                    at,
                    Some(Box::new(Arg::Group(vec![Arg::Define(scope.next - 1, u64::MAX)]))),
                )
            }
            (Way::Out, Type::Struct("int" | "offset" | "fd_set", _) | Type::Array(_))
            | (Way::In, _) => {
                let value = self.value(desc, to, scope);
                let len = length(&value).max(to.size() as u64);
                Arg::Pointer(scope.place(len), Some(Box::new(value)))
            }
            (Way::Out, Type::Data(_)) => {
                let len = *self.rng.pick(&[1, 4, 8, 16, 32, 64, 100, 256, 1000, 4096]);
                Arg::Pointer(scope.place(len), Some(Box::new(Arg::Room(len))))
            }
            (Way::Out, to) => Arg::Pointer(scope.place(to.size() as u64), None),
        }
    }
    fn number(&mut self, desc: &Desc, kind: Kind, scope: &mut Scope) -> Arg {
        let wanted = match kind {
            Kind::Fd | Kind::DirFd => "fd",
            Kind::Pid => "pid",
            Kind::Id(name) => name,
            Kind::Addr => return self.address(),
            kind => return Arg::Value(values::number(&mut self.rng, kind)),
        };
        if matches!(kind, Kind::DirFd) && self.rng.chance(3, 4) {
            // AT_FDCWD.
            return Arg::Value(0xffff_ffff_ffff_ff9c);
        }
        let all: Vec<u32> = scope.results.iter().filter(|r| r.1 == wanted).map(|r| r.0).collect();
        let best: Vec<u32> = scope
            .results
            .iter()
            .filter(|r| r.1 == wanted && self.fits(desc, r.2))
            .map(|r| r.0)
            .collect();
        let default = if wanted == "pid" { 0 } else { u64::MAX };
        match self.rng.below(20) {
            // Which processes there are besides is each place's own affair.
            0 if wanted == "pid" => {
                Arg::Value(*self.rng.pick(&[0, 1, u64::MAX, 0x7fff_ffff, 0xffff_ffff]))
            }
            0 => Arg::Value(*self.rng.pick(&[
                u64::MAX,
                0,
                1,
                2,
                3,
                4,
                5,
                100,
                239,
                0xffff_ffff,
                0x7fff_ffff,
            ])),
            1..=14 if !best.is_empty() => Arg::Result(*self.rng.pick(&best), default),
            _ if !all.is_empty() => Arg::Result(*self.rng.pick(&all), default),
            _ if wanted == "pid" => Arg::Value(0),
            _ => Arg::Value(*self.rng.pick(&[u64::MAX, 3, 4, 5])),
        }
    }
    fn address(&mut self) -> Arg {
        let page = PAGES + 0x1000 * self.rng.below(16) as u64;
        match self.rng.below(20) {
            0 => Arg::Value(0),
            1 => Arg::Pointer(page + 1 + self.rng.below(4094) as u64, None),
            2 => Arg::Value(*self.rng.pick(&[
                u64::MAX - 4095,
                0x7fff_ffff_f000,
                0x1000,
                0xffff_8000_0000_0000,
            ])),
            _ => Arg::Pointer(page, None),
        }
    }
}

/// Bytes a value takes in memory, as far as its own text tells.
fn length(value: &Arg) -> u64 {
    match value {
        Arg::Data(bytes) => bytes.len() as u64,
        Arg::Room(len) => *len,
        Arg::Group(values) => values.iter().map(length).sum::<u64>() + 64,
        Arg::Variant(_, of) => length(of) + 128,
        _ => 8,
    }
}

/// Lengths say, most of the time, how long their buffers are.
fn fill_lengths(rng: &mut Rng, types: &[Type], args: &mut [Arg]) {
    for index in 0..types.len() {
        let (len, at) = match (&types[index], &args[index]) {
            (Type::Pointer(_, to), Arg::Pointer(_, value)) => match (&**to, value.as_deref()) {
                (Type::Data(at), Some(Arg::Data(bytes))) => (bytes.len() as u64, *at),
                (Type::Data(at), Some(Arg::Room(len))) => (*len, *at),
                (Type::Array(_), Some(Arg::Group(values))) => (values.len() as u64, index + 1),
                (
                    Type::Union(_)
                    | Type::Struct("sigset" | "open_how" | "clone_args" | "mq_attr", _),
                    _,
                ) => {
                    let kind = types.get(index + 1);
                    let size = match &**to {
                        // A union's longest is not always right, but mostly accepted.
                        Type::Struct("sigset", _) => 8,
                        to => to.size() as u64,
                    };
                    match kind {
                        Some(Type::Number(_, Kind::Size)) => (size, index + 1),
                        _ => continue,
                    }
                }
                _ => continue,
            },
            _ => continue,
        };
        let fillable =
            matches!(types.get(at), Some(Type::Number(_, Kind::Size | Kind::Uint | Kind::Int)));
        if at < args.len() && fillable && rng.chance(15, 16) {
            args[at] = Arg::Value(len);
        }
    }
    // rt_sigaction and the like have the set's size last, with the structure before or two before it.
    if let (Some(Type::Number(_, Kind::Size)), Some(Arg::Value(_))) = (types.last(), args.last())
        && types.iter().any(|t| matches!(t, Type::Pointer(_, to) if matches!(**to, Type::Struct("sigset" | "sigaction", _))))
        && rng.chance(15, 16)
        && let Some(last) = args.last_mut()
    {
        *last = Arg::Value(8);
    }
}
