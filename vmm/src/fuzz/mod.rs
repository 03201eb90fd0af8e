//! `trapgate fuzz`: system-call programs, run here and on Linux, compared in all they can see.
//!
//! * What programs are made of: [`desc`] and [`variants`], from the kernel's own table; their text:
//!   [`prog`], [`parse`].
//! * Running them: [`encode`] for the executor (the C program of `guest/`), [`target`] and [`crew`] for where
//!   it runs, [`records`] and [`outcome`] for what it saw.
//! * Judging: [`oracle`], [`known`]; making findings small and showing them: [`minimize`], [`repro`].
//! * Making them: [`generate`], [`mutate`], [`corpus`], and [`engine`] that drives all. [`suite`] runs what
//!   was found once, for ever.

pub mod corpus;
pub mod crew;
pub mod desc;
pub mod encode;
pub mod engine;
pub mod findings;
pub mod generate;
pub mod known;
pub mod minimize;
mod mutate;
pub mod needs;
pub mod oracle;
pub mod outcome;
pub mod parse;
pub mod place;
pub mod prog;
pub mod records;
pub mod replay;
pub mod report;
pub mod repro;
pub mod rng;
pub mod suite;
pub mod target;
pub mod values;
pub mod variants;

use std::path::Path;

pub use target::Kind;

use crate::{
    cli::{FuzzArgs, FuzzCommand},
    exit,
};

/// Runs the command; the exit status.
#[must_use]
pub fn command(args: &FuzzArgs) -> u8 {
    let done = match &args.command {
        FuzzCommand::Replay(args) => replay::command(args),
        FuzzCommand::Suite(args) => suite::command(args),
        FuzzCommand::Run(args) => engine::command(args),
        FuzzCommand::Minimize(args) => minimize::command(args),
        FuzzCommand::Repro { file } => repro::command(file),
    };
    done.unwrap_or_else(|message| exit::report(&message))
}

/// The program in a file.
fn load(path: &Path, descs: &desc::Descs) -> Result<prog::Program, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let program =
        parse::program(&text, descs).map_err(|mistake| format!("{}: {mistake}", path.display()))?;
    if program.calls.is_empty() {
        return Err(format!("{}: no calls", path.display()));
    }
    Ok(program)
}
