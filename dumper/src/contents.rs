//! Where the bytes of an image come from while it is written: the stopped process and open files.

use crate::sys::{share, vm};
use elf_writer::{ContentSource, Piece, Source, Stage};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Keys of files that the memory collector opened start here; those of descriptors at 0.
pub const MEMORY_FILES: u32 = 1 << 31;

/// Most pieces in one process_vm_readv (IOV_MAX).
const MAX_PIECES: usize = 1024;

/// Reads from the target and from the files that the collectors opened. To be used by the tracing
/// thread only: newer kernels read protected pages through `/proc/PID/mem` for no other.
pub struct Contents<'a> {
    /// Files of descriptors, by key.
    descriptors: Vec<Arc<File>>,
    /// Files of mappings, by key - [`MEMORY_FILES`].
    mappings: Vec<Arc<File>>,
    /// `/proc/PID/mem`, opened when needed.
    memory: HashMap<i32, File>,
    reached: Box<dyn FnMut(Stage) -> io::Result<()> + 'a>,
}

impl<'a> Contents<'a> {
    #[must_use]
    pub fn new(descriptors: Vec<Arc<File>>, mappings: Vec<Arc<File>>) -> Self {
        Self { descriptors, mappings, memory: HashMap::new(), reached: Box::new(|_| Ok(())) }
    }

    /// What to do as soon as all has been read, or all that is urgent.
    #[must_use]
    pub fn at_stages(self, reached: impl FnMut(Stage) -> io::Result<()> + 'a) -> Self {
        Self { reached: Box::new(reached), ..self }
    }

    fn file(&self, key: u32) -> io::Result<&File> {
        let file = match key.checked_sub(MEMORY_FILES) {
            Some(index) => self.mappings.get(index as usize),
            None => self.descriptors.get(key as usize),
        };
        file.map(Arc::as_ref).ok_or_else(|| io::Error::other(format!("no open file has key {key:#x}")))
    }

    /// Memory in many places with few calls.
    fn read_memory(&mut self, pid: i32, pieces: &[(u64, usize)], buf: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        let (mut index, mut skip) = (0, 0);
        let mut batch = Vec::new();
        while done < buf.len() {
            batch.clear();
            batch.extend(pieces[index..].iter().take(MAX_PIECES).copied());
            batch[0] = (batch[0].0 + skip as u64, batch[0].1 - skip);
            let read = match vm::read_pieces(pid, &batch, &mut buf[done..]) {
                Ok(n) if n > 0 => n,
                // A page that is not readable for the program itself: PROT_NONE, or write-only.
                Ok(_) => self.read_protected(pid, batch[0], &mut buf[done..])?,
                Err(e) if e.raw_os_error() == Some(libc::EFAULT) => {
                    self.read_protected(pid, batch[0], &mut buf[done..])?
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            done += read;
            skip += read;
            while index < pieces.len() && skip >= pieces[index].1 {
                skip -= pieces[index].1;
                index += 1;
            }
        }
        Ok(())
    }

    /// At most one page, whatever its protection.
    fn read_protected(&mut self, pid: i32, piece: (u64, usize), buf: &mut [u8]) -> io::Result<usize> {
        let memory = match self.memory.entry(pid) {
            std::collections::hash_map::Entry::Occupied(e) => e.into_mut(),
            std::collections::hash_map::Entry::Vacant(e) => e.insert(File::open(format!("/proc/{pid}/mem"))?),
        };
        let to_page_end = (4096 - piece.0 % 4096) as usize;
        let len = piece.1.min(to_page_end);
        memory
            .read_exact_at(&mut buf[..len], piece.0)
            .map_err(|e| io::Error::new(e.kind(), format!("address {:#x} of PID {pid}: {e}", piece.0)))?;
        Ok(len)
    }
}

impl ContentSource for Contents<'_> {
    fn reached(&mut self, stage: Stage) -> io::Result<()> {
        (self.reached)(stage)
    }

    fn read(&mut self, source: &Source, skip: u64, buf: &mut [u8]) -> io::Result<()> {
        match source {
            Source::Memory { pid, addr } => self.read_memory(*pid, &[(addr + skip, buf.len())], buf),
            Source::File { key, offset } => read_file(self.file(*key)?, offset + skip, buf),
            Source::Bytes(bytes) => {
                let start = skip as usize;
                let part = bytes.get(start..start + buf.len());
                buf.copy_from_slice(part.ok_or(ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    fn share(&mut self, from: &File, at: u64, to: &File, to_at: u64, len: u64) -> io::Result<()> {
        share::clone_range(from, at, to, to_at, len)
    }

    fn read_pieces(&mut self, pieces: &[Piece<'_>], buf: &mut [u8]) -> io::Result<()> {
        let memory_of = |p: &Piece<'_>| match p.source {
            Source::Memory { pid, .. } => Some(*pid),
            _ => None,
        };
        let mut rest = buf;
        for group in pieces.chunk_by(|a, b| memory_of(a).is_some() && memory_of(a) == memory_of(b)) {
            let len = group.iter().map(|p| p.len).sum();
            let (now, later) = rest.split_at_mut(len);
            rest = later;
            match memory_of(&group[0]) {
                Some(pid) => {
                    let addresses: Vec<(u64, usize)> = group
                        .iter()
                        .filter_map(|p| match p.source {
                            Source::Memory { addr, .. } => Some((addr + p.skip, p.len)),
                            _ => None,
                        })
                        .collect();
                    self.read_memory(pid, &addresses, now)?;
                }
                None => self.read(group[0].source, group[0].skip, now)?,
            }
        }
        Ok(())
    }
}

/// Behind the end of the file is zero, as in the last page of a mapping.
fn read_file(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => {
                buf[done..].fill(0);
                return Ok(());
            }
            Ok(n) => done += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn pieces_of_all_kinds_are_read_in_order() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let mut contents = Contents::new(vec![], vec![Arc::new(file)]);
        let memory: Vec<u8> = (0..200).collect();
        let pid = std::process::id() as i32;
        let addr = memory.as_ptr() as u64;
        let sources = [
            Source::Memory { pid, addr },
            Source::Memory { pid, addr: addr + 100 },
            Source::File { key: MEMORY_FILES, offset: 5 },
            Source::Bytes(b"abcdef".to_vec()),
        ];
        let piece = |i: usize, skip, len| Piece { source: &sources[i], skip, len };
        let mut buf = [9; 21];
        let pieces = [piece(0, 1, 3), piece(1, 0, 5), piece(2, 2, 10), piece(3, 3, 3)];
        contents.read_pieces(&pieces, &mut buf).unwrap();
        assert_eq!(&buf[..8], &[1, 2, 3, 100, 101, 102, 103, 104]);
        assert_eq!(&buf[8..], b"789\0\0\0\0\0\0\0def");
    }

    #[test]
    fn unmapped_memory_is_an_error_with_its_address() {
        let mut contents = Contents::new(vec![], vec![]);
        let source = Source::Memory { pid: std::process::id() as i32, addr: 0x1000 };
        let e = contents.read(&source, 0, &mut [0; 8]).unwrap_err();
        assert!(e.to_string().contains("0x1000"), "{e}");
    }
}
