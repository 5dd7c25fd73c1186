//! Makes the objects, in the one process that there is at first, with nothing mapped but the stub.

use super::*;
use crate::info::What;
use crate::sys::{Errno, process};
use crate::{files, report};
use ckpt_format::ObjectKind;
use ckpt_format::fd::object_flags;
use core::cell::RefCell;

/// How an object is made: `None` when it is not its turn yet ([`LATER`] makes it).
type Create = fn(&Maker, u32, &'static Object) -> Result<Option<Fd>>;

const KINDS: &[(ObjectKind, Create)] = &[
    (ObjectKind::File, regular::open),
    (ObjectKind::Memfd, regular::open),
    (ObjectKind::PipeEnd, pipe::end),
    (ObjectKind::EventFd, event::eventfd),
    (ObjectKind::TimerFd, event::timerfd),
    (ObjectKind::SignalFd, event::signalfd),
    (ObjectKind::Epoll, epoll::create),
    (ObjectKind::InetSocket, inet::socket),
    (ObjectKind::UnixSocket, unix::socket),
    (ObjectKind::Tty, tty::open),
    (ObjectKind::PtyMaster, pty::master),
    (ObjectKind::PtySlave, pty::slave),
    (ObjectKind::Inherited, inherited::take),
    (ObjectKind::OpenQueue, mqueue::open),
    (ObjectKind::Pidfd, pidfd::create),
    (ObjectKind::Inotify, inotify::create),
    (ObjectKind::Fanotify, fanotify::create),
    (ObjectKind::NetlinkSocket, netlink::socket),
    (ObjectKind::PacketSocket, netlink::socket),
];

/// What is made when all the others are there.
const LATER: &[(ObjectKind, Create)] = &[
    (ObjectKind::UnixSocket, unix::accepted),
    (ObjectKind::InetSocket, inet::later),
    (ObjectKind::PipeEnd, pipe::later),
];

/// The work on all objects.
pub struct Maker {
    pub ctx: &'static Ctx,
    /// By object: two descriptors that wait for its turn, + 1 (ends of a pipe, a socket's half of a
    /// pair).
    spare: RefCell<&'static mut [[i32; 2]]>,
    /// By pipe object: ends that are still to be made.
    pub ends: RefCell<&'static mut [u32]>,
    /// By object: a connection that was held for it, + 1.
    pub held: RefCell<&'static mut [i32]>,
    /// The caller's descriptors 0 to 2, moved out of the way.
    pub caller: [Option<Fd>; 3],
}

/// Makes every object of the image at a number of `ctx.high_fd()` or above, and every file without a
/// name. The descriptors of the caller are closed.
pub fn create_all(ctx: &'static Ctx) -> Result<()> {
    find_holders(ctx)?;
    raise_limit(ctx)?;
    let count = ctx.image.objects.len();
    let mut o = Maker {
        ctx,
        spare: ctx.work.slice::<[i32; 2]>(count)?.into(),
        ends: ctx.work.slice::<u32>(count)?.into(),
        held: ctx.work.slice::<i32>(count)?.into(),
        caller: [None; 3],
    };
    for number in 0..3 {
        match fd::dup_above(Fd(number), ctx.high_fd()) {
            Ok(high) => o.caller[number as usize] = Some(high),
            Err(Errno::EBADF) => {}
            Err(e) => return Err(Error::os("cannot move the caller's descriptor")(e).fd(number)),
        }
    }
    fd::close_range(0, ctx.high_fd().saturating_sub(1)).map_err(Error::os("cannot close descriptors"))?;
    o.count_ends()?;
    held::take_over(&o)?;
    o.create(KINDS)?;
    held::close_rest(&o);
    o.each(ObjectKind::InetSocket, datagram::settle)?;
    o.create(LATER)?;
    pty::settle(&o)?;
    o.each(ObjectKind::UnixSocket, unix::fill)?;
    o.each(ObjectKind::UnixSocket, unix::connect)?;
    o.each(ObjectKind::UnixSocket, unix::settle)?;
    o.each(ObjectKind::InetSocket, tcp::fill)?;
    o.each(ObjectKind::InetSocket, tcp::connect_waiting)?;
    o.each(ObjectKind::InetSocket, tcp::settle)?;
    o.each(ObjectKind::OpenQueue, mqueue::settle)?;
    o.caller.into_iter().flatten().for_each(fd::close);
    files::recreate_all(ctx)
}

/// Who has each object first, and as which number; what is only in messages.
fn find_holders(ctx: &Ctx) -> Result<()> {
    for task in first_tasks(ctx) {
        for entry in entries(ctx, task)? {
            if !u32::try_from(entry.fd).is_ok_and(|n| n < ctx.high_fd()) {
                return Err(Error::new("the image is damaged: bad descriptor number"));
            }
            if ctx.objects.number(entry.object).is_none() {
                Table::store(ctx.objects.number, entry.object, entry.fd + 1)?;
                Table::store(ctx.objects.holder, entry.object, task.pid)?;
            }
        }
    }
    for object in ctx.image.objects.iter().filter(|x| x.kind == ObjectKind::UnixSocket as u32) {
        for carried in messages(ctx, object)?.flat_map(|m| m.objects) {
            if !ctx.objects.is_wanted(*carried) {
                Table::store(ctx.objects.holder, *carried, IN_A_MESSAGE)?;
            }
        }
    }
    Ok(())
}

/// Room for the program's descriptors and ours; the program's own limits are set later.
fn raise_limit(ctx: &Ctx) -> Result<()> {
    let (soft, hard) = process::getrlimit(RLIMIT_NOFILE).map_err(Error::os("getrlimit"))?;
    if soft < hard {
        let _ = process::setrlimit(RLIMIT_NOFILE, (hard, hard));
    }
    if hard <= u64::from(ctx.high_fd()) {
        return Err(Error::new("the program has more descriptors open than the hard limit allows here")
            .remedy("raise it (ulimit -Hn)"));
    }
    Ok(())
}

impl Maker {
    pub fn object(&self, index: u32) -> Result<&'static Object> {
        Ok(Image::get(self.ctx.image.objects, index, "object")?)
    }

    /// Whether any descriptor or message refers to it.
    pub fn is_wanted(&self, index: u32) -> bool {
        self.ctx.objects.is_wanted(index)
    }

    pub fn made(&self, index: u32) -> Option<Fd> {
        self.ctx.objects.made(index)
    }

    pub fn on(&self, index: u32) -> On {
        self.ctx.objects.on(self.ctx, index)
    }

    /// Lowest number; -1 where no descriptor refers to it.
    pub fn number(&self, index: u32) -> i32 {
        self.ctx.objects.number(index).unwrap_or(-1)
    }

    pub fn given(&self, index: u32) -> Option<&'static [u8]> {
        given(self.ctx, index)
    }

    fn create(&self, kinds: &[(ObjectKind, Create)]) -> Result<()> {
        let first_round = core::ptr::eq(kinds, KINDS);
        for (index, object) in self.ctx.image.objects.iter().enumerate() {
            let index = index as u32;
            if !self.is_wanted(index) || self.made(index).is_some() {
                continue;
            }
            let kind = ObjectKind::from_u32(object.kind);
            let made = match kinds.iter().find(|(k, _)| Some(*k) == kind) {
                Some(_) if self.given(index).is_some() => regular::given(self, index, object)?,
                Some((_, create)) => create(self, index, object)?,
                None if first_round => {
                    return Err(Error::new("the image has an object of unknown kind").on(self.on(index)));
                }
                None => None,
            };
            if let Some(fd) = made {
                self.keep_made(index, object, fd)?;
            }
        }
        Ok(())
    }

    /// Runs `f` for every object of a kind that has a descriptor and was not replaced by `--fd`.
    fn each(&self, kind: ObjectKind, f: fn(&Self, u32, &'static Object) -> Result<()>) -> Result<()> {
        for (index, object) in self.ctx.image.objects.iter().enumerate() {
            let index = index as u32;
            if object.kind == kind as u32 && self.is_wanted(index) && self.given(index).is_none() {
                f(self, index, object)?;
            }
        }
        Ok(())
    }

    /// Sets the status flags of a new descriptor and notes it. Where there is one table only, it gets
    /// its number at once: there may be no room for two descriptors of each object.
    fn keep_made(&self, index: u32, object: &Object, made: Fd) -> Result<()> {
        let failed = |what| move |e| Error::os(what)(e).on(self.on(index));
        let inherited = object.kind == ObjectKind::Inherited as u32;
        if object.open_flags & O_PATH == 0 && !inherited {
            set_status(made, object.open_flags).map_err(failed("cannot set the status flags"))?;
        }
        report::detail(format_args!("made {} for{}", What(self.ctx, index), self.on(index)));
        let mut kept = made;
        if is_direct(self.ctx)
            && let Some(number) = self.ctx.objects.number(index)
        {
            fd::dup_to(made, number, false).map_err(failed("cannot place the descriptor"))?;
            fd::close(made);
            kept = Fd(number);
        }
        Table::store(self.ctx.objects.made, index, kept.0 + 1)
    }

    /// Moves a new descriptor out of the way of the program's.
    pub fn raise(&self, low: Fd) -> Result<Fd> {
        self.ctx.raise(low)
    }

    /// Keeps a descriptor for another object's turn.
    pub fn keep(&self, object: u32, slot: usize, fd: Option<Fd>) {
        if let Some(spare) = self.spare.borrow_mut().get_mut(object as usize) {
            spare[slot] = fd.map_or(0, |fd| fd.0 + 1);
        }
    }

    pub fn kept(&self, object: u32, slot: usize) -> Option<Fd> {
        let n = self.spare.borrow().get(object as usize)?[slot];
        (n != 0).then_some(Fd(n - 1))
    }

    fn count_ends(&self) -> Result<()> {
        let mut ends = self.ends.borrow_mut();
        for (index, object) in self.ctx.image.objects.iter().enumerate() {
            let later = object.flags & object_flags::NO_WRITER_YET != 0;
            let end = object.kind == ObjectKind::PipeEnd as u32 && !later;
            if end && self.is_wanted(index as u32) && self.given(index as u32).is_none() {
                let pipe = ends.get_mut(object.inner as usize);
                *pipe.ok_or(Error::new("the image is damaged: an end without a pipe"))? += 1;
            }
        }
        Ok(())
    }
}

/// Whether objects are made as their numbers at once: there is but one table.
pub fn is_direct(ctx: &Ctx) -> bool {
    ctx.image.fd_tables.len() == 1
}
