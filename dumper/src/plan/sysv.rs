//! System V IPC: one file record for each segment, and the records of all objects.

use super::{Builder, FileKey};
use crate::collect::memory::VmaFacts;
use crate::collect::sysv::{ShmFacts, segment};
use crate::collect::{Facts, TaskFacts};
use crate::contents::MEMORY_FILES;
use ckpt_format::file::file_flags;
use ckpt_format::header::header_flags;
use ckpt_format::*;
use elf_writer::{DROP_ZERO, Source};
use zerocopy::IntoBytes;

/// Adds all objects. Before memory, whose mappings refer to the files.
pub fn plan(builder: &mut Builder, facts: &Facts) {
    let sysv = &facts.sysv;
    builder.obstacles.extend(sysv.obstacles.iter().cloned());
    if sysv.own_namespace {
        builder.header.flags |= header_flags::OWN_IPC_NAMESPACE;
    }
    for shm in &sysv.shms {
        let file = file(builder, facts, shm);
        let huge = mappings(facts, shm.perm.id).find(|(_, v)| v.shown.has(b"ht"));
        let hugetlb_shift = huge.map_or(0, |(_, v)| v.shown.page_size.trailing_zeros());
        builder.tables.shms.push(SysvShm { perm: shm.perm, size: shm.size, file, hugetlb_shift });
    }
    for sem in &sysv.sems {
        let (values, pids) = (builder.blob(sem.values.as_bytes()), builder.blob(sem.pids.as_bytes()));
        builder.tables.sems.push(SysvSem { perm: sem.perm, values, pids });
    }
    for msg in &sysv.msgs {
        let messages = builder.blob(&messages(&msg.messages));
        builder.tables.msgs.push(SysvMsg { perm: msg.perm, qbytes: msg.qbytes, messages });
    }
    builder.tables.sem_undos.extend_from_slice(&sysv.undos);
}

/// The file record of the segment that a mapping shows; `None` if it is another kind of file.
pub fn file_of(builder: &Builder, vma: &VmaFacts) -> Option<u32> {
    let id = segment(&vma.shown)?;
    builder.tables.shms.iter().find(|s| s.perm.id == id).map(|s| s.file)
}

/// All mappings of a segment, with their tasks.
fn mappings(facts: &Facts, id: i32) -> impl Iterator<Item = (&TaskFacts, &VmaFacts)> {
    let all = facts.tasks.iter().flat_map(|task| task.mm.vmas.iter().map(move |vma| (task, vma)));
    all.filter(move |(_, vma)| segment(&vma.shown) == Some(id))
}

fn file(builder: &mut Builder, facts: &Facts, shm: &ShmFacts) -> u32 {
    let id = shm.perm.id as u32;
    let key = FileKey { dev: 0, ino: u64::from(id), path: Vec::new(), flags: file_flags::SYSV_SHM };
    builder.file(key, |b| {
        let first = b.extent_mark();
        contents(b, facts, shm);
        FileIdent {
            path: b.blob(format!("/SYSV{:08x}", shm.perm.key).as_bytes()),
            ino: u64::from(id),
            size: shm.size,
            flags: file_flags::SYSV_SHM | file_flags::CONTENTS,
            contents: b.extents_since(first),
            ..FileIdent::default()
        }
    })
}

fn contents(builder: &mut Builder, facts: &Facts, shm: &ShmFacts) {
    if let Some(read) = &shm.contents {
        for (offset, bytes) in read {
            let source = Source::Bytes(bytes.clone());
            builder.extent(*offset, bytes.len() as u64, DROP_ZERO, &source);
        }
        return;
    }
    let handle = mappings(facts, shm.perm.id).find_map(|(task, vma)| {
        let file = vma.file.map(|i| &task.mm.files[i])?;
        Some((file.handle?, file.data.as_ref()?))
    });
    if let Some((key, data)) = handle {
        for &(offset, len) in data {
            let source = Source::File { key: MEMORY_FILES + key, offset };
            // The last page is a whole one: what is behind the size that was asked for can be used.
            let len = len.min(shm.size.next_multiple_of(PAGE_SIZE).saturating_sub(offset));
            builder.extent(offset, len, DROP_ZERO, &source);
        }
        return;
    }
    let whole = shm.size.next_multiple_of(PAGE_SIZE);
    let full = mappings(facts, shm.perm.id).find(|(_, v)| v.shown.end - v.shown.start >= whole);
    if let Some((task, vma)) = full {
        let all = vma.shown.start..vma.shown.end;
        for run in vma.resident.as_deref().unwrap_or(std::slice::from_ref(&all)) {
            let source = Source::Memory { pid: task.pid, addr: run.start };
            builder.extent(run.start - vma.shown.start, run.end - run.start, DROP_ZERO, &source);
        }
    }
}

/// As [`SysvMsg::messages`] says.
fn messages(all: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, text) in all {
        out.extend_from_slice(SysvMessage { kind: *kind, len: text.len() as u64 }.as_bytes());
        out.extend_from_slice(text);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::memory::smaps;
    use crate::collect::sysv::SysvFacts;
    use crate::plan::Options;

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn a_segment_is_stored_once() {
        let text = b"10000-13000 rw-s 00000000 00:01 7  /SYSV000000ab (deleted)\n";
        let shown = smaps::parse(text).unwrap().remove(0);
        let vma = VmaFacts { shown, resident: Some(vec![0x11000..0x12000]), ..VmaFacts::default() };
        let mut task = TaskFacts { pid: 5, ..TaskFacts::default() };
        task.mm.vmas = vec![vma.clone()];
        let shm = ShmFacts {
            perm: IpcPerm { id: 7, key: 0xab, mode: 0o600, ..IpcPerm::default() },
            size: 8200,
            contents: None,
        };
        let other = ShmFacts { contents: Some(vec![(0, vec![1; 4096])]), ..ShmFacts::default() };
        let sysv = SysvFacts { shms: vec![other, shm], ..SysvFacts::default() };
        let facts = Facts { tasks: vec![task.clone(), task], sysv, ..Facts::default() };
        let mut b = Builder::new(Options::default());
        plan(&mut b, &facts);
        assert_eq!((b.tables.files.len(), b.tables.shms[1].file), (2, 1));
        assert_eq!(file_of(&b, &vma), Some(1));
        let extent = b.tables.extents[1];
        assert_eq!((extent.addr, extent.len), (0x1000, 0x1000));
        assert_eq!(b.sources[1], Source::Memory { pid: 5, addr: 0x11000 });
    }

    #[test]
    fn messages_are_padded() {
        let bytes = messages(&[(3, b"abc".to_vec()), (-1, Vec::new())]);
        assert_eq!((bytes.len(), bytes[8], &bytes[16..19], bytes[24]), (40, 3, &b"abc"[..], 0xff));
    }
}
