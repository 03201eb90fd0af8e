//! What the executor says of programs, from its bytes. The guest wrote them: they are checked, and a
//! stream that cannot be right ends the target.

use std::io::Read;

/// Longest record; a whole program's answers stay far below.
const MAX_RECORD: usize = 1 << 20;
/// Most bytes kept of one program.
const MAX_PROGRAM: usize = 4 << 20;

/// One program's run as the executor saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// The frame's id.
    pub id: u64,
    /// Calls: index, whether it finished, RAX.
    pub calls: Vec<(u32, bool, i64)>,
    /// Memory after calls: the call's index, the region's number there, the bytes.
    pub regions: Vec<(u32, u32, Vec<u8>)>,
    /// Signals: the call before or in which it came, number, si_code.
    pub signals: Vec<(u32, u32, i32)>,
    /// Lines of the state at the end.
    pub state: Vec<String>,
    /// How it ended.
    pub end: End,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// After its last call.
    #[default]
    Completed,
    /// By this signal.
    Killed(u32),
    /// By itself, with this status.
    Exited(u32),
    /// It made no progress in the call with this index.
    Waiting(u32),
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// No more bytes.
    #[error("it ended")]
    Ended,
    /// Not what an executor writes.
    #[error("it wrote what no executor writes: {0}")]
    Malformed(&'static str),
    /// Its own words.
    #[error("{0}")]
    Said(String),
}

/// Reads the next program's records.
///
/// # Errors
/// See [`Broken`].
pub fn read(from: &mut impl Read) -> Result<Raw, Broken> {
    let mut raw = Raw::default();
    let mut begun = false;
    let mut total = 0;
    loop {
        let (kind, payload) = record(from)?;
        total += payload.len();
        if total > MAX_PROGRAM {
            return Err(Broken::Malformed("too much for one program"));
        }
        let word = |at: usize| {
            let bytes = payload.get(at..at + 4).and_then(|b| b.try_into().ok());
            bytes.map(u32::from_le_bytes).ok_or(Broken::Malformed("a short record"))
        };
        let long = |at: usize| {
            let bytes = payload.get(at..at + 8).and_then(|b| b.try_into().ok());
            bytes.map(u64::from_le_bytes).ok_or(Broken::Malformed("a short record"))
        };
        match kind {
            1 => {
                begun = true;
                raw = Raw { id: long(0)?, ..Raw::default() };
            }
            7 => return Err(Broken::Said(String::from_utf8_lossy(&payload).into_owned())),
            _ if !begun => return Err(Broken::Malformed("a record before the first program")),
            2 => raw.calls.push((word(0)?, word(4)? & 1 != 0, long(8)?.cast_signed())),
            3 => {
                raw.regions.push((word(0)?, word(4)?, payload.get(8..).unwrap_or_default().into()))
            }
            4 => raw.signals.push((word(0)?, word(4)?, word(8)?.cast_signed())),
            5 => raw.state.extend(String::from_utf8_lossy(&payload).lines().map(str::to_owned)),
            6 => {
                if long(0)? != raw.id {
                    return Err(Broken::Malformed("the end of another program"));
                }
                let detail = word(12)?;
                raw.end = match word(8)? {
                    0 => End::Completed,
                    1 => End::Killed(detail),
                    2 => End::Exited(detail),
                    3 => End::Waiting(detail),
                    _ => return Err(Broken::Malformed("an unknown end")),
                };
                return Ok(raw);
            }
            _ => return Err(Broken::Malformed("an unknown record")),
        }
    }
}

fn record(from: &mut impl Read) -> Result<(u32, Vec<u8>), Broken> {
    let mut head = [0; 8];
    from.read_exact(&mut head).map_err(|_| Broken::Ended)?;
    let [kind, len] = [&head[..4], &head[4..]]
        .map(|half| u32::from_le_bytes(half.try_into().expect("half of eight bytes")));
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > MAX_RECORD {
        return Err(Broken::Malformed("a record that is too long"));
    }
    let mut payload = vec![0; len];
    from.read_exact(&mut payload).map_err(|_| Broken::Ended)?;
    Ok((kind, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(records: &[(u32, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, payload) in records {
            out.extend(kind.to_le_bytes());
            out.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
            out.extend_from_slice(payload);
        }
        out
    }

    #[test]
    fn reads_one_program() {
        let id = 5u64.to_le_bytes();
        let call =
            [0u32.to_le_bytes(), 1u32.to_le_bytes(), (-2i32).to_le_bytes(), [255; 4]].concat();
        let end = [id.as_slice(), &1u32.to_le_bytes(), &11u32.to_le_bytes()].concat();
        let stream = bytes(&[(1, &id), (2, &call), (5, b"fd 3\nfd 4\n"), (6, &end)]);
        let raw = read(&mut stream.as_slice()).unwrap();
        assert_eq!((raw.id, raw.end), (5, End::Killed(11)));
        assert_eq!(raw.calls, [(0, true, -2)]);
        assert_eq!(raw.state, ["fd 3", "fd 4"]);
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = |stream: &[u8]| read(&mut &*stream).unwrap_err().to_string();
        assert_eq!(refused(b""), "it ended");
        assert!(refused(&bytes(&[(2, &[0; 16])])).contains("before the first"));
        assert!(refused(&[1, 0, 0, 0, 255, 255, 255, 255]).contains("too long"));
        assert!(refused(&bytes(&[(1, &[0; 8]), (2, &[0; 3])])).contains("short"));
        assert_eq!(refused(&bytes(&[(7, b"no /w")])), "no /w");
    }
}
