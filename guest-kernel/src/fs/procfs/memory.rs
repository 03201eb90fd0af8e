//! A process's memory as files: its arguments and environment, `mem`, `pagemap`.
//!
//! An open `mem` holds the address space weakly: it neither keeps memory nor shows another program's
//! after an exec.

use std::{
    any::Any,
    sync::{Arc, Weak},
};

use super::view::View;
use crate::{
    error::Errno,
    fs::{
        buf::{Sink, Source},
        file::{FileOps, OpenFile, seek_in},
    },
    mm::Mm,
    num::Word,
    platform::{PAGE_SHIFT, PAGE_SIZE},
};

/// Most bytes of arguments or environment that are shown; execve(2) allows no more.
const MAX_STRINGS: u64 = 8 << 20;
/// Bytes moved at once.
const PIECE: usize = 16 << 10;

fn range(mm: &Mm, (start, end): (u64, u64)) -> Vec<u8> {
    let len = end.saturating_sub(start).min(MAX_STRINGS);
    let mut bytes = vec![0; len.size()];
    let got = mm.read_partial(start, &mut bytes);
    bytes.truncate(got);
    bytes
}

/// `cmdline`: the argument strings as they are in memory now. A program that has overwritten the end
/// of its last argument is showing a title, which may go on into the environment.
pub(super) fn cmdline(view: &View) -> Result<Vec<u8>, Errno> {
    let Some(mm) = view.mm() else { return Ok(Vec::new()) };
    let layout = mm.layout();
    let mut args = range(&mm, layout.args);
    if args.last().is_some_and(|b| *b != 0) {
        let rest = range(&mm, layout.env);
        args.extend(rest.iter().take_while(|b| **b != 0));
        let end = args.iter().position(|b| *b == 0).unwrap_or(args.len());
        args.truncate(end);
    }
    Ok(args)
}
/// `environ`.
pub(super) fn environ(view: &View) -> Result<Vec<u8>, Errno> {
    Ok(view.mm().map(|mm| range(&mm, mm.layout().env)).unwrap_or_default())
}
/// `auxv`.
pub(super) fn auxv(view: &View) -> Result<Vec<u8>, Errno> {
    Ok(view.mm().map(|mm| mm.layout().auxv).unwrap_or_default())
}
/// `mem`.
pub(super) fn open_mem(view: &View) -> Result<Arc<dyn FileOps>, Errno> {
    Ok(Arc::new(Memory(weak(view)?)))
}
/// `pagemap`.
pub(super) fn open_pagemap(view: &View) -> Result<Arc<dyn FileOps>, Errno> {
    Ok(Arc::new(PageMap(weak(view)?)))
}
fn weak(view: &View) -> Result<Weak<Mm>, Errno> {
    // Linux opens the memory of a task without any, and reads nothing from it.
    Ok(view.mm().map(|mm| Arc::downgrade(&mm)).unwrap_or_default())
}

/// `mem`, open.
struct Memory(Weak<Mm>);

impl FileOps for Memory {
    fn read(&self, file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        file.with_position(|position| {
            let read = self.read_at(file, dst, *position)?;
            *position = position.wrapping_add(read as u64);
            Ok(read)
        })
    }
    fn write(&self, file: &OpenFile, src: &mut Source<'_>) -> Result<usize, Errno> {
        file.with_position(|position| {
            let wrote = self.write_at(file, src, *position)?;
            *position = position.wrapping_add(wrote as u64);
            Ok(wrote)
        })
    }
    fn read_at(&self, _file: &OpenFile, dst: &mut Sink<'_>, at: u64) -> Result<usize, Errno> {
        let Some(mm) = self.0.upgrade() else { return Ok(0) };
        let mut piece = vec![0; PIECE.min(dst.left())];
        let mut done = 0;
        while dst.left() > 0 {
            let want = piece.len().min(dst.left());
            let Some(from) = at.checked_add(done as u64) else { break };
            let got = mm.read_partial(from, &mut piece[..want]);
            if got == 0 {
                break;
            }
            match dst.put(&piece[..got]) {
                Ok(n) => done += n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
            if got < want {
                break;
            }
        }
        if done == 0 && dst.left() > 0 { Err(Errno::EIO) } else { Ok(done) }
    }
    /// Obeys the mapping's protection: there is no forced write as a debugger's to read-only text.
    fn write_at(&self, _file: &OpenFile, src: &mut Source<'_>, at: u64) -> Result<usize, Errno> {
        let Some(mm) = self.0.upgrade() else { return Ok(0) };
        let mut piece = vec![0; PIECE.min(src.left())];
        let mut done = 0;
        while src.left() > 0 {
            let want = piece.len().min(src.left());
            let got = match src.take(&mut piece[..want]) {
                Ok(n) => n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            };
            let Some(to) = at.checked_add(done as u64) else { break };
            let put = mm.write_partial(to, &piece[..got]);
            done += put;
            if put < got || got == 0 {
                break;
            }
        }
        if done == 0 && !piece.is_empty() { Err(Errno::EIO) } else { Ok(done) }
    }
    /// Any position is one: addresses above the user's are errors of the read.
    fn seek(&self, file: &OpenFile, offset: i64, whence: u32) -> Result<u64, Errno> {
        file.with_position(|position| {
            let to = match whence {
                0 => offset.cast_unsigned(),
                1 => position.wrapping_add_signed(offset),
                _ => return Err(Errno::EINVAL),
            };
            *position = to;
            Ok(to)
        })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `pagemap`, open: says which pages are present, and nothing of where they lie.
struct PageMap(Weak<Mm>);

impl FileOps for PageMap {
    fn read(&self, file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        file.with_position(|position| {
            let read = self.read_at(file, dst, *position)?;
            *position += read as u64;
            Ok(read)
        })
    }
    fn read_at(&self, _file: &OpenFile, dst: &mut Sink<'_>, at: u64) -> Result<usize, Errno> {
        const WORD: u64 = 8;
        const PRESENT: u64 = 1 << 63;
        if !at.is_multiple_of(WORD) || !(dst.left() as u64).is_multiple_of(WORD) {
            return Err(Errno::EINVAL);
        }
        let Some(mm) = self.0.upgrade() else { return Ok(0) };
        let pages = (mm.user_end() >> PAGE_SHIFT).saturating_sub(at / WORD);
        let want = (dst.left() as u64 / WORD).min(pages).min(PIECE as u64 / WORD);
        let mut out = Vec::with_capacity((want * WORD).size());
        for page in at / WORD..at / WORD + want {
            let word = if mm.is_present(page * PAGE_SIZE) { PRESENT } else { 0 };
            out.extend_from_slice(&word.to_ne_bytes());
        }
        dst.put(&out)
    }
    fn seek(&self, file: &OpenFile, offset: i64, whence: u32) -> Result<u64, Errno> {
        seek_in(file, offset, whence, || Err(Errno::EINVAL), |_, _| Err(Errno::EINVAL))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
