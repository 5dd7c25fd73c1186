//! The restorer stub: a static PIE, flattened, relocated to its place in the hole, and configured.

use crate::WriteError;
use ckpt_format::stub::{STUB_CONFIG_SYMBOL, StubConfig};
use ckpt_format::{PAGE_SIZE, Record};
use object::elf::{self, PT_DYNAMIC, PT_LOAD};
use object::read::elf::{Dyn, ElfFile64, ProgramHeader};
use object::{LittleEndian as Le, Object, ObjectSymbol};

/// The ELF file that the build script made from `restorer-stub/`.
static BUILT_IN: &[u8] = include_bytes!(env!("CKPT_STUB_ELF"));

/// Alignment of the stub's base address.
pub const STUB_ALIGN: u64 = PAGE_SIZE;

/// One segment of the stub, in whole pages, relative to its base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StubSegment {
    pub start: u64,
    pub end: u64,
    /// PF_R | PF_W | PF_X.
    pub flags: u32,
}

/// A stub that can be placed anywhere.
#[derive(Clone, Debug)]
pub struct Stub {
    /// Its memory from offset 0, in whole pages, zero-initialised data included.
    flat: Vec<u8>,
    segments: Vec<StubSegment>,
    /// `(offset, addend)` of each R_X86_64_RELATIVE.
    relocations: Vec<(u64, u64)>,
    entry: u64,
    /// Where its configuration goes; a notice has none.
    config: Option<u64>,
}

impl Stub {
    /// The stub built with this crate.
    ///
    /// # Errors
    /// When it is not what [`Stub::parse`] accepts: a build problem.
    pub fn built_in() -> Result<Self, WriteError> {
        Self::parse(BUILT_IN)
    }

    /// Parses a static position-independent x86-64 executable that needs nothing but relative
    /// relocations and has the symbol [`STUB_CONFIG_SYMBOL`].
    ///
    /// # Errors
    /// [`WriteError::Stub`], saying what is not as expected.
    pub fn parse(bytes: &[u8]) -> Result<Self, WriteError> {
        let bad = |what: &str| WriteError::Stub(what.to_string());
        let file = ElfFile64::<Le>::parse(bytes).map_err(|e| WriteError::Stub(e.to_string()))?;
        let header = file.elf_header();
        if header.e_machine.get(Le) != elf::EM_X86_64 || header.e_type.get(Le) != elf::ET_DYN {
            return Err(bad("not a position-independent x86-64 executable"));
        }
        let mut stub =
            Self { flat: Vec::new(), segments: Vec::new(), relocations: Vec::new(), entry: 0, config: None };
        for segment in file.elf_program_headers().iter().filter(|p| p.p_type.get(Le) == PT_LOAD) {
            stub.load(segment, bytes)?;
        }
        stub.relocations = relocations(file.elf_program_headers(), bytes)?;
        stub.entry = header.e_entry.get(Le);
        let symbol = file
            .symbols()
            .find(|s| s.name() == Ok(STUB_CONFIG_SYMBOL))
            .ok_or_else(|| bad("no CKPT_STUB_CONFIG symbol (was it stripped?)"))?;
        let config = symbol.address();
        stub.config = Some(config);
        let fits = |at: u64, n: usize| at.checked_add(n as u64).is_some_and(|e| e <= stub.len());
        if !fits(config, size_of::<StubConfig>()) || !fits(stub.entry, 1) {
            return Err(bad("entry point or configuration outside its segments"));
        }
        if stub.relocations.iter().any(|&(at, _)| !fits(at, 8)) {
            return Err(bad("relocation outside its segments"));
        }
        Ok(stub)
    }

    /// In place of a stub: only tells that there is none.
    #[must_use]
    pub fn notice() -> Self {
        let mut flat = crate::notice::code();
        flat.resize(PAGE_SIZE as usize, 0);
        let segments =
            vec![StubSegment { start: 0, end: PAGE_SIZE, flags: crate::elf::PF_R | crate::elf::PF_X }];
        Self { flat, segments, relocations: Vec::new(), entry: 0, config: None }
    }

    /// Whether it restores.
    #[must_use]
    pub fn is_restorer(&self) -> bool {
        self.config.is_some()
    }

    fn load(&mut self, header: &elf::ProgramHeader64<Le>, bytes: &[u8]) -> Result<(), WriteError> {
        let (addr, memsz) = (header.p_vaddr(Le), header.p_memsz(Le));
        let data = header.data(Le, bytes).map_err(|()| WriteError::Stub("truncated segment".into()))?;
        let start = addr & !(PAGE_SIZE - 1);
        let end = (addr + memsz).next_multiple_of(PAGE_SIZE);
        if self.segments.last().is_some_and(|last| start < last.end) {
            return Err(WriteError::Stub("two segments share a page (link it with -z separate-code)".into()));
        }
        self.flat.resize(end as usize, 0);
        self.flat[addr as usize..addr as usize + data.len()].copy_from_slice(data);
        self.segments.push(StubSegment { start, end, flags: header.p_flags(Le).0 });
        Ok(())
    }

    /// Length of the stub's memory in bytes, whole pages.
    pub fn len(&self) -> u64 {
        self.flat.len() as u64
    }

    /// Whether there is no code at all (never, for a parsed stub).
    pub fn is_empty(&self) -> bool {
        self.flat.is_empty()
    }

    pub fn segments(&self) -> &[StubSegment] {
        &self.segments
    }

    /// Address of the entry point when the stub is at `base`.
    pub fn entry(&self, base: u64) -> u64 {
        base + self.entry
    }

    /// The stub's memory as it is at `base`, with `config` patched in.
    pub fn relocated(&self, base: u64, config: &StubConfig) -> Vec<u8> {
        let mut flat = self.flat.clone();
        for &(at, addend) in &self.relocations {
            let value = base.wrapping_add(addend);
            flat[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
        }
        if let Some(at) = self.config {
            let at = at as usize;
            flat[at..at + size_of::<StubConfig>()].copy_from_slice(as_bytes(config));
        }
        flat
    }
}

/// Bytes of a record.
pub(crate) fn as_bytes<T: Record>(record: &T) -> &[u8] {
    zerocopy::IntoBytes::as_bytes(record)
}

fn relocations(headers: &[elf::ProgramHeader64<Le>], bytes: &[u8]) -> Result<Vec<(u64, u64)>, WriteError> {
    let bad = |what: String| WriteError::Stub(what);
    let Some(dynamic) = headers.iter().find(|p| p.p_type.get(Le) == PT_DYNAMIC) else {
        return Ok(Vec::new());
    };
    let entries = dynamic
        .dynamic(Le, bytes)
        .map_err(|e| bad(e.to_string()))?
        .ok_or_else(|| bad("no dynamic entries".into()))?;
    let value = |tag: elf::DynamicTag| entries.iter().find(|d| d.tag(Le) == tag).map(|d| d.val(Le));
    for (tag, name) in [(elf::DT_NEEDED, "a shared library"), (elf::DT_RELRSZ, "RELR relocations")] {
        if value(tag).is_some_and(|v| v != 0) {
            return Err(bad(format!("it needs {name}")));
        }
    }
    let (Some(at), Some(size)) = (value(elf::DT_RELA), value(elf::DT_RELASZ)) else {
        return Ok(Vec::new());
    };
    let table = headers
        .iter()
        .filter(|p| p.p_type.get(Le) == PT_LOAD)
        .find_map(|p| p.data_range(Le, bytes, at, size).ok().flatten())
        .ok_or_else(|| bad("relocation table outside its segments".into()))?;
    let rela: &[elf::Rela64<Le>] =
        object::pod::slice_from_all_bytes(table).map_err(|()| bad("odd relocation table".into()))?;
    let mut out = Vec::with_capacity(rela.len());
    for r in rela {
        match r.r_type(Le, false) {
            elf::R_X86_64_NONE => {}
            elf::R_X86_64_RELATIVE => out.push((r.r_offset.get(Le), r.r_addend.get(Le) as u64)),
            other => return Err(bad(format!("unexpected relocation {other:?}"))),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_stub_is_usable() {
        let stub = Stub::built_in().unwrap();
        assert!(!stub.is_empty() && stub.len().is_multiple_of(PAGE_SIZE));
        assert!(stub.len() <= 384 << 10, "the stub has grown to {} bytes", stub.len());
        assert!(stub.segments().iter().any(|s| s.flags & crate::elf::PF_X != 0));
    }

    #[test]
    fn config_and_relocations_are_patched() {
        let stub = Stub::built_in().unwrap();
        let base = 0x7000_0000_0000;
        let config = StubConfig { meta_addr: 0x1122_3344, ..Default::default() };
        let memory = stub.relocated(base, &config);
        let config = stub.config.unwrap();
        let at = config as usize;
        assert_eq!(&memory[at..at + 8], &0x1122_3344u64.to_le_bytes());
        for &(at, addend) in &stub.relocations {
            let at = at as usize;
            if !(at as u64..at as u64 + 8).contains(&config) {
                assert_eq!(&memory[at..at + 8], &(base + addend).to_le_bytes());
            }
        }
    }

    #[test]
    fn other_files_are_refused() {
        assert!(Stub::parse(b"not an ELF file").is_err());
        let mut cut = BUILT_IN.to_vec();
        cut.truncate(cut.len() / 2);
        let _ = Stub::parse(&cut);
    }
}
