//! Programs from programs.

use super::{
    generate::Generator,
    prog::{Arg, MAX_CALLS, Program},
};

/// Longest program that is grown further.
const LONG: usize = 24;

impl Generator<'_> {
    /// Another program much like `program`; `other` may lend calls.
    pub fn mutate(&mut self, program: &Program, other: Option<&Program>) -> Program {
        let mut new = program.clone();
        self.begin(program);
        for _ in 0..=self.rng.below(3) {
            match self.rng.below(10) {
                0..=3 if new.calls.len() < LONG => {
                    let at = self.rng.below(new.calls.len() + 1);
                    self.insert(&mut new, at);
                }
                4 if new.calls.len() > 1 => {
                    let at = self.rng.below(new.calls.len());
                    new.remove(at);
                }
                5 if let Some(other) = other
                    .filter(|other| self.heavy || !super::needs::of(other, self.descs).fresh) =>
                {
                    splice(&mut new, other);
                }
                6 if !new.calls.is_empty() => {
                    let at = self.rng.below(new.calls.len());
                    self.again(&mut new, at);
                }
                7 if !new.calls.is_empty() && new.calls.len() < LONG => {
                    let at = self.rng.below(new.calls.len());
                    let mut call = new.calls[at].clone();
                    call.result = None;
                    call.args.iter_mut().for_each(|arg| arg.walk_mut(&mut undefine));
                    new.calls.insert(at, call);
                }
                _ if !new.calls.is_empty() => self.tweak(&mut new),
                _ => self.insert(&mut new, 0),
            }
        }
        new.tidy();
        new
    }
    /// Changes a number somewhere a little.
    fn tweak(&mut self, program: &mut Program) {
        let at = self.rng.below(program.calls.len());
        let mut count = 0;
        program.calls[at].walk(&mut |arg| count += usize::from(is_plain(arg)));
        let mut chosen = self.rng.below(count);
        let rng = &mut self.rng;
        for arg in &mut program.calls[at].args {
            arg.walk_mut(&mut |arg| {
                if !is_plain(arg) {
                    return;
                }
                if chosen != 0 {
                    chosen = chosen.wrapping_sub(1);
                    return;
                }
                chosen = usize::MAX;
                match arg {
                    Arg::Value(value) => {
                        *value = match rng.below(5) {
                            0 => value.wrapping_add(1),
                            1 => value.wrapping_sub(1),
                            2 => *value ^ 1 << rng.below(32),
                            3 => value.wrapping_neg(),
                            _ => *rng.pick(&[0, 1, 8, 4096, u64::MAX]),
                        }
                    }
                    Arg::Room(len) => *len = *rng.pick(&[1, 8, 64, 4096]),
                    Arg::Data(bytes) if !bytes.is_empty() => {
                        let at = rng.below(bytes.len());
                        bytes[at] = *rng.pick(&[0, 1, b'a', b'/', 0xff]);
                    }
                    _ => {}
                }
            });
        }
        let call = &mut program.calls[at];
        super::needs::tame(self.descs.get(call.desc), &mut call.args, &mut self.rng);
    }
}

fn is_plain(arg: &Arg) -> bool {
    matches!(arg, Arg::Value(_) | Arg::Room(_) | Arg::Data(_))
}

fn undefine(arg: &mut Arg) {
    if let Arg::Define(_, value) = arg {
        *arg = Arg::Value(*value);
    }
}

/// `other`'s calls after those of `program`, results numbered on.
fn splice(program: &mut Program, other: &Program) {
    let base = program.results();
    for call in &other.calls {
        if program.calls.len() >= LONG.min(MAX_CALLS) {
            return;
        }
        let mut call = call.clone();
        call.result = call.result.map(|number| number + base);
        for arg in &mut call.args {
            arg.walk_mut(&mut |arg| {
                if let Arg::Result(number, _) | Arg::Define(number, _) = arg {
                    *number += base;
                }
            });
        }
        program.calls.push(call);
    }
}
