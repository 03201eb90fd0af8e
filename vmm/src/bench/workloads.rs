//! Real programs at real work, from start to end, what they read prepared once and for all
//! configurations alike.
//!
//! A workload is a shell script that gets `$1`, the prepared directory, `$2`, an empty directory to
//! write in (a VM's own /tmp; natively a fresh one), and `$3`, a free TCP port. What it prints must be what
//! it printed natively.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use super::place::PATH;

/// One workload.
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Programs it needs.
    pub needs: &'static [&'static str],
    /// About how long it takes, natively and in a VM taken together.
    pub expected: Duration,
    script: &'static str,
    /// Writes what the script reads, into an empty directory.
    prepare: fn(&Path) -> io::Result<()>,
}

/// Every workload.
pub static ALL: &[Workload] = &[
    Workload {
        name: "python",
        about: "start of python3, one line of it",
        needs: &["python3"],
        expected: Duration::from_millis(60),
        script: "python3 -c 'print(6 * 7)'",
        prepare: |_| Ok(()),
    },
    Workload {
        name: "sqlite",
        about: "sqlite3: 20,000 inserts into a table with an index, then queries",
        needs: &["sqlite3"],
        expected: Duration::from_millis(150),
        script: "sqlite3 \"$2/db\" < \"$1/script.sql\"",
        prepare: sqlite,
    },
    Workload {
        name: "gzip",
        about: "gzip of 30 MB of text",
        needs: &["gzip", "cksum"],
        expected: Duration::from_secs(3),
        script: "gzip -n < \"$1/text\" | cksum",
        prepare: |dir| text(&dir.join("text"), 30_000_000),
    },
    Workload {
        name: "gcc",
        about: "gcc -O2 of one C file of 2,400 lines",
        needs: &["gcc", "cksum"],
        expected: Duration::from_secs(2),
        script: "gcc -O2 -c -o \"$2/big.o\" \"$1/big.c\" && cksum < \"$2/big.o\"",
        prepare: |dir| c_file(&dir.join("big.c"), "big", 400),
    },
    Workload {
        name: "shell",
        about: "a shell loop that starts 500 programs",
        needs: &[],
        expected: Duration::from_millis(1300),
        script: "i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i + 1)); done; echo $i",
        prepare: |_| Ok(()),
    },
    Workload {
        name: "redis",
        about: "redis-server and redis-benchmark: 10,000 SET and GET each from 20 clients",
        needs: &["redis-server", "redis-cli", "redis-benchmark"],
        expected: Duration::from_secs(3),
        script: REDIS,
        prepare: |_| Ok(()),
    },
    Workload {
        name: "git-status",
        about: "git status of a tree of 5,000 files, three of them changed",
        needs: &["git"],
        expected: Duration::from_millis(250),
        // Inode numbers and the time of change may differ where it runs; git must not read every file
        // again for that, nor write what it found for the next run.
        script: "GIT_OPTIONAL_LOCKS=0 git -C \"$1\" -c safe.directory='*' -c core.checkStat=minimal \
                 -c core.trustctime=false status --porcelain",
        prepare: git_tree,
    },
    Workload {
        name: "make",
        about: "make -j2 of a C project of 20 files, and the program it makes",
        needs: &["make", "gcc"],
        expected: Duration::from_millis(1500),
        script: "make -s -j2 -C \"$1\" OUT=\"$2\" && \"$2/program\"",
        prepare: project,
    },
];

const REDIS: &str = r#"
redis-server --port "$3" --bind 127.0.0.1 --save '' --appendonly no --dir "$2" > "$2/log" 2>&1 &
tries=0
until redis-cli -p "$3" ping > "$2/pong" 2> /dev/null; do
  tries=$((tries + 1))
  [ $tries -lt 200 ] || { tail -3 "$2/log" >&2; exit 1; }
  sleep 0.02
done
redis-benchmark -p "$3" -q -n 10000 -c 20 -t set,get > "$2/figures" || exit 1
redis-cli -p "$3" shutdown nosave
wait
tr '\r' '\n' < "$2/figures" | grep -c 'requests per second'
"#;

impl Workload {
    /// The shell's arguments.
    pub fn arguments(&self, prepared: &Path, out: &Path, port: u16) -> Vec<String> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        vec![
            "-c".to_owned(),
            self.script.to_owned(),
            "sh".to_owned(),
            path(prepared),
            path(out),
            port.to_string(),
        ]
    }
    /// The first program it needs that is not installed.
    pub fn missing(&self) -> Option<&'static str> {
        let installed = |name: &&str| PATH.split(':').any(|dir| Path::new(dir).join(name).exists());
        self.needs.iter().find(|name| !installed(name)).copied()
    }
    /// Writes what it reads into `directory`, which is made.
    pub fn prepare(&self, directory: &Path) -> Result<(), String> {
        fs::create_dir_all(directory)
            .and_then(|()| (self.prepare)(directory))
            .map_err(|error| format!("cannot prepare {}: {error}", self.name))
    }
}

/// The same sequence everywhere (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Words with a vocabulary of some thousand, as text has.
fn text(path: &Path, bytes: usize) -> io::Result<()> {
    let mut numbers = Numbers(88_172_645_463_325_252);
    let syllables = ["ga", "te", "tra", "pe", "vi", "r", "mon", "ker", "ne", "lo", "ring", "s"];
    let mut out = BufWriter::new(File::create(path)?);
    let mut written = 0;
    while written < bytes {
        let mut word = String::new();
        // Two draws, so that short words are frequent.
        let mut left = (numbers.next() % 4).min(numbers.next() % 4) + 1;
        while left > 0 {
            let index = usize::try_from(numbers.next() % 12).expect("below 12");
            word.push_str(syllables[index]);
            left -= 1;
        }
        word.push(if numbers.next().is_multiple_of(12) { '\n' } else { ' ' });
        out.write_all(word.as_bytes())?;
        written += word.len();
    }
    out.flush()
}

fn sqlite(dir: &Path) -> io::Result<()> {
    let mut numbers = Numbers(1);
    let mut script = String::from(
        "PRAGMA cache_size=2000;\nCREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, s TEXT);\n\
         CREATE INDEX t_n ON t(n);\nBEGIN;\n",
    );
    for id in 0..20_000 {
        let n = numbers.next() % 100_000;
        let _ = writeln!(script, "INSERT INTO t VALUES({id},{n},'row {id} of {n}');");
    }
    script.push_str("COMMIT;\nSELECT count(*), sum(n) FROM t;\n");
    for low in (0..100_000).step_by(1000) {
        let high = low + 500;
        let _ =
            writeln!(script, "SELECT count(*), max(s) FROM t WHERE n BETWEEN {low} AND {high};");
    }
    fs::write(dir.join("script.sql"), script)
}

/// A file with so many functions of six lines, and `NAME()`, which calls them all.
fn c_file(path: &Path, name: &str, functions: u32) -> io::Result<()> {
    let mut numbers = Numbers(u64::from(functions) + name.len() as u64);
    let mut source = String::from("typedef unsigned long word;\n");
    for i in 0..functions {
        let (a, b) = (numbers.next() % 61 + 1, numbers.next() % 1000);
        let _ = write!(
            source,
            "static word f{i}(word x, word *v) {{\n  for (int i = 0; i < {a}; i++) {{\n    \
             v[i & 63] += x >> (i & 31);\n    if (x & {b}) x = x * 31 + v[(x + i) & 63];\n  }}\n  \
             return x ^ {b};\n}}\n"
        );
    }
    let _ = writeln!(source, "word {name}(word x) {{\n  static word v[64];");
    for i in 0..functions {
        let _ = writeln!(source, "  x = f{i}(x, v);");
    }
    source.push_str("  return x;\n}\n");
    fs::write(path, source)
}

fn project(dir: &Path) -> io::Result<()> {
    let mut main = String::from("#include <stdio.h>\n");
    let mut call = String::from("1");
    for i in 0..19 {
        let name = format!("part{i}");
        c_file(&dir.join(format!("{name}.c")), &name, 12)?;
        let _ = writeln!(main, "unsigned long {name}(unsigned long);");
        call = format!("{name}({call})");
    }
    let _ = writeln!(main, "int main(void) {{\n  printf(\"%lu\\n\", {call});\n  return 0;\n}}");
    fs::write(dir.join("main.c"), main)?;
    let makefile = "objects := $(patsubst %.c,$(OUT)/%.o,$(wildcard *.c))\n\
                    $(OUT)/program: $(objects)\n\tgcc -o $@ $(sort $^)\n\
                    $(OUT)/%.o: %.c\n\tgcc -O1 -c -o $@ $<\n";
    fs::write(dir.join("Makefile"), makefile)
}

fn git_tree(dir: &Path) -> io::Result<()> {
    let file = |i: u32| dir.join(format!("d{}/s{}/f{i}.txt", i % 50, i % 4));
    // Older than the index, so that git needs not look inside for changes within the clock's tick.
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for i in 0..5000 {
        let path = file(i);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        fs::write(&path, format!("file {i}\n").repeat(20))?;
        File::options().write(true).open(&path)?.set_modified(old)?;
    }
    for arguments in [&["init", "-q"][..], &["add", "-A"], &["commit", "-q", "-m", "all"]] {
        let output = Command::new("git")
            .env_clear()
            .envs([("PATH", PATH), ("HOME", "/nonexistent"), ("GIT_CONFIG_NOSYSTEM", "1")])
            .args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"])
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("git {}: {}", arguments[0], words.trim())));
        }
    }
    for i in [7, 2500, 4999] {
        fs::write(file(i), "changed\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_given_their_places() {
        let arguments = ALL[1].arguments(Path::new("/a b"), Path::new("/tmp"), 7);
        assert_eq!(arguments[2..], ["sh", "/a b", "/tmp", "7"]);
    }

    #[test]
    fn prepared_files_are_the_same_each_time() {
        let dir = std::env::temp_dir().join(format!("trapgate-text-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let twice = ["a", "b"].map(|name| {
            text(&dir.join(name), 10_000).expect("written");
            fs::read(dir.join(name)).expect("read")
        });
        fs::remove_dir_all(&dir).expect("removed");
        assert!(twice[0] == twice[1] && twice[0].len() >= 10_000);
    }
}
