//! ELF64 headers as bytes.

use object::elf::{
    self as raw, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_EXEC, EV_CURRENT, FileFlags, FileHeader64,
    Ident, ProgramFlags, ProgramHeader64, ProgramType, SectionFlags, SectionHeader64, SectionType,
    SymbolSection,
};
use object::pod::bytes_of;
use object::{LittleEndian as Le, U16, U32, U64};

pub const PT_LOAD: u32 = raw::PT_LOAD.0;
pub const PT_NOTE: u32 = raw::PT_NOTE.0;
pub const PT_GNU_STACK: u32 = raw::PT_GNU_STACK.0;
pub const PF_R: u32 = raw::PF_R.0;
pub const PF_W: u32 = raw::PF_W.0;
pub const PF_X: u32 = raw::PF_X.0;
pub const SHT_PROGBITS: u32 = raw::SHT_PROGBITS.0;
pub const SHT_NOBITS: u32 = raw::SHT_NOBITS.0;
pub const SHT_NOTE: u32 = raw::SHT_NOTE.0;
pub const SHF_ALLOC: u64 = raw::SHF_ALLOC.0;
pub const SHF_WRITE: u64 = raw::SHF_WRITE.0;
pub const SHF_EXECINSTR: u64 = raw::SHF_EXECINSTR.0;

/// A program header, before encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// PT_*.
    pub kind: u32,
    /// PF_*.
    pub flags: u32,
    pub offset: u64,
    pub addr: u64,
    pub filesz: u64,
    pub memsz: u64,
    pub align: u64,
}

/// A section header, before encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    pub name: String,
    /// SHT_*.
    pub kind: u32,
    /// SHF_*.
    pub flags: u64,
    pub addr: u64,
    pub offset: u64,
    pub size: u64,
    pub align: u64,
}

/// The ELF header, `padding` in its `e_ident[EI_PAD..]`, followed by the program headers.
pub fn header(padding: [u8; 7], entry: u64, segments: &[Segment], shoff: u64, shnum: u16) -> Vec<u8> {
    let ident = Ident {
        magic: ELFMAG,
        class: ELFCLASS64,
        data: ELFDATA2LSB,
        version: EV_CURRENT,
        os_abi: object::elf::ELFOSABI_NONE,
        abi_version: 0,
        padding,
    };
    let file = FileHeader64::<Le> {
        e_ident: ident,
        e_type: U16::new(Le, ET_EXEC),
        e_machine: U16::new(Le, EM_X86_64),
        e_version: U32::new(Le, EV_CURRENT.0.into()),
        e_entry: U64::new(Le, entry),
        e_phoff: U64::new(Le, 64),
        e_shoff: U64::new(Le, shoff),
        e_flags: U32::new(Le, FileFlags(0)),
        e_ehsize: U16::new(Le, 64),
        e_phentsize: U16::new(Le, 56),
        e_phnum: U16::new(Le, segments.len() as u16),
        e_shentsize: U16::new(Le, 64),
        e_shnum: U16::new(Le, shnum),
        e_shstrndx: U16::new(Le, SymbolSection(shnum.saturating_sub(1))),
    };
    let mut out = bytes_of(&file).to_vec();
    for s in segments {
        out.extend_from_slice(bytes_of(&ProgramHeader64::<Le> {
            p_type: U32::new(Le, ProgramType(s.kind)),
            p_flags: U32::new(Le, ProgramFlags(s.flags)),
            p_offset: U64::new(Le, s.offset),
            p_vaddr: U64::new(Le, s.addr),
            p_paddr: U64::new(Le, s.addr),
            p_filesz: U64::new(Le, s.filesz),
            p_memsz: U64::new(Le, s.memsz),
            p_align: U64::new(Le, s.align),
        }));
    }
    out
}

/// Section headers with their names at the end of the file, which starts at `offset` (a multiple of
/// 8). Returns `(bytes, offset of the headers, number of headers)`. Adds the null section and
/// `.shstrtab`.
pub fn sections(offset: u64, sections: &[Section]) -> (Vec<u8>, u64, u16) {
    let mut names = vec![0u8];
    let mut headers: Vec<SectionHeader64<Le>> = Vec::new();
    let mut header = |s: &Section, offset: u64, size: u64, names: &mut Vec<u8>| {
        let name = names.len() as u32;
        names.extend_from_slice(s.name.as_bytes());
        names.push(0);
        headers.push(SectionHeader64::<Le> {
            sh_name: U32::new(Le, name),
            sh_type: U32::new(Le, SectionType(s.kind)),
            sh_flags: U64::new(Le, SectionFlags(s.flags)),
            sh_addr: U64::new(Le, s.addr),
            sh_offset: U64::new(Le, offset),
            sh_size: U64::new(Le, size),
            sh_link: U32::new(Le, 0),
            sh_info: U32::new(Le, 0),
            sh_addralign: U64::new(Le, s.align),
            sh_entsize: U64::new(Le, 0),
        });
    };
    header(&Section::default(), 0, 0, &mut Vec::new());
    for s in sections {
        header(s, s.offset, s.size, &mut names);
    }
    let own = Section { name: ".shstrtab".into(), kind: raw::SHT_STRTAB.0, align: 1, ..Default::default() };
    let size = names.len() as u64 + own.name.len() as u64 + 1;
    header(&own, offset, size, &mut names);
    names.resize(names.len().next_multiple_of(8), 0);
    let shoff = offset + names.len() as u64;
    let count = headers.len() as u16;
    for h in &headers {
        names.extend_from_slice(bytes_of(h));
    }
    (names, shoff, count)
}
