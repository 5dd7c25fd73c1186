//! The notes of a core file, so that debuggers and `readelf -n` find what they know, and a core file
//! is a cheap rewrite of the headers. Layouts: `include/uapi/linux/elfcore.h`, x86-64.

use ckpt_format::{Creds, FileIdent, Image, Mm, NONE, PAGE_SIZE, Span, Task, Thread, Vma};
use zerocopy::IntoBytes;

/// A note of another owner than ours.
#[derive(Clone, Debug)]
pub struct StandardNote {
    /// With the NUL.
    pub owner: &'static [u8],
    pub kind: u32,
    pub desc: Vec<u8>,
}

/// The tables that the notes are made from: those of an image, or of a plan.
#[derive(Clone, Copy, Debug, Default)]
pub struct View<'a> {
    pub tasks: &'a [Task],
    pub threads: &'a [Thread],
    pub mms: &'a [Mm],
    pub vmas: &'a [Vma],
    pub files: &'a [FileIdent],
    pub creds: &'a [Creds],
    pub blobs: &'a [u8],
}

impl<'a> From<&Image<'a>> for View<'a> {
    fn from(i: &Image<'a>) -> Self {
        Self {
            tasks: i.tasks,
            threads: i.threads,
            mms: i.mms,
            vmas: i.vmas,
            files: i.files,
            creds: i.creds,
            blobs: i.blobs,
        }
    }
}

const CORE: &[u8] = b"CORE\0";
const LINUX: &[u8] = b"LINUX\0";
const NT_PRSTATUS: u32 = 1;
const NT_FPREGSET: u32 = 2;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_FILE: u32 = 0x4649_4c45;
const NT_X86_XSTATE: u32 = 0x202;

/// The legacy (FXSAVE) part of an XSAVE area.
const FXSAVE_LEN: usize = 512;

/// Notes of a task, in the kernel's order: leader first.
#[must_use]
pub fn core_notes(t: &View<'_>, task: u32, command: Span) -> Vec<StandardNote> {
    let Some(task) = t.tasks.get(task as usize) else { return Vec::new() };
    let threads = t.threads.get(task.threads.indices()).unwrap_or(&[]);
    let mut out = Vec::new();
    let core = |kind, desc| StandardNote { owner: CORE, kind, desc };
    for (i, thread) in threads.iter().enumerate() {
        out.push(core(NT_PRSTATUS, prstatus(task, thread)));
        if i == 0 {
            out.push(core(NT_PRPSINFO, prpsinfo(t, task, thread, command)));
            if let Some(mm) = t.mms.get(task.mm as usize) {
                out.push(core(NT_AUXV, blob(t, mm.auxv).to_vec()));
                out.push(core(NT_FILE, nt_file(t, mm.vmas.indices())));
            }
        }
        let xstate = blob(t, thread.xstate);
        if xstate.len() >= FXSAVE_LEN {
            out.push(core(NT_FPREGSET, xstate[..FXSAVE_LEN].to_vec()));
            out.push(StandardNote { owner: LINUX, kind: NT_X86_XSTATE, desc: xstate.to_vec() });
        }
    }
    out
}

fn blob<'a>(t: &View<'a>, span: Span) -> &'a [u8] {
    let start = span.offset as usize;
    t.blobs.get(start..start.saturating_add(span.len as usize)).unwrap_or(&[])
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// `struct elf_prstatus`.
fn prstatus(task: &Task, thread: &Thread) -> Vec<u8> {
    let mut out = vec![0; 336];
    put(&mut out, 24, &thread.sigmask.to_le_bytes());
    for (i, id) in [thread.tid, task.ppid, task.pgid, task.sid].into_iter().enumerate() {
        put(&mut out, 32 + i * 4, &id.to_le_bytes());
    }
    put(&mut out, 112, thread.regs.as_bytes());
    put(&mut out, 328, &1u32.to_le_bytes());
    out
}

/// `struct elf_prpsinfo`.
fn prpsinfo(t: &View<'_>, task: &Task, leader: &Thread, command: Span) -> Vec<u8> {
    let mut out = vec![0; 136];
    out[1] = b'R';
    out[3] = leader.sched_nice as i8 as u8;
    let (uid, gid) = t.creds.get(leader.creds as usize).map_or((0, 0), |c| (c.uid[0], c.gid[0]));
    put(&mut out, 16, &uid.to_le_bytes());
    put(&mut out, 20, &gid.to_le_bytes());
    for (i, id) in [task.pid, task.ppid, task.pgid, task.sid].into_iter().enumerate() {
        put(&mut out, 24 + i * 4, &id.to_le_bytes());
    }
    put(&mut out, 40, &leader.name);
    let command = blob(t, command);
    put(&mut out, 56, &command[..command.len().min(79)]);
    out
}

/// Count and page size; start, end, page offset of each mapped file; their names.
fn nt_file(t: &View<'_>, vmas: std::ops::Range<usize>) -> Vec<u8> {
    let mut ranges = Vec::new();
    let mut names = Vec::new();
    let mut count = 0u64;
    for vma in t.vmas.get(vmas).unwrap_or(&[]) {
        let Some(file) = (vma.file != NONE).then(|| t.files.get(vma.file as usize)).flatten() else {
            continue;
        };
        let path = blob(t, file.path);
        if path.is_empty() {
            continue;
        }
        count += 1;
        for v in [vma.start, vma.end, vma.file_offset / PAGE_SIZE] {
            ranges.extend_from_slice(&v.to_le_bytes());
        }
        names.extend_from_slice(path);
        names.push(0);
    }
    let mut out = count.to_le_bytes().to_vec();
    out.extend_from_slice(&PAGE_SIZE.to_le_bytes());
    out.extend(ranges);
    out.extend(names);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckpt_format::{Range, Regs};

    #[test]
    fn prstatus_has_the_kernels_offsets() {
        let thread =
            Thread { tid: 42, regs: Regs { r15: 1, gs: 27, ..Default::default() }, ..Default::default() };
        let out = prstatus(&Task { ppid: 5, ..Default::default() }, &thread);
        assert_eq!((out[32], out[36], out[112], out[112 + 26 * 8]), (42, 5, 1, 27));
    }

    #[test]
    fn nt_file_lists_named_files_only() {
        let file = FileIdent { path: Span { offset: 0, len: 4 }, ..Default::default() };
        let vmas = [
            Vma { start: 0x1000, end: 0x3000, file_offset: 0x2000, file: 0, ..Default::default() },
            Vma { start: 0x9000, end: 0xa000, file: NONE, ..Default::default() },
        ];
        let t = View { vmas: &vmas, files: &[file], blobs: b"/bin", ..Default::default() };
        let r = Range { first: 0, count: 2 };
        let out = nt_file(&t, r.indices());
        assert_eq!(out.len(), 16 + 24 + 5);
        assert_eq!((out[0], out[32]), (1, 2));
        assert_eq!(&out[40..], b"/bin\0");
    }
}
