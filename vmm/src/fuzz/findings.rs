//! What was found, once for each kind of finding, on disk as it is found.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    corpus::{hash, write},
    desc::Descs,
    oracle::Finding,
    prog::Program,
    repro,
};

/// One kind of finding.
pub struct Entry {
    /// The smallest program known to show it.
    pub program: Program,
    /// What it showed.
    pub finding: Finding,
    /// How often it was met.
    pub count: u64,
    /// Seconds into the run.
    pub at: f64,
}

/// All of a run.
#[derive(Default)]
pub struct Findings {
    /// By signature.
    pub entries: BTreeMap<String, Entry>,
    dir: Option<PathBuf>,
}

impl Findings {
    /// Kept in `dir`, if that is given.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(dir: Option<&Path>) -> Result<Findings, String> {
        let dir = dir.map(|dir| dir.join("findings"));
        if let Some(dir) = &dir {
            fs::create_dir_all(dir)
                .map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        }
        Ok(Findings { dir, ..Findings::default() })
    }
    /// Counts one more of this kind; `false` if it is the first.
    pub fn again(&mut self, signature: &str) -> bool {
        match self.entries.get_mut(signature) {
            Some(entry) => {
                entry.count += 1;
                true
            }
            None => false,
        }
    }
    /// Adds the first of its kind.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&mut self, signature: String, entry: Entry, descs: &Descs) -> Result<(), String> {
        if let Some(dir) = &self.dir {
            let base = dir.join(format!("{:016x}", hash(signature.as_bytes())));
            let what = entry.finding.text(&entry.program, descs);
            let comment: String = what.lines().map(|line| format!("# {line}\n")).collect();
            let text = format!("# {signature}\n{comment}{}", entry.program.text(descs));
            let files = [("prog", text), ("c", repro::source(&entry.program, descs))];
            for (extension, text) in files {
                let path = base.with_extension(extension);
                write(&path, &text)
                    .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            }
        }
        self.entries.insert(signature, entry);
        Ok(())
    }
}
