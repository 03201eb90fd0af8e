//! Programs worth keeping: each made the kernel do something no earlier one had.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::{desc::Descs, outcome::Outcome, parse, prog::Program};

/// What was seen, and the programs that showed it first.
#[derive(Default)]
pub struct Corpus {
    programs: Vec<Program>,
    features: HashSet<u64>,
    dir: Option<PathBuf>,
}

/// FNV-1a, so that names of files do not depend on a library's version.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Writes a whole file or none of it.
///
/// # Errors
/// The host's.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, text)?;
    fs::rename(&fresh, path)
}

impl Corpus {
    /// An empty one that is kept in `dir`, if that is given.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(dir: Option<&Path>) -> Result<Corpus, String> {
        let dir = dir.map(|dir| dir.join("corpus"));
        if let Some(dir) = &dir {
            fs::create_dir_all(dir)
                .map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        }
        Ok(Corpus { dir, ..Corpus::default() })
    }
    /// Programs of an earlier run, in a fixed order; those of another version that no longer parse are left out.
    #[must_use]
    pub fn earlier(&self, descs: &Descs) -> Vec<Program> {
        let entries = self.dir.iter().flat_map(fs::read_dir).flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "prog"));
        paths.sort();
        let parse = |path: &PathBuf| parse::program(&fs::read_to_string(path).ok()?, descs).ok();
        paths.iter().filter_map(parse).filter(|program| !program.calls.is_empty()).collect()
    }
    /// Programs.
    #[must_use]
    pub fn programs(&self) -> &[Program] {
        &self.programs
    }
    /// Different things seen.
    #[must_use]
    pub fn coverage(&self) -> usize {
        self.features.len()
    }
    /// Keeps `program` if `outcome` shows something new; whether it did.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn consider(
        &mut self,
        program: &Program,
        outcome: &Outcome,
        descs: &Descs,
    ) -> io::Result<bool> {
        let mut fresh = false;
        for feature in features(program, outcome, descs) {
            fresh |= self.features.insert(feature);
        }
        // One that waits costs a hundred others, and so would its children.
        if !fresh || outcome.end().starts_with("waiting") {
            return Ok(false);
        }
        if let Some(dir) = &self.dir {
            let text = program.text(descs);
            let path = dir.join(format!("{:016x}.prog", hash(text.as_bytes())));
            if !path.exists() {
                write(&path, &text)?;
            }
        }
        self.programs.push(program.clone());
        Ok(true)
    }
}

/// What a run shows of the kernel, from outside: each call's way of ending, alone and after the one before,
/// and what kinds of state there are at the end.
fn features(program: &Program, outcome: &Outcome, descs: &Descs) -> Vec<u64> {
    let mut out = Vec::new();
    let mut before = String::new();
    for (index, call) in program.calls.iter().enumerate() {
        let Some(returned) = outcome.returned(index) else { break };
        let way = match returned.strip_prefix("0x") {
            // Sizes in powers of two.
            Some(hex) => format!("{}", hex.len()),
            None => returned.split(' ').next().unwrap_or_default().to_owned(),
        };
        let this = format!("{}={way}", descs.get(call.desc).name);
        out.push(hash(this.as_bytes()));
        out.push(hash(format!("{before}>{this}").as_bytes()));
        before = this;
    }
    for line in outcome.state_kinds() {
        out.push(hash(line.as_bytes()));
    }
    out.push(hash(outcome.end().as_bytes()));
    out
}
