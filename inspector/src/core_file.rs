//! A core file for debuggers, from an image: the same notes, and memory as segments. Sparse where memory is
//! zero. Layout: core(5), elf(5); what the kernel writes is in fs/binfmt_elf.c (elf_core_dump).

use crate::space::{Piece, Space, What, in_chunks};
use anyhow::{Context, Result};
use ckpt_format::{PAGE_SIZE, Vma};
use ckpt_reader::core_notes::StandardNote;
use object::elf::{
    self as raw, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_CORE, EV_CURRENT, FileFlags, FileHeader64,
    Ident, PT_LOAD, PT_NOTE, ProgramFlags, ProgramHeader64, SectionHeader64, SymbolSection,
};
use object::pod::bytes_of;
use object::{LittleEndian as Le, U16, U32, U64};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// `e_phnum` when there are as many or more: elf(5).
const PN_XNUM: u16 = 0xffff;

/// A segment and where its bytes come from.
struct Segment<'a> {
    start: u64,
    end: u64,
    flags: u32,
    pieces: Vec<Piece<'a>>,
    /// Instead of pieces: the code of the vDSO.
    bytes: &'a [u8],
    /// Bytes in the file.
    len: u64,
    offset: u64,
}

/// Writes it. Returns a line for each VMA some of whose bytes are nowhere to be had.
pub fn write<'a>(
    space: &mut Space<'a>,
    notes: &[StandardNote],
    vdso: &'a [u8],
    path: &Path,
) -> Result<Vec<String>> {
    let mut segments = segments(space, vdso)?;
    let notes = note_bytes(notes);
    // More segments than 16 bits can count: the number is in the first section header (elf(5), PN_XNUM).
    let count = segments.len() as u64 + 1;
    let many = count >= u64::from(PN_XNUM);
    let headers = size_of::<FileHeader64<Le>>() as u64
        + count * size_of::<ProgramHeader64<Le>>() as u64
        + if many { size_of::<SectionHeader64<Le>>() as u64 } else { 0 };
    let mut offset = (headers + notes.len() as u64).next_multiple_of(PAGE_SIZE);
    for s in &mut segments {
        s.offset = offset;
        offset += s.len;
    }
    // Like the image, it holds all secrets of the process.
    let mut options = File::options();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let file = file.with_context(|| format!("cannot create {}", path.display()))?;
    let result = fill(&file, space, &segments, &notes, many, offset);
    if result.is_err() {
        let _ = std::fs::remove_file(path);
    }
    result
}

fn fill<'a>(
    file: &File,
    space: &mut Space<'a>,
    segments: &[Segment<'a>],
    notes: &[u8],
    many: bool,
    end: u64,
) -> Result<Vec<String>> {
    let mut out = BufWriter::new(file);
    write_headers(&mut out, segments, notes.len() as u64, many)?;
    out.write_all(notes)?;
    out.flush()?;
    drop(out);
    file.set_len(end)?;
    let mut missing = Vec::new();
    for s in segments {
        file.write_all_at(s.bytes, s.offset)?;
        for piece in s.pieces.iter().filter(|p| p.start < s.start + s.len && !matches!(p.what, What::Zero)) {
            let written = in_chunks(*piece, |p| {
                let bytes = space.read(&p)?;
                file.write_all_at(&bytes, s.offset + (p.start - s.start)).context("writing the core file")
            });
            match (written, piece.what) {
                (Ok(()), _) => {}
                (Err(e), What::File { .. }) => {
                    missing.push(format!("{:#x}-{:#x}: {e:#}", piece.start, piece.end))
                }
                (Err(e), _) => return Err(e),
            }
        }
    }
    Ok(missing)
}

/// What has no byte in the image is left to the debugger: it reads the files that are mapped.
fn segments<'a>(space: &Space<'a>, vdso: &'a [u8]) -> Result<Vec<Segment<'a>>> {
    // PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4.
    let of = |v: &Vma, bit: u32, flag: ProgramFlags| if v.prot & bit != 0 { flag.0 } else { 0 };
    let flags = |v: &Vma| of(v, 1, raw::PF_R) | of(v, 2, raw::PF_W) | of(v, 4, raw::PF_X);
    let mut all = Vec::with_capacity(space.vmas.len() + 1);
    for v in space.vmas {
        let pieces = space.pieces(v)?;
        let last = pieces.iter().rev().find(|p| matches!(p.what, What::Stored { .. }));
        let len = last.map_or(0, |p| p.end - v.start);
        all.push(Segment { start: v.start, end: v.end, flags: flags(v), pieces, bytes: &[], len, offset: 0 });
    }
    let (start, len) = (space.mm.vdso_addr, vdso.len() as u64);
    if len > 0 {
        let end = start + space.mm.vdso_len.max(len);
        let flags = raw::PF_R.0 | raw::PF_X.0;
        all.push(Segment { start, end, flags, pieces: Vec::new(), bytes: vdso, len, offset: 0 });
    }
    all.sort_by_key(|s| s.start);
    Ok(all)
}

fn note_bytes(notes: &[StandardNote]) -> Vec<u8> {
    let mut out = Vec::new();
    for n in notes {
        for word in [n.owner.len(), n.desc.len(), n.kind as usize] {
            out.extend_from_slice(&(word as u32).to_le_bytes());
        }
        for part in [n.owner, &n.desc] {
            out.extend_from_slice(part);
            out.resize(out.len().next_multiple_of(4), 0);
        }
    }
    out
}

fn write_headers(out: &mut impl Write, segments: &[Segment<'_>], notes: u64, many: bool) -> Result<()> {
    let ehsize = size_of::<FileHeader64<Le>>();
    let phentsize = size_of::<ProgramHeader64<Le>>();
    let shentsize = if many { size_of::<SectionHeader64<Le>>() } else { 0 };
    let count = segments.len() + 1;
    let table_end = (ehsize + count * phentsize) as u64;
    out.write_all(bytes_of(&FileHeader64::<Le> {
        e_ident: Ident {
            magic: ELFMAG,
            class: ELFCLASS64,
            data: ELFDATA2LSB,
            version: EV_CURRENT,
            os_abi: raw::ELFOSABI_NONE,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(Le, ET_CORE),
        e_machine: U16::new(Le, EM_X86_64),
        e_version: U32::new(Le, EV_CURRENT.0.into()),
        e_entry: U64::new(Le, 0),
        e_phoff: U64::new(Le, ehsize as u64),
        e_shoff: U64::new(Le, if many { table_end } else { 0 }),
        e_flags: U32::new(Le, FileFlags(0)),
        e_ehsize: U16::new(Le, ehsize as u16),
        e_phentsize: U16::new(Le, phentsize as u16),
        e_phnum: U16::new(Le, if many { PN_XNUM } else { count as u16 }),
        e_shentsize: U16::new(Le, shentsize as u16),
        e_shnum: U16::new(Le, u16::from(many)),
        e_shstrndx: U16::new(Le, SymbolSection(0)),
    }))?;
    let header = |kind, flags, offset, addr, filesz, memsz, align| ProgramHeader64::<Le> {
        p_type: U32::new(Le, kind),
        p_flags: U32::new(Le, ProgramFlags(flags)),
        p_offset: U64::new(Le, offset),
        p_vaddr: U64::new(Le, addr),
        p_paddr: U64::new(Le, 0),
        p_filesz: U64::new(Le, filesz),
        p_memsz: U64::new(Le, memsz),
        p_align: U64::new(Le, align),
    };
    out.write_all(bytes_of(&header(PT_NOTE, 0, table_end + shentsize as u64, 0, notes, 0, 4)))?;
    for s in segments {
        let segment = header(PT_LOAD, s.flags, s.offset, s.start, s.len, s.end - s.start, PAGE_SIZE);
        out.write_all(bytes_of(&segment))?;
    }
    if many {
        // `sh_info` of an otherwise empty section header.
        let mut section = vec![0u8; shentsize];
        let at = std::mem::offset_of!(SectionHeader64<Le>, sh_info);
        section[at..at + 4].copy_from_slice(&(count as u32).to_le_bytes());
        out.write_all(&section)?;
    }
    Ok(())
}
