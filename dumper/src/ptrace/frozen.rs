//! A process with all of its threads stopped.

mod open;

use super::copy::MemoryCopy;
use super::freeze::{self, Seized};
use super::gadget::Gadgets;
use super::parachute;
use super::remote::{Call, RemoteMemory, Scratch, Site};
use super::restart;
use super::tracee::{Stopped, Tracee, quiet_signals};
use super::{RemoteAddr, raw};
use crate::collect::proc;
use crate::error::{Failure, Obstacle};
use crate::sys::dir::Dir;
use crate::sys::process;
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

const CODE_LEN: u64 = 4096;
const DATA_LEN: u64 = 64 << 10;
/// Where the frame is in our mapping, and where memory for arguments is.
const FRAME_AT: u64 = CODE_LEN + parachute::TABLE_LEN;
const DATA_AT: u64 = FRAME_AT + parachute::FRAME_LEN;
/// Where several threads make calls at the same time, each in a slot: memory for arguments, and a table that
/// ends where the frame begins.
const SLOTS_AT: u64 = DATA_AT + DATA_LEN;
const SLOTS: usize = 8;
const SLOT_FRAME: u64 = 4096;
const SLOT_LEN: u64 = 16 << 10;
const MAP_LEN: u64 = SLOTS_AT + SLOTS as u64 * SLOT_LEN;
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// A process whose threads are all in a ptrace stop. Dropping it undoes everything (scratch memory,
/// registers, signal masks) and lets it run on.
///
/// Should ckpt-dump be killed instead, the kernel detaches it: threads run on from where they are.
/// They have their own registers and masks, except one thread at a time during an injected call
/// (where [`parachute`] leads it back). Only in programs without the instructions that `gadget.rs` needs,
/// or whose main thread runs on a stack of their own (Go), are there two windows of some 20 us that
/// cannot be closed: while the scratch memory is being mapped and unmapped.
#[derive(Debug)]
pub struct Frozen {
    pid: i32,
    threads: Vec<Tracee<Stopped>>,
    pidfd: OwnedFd,
    memory: RemoteMemory,
    gadgets: Option<Gadgets>,
    scratch: Option<Mapped>,
    /// Where calls are made without it: from where it was mapped, it is unmapped.
    own: Option<Site>,
    obstacles: Vec<Obstacle>,
    /// Signals that the process would not notice.
    quiet: u64,
    /// `/proc/PID/task/TID/status` as it was when the threads had stopped.
    statuses: HashMap<i32, String>,
}

/// Our mapping in the target.
#[derive(Clone, Debug)]
pub(super) struct Mapped {
    base: RemoteAddr,
    site: Site,
    /// That of another process that has the same memory, which will unmap it.
    borrowed: bool,
}

impl Frozen {
    /// Stops all threads of `pid`, and brings them to where they can be saved as far as that needs
    /// letting them run. [`Self::prepare`] does the rest. `gadgets`, if they were found while the process
    /// still ran.
    ///
    /// # Errors
    /// [`Failure`] for what has an exit status of its own; the process runs on then.
    pub(super) fn stop(pid: i32, seized: &mut Seized, gadgets: Option<Gadgets>) -> Result<Self> {
        // First of all: a process of a tree that keeps changing may not live long.
        let freeze::Threads { stopped, obstacles } = freeze::freeze(pid, seized)?;
        // Through a thread that lives: the leader may have exited.
        let memory = RemoteMemory::open(stopped.first().map_or(pid, Tracee::tid))?;
        // The id is that of the process that we trace.
        let pidfd = process::pidfd_open(pid).with_context(|| format!("opening a pidfd of PID {pid}"))?;
        Ok(Self {
            pid,
            threads: stopped,
            pidfd,
            memory,
            gadgets,
            scratch: None,
            own: None,
            obstacles,
            quiet: 0,
            statuses: HashMap::new(),
        })
    }

    /// Brings the threads to where they can be saved: at PTRACE_EVENT_STOP, outside rseq critical
    /// sections, with no signal half delivered. What cannot be brought there is listed by
    /// [`Self::obstacles`]. `like` has the gadgets of a process whose memory may be the same.
    ///
    /// # Errors
    /// When the process died.
    pub(super) fn prepare(&mut self, like: Option<Gadgets>) -> Result<()> {
        let there = |g: &Gadgets| g.verify(&self.memory);
        self.gadgets = self.gadgets.filter(there).or_else(|| like.filter(there));
        if self.gadgets.is_none() {
            let maps = proc::read(&format!("/proc/{}/maps", self.pid)).unwrap_or_default();
            self.gadgets = Gadgets::find(&self.memory, &maps);
        }
        self.check_injectable()?;
        self.correct()
    }

    /// See [`Self::prepare`].
    pub(super) fn gadgets(&self) -> Option<Gadgets> {
        self.gadgets
    }

    /// Notes what forbids running system calls in the target at all.
    fn check_injectable(&mut self) -> Result<()> {
        let pid = self.pid;
        let mut found = Vec::new();
        let mut add = |what: String, remedy: &str| {
            found.push(Obstacle { pid, what, remedy: remedy.into(), ..Obstacle::default() });
        };
        let tasks = format!("/proc/{pid}/task");
        let dir = Dir::open(&tasks).with_context(|| format!("opening {tasks}"))?;
        for thread in &self.threads {
            let tid = thread.tid();
            if thread.is_compat() {
                let why = format!("thread {tid} runs 32-bit code, only 64-bit programs can be saved");
                return Err(Failure::WrongKind { pid, name: proc::name(pid), why }.into());
            }
            let status = dir.file(format_args!("{tid}/status")).and_then(proc::once);
            let status = proc::text(status.with_context(|| format!("reading {tasks}/{tid}/status"))?);
            let set = |key| proc::hex_field(&status, key).unwrap_or(u64::MAX);
            self.quiet = quiet_signals(set("SigIgn") & !set("SigCgt"), set("SigCgt"));
            if proc::field(&status, "Seccomp").is_some_and(|s| s != "0")
                && let Err(e) = raw::suspend_seccomp(tid)
            {
                add(
                    format!("thread {tid}: has a seccomp filter ({e})"),
                    "run ckpt-dump as root (CAP_SYS_ADMIN) and outside of any container, or start the program \
                     without its sandbox (container runtimes: seccomp=unconfined)",
                );
            }
            if proc::field(&status, "x86_Thread_features").is_some_and(|s| s.contains("shstk")) {
                add(
                    format!("thread {tid}: uses a shadow stack"),
                    "start the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off",
                );
            }
            if raw::syscall_user_dispatch(tid).unwrap_or(false) {
                add(
                    format!("thread {tid}: uses syscall user dispatch"),
                    "programs that run under Wine or similar emulation cannot be saved yet",
                );
            }
            self.statuses.insert(tid, status);
        }
        self.obstacles.extend(found);
        Ok(())
    }

    /// What prevents this process from being saved, found while freezing it. If there is anything,
    /// no system call is ever injected.
    #[must_use]
    pub fn obstacles(&self) -> &[Obstacle] {
        &self.obstacles
    }

    /// Corrections of the stopped threads, in an order in which each makes the next possible.
    fn correct(&mut self) -> Result<()> {
        if !self.obstacles.is_empty() {
            return Ok(());
        }
        for thread in &mut self.threads {
            thread.find_original_call(&self.memory);
        }
        self.leave_rseq_sections()?;
        self.requeue_signals()
    }

    /// A thread preempted in an rseq critical section goes on at its abort handler. The kernel would
    /// see to that when it resumes (kernel/rseq.c, rseq_ip_fixup), but an injected call makes it
    /// forget the section.
    fn leave_rseq_sections(&mut self) -> Result<()> {
        for thread in &mut self.threads {
            let tid = thread.tid();
            let Some(conf) = raw::rseq(tid).with_context(|| format!("thread {tid}: rseq configuration"))?
            else {
                continue;
            };
            if conf.pointer == 0 {
                continue;
            }
            // struct rseq: rseq_cs at 8. struct rseq_cs: version, flags, start_ip, post_commit_offset,
            // abort_ip.
            let Some(cs) = self.memory.word(RemoteAddr(conf.pointer + 8)).filter(|cs| *cs != 0) else {
                continue;
            };
            let at = |offset| self.memory.word(RemoteAddr(cs + offset));
            let (Some(start), Some(len), Some(abort)) = (at(8), at(16), at(24)) else { continue };
            let mut regs = *thread.regs();
            if regs.rip.wrapping_sub(start) < len {
                regs.rip = abort;
                thread.correct_regs(regs)?;
            }
        }
        Ok(())
    }

    fn requeue_signals(&mut self) -> Result<()> {
        for i in 0..self.threads.len() {
            if self.threads[i].take_signal()? {
                let own = (self.own_id(self.pid)?, self.own_id(self.threads[i].tid())?);
                let mapped = self.mapped()?;
                self.threads[i].requeue_signal(&self.memory, &mapped.site, own, data(mapped.base))?;
            }
        }
        Ok(())
    }

    /// The id of a thread in its own pid namespace.
    fn own_id(&self, tid: i32) -> Result<i32> {
        Ok(proc::own_id(self.status(tid)?, "NSpid").unwrap_or(tid))
    }

    /// Process id (of the thread group).
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Thread ids, the leader's first.
    #[must_use]
    pub fn tids(&self) -> Vec<i32> {
        self.threads.iter().map(Tracee::tid).collect()
    }

    /// The stopped threads, the leader first.
    #[must_use]
    pub fn threads(&self) -> &[Tracee<Stopped>] {
        &self.threads
    }

    /// `/proc/PID/task/TID/status`, read when all had stopped.
    ///
    /// # Errors
    /// When there is no such thread.
    pub fn status(&self, tid: i32) -> Result<&str> {
        self.statuses.get(&tid).map(String::as_str).with_context(|| format!("thread {tid} was not looked at"))
    }

    /// Extended state of a thread.
    ///
    /// # Errors
    /// When the target died.
    pub fn xstate(&mut self, tid: i32) -> Result<Vec<u8>> {
        Ok(self.thread(tid)?.xstate()?.to_vec())
    }

    fn thread(&mut self, tid: i32) -> Result<&mut Tracee<Stopped>> {
        let index = self.index(tid)?;
        Ok(&mut self.threads[index])
    }

    /// The leader comes first, the others by number.
    fn index(&self, tid: i32) -> Result<usize> {
        let others = self.threads.get(1..).unwrap_or_default();
        let found = match self.threads.first() {
            Some(leader) if leader.tid() == tid => Ok(0),
            _ => others.binary_search_by_key(&tid, Tracee::tid).map(|i| i + 1),
        };
        found.ok().with_context(|| format!("thread {tid} is not stopped by us"))
    }

    /// One of [`Self::threads`].
    ///
    /// # Errors
    /// When there is no such thread.
    pub fn stopped(&self, tid: i32) -> Result<&Tracee<Stopped>> {
        Ok(&self.threads[self.index(tid)?])
    }

    /// For pidfd_getfd(2).
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Runs system calls in the leader, in order; results as the kernel returns them (-errno).
    ///
    /// # Errors
    /// When the target died or cannot run system calls; never for a call that failed.
    pub fn batch(&mut self, calls: &[Call]) -> Result<Vec<i64>> {
        self.batch_in(self.pid, calls)
    }

    /// As [`Self::batch`], in the thread `tid`.
    ///
    /// # Errors
    /// As [`Self::batch`].
    pub fn batch_in(&mut self, tid: i32, calls: &[Call]) -> Result<Vec<i64>> {
        let site = self.mapped()?.site;
        let index = self.index(tid)?;
        self.threads[index].run(&self.memory, &site, calls)
    }

    /// Runs system calls in every thread, several at the same time. `calls` are given memory for arguments, of
    /// which `len` bytes are returned, with the results, for each thread in the order of [`Self::tids`].
    ///
    /// # Errors
    /// As [`Self::batch`].
    pub fn batch_in_all(
        &mut self,
        len: usize,
        calls: impl Fn(RemoteAddr) -> Vec<Call>,
    ) -> Result<Vec<(Vec<i64>, Vec<u8>)>> {
        let mapped = self.mapped()?;
        let mut answers = Vec::with_capacity(self.threads.len());
        for threads in self.threads.chunks_mut(SLOTS) {
            let slot = |i: usize| mapped.base.offset(SLOTS_AT + i as u64 * SLOT_LEN);
            let mut begun = Vec::with_capacity(SLOTS);
            let mut ended = Ok(());
            if let Site::Parachute { code, quiet, .. } = mapped.site {
                for (i, thread) in threads.iter_mut().enumerate() {
                    let frame = slot(i).offset(SLOT_FRAME);
                    let calls = calls(slot(i));
                    begun.push(thread.begin(
                        &self.memory,
                        (code, frame, quiet),
                        SLOT_LEN - SLOT_FRAME,
                        &calls,
                    ));
                }
                // All of them, whatever happened to one.
                for (thread, begun) in threads.iter_mut().zip(&begun) {
                    if matches!(begun, Ok(true)) {
                        ended = ended.and(thread.end(code, quiet));
                    }
                }
            }
            ended?;
            let begun = begun.into_iter().collect::<Result<Vec<_>>>()?;
            for (i, thread) in threads.iter_mut().enumerate() {
                let alone = !begun.get(i).is_some_and(|begun| *begun);
                answers.push(match alone {
                    true => {
                        let scratch = data(mapped.base);
                        let results = thread.run(&self.memory, &mapped.site, &calls(scratch))?;
                        let mut bytes = vec![0; len];
                        self.memory.read(scratch, &mut bytes)?;
                        (results, bytes)
                    }
                    false => {
                        let mut bytes = vec![0; SLOT_FRAME as usize];
                        self.memory.read(slot(i), &mut bytes)?;
                        let made = calls(slot(i)).len();
                        let table = bytes.len() - (made + 1) * parachute::ENTRY;
                        let results = parachute::results(&bytes[table..table + made * parachute::ENTRY]);
                        bytes.truncate(len);
                        (results, bytes)
                    }
                });
            }
        }
        Ok(answers)
    }

    /// Makes a copy of the memory as it is now. `before` and `after` are run with it, to the end whatever
    /// happens to us.
    ///
    /// # Errors
    /// When the target died, or may not have one process more, or memory for it.
    pub fn copy_memory(&mut self, before: &[Call], after: &[Call]) -> Result<MemoryCopy> {
        let site = self.mapped()?.site;
        let calls = [before, &[Call::COPY], after].concat();
        let pid = self.pid;
        let thread = self.threads.first_mut().context("no thread is stopped")?;
        let (results, copy) = thread.run_copy(&self.memory, &site, &calls)?;
        copy.ok_or_else(|| {
            let errno = i32::try_from(-results[before.len()]).unwrap_or(0);
            let why = std::io::Error::from_raw_os_error(errno);
            anyhow::Error::new(why).context(format!(
                "copying the memory of PID {pid} (limits of processes or memory may be exhausted; \
                 Linux 5.9 is needed): dump without --snapshot"
            ))
        })
    }

    /// Memory for arguments of calls: mapped in the target at first use, unmapped when it runs on.
    ///
    /// # Errors
    /// When the target cannot map it.
    pub fn scratch(&mut self) -> Result<Scratch> {
        Ok(Scratch { addr: data(self.mapped()?.base), len: DATA_LEN })
    }

    /// Where our memory is, if it is mapped: `/proc/PID/maps` shows it, the image must not.
    #[must_use]
    pub fn scratch_range(&self) -> Option<Range<u64>> {
        self.scratch.as_ref().map(|m| m.base.0..m.base.0 + MAP_LEN)
    }

    pub(super) fn mapped(&mut self) -> Result<Mapped> {
        if let Some(mapped) = &mut self.scratch {
            // Who shares the memory need not share the handlers.
            if let Site::Parachute { quiet, .. } = &mut mapped.site {
                *quiet = self.quiet;
            }
            return Ok(mapped.clone());
        }
        if let Some(obstacle) = self.obstacles.first() {
            bail!("{obstacle}");
        }
        let maps = proc::read(&format!("/proc/{}/maps", self.pid))?;
        let bare = self.own_site(&maps)?;
        let in_use = |range: &Range<u64>| self.threads.iter().any(|t| range.contains(&t.regs().rip));
        let old = left_behind(self.pid, &maps).filter(|range| !in_use(range));
        let (base, executable) = match old {
            Some(range) => (RemoteAddr(range.start), true),
            None => self.map(&bare)?,
        };
        self.own = Some(bare.clone());
        let code = base;
        let frame = base.offset(FRAME_AT);
        let site = if executable { Site::Parachute { code, frame, quiet: self.quiet } } else { bare };
        let mapped = Mapped { base, site, borrowed: false };
        self.scratch = Some(mapped.clone());
        if executable {
            self.memory.write(code, &parachute::CODE)?;
        }
        crate::failpoint::hit("after-scratch")?;
        Ok(mapped)
    }

    /// Maps shared memory, which never merges with a mapping of the program. Tells whether the
    /// security policy let it be executable.
    fn map(&mut self, site: &Site) -> Result<(RemoteAddr, bool)> {
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        for (prot, executable) in [(rw | libc::PROT_EXEC, true), (rw, false)] {
            let args = [0, MAP_LEN, prot as u64, flags as u64, u64::MAX, 0];
            let thread = self.threads.first_mut().context("no thread is stopped")?;
            let result = thread.run(&self.memory, site, &[Call::new(libc::SYS_mmap, &args)])?[0];
            match i32::try_from(-result) {
                Ok(libc::EACCES | libc::EPERM) if executable => {}
                Ok(errno) if (1..4096).contains(&errno) => {
                    let error = std::io::Error::from_raw_os_error(errno);
                    return Err(error).with_context(|| {
                        format!(
                            "mapping {MAP_LEN} bytes in PID {} for the time of the dump \
                             (RLIMIT_AS or vm.max_map_count may be exhausted)",
                            self.pid
                        )
                    });
                }
                _ => return Ok((RemoteAddr(result as u64), executable)),
            }
        }
        bail!("PID {} may not map shared anonymous memory", self.pid)
    }

    /// Uses the scratch memory of another process, which has the same memory, and is let go later.
    pub(super) fn borrow(&mut self, mapped: Mapped) {
        self.scratch = Some(Mapped { borrowed: true, ..mapped });
    }

    /// Unmaps the scratch memory.
    pub(super) fn unmap(&mut self) -> Result<()> {
        let Some(mapped) = self.scratch.clone().filter(|m| !m.borrowed) else {
            self.scratch = None;
            return Ok(());
        };
        let site = self.own.clone().context("our memory was never mapped")?;
        let thread = self.threads.first_mut().context("no thread is stopped")?;
        let call = Call::new(libc::SYS_munmap, &[mapped.base.0, MAP_LEN]);
        thread.run(&self.memory, &site, &[call])?;
        self.scratch = None;
        Ok(())
    }

    /// Where the leader can run calls without memory of ours: if possible with a way back.
    fn own_site(&self, maps: &str) -> Result<Site> {
        let stack = proc::mapping(maps, "[stack]");
        match (self.gadgets.filter(|g| g.verify(&self.memory)), stack) {
            (Some(gadgets), Some(stack)) => Ok(Site::Stack(gadgets, stack)),
            _ => Ok(Site::Bare(self.instruction(maps)?)),
        }
    }

    /// A `syscall` instruction: where a thread waits in one, else in the vDSO, else anywhere.
    fn instruction(&self, maps: &str) -> Result<RemoteAddr> {
        let waiting = self.threads.iter().filter(|t| restart::in_syscall(t.regs()));
        let mut candidates = waiting.map(|t| RemoteAddr(t.regs().rip.wrapping_sub(2)));
        let here = candidates.find(|addr| {
            let mut code = [0; 2];
            self.memory.read(*addr, &mut code).is_ok() && code == SYSCALL
        });
        if let Some(addr) = here {
            return Ok(addr);
        }
        for range in proc::mapping(maps, "[vdso]").into_iter().chain(proc::executable_mappings(maps)) {
            let mut start = range.start;
            while start < range.end {
                let mut code = vec![0; (range.end - start).min(1 << 20) as usize];
                if self.memory.read(RemoteAddr(start), &mut code).is_err() {
                    break;
                }
                if let Some(at) = code.windows(2).position(|w| w == SYSCALL) {
                    return Ok(RemoteAddr(start + at as u64));
                }
                start += code.len() as u64;
            }
        }
        bail!("PID {} has no `syscall` instruction in its executable memory", self.pid)
    }

    /// Reads the target's memory, whatever its protection.
    ///
    /// # Errors
    /// Naming address and cause.
    pub fn read(&self, addr: RemoteAddr, buf: &mut [u8]) -> Result<()> {
        self.memory.read(addr, buf)
    }

    /// A word of the target's memory, if it can be read.
    #[must_use]
    pub fn word(&self, addr: RemoteAddr) -> Option<u64> {
        self.memory.word(addr)
    }

    /// Writes the target's memory; only ever scratch memory.
    ///
    /// # Errors
    /// Naming address and cause.
    pub fn write(&mut self, addr: RemoteAddr, bytes: &[u8]) -> Result<()> {
        self.memory.write(addr, bytes)
    }

    /// As [`Self::unmap`], when nobody is left to be told of an error.
    pub(super) fn leave(&mut self) {
        if let Err(error) = self.unmap() {
            crate::report::debug(|| format!("leaving PID {}: {error:#}", self.pid));
        }
    }

    /// Sends a signal to the whole process. One that has ended needs none.
    ///
    /// # Errors
    /// Naming the process.
    pub(super) fn signal(&self, signal: i32) -> Result<()> {
        match process::pidfd_send_signal(self.pidfd.as_fd(), signal) {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => {
                Err(e).with_context(|| format!("sending signal {signal} to PID {}", self.pid))
            }
            _ => Ok(()),
        }
    }

    /// Waits for the end of a process that was killed.
    pub(super) fn reap(mut self, deadline: Instant) {
        self.scratch = None;
        // The leader's end is seen only after that of the others.
        for thread in std::mem::take(&mut self.threads).into_iter().rev() {
            thread.reap(deadline);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The part of our mapping that is for arguments.
fn data(base: RemoteAddr) -> RemoteAddr {
    base.offset(DATA_AT)
}

/// Our mapping as a ckpt-dump that was killed left it: used again, and unmapped at last.
pub(super) fn left_behind(pid: i32, maps: &str) -> Option<Range<u64>> {
    let ours = |range: &Range<u64>| {
        let mut code = [0; parachute::CODE.len()];
        range.end - range.start == MAP_LEN
            && RemoteMemory::open(pid).is_ok_and(|m| m.read(RemoteAddr(range.start), &mut code).is_ok())
            && code == parachute::CODE
    };
    proc::executable_mappings(maps).find(ours)
}
