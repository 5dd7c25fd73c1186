//! Memory that tasks, tracer and supervisor share while a restore goes on, and how they wait for each
//! other: nobody polls, and nobody waits for the dead.
//!
//! A restore goes in [`Step`]s. Each task says when it has done one and waits until the tracer has heard
//! that from all. What they say are words that the sayer *owns* by a robust list (set_robust_list(2)):
//! the kernel marks them and wakes their waiters when the owner dies, in whatever way.

use crate::report::{Error, Result};
use crate::sys::process::{self, futex_set, futex_wait, futex_wake};
use crate::sys::thread;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use linux_raw_sys::general::{__WALL, FUTEX_OWNER_DIED, FUTEX_WAITERS, WNOHANG};
use linux_raw_sys::prctl::PR_SET_PDEATHSIG;
use zerocopy::FromZeros;

const SIGKILL: i32 = 9;

/// A word that says "done". Not an id.
const DONE: u32 = 1 << 29;
/// A word that says "given up".
const FAILED: u32 = 1 << 28;

/// What all have done before any goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Step {
    /// The task is there, and so are those that it makes; sessions and groups have their leaders.
    Created = 0,
    /// Every task is in its process group: who only was there to lead one may go.
    Joined = 1,
    /// Descriptors, memory and threads are in place.
    Placed = 2,
    /// Only the registers are missing.
    Ready = 3,
}

const STEPS: usize = 4;
/// The tracer's word behind those for the steps: it is about to let the program run, and somebody else may be
/// waited for in its place.
const HANDING_OVER: usize = STEPS;

/// Words with an owner, and the robust list that says so.
#[derive(FromZeros)]
#[repr(C)]
pub struct Owned<const N: usize> {
    words: [Word; N],
    /// `struct robust_list_head`: first node, offset from node to word, pending operation.
    head: [AtomicU64; 3],
}

#[derive(FromZeros)]
#[repr(C)]
struct Word {
    word: AtomicU32,
    unused: AtomicU32,
    /// `struct robust_list`: the next node; that of the last is the head.
    node: AtomicU64,
}

/// What a word says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Done,
    Failed,
    /// Nothing, and its owner is dead.
    Dead,
}

impl<const N: usize> Owned<N> {
    /// The calling thread owns the words from now on.
    pub fn own(&self) -> Result<()> {
        let head = self.head[0].as_ptr() as u64;
        let nodes = self.words.iter().map(|w| w.node.as_ptr() as u64);
        let next = nodes.clone().skip(1).chain([head]);
        for (word, next) in self.words.iter().zip(next) {
            word.node.store(next, Ordering::SeqCst);
        }
        let (first, word) = (self.words[0].node.as_ptr() as u64, self.words[0].word.as_ptr() as u64);
        self.head[0].store(first, Ordering::SeqCst);
        self.head[1].store(word.wrapping_sub(first), Ordering::SeqCst);
        for w in &self.words {
            futex_set(&w.word, process::gettid() as u32 | FUTEX_WAITERS);
        }
        thread::set_robust_list(head, 24).map_err(Error::os("cannot set a robust list"))
    }

    pub fn say(&self, index: usize, said: Said) {
        futex_set(&self.words[index].word, if said == Said::Done { DONE } else { FAILED });
    }

    /// Waits until the word says something, or its owner is dead.
    pub fn wait(&self, index: usize) -> Said {
        let word = &self.words[index].word;
        loop {
            let now = word.load(Ordering::SeqCst);
            // An id may have these bits too: then FUTEX_WAITERS is set beside them.
            match now {
                DONE => return Said::Done,
                FAILED => return Said::Failed,
                _ if now & FUTEX_OWNER_DIED != 0 => {
                    // The kernel wakes one waiter only (handle_futex_death() in kernel/futex/core.c).
                    futex_wake(word);
                    return Said::Dead;
                }
                _ => futex_wait(word, now),
            }
        }
    }
}

/// What there is once.
#[derive(FromZeros)]
#[repr(C)]
pub struct Shared {
    /// Never changes: parked threads wait on it.
    pub never: AtomicU32,
    /// Process id of the tracer as the program sees it, when the tracer is there.
    pub tracer_pid: AtomicU32,
    /// 1 as soon as the program runs on: from then on its exit status is its own.
    pub resumed: AtomicU32,
    /// 1 when somebody said why the restore failed.
    pub explained: AtomicU32,
    /// 1 when the root of the tree has ended and the namespace's init is to go on without a supervisor.
    pub detach: AtomicU32,
    /// 1 if memory is filled while the program runs (`mem::lazy`).
    pub lazy: AtomicU32,
    /// The tracer then, as seen by who made it; 0 when it has ended.
    pub filler: AtomicU32,
    /// What it could not lead: index + 1 of a task that ended.
    pub lost: AtomicU32,
    /// 1 when its maker has taken over.
    taken_over: AtomicU32,
    tracer: Owned<{ STEPS + 1 }>,
    /// The supervisor's, until it traces.
    supervisor: Owned<1>,
}

impl Shared {
    /// The supervisor, before it has children that end with it.
    pub fn own_supervisor(&self) -> Result<()> {
        self.supervisor.own()
    }

    /// In a child of the supervisor: ends with it from now on, or at once if it is dead already.
    pub fn end_with_supervisor(&self) {
        let _ = process::prctl(PR_SET_PDEATHSIG, SIGKILL as u64, 0);
        if self.supervisor.words[0].word.load(Ordering::SeqCst) & FUTEX_OWNER_DIED != 0 {
            process::exit_group(ckpt_format::EXIT_RESTORE_FAILED);
        }
    }

    /// Says that the tracer is there. First of all in the process that traces.
    pub fn own_tracer(&self) -> Result<()> {
        self.tracer.own()?;
        futex_set(&self.tracer_pid, process::getpid() as u32);
        Ok(())
    }

    /// Waits, in a task, until the tracer is there.
    pub fn wait_for_tracer(&self) -> i32 {
        loop {
            let pid = self.tracer_pid.load(Ordering::SeqCst);
            if pid != 0 {
                return pid as i32;
            }
            futex_wait(&self.tracer_pid, 0);
        }
    }

    /// The same in who made the process that is to trace, of which no word says yet that it is dead. False if it is.
    pub fn wait_for_tracer_of(&self, child: i32) -> bool {
        /// Milliseconds between looks.
        const LOOK_EVERY: u32 = 20;
        while self.tracer_pid.load(Ordering::SeqCst) == 0 {
            if !matches!(process::wait(child, __WALL | WNOHANG), Ok(None)) {
                return false;
            }
            process::futex_wait_ms(&self.tracer_pid, 0, LOOK_EVERY);
        }
        true
    }

    /// The tracer: all have done the step and may go on.
    pub fn all_done(&self, step: Step) {
        self.tracer.say(step as usize, Said::Done);
    }

    /// The tracer gives up: whoever waits for it ends.
    pub fn give_up(&self) {
        (0..=STEPS).for_each(|word| self.tracer.say(word, Said::Failed));
    }

    pub fn is_lazy(&self) -> bool {
        self.lazy.load(Ordering::SeqCst) != 0
    }

    /// The tracer, when all others are stopped by it: gives its words to who made it, which is waited for.
    pub fn hand_over(&self) {
        self.tracer.say(HANDING_OVER, Said::Done);
        while self.taken_over.load(Ordering::SeqCst) == 0 {
            futex_wait(&self.taken_over, 0);
        }
    }

    /// Waits for that, in who made the tracer.
    pub fn wait_for_handing_over(&self) -> Said {
        self.tracer.wait(HANDING_OVER)
    }

    /// Who made the tracer says its words from now on.
    pub fn take_over(&self) -> Result<()> {
        self.tracer.own()?;
        futex_set(&self.taken_over, 1);
        Ok(())
    }

    /// Waits for the end of the process that traced, or until it no longer needs to be watched.
    pub fn wait_for_tracer_end(&self) -> Said {
        self.tracer.wait(Step::Ready as usize)
    }
}

const MAX_CALLS: usize = 8;

/// What there is for each task of the image.
#[derive(FromZeros)]
#[repr(C)]
pub struct TaskShared {
    program: Owned<STEPS>,
    /// 1 when the process is there.
    pub begun: AtomicU32,
    /// Threads besides the leader that wait for their registers.
    pub parked: AtomicU32,
    /// 1 when its descriptors have their numbers: those who share the table may open others.
    descriptors: AtomicU32,
    /// 1 when the address space that it shares is complete.
    memory: AtomicU32,
    /// Number of the userfaultfd of the task, if its memory is filled while it runs; else 0.
    pub uffd: AtomicI32,
    /// System calls that the leader makes under the tracer's hand, the last of which may unmap the
    /// stub: number and arguments.
    calls: [[AtomicU64; 7]; MAX_CALLS],
    call_count: AtomicU32,
}

impl TaskShared {
    /// As soon as the process is there.
    pub fn own(&self) -> Result<()> {
        self.program.own()?;
        self.begun.store(1, Ordering::SeqCst);
        Ok(())
    }

    /// Adds a call for the tracer to make in the leader.
    pub fn add_call(&self, nr: u32, args: [u64; 6]) -> Result<()> {
        let n = self.call_count.fetch_add(1, Ordering::SeqCst) as usize;
        let call = self.calls.get(n).ok_or(Error::new("too many calls for the tracer"))?;
        call[0].store(u64::from(nr), Ordering::SeqCst);
        for (slot, arg) in call[1..].iter().zip(args) {
            slot.store(arg, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Those calls: number, then arguments.
    pub fn calls(&self) -> impl Iterator<Item = [u64; 7]> {
        let count = self.call_count.load(Ordering::SeqCst) as usize;
        self.calls.iter().take(count).map(|call| core::array::from_fn(|i| call[i].load(Ordering::SeqCst)))
    }

    /// Its descriptors have their numbers.
    pub fn descriptors_are_placed(&self) {
        futex_set(&self.descriptors, 1);
    }

    /// Waits for that. Should the task end before, the tracer ends all others.
    pub fn wait_for_descriptors(&self) {
        while self.descriptors.load(Ordering::SeqCst) == 0 {
            futex_wait(&self.descriptors, 0);
        }
    }

    /// The address space that it shares is complete.
    pub fn memory_is_placed(&self) {
        futex_set(&self.memory, 1);
    }

    /// Waits for that, as [`Self::wait_for_descriptors`].
    pub fn wait_for_memory(&self) {
        while self.memory.load(Ordering::SeqCst) == 0 {
            futex_wait(&self.memory, 0);
        }
    }

    /// Waits, in the tracer or a parent, until the task has done the step.
    pub fn wait(&self, step: Step) -> Said {
        self.program.wait(step as usize)
    }

    /// Says that this task has done the step, and waits until all have. Ends if the restore fails.
    pub fn done(&self, shared: &Shared, step: Step) {
        self.program.say(step as usize, Said::Done);
        if shared.tracer.wait(step as usize) != Said::Done {
            process::exit_group(ckpt_format::EXIT_RESTORE_FAILED);
        }
    }

    /// All is ready: waits for the registers, or for the tracer's end.
    pub fn hand_over(&self, shared: &Shared) -> ! {
        self.done(shared, Step::Ready);
        process::exit_group(ckpt_format::EXIT_RESTORE_FAILED)
    }
}
