//! What every stage knows.

use crate::args::{Options, PidMode};
use crate::files::Files;
use crate::mem::work::Work;
use crate::objects;
use crate::report::{Error, Result};
use crate::shared::{Shared, Step, TaskShared};
use crate::sys::{Fd, fd};
use crate::sysv;
use ckpt_format::task::task_flags;
use ckpt_format::{Image, Mm, StubConfig, Task, Thread};
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// How the program gets its ids. `auto` has been decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Mode {
    /// In place: the exec'd process becomes the program.
    New = 0,
    Same = 1,
    Ns = 2,
}

pub struct Ctx {
    pub config: StubConfig,
    pub image: Image<'static>,
    pub options: Options,
    pub work: &'static Work,
    /// The image, at a number above all of the program's.
    pub image_fd: Fd,
    pub files: Files,
    pub objects: objects::Table,
    pub shared: &'static Shared,
    pub sysv: sysv::Made,
    /// By object: 1 for a socket whose file was made. Known to all.
    pub sockets_made: &'static [AtomicU32],
    /// By index in the task table; shared by all.
    pub tasks: &'static [TaskShared],
    /// Index of the task that the calling process becomes.
    pub current: AtomicU32,
    /// Present id of each saved thread, by its index in the table; shared with the tracer.
    pub tids: &'static [AtomicI32],
    /// What of the memory has been filled, with `--memory lazy`.
    pub states: crate::mem::lazy::States,
    /// Where descriptors are that the caller passes on (--keep-fd), in the order of the options.
    pub kept: &'static mut [i32],
    /// Path of the image as executed (AT_EXECFN), for messages.
    pub execfn: &'static [u8],
    pub page_size: u64,
    /// Process group of the caller.
    pub callers_group: i32,
    /// The root leads a process group of its own on the caller's terminal, and the caller is in the
    /// foreground there.
    pub lends_terminal: bool,
    /// End of the stack on which everything runs but threads.
    pub stack_top: usize,
    /// Signals that the caller blocked.
    pub callers_mask: u64,
    /// Who runs the image.
    pub caller: crate::creds::Caller,
    /// Where the caller's clocks are, for `--time-namespace`.
    pub clocks: crate::clock::Offsets,
    pub mode: AtomicU32,
}

impl Ctx {
    pub fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Relaxed) {
            1 => Mode::Same,
            2 => Mode::Ns,
            _ => Mode::New,
        }
    }

    pub fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u32, Ordering::Relaxed);
    }

    /// The task that the calling process becomes; the root until others are made.
    pub fn task(&self) -> Result<&'static Task> {
        Ok(Image::get(self.image.tasks, self.index() as u32, "task")?)
    }

    /// Its index.
    pub fn index(&self) -> usize {
        self.current.load(Ordering::Relaxed) as usize
    }

    pub fn root(&self) -> Result<&'static Task> {
        Ok(Image::get(self.image.tasks, self.image.header.root_task, "task")?)
    }

    pub fn is_root(&self) -> bool {
        self.index() == self.image.header.root_task as usize
    }

    /// A process of ours is gone: its id may come to mean another one.
    pub fn forget(&self, pid: i32) {
        for (task, shared) in self.image.tasks.iter().zip(self.tasks) {
            if task.pid == pid {
                shared.begun.store(0, Ordering::SeqCst);
            }
        }
    }

    /// What the calling process and others know of its task.
    pub fn own(&self) -> Result<&'static TaskShared> {
        self.tasks.get(self.index()).ok_or(Error::new("bad task index"))
    }

    /// There is one process only: nobody has to wait for others.
    pub fn is_alone(&self) -> bool {
        self.image.tasks.len() == 1
    }

    /// Whether a task does a step by itself. One that lives in the address space of an earlier one is made
    /// only when that is complete.
    pub fn takes_part(&self, index: usize, step: Step) -> bool {
        let Some(task) = self.image.tasks.get(index) else { return false };
        if self.is_alone() {
            return step == Step::Ready;
        }
        let early = matches!(step, Step::Created | Step::Joined);
        if is_brief(task) {
            return early;
        }
        !early || self.mm_owner(task).is_none_or(|owner| owner == index)
    }

    /// The task that restores the address space of a task.
    pub fn mm_owner(&self, task: &Task) -> Option<usize> {
        self.image.tasks.iter().position(|t| !is_brief(t) && t.mm == task.mm)
    }

    /// The task that restores the descriptor table of a task.
    pub fn fd_owner(&self, task: &Task) -> Option<usize> {
        self.image.tasks.iter().position(|t| !is_brief(t) && t.fd_table == task.fd_table)
    }

    pub fn mm(&self, task: &Task) -> Result<&'static Mm> {
        Ok(Image::get(self.image.mms, task.mm, "address space")?)
    }

    /// The threads of a task, leader first.
    pub fn threads(&self, task: &Task) -> Result<&'static [Thread]> {
        let threads = Image::slice(self.image.threads, task.threads, "threads")?;
        if threads.is_empty() {
            return Err(Error::new("the image is damaged: a task without threads"));
        }
        Ok(threads)
    }

    /// What a saved thread or process id is now; ids of others stay as they are.
    pub fn map_id(&self, saved: i32) -> i32 {
        self.image
            .threads
            .iter()
            .position(|t| t.tid == saved)
            .and_then(|i| self.tids.get(i))
            .map(|t| t.load(Ordering::SeqCst))
            .filter(|t| *t != 0)
            .unwrap_or(saved)
    }

    /// First descriptor number that no saved descriptor has.
    pub fn high_fd(&self) -> u32 {
        self.config.first_free_fd as u32
    }

    /// Moves descriptors that the program gets besides its own out of its way, and the first free number
    /// behind theirs.
    pub fn take_kept(&mut self) -> Result<()> {
        let numbers = self.options.kept();
        if numbers.is_empty() {
            return Ok(());
        }
        if self.options.pid != PidMode::New || !self.is_alone() {
            return Err(Error::new("--keep-fd is for one process restored in place").remedy("add --pid new"));
        }
        let taken = |number: &&i32| self.image.fds.iter().any(|entry| entry.fd == **number);
        if let Some(number) = numbers.iter().find(taken) {
            return Err(Error::new("--keep-fd: the saved program has a descriptor of that number")
                .fd(*number)
                .remedy("pass it as another number"));
        }
        let last = numbers.iter().copied().max().unwrap_or(0) as u64;
        self.config.first_free_fd = self.config.first_free_fd.max(last + 1);
        for (number, place) in numbers.iter().zip(self.kept.iter_mut()) {
            let high = fd::dup_above(Fd(*number), self.config.first_free_fd as u32);
            *place = high.map_err(|e| Error::os("--keep-fd")(e).fd(*number))?.0;
        }
        Ok(())
    }

    /// Gives them their numbers, closed on exec.
    pub fn place_kept(&self) -> Result<()> {
        for (number, place) in self.options.kept().iter().zip(self.kept.iter()) {
            fd::dup_to(Fd(*place), *number, true).map_err(|e| Error::os("--keep-fd")(e).fd(*number))?;
        }
        Ok(())
    }

    /// A descriptor of ours, moved out of the way of the program's.
    pub fn raise(&self, low: Fd) -> Result<Fd> {
        let high = fd::dup_above(low, self.high_fd());
        fd::close(low);
        high.map_err(|e| {
            Error::os("cannot use a descriptor above the program's own")(e)
                .remedy("raise the limit of open files (ulimit -n)")
        })
    }
}

/// A zombie or a helper: it has an identity only, and ends before the program runs on.
pub fn is_brief(task: &Task) -> bool {
    task.flags & (task_flags::ZOMBIE | task_flags::HELPER) != 0
}
