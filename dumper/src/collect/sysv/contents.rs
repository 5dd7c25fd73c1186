//! Contents of segments that no handle and no mapping shows as a whole: the target attaches them for a
//! moment. Its own `lpid` and times are all that can be seen of that.

use super::{Asker, Pieces, segment};
use crate::collect::check_call;
use crate::ptrace::{Call, RemoteAddr};
use anyhow::{Context, Result};

const CHUNK: u64 = 64 << 10;

/// What of the segment is not zero; `None` when it can be read where it is mapped.
pub fn collect(asker: &mut Asker<'_>, id: i32, size: u64) -> Result<Option<Pieces>> {
    let size = size.next_multiple_of(4096);
    for task in asker.tasks {
        for vma in task.mm.vmas.iter().filter(|v| segment(&v.shown) == Some(id)) {
            let handle = vma.file.and_then(|i| task.mm.files[i].handle);
            if handle.is_some() || vma.shown.end - vma.shown.start == size {
                return Ok(None);
            }
        }
    }
    let target = asker.targets.first_mut().context("no process is stopped")?;
    let attach = Call::new(libc::SYS_shmat, &[id as u64, 0, libc::SHM_RDONLY as u64]);
    let addr = target.batch(&[attach])?[0];
    check_call(addr, || format!("attaching the System V shared memory with id {id} to read it"))?;
    let mut found = Vec::new();
    let mut read = Ok(());
    for offset in (0..size).step_by(CHUNK as usize) {
        let mut bytes = vec![0; CHUNK.min(size - offset) as usize];
        read = target.read(RemoteAddr(addr as u64 + offset), &mut bytes);
        if read.is_err() {
            break;
        }
        if bytes.iter().any(|b| *b != 0) {
            found.push((offset, bytes));
        }
    }
    target.batch(&[Call::new(libc::SYS_shmdt, &[addr as u64])])?;
    read.map(|()| Some(found))
}
