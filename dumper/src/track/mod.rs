//! `--track`: the kernel notes which pages are written to between two dumps, so that the second one reads only these.
//!
//! Plain private anonymous memory is registered with a userfaultfd that only tracks (UFFD_FEATURE_WP_ASYNC: a write
//! clears a bit of the page, nobody is asked), and every page of it is protected while the process is stopped. A
//! process of ours keeps the userfaultfd; with its last copy all of that is undone by the kernel.

pub mod keeper;

use crate::collect::memory::smaps::Entry;
use crate::collect::memory::{Tracked, pagemap};
use crate::collect::proc;
use crate::ptrace::{Call, Frozen};
use crate::report;
use crate::sys::uffd;
use anyhow::{Context, Result, anyhow, bail};
use keeper::{Facts, Fresh, Offer};
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// Memory with fewer resident bytes is read as quickly as it is tracked.
const LEAST: u64 = 256 << 10;

/// Tracking of all address spaces of a tree.
#[derive(Debug, Default)]
pub struct Tracker {
    /// `--track`: track from now on.
    start: bool,
    /// The parent: what has been tracked since is of use.
    pub parent: Option<[u8; 16]>,
    keeper: Option<Fresh>,
    spaces: Vec<Space>,
    /// Those whose tracking was used and goes no further.
    used: Vec<Offer>,
    /// Address spaces that were tracked since the parent, and those that were not.
    pub known: usize,
    pub unknown: usize,
    /// Why some cannot be tracked.
    pub troubles: Vec<String>,
}

/// One address space that is tracked from now on.
#[derive(Debug)]
struct Space {
    pid: i32,
    began: u64,
    uffd: OwnedFd,
    pidfd: OwnedFd,
}

impl Tracker {
    /// Makes ready, before anything is stopped, and before there are other threads.
    ///
    /// # Errors
    /// When the kernel cannot track.
    pub fn new(start: bool, pid: i32) -> Result<Self> {
        let mut keeper = None;
        if start {
            uffd::available().context(
                "--track: userfaultfd(2) with UFFD_FEATURE_WP_ASYNC cannot be had: Linux 6.7 is needed, and no \
                 seccomp filter (of a container) that forbids it",
            )?;
            // It would become a child of the program.
            if crate::ptrace::is_above_us(pid) {
                bail!("--track: ckpt-dump runs below PID {pid}: run it from somewhere else");
            }
            keeper = Some(Fresh::start().context("--track: starting the process that keeps it")?);
        }
        Ok(Self { start, keeper, ..Self::default() })
    }

    /// Looks at what was tracked so far of the memory that `shown` shows, and tracks anew if that is wanted. What
    /// tracking does to `shown` is taken out of it.
    ///
    /// # Errors
    /// When the target died.
    pub fn observe(&mut self, target: &mut Frozen, shown: &mut Vec<Entry>) -> Result<Option<Tracked>> {
        let watched = shown.iter().any(is_watched);
        if !watched && !self.start && self.parent.is_none() {
            return Ok(None);
        }
        let pid = target.pid();
        let began = proc::began(pid).with_context(|| format!("when PID {pid} began"))?;
        let path = format!("/proc/{pid}/pagemap");
        let file = File::open(&path).with_context(|| format!("opening {path}"))?;
        let owner = std::fs::metadata(format!("/proc/{pid}")).map_or(u32::MAX, |m| m.uid());
        let offer = Offer::ask(pid, began, owner);
        let genuine = match &offer {
            Some(offer) => is_of(target, &file, offer.uffd.as_fd())?,
            None => false,
        };
        let ours = match &offer {
            Some(offer) if genuine => own_vmas(shown, offer.uffd.as_fd()),
            _ => Vec::new(),
        };
        // What a kernel does to such memory without being asked to is not tracked.
        let async_io = shown.iter().any(|e| e.path.starts_with(b"/[aio]"));
        let useful = offer.as_ref().is_some_and(|o| genuine && Some(o.facts.uuid) == self.parent);
        let since = offer.as_ref().map(|o| o.facts).filter(|_| useful && !async_io);
        let mut tracked = None;
        if self.start {
            let kept = match (genuine, offer) {
                (true, Some(offer)) => Some(offer.end().context("the process that keeps tracking")?),
                // What it has is of memory that is gone (execve).
                (false, Some(offer)) => offer.end().map(|_| None).unwrap_or_default(),
                _ => None,
            };
            let started = match async_io {
                true => Err(anyhow!("asynchronous I/O (io_setup) may write to it unseen")),
                false => self.track(target, kept, &file, shown, &ours, began),
            };
            match started {
                Ok(written) => tracked = Some(written),
                Err(e) => self.troubles.push(format!("PID {pid}: {e:#}")),
            }
        } else if since.is_some() {
            tracked = Some(pagemap::written(&file, &ours, false).context("PAGEMAP_SCAN")?);
            self.used.extend(offer);
        }
        merge(shown, &ours);
        let tracked = tracked.zip(since);
        if self.parent.is_some() {
            *(if tracked.is_some() { &mut self.known } else { &mut self.unknown }) += 1;
        }
        report::debug(|| format!("PID {pid}: {} of its mappings were tracked", ours.len()));
        Ok(tracked.map(|(written, since)| Tracked { vmas: ours, written, space: since.space }))
    }

    /// Tracks all that can be from now on; returns what has been written to of what was tracked.
    fn track(
        &mut self,
        target: &mut Frozen,
        kept: Option<OwnedFd>,
        file: &File,
        shown: &[Entry],
        ours: &[Range<u64>],
        began: u64,
    ) -> Result<pagemap::Runs> {
        let uffd = match kept {
            Some(uffd) => uffd,
            None => {
                let call = Call::new(libc::SYS_userfaultfd, &[uffd::FLAGS as u64]);
                let uffd = target.open_for_us(call).context("userfaultfd(2)")?;
                uffd::begin(uffd.as_fd()).context("ioctl(UFFDIO_API)")?;
                uffd
            }
        };
        let mut all = ours.to_vec();
        let new = shown.iter().filter(|e| can_be_tracked(e)).map(|e| e.start..e.end);
        for vma in new.filter(|r| ours.binary_search_by_key(&r.start, |o| o.start).is_err()) {
            // One that cannot is read each time.
            if uffd::register(uffd.as_fd(), &vma).is_err() {
                continue;
            }
            // Left from another life: such a page might be writable, and seem protected.
            if pagemap::is_protected(file, &vma).context("PAGEMAP_SCAN")? {
                uffd::unprotect(uffd.as_fd(), &vma).context("ioctl(UFFDIO_WRITEPROTECT)")?;
            }
            all.push(vma);
        }
        all.sort_unstable_by_key(|r| r.start);
        let written = pagemap::written(file, &all, true).context("PAGEMAP_SCAN")?;
        crate::failpoint::hit("track-armed")?;
        let pidfd = target.pidfd().try_clone_to_owned().context("a pidfd")?;
        self.spaces.push(Space { pid: target.pid(), began, uffd, pidfd });
        Ok(written)
    }

    /// The image is complete: what is tracked is kept, what is not wanted any more ends. Returns how many address
    /// spaces are tracked. `spaces` tells which of the image's each process has.
    ///
    /// # Errors
    /// When it cannot be kept, and so has ended.
    pub fn commit(self, uuid: [u8; 16], spaces: &HashMap<i32, u32>) -> Result<usize> {
        for offer in self.used {
            // It ends with the process, too. Should it do neither, it goes on to say since when it tracks.
            let _ = offer.end();
        }
        let Some(keeper) = self.keeper.filter(|_| !self.spaces.is_empty()) else { return Ok(0) };
        crate::failpoint::hit("track-kept")?;
        let entries: Vec<_> = self
            .spaces
            .iter()
            .filter_map(|s| {
                let space = *spaces.get(&s.pid)?;
                let facts = Facts { pid: s.pid, began: s.began, uuid, space };
                Some((facts, s.uffd.as_fd(), s.pidfd.as_fd()))
            })
            .collect();
        keeper.entrust(&entries).context("handing over to the process that keeps tracking")?;
        Ok(entries.len())
    }
}

/// Registered with a userfaultfd that could be ours: for writes only.
fn is_watched(e: &Entry) -> bool {
    e.has(b"uw") && !e.has(b"um") && !e.has(b"ui")
}

/// Whether a userfaultfd is of the target's address space, and tracks: shown by our own memory in it.
fn is_of(target: &mut Frozen, file: &File, fd: BorrowedFd<'_>) -> Result<bool> {
    target.scratch()?;
    let Some(range) = target.scratch_range() else { return Ok(false) };
    if uffd::register(fd, &range).is_err() {
        return Ok(false);
    }
    let tracked = pagemap::is_tracked(file, range.start);
    uffd::unregister(fd, &range).context("ioctl(UFFDIO_UNREGISTER)")?;
    Ok(tracked? && !pagemap::is_tracked(file, range.start)?)
}

/// The watched mappings that this userfaultfd watches, not another one, in order; they are shown as not watched from now on.
fn own_vmas(shown: &mut [Entry], fd: BorrowedFd<'_>) -> Vec<Range<u64>> {
    let mut ours = Vec::new();
    for e in shown.iter_mut().filter(|e| is_watched(e)) {
        let range = e.start..e.end;
        if uffd::register(fd, &range).is_ok() {
            e.flags.retain(|flag| flag != b"uw");
            ours.push(range);
        }
    }
    ours
}

/// Memory that is the program's alone, of which the kernel notes every write.
fn can_be_tracked(e: &Entry) -> bool {
    const NOT: [&[u8; 2]; 7] = [b"ht", b"dp", b"io", b"pf", b"um", b"uw", b"ui"];
    let anonymous = !e.shared && e.ino == 0 && !e.path.starts_with(b"/");
    anonymous
        && e.has(b"mw")
        && e.page_size == 4096
        && NOT.iter().all(|flag| !e.has(flag))
        && e.rss + e.swap >= LEAST
}

/// Mappings that would be one if only some of it were not tracked become one again. `ours` is in order.
fn merge(shown: &mut Vec<Entry>, ours: &[Range<u64>]) {
    if ours.is_empty() {
        return;
    }
    let is_ours = |e: &Entry| {
        let next = ours.partition_point(|r| r.end <= e.start);
        ours.get(next).is_some_and(|r| r.start < e.end)
    };
    let flags = |e: &Entry| {
        // As the kernel, which ignores VM_SOFTDIRTY there.
        let mut flags: Vec<[u8; 2]> = e.flags.iter().filter(|f| *f != b"sd").copied().collect();
        flags.sort_unstable();
        flags
    };
    let mut out: Vec<Entry> = Vec::with_capacity(shown.len());
    for e in shown.drain(..) {
        match out.last_mut() {
            Some(last)
                if last.end == e.start
                    && is_ours(last) != is_ours(&e)
                    && (last.prot, last.shared, last.pkey, last.page_size)
                        == (e.prot, e.shared, e.pkey, e.page_size)
                    && (last.ino, e.ino) == (0, 0)
                    && last.path == e.path
                    && !e.path.starts_with(b"/")
                    && flags(last) == flags(&e) =>
            {
                last.end = e.end;
                last.rss += e.rss;
                last.swap += e.swap;
            }
            _ => out.push(e),
        }
    }
    *shown = out;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::memory::smaps;

    const TEXT: &str = "\
1000-3000 rw-p 00000000 00:00 0  [heap]
KernelPageSize:        4 kB
Rss:                   8 kB
VmFlags: rd wr mr mw me ac uw
3000-4000 rw-p 00000000 00:00 0  [heap]
KernelPageSize:        4 kB
Rss:                   4 kB
VmFlags: rd wr mr mw me ac sd
4000-5000 r--p 00000000 00:00 0 
VmFlags: rd mr mw me ac sd
5000-6000 rw-p 00000000 00:00 0 
VmFlags: rd wr mr mw me ac um uw
";

    #[test]
    fn what_tracking_divides_is_one() {
        let mut shown = smaps::parse(TEXT.as_bytes()).unwrap();
        let watched: Vec<bool> = shown.iter().map(is_watched).collect();
        assert_eq!(watched, [true, false, false, false]);
        shown[0].flags.retain(|f| f != b"uw");
        let (first, second) = (0x1000..0x3000, 0x3000..0x4000);
        let mut both = shown.clone();
        merge(&mut both, &[first.clone(), second]);
        assert_eq!(both.len(), 4, "two that are tracked were two before");
        merge(&mut shown, &[first]);
        let brief: Vec<_> = shown.iter().map(|e| (e.start, e.end, e.rss)).collect();
        assert_eq!(brief, [(0x1000, 0x4000, 12 << 10), (0x4000, 0x5000, 0), (0x5000, 0x6000, 0)]);
    }
}
