//! Hostile metadata regions: whatever the bytes, `Image::parse` and every resolution of a reference
//! returns a value or a `FormatError`; nothing panics, nothing reads out of bounds.
//!
//! The checksums are made right first, as an attacker would.
#![no_main]

use ckpt_format::*;
use libfuzzer_sys::fuzz_target;
use zerocopy::{FromBytes, IntoBytes};

const AT: usize = Meta::FIRST_NOTE + Meta::NOTE_HEADER;

/// Recomputes table and header checksums where the directory is readable.
fn mend(bytes: &mut [u8]) -> Option<()> {
    bytes.get_mut(Meta::FIRST_NOTE + 8..Meta::FIRST_NOTE + 12)?.copy_from_slice(&0x100u32.to_le_bytes());
    bytes.get_mut(Meta::FIRST_NOTE + 12..Meta::FIRST_NOTE + 17)?.copy_from_slice(NOTE_OWNER);
    let (mut header, _) = Header::read_from_prefix(bytes.get(AT..)?).ok()?;
    header.version = FORMAT_VERSION;
    header.header_size = size_of::<Header>() as u32;
    header.dir_count %= 32;
    header.meta_len = header.meta_len.min(bytes.len() as u64);
    let dir_at = AT + size_of::<Header>();
    for i in 0..header.dir_count as usize {
        let at = dir_at + i * size_of::<DirEntry>();
        let (mut entry, _) = DirEntry::read_from_prefix(bytes.get(at..)?).ok()?;
        entry.note = 0x100 + entry.note % 0x19;
        let start = usize::try_from(entry.offset).ok();
        if let Some(body) = start.and_then(|s| bytes.get(s..s.checked_add(entry.len as usize)?)) {
            entry.checksum = checksum(body);
        }
        bytes.get_mut(at..at + size_of::<DirEntry>())?.copy_from_slice(entry.as_bytes());
    }
    let dir = bytes.get(dir_at..dir_at + header.dir_count as usize * size_of::<DirEntry>())?;
    header.checksum = Meta::header_checksum(&header, dir);
    bytes[AT..AT + size_of::<Header>()].copy_from_slice(header.as_bytes());
    Some(())
}

/// Follows every reference, as the stub and the inspector do.
fn walk(image: &Image) -> Result<(), FormatError> {
    for task in image.tasks {
        let mm = Image::get(image.mms, task.mm, "mm")?;
        for vma in Image::slice(image.vmas, mm.vmas, "vmas")? {
            let _ = image.text(vma.name);
            Image::slice(image.extents, vma.dirty, "dirty")?;
            Image::slice(image.extents, vma.embedded, "embedded")?;
        }
        for thread in Image::slice(image.threads, task.threads, "threads")? {
            image.blob(thread.xstate)?;
            Image::get(image.creds, thread.creds, "creds")?;
        }
        let table = Image::get(image.fd_tables, task.fd_table, "fds")?;
        for fd in Image::slice(image.fds, table.fds, "fds")? {
            let object = Image::get(image.objects, fd.object, "object")?;
            let _ = image.payload::<fd::socket::InetSocket>(object.payload);
            let _ = image.records::<fd::event::EpollTarget>(object.payload);
        }
    }
    // Whatever bytes a block has, decompressing it stays within its lengths. (The tables serve as such bytes.)
    for block in image.extents.iter().filter(|e| e.is_compressed()).take(8).filter_map(Extent::block) {
        let mut out = vec![0; block.block_len];
        let stored = image.extents.as_bytes();
        content::decompress(&stored[..block.stored_len.min(stored.len())], &mut out);
        let _ = &out[block.start..block.end];
    }
    for shm in image.shms {
        Image::get(image.files, shm.file, "file")?;
    }
    for sem in image.sems {
        let _ = image.records::<u16>(sem.values);
        let _ = image.records::<i32>(sem.pids);
    }
    for msg in image.msgs {
        let _ = image.payload::<SysvMessage>(msg.messages);
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // Records need 8-byte alignment as in a mapped image, descriptions lie at multiples of 8.
    let mut words = vec![0u64; data.len().div_ceil(8)];
    let bytes = words.as_mut_bytes();
    bytes[..data.len()].copy_from_slice(data);
    let _ = mend(bytes);
    if let Ok(image) = Image::parse(words.as_bytes()) {
        let _ = walk(&image);
    }
});
