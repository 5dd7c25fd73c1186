//! System V IPC: objects with the ids and keys that they had, in the IPC namespace of the caller or in a
//! new one.
//!
//! The root makes all of them before there are other processes. What is there already is used again if
//! it is the same and nobody uses it: what the dumped program left behind. Anything else that is in the
//! way is named, and nothing is done. Of a restore that fails, the tracer removes what was made.

use crate::ctx::{Ctx, Mode, is_brief};
use crate::mem;
use crate::mem::work::Work;
use crate::objects::mqueue;
use crate::report::{Error, On, Result, note};
use crate::sys::ipc::{self, Kind, SEM_UNDO, SemOp};
use crate::sys::process::{self, Wait};
use crate::sys::{Errno, fd};
use crate::tree::name_of;
use ckpt_format::header::header_flags;
use ckpt_format::sysv::shm_mode;
use ckpt_format::{Image, IpcPerm, SemUndo, SysvMessage, SysvMsg, SysvSem, Task};
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::general::{__WALL, CLOCK_MONOTONIC, CLONE_NEWIPC};
use zerocopy::FromBytes;

const CAP_SYS_ADMIN: u64 = 1 << 21;
/// EIDRM, ENOMSG: these calls' own.
const EIDRM: Errno = Errno(43);

/// What was made, for the processes that may have to remove it.
pub struct Made {
    /// By index in [`items`]: 1 for an object that was not there before.
    objects: &'static [AtomicU32],
    /// 1 in a namespace of the program's own, which goes with it.
    private: &'static AtomicU32,
    /// By object of the image: 1 for a POSIX message queue that was not there before.
    pub queues: &'static [AtomicU32],
}

impl Made {
    pub fn new(work: &Work, image: &Image) -> Result<Self> {
        let count = image.shms.len() + image.sems.len() + image.msgs.len();
        let queues = work.shared_slice(image.objects.len())?;
        Ok(Self { objects: work.shared_slice(count)?, private: work.shared()?, queues })
    }
}

/// An object of the image.
#[derive(Clone, Copy)]
struct Item {
    kind: Kind,
    /// Index in the table of its kind.
    index: usize,
    perm: &'static IpcPerm,
    /// Bytes, or number of semaphores.
    size: u64,
    hugetlb_shift: u32,
}

fn items(ctx: &Ctx) -> impl Iterator<Item = Item> + use<> {
    let Image { shms, sems, msgs, .. } = ctx.image;
    let item = |kind, index, perm, size, hugetlb_shift| Item { kind, index, perm, size, hugetlb_shift };
    let shms = shms.iter().enumerate();
    let sems = sems.iter().enumerate();
    let msgs = msgs.iter().enumerate();
    shms.map(move |(i, s)| item(Kind::Shm, i, &s.perm, s.size, s.hugetlb_shift))
        .chain(sems.map(move |(i, s)| item(Kind::Sem, i, &s.perm, s.values.len / 2, 0)))
        .chain(msgs.map(move |(i, m)| item(Kind::Msg, i, &m.perm, 0, 0)))
}

/// Whether there is anything that an IPC namespace holds.
fn has_any(ctx: &Ctx) -> bool {
    items(ctx).next().is_some() || mqueue::queues(ctx).next().is_some()
}

fn had_own_namespace(ctx: &Ctx) -> bool {
    ctx.image.header.flags & header_flags::OWN_IPC_NAMESPACE != 0
}

/// Whether the objects can be made in the present IPC namespace.
enum Look {
    Fine,
    /// Somebody else's object is in the way.
    Foreign(Error),
    Forbidden(Error),
}

fn look(ctx: &Ctx) -> Look {
    if !has_any(ctx) {
        return Look::Fine;
    }
    if had_own_namespace(ctx) {
        return match process::caps().effective & CAP_SYS_ADMIN {
            0 => Look::Forbidden(
                Error::new("the program had an IPC namespace of its own").remedy("use --pid ns"),
            ),
            _ => Look::Fine,
        };
    }
    for item in items(ctx) {
        match patiently(|| find(ctx, &item, true)) {
            Ok(true) => {}
            Ok(false) if may_choose(item.kind) => {}
            Ok(false) => return Look::Forbidden(forbidden(&item)),
            Err(e) => return Look::Foreign(e),
        }
    }
    match mqueue::in_the_way(ctx) {
        Ok(None) => Look::Fine,
        Ok(Some(e)) | Err(e) => Look::Foreign(e),
    }
}

/// Refuses what cannot be made in the present namespace, before anything is done.
pub fn check(ctx: &Ctx) -> Result<()> {
    match look(ctx) {
        Look::Fine => Ok(()),
        Look::Foreign(e) | Look::Forbidden(e) => Err(e),
    }
}

/// What is in the way without being the program's.
pub fn foreign(ctx: &Ctx) -> Option<Error> {
    match look(ctx) {
        Look::Foreign(e) => Some(e),
        _ => None,
    }
}

/// Whether the program needs an IPC namespace of its own (when it gets other new ones).
pub fn is_needed(ctx: &Ctx) -> bool {
    had_own_namespace(ctx) || !matches!(look(ctx), Look::Fine)
}

fn next_id(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Shm => b"/proc/sys/kernel/shm_next_id",
        Kind::Sem => b"/proc/sys/kernel/sem_next_id",
        Kind::Msg => b"/proc/sys/kernel/msg_next_id",
    }
}

/// Whether we may choose the id of an object.
fn may_choose(kind: Kind) -> bool {
    use linux_raw_sys::general::O_WRONLY;
    fd::open(next_id(kind), O_WRONLY, 0).map(fd::close).is_ok()
}

fn forbidden(item: &Item) -> Error {
    let what = match item.kind {
        Kind::Shm => "not permitted to make System V shared memory with the id",
        Kind::Sem => "not permitted to make System V semaphores with the id",
        Kind::Msg => "not permitted to make a System V message queue with the id",
    };
    Error::new(what)
        .on(On::Number(item.perm.id as u64))
        .remedy("use --pid ns, or run the image as root (it writes /proc/sys/kernel/*_next_id)")
}

/// Whether the object is there already, unused. `strict`: the processes of the image do not exist yet, so
/// whatever process has one of their ids is another one.
///
/// # Errors
/// Something else is in its place.
fn find(ctx: &Ctx, item: &Item, strict: bool) -> Result<bool> {
    let Item { kind, perm, .. } = *item;
    match ipc::stat(kind, perm.id) {
        Ok(record) => {
            let same = record.key() == perm.key && record.size(kind) == item.size;
            let user = user_of(ctx, item, &record, strict);
            if !same || kind == Kind::Shm && record.attached() > 0 || user != 0 {
                return Err(in_the_way(ctx, kind, perm.id, user));
            }
            return Ok(true);
        }
        Err(Errno::EINVAL | EIDRM) => {}
        Err(Errno::EACCES) => return Err(in_the_way(ctx, kind, perm.id, 0)),
        Err(e) => return Err(Error::os("System V IPC does not work here")(e)),
    }
    if perm.key != 0 {
        match ipc::find(kind, perm.key) {
            Ok(id) => return Err(in_the_way(ctx, kind, id, 0)),
            Err(Errno::EACCES) => return Err(in_the_way(ctx, kind, perm.id, 0)),
            Err(_) => {}
        }
    }
    // The low half of an id is its place in the kernel's table.
    match ipc::at_index(kind, perm.id & 0x7fff) {
        Ok(id) => Err(in_the_way(ctx, kind, id, 0)),
        Err(_) => Ok(false),
    }
}

/// A process that uses an object, or seems to; 0 for none.
fn user_of(ctx: &Ctx, item: &Item, record: &ipc::Record, strict: bool) -> i32 {
    let lives = |pid: i32| {
        let own = !strict && ctx.image.tasks.iter().any(|t| t.pid == pid);
        pid > 0 && !own && process::kill(pid, 0) != Err(Errno::ESRCH)
    };
    let [first, last] = record.pids(item.kind);
    match item.kind {
        // Attaching it is using it.
        Kind::Shm if record.attached() == 0 => 0,
        Kind::Shm | Kind::Msg => [last, first].into_iter().find(|p| lives(*p)).unwrap_or(0),
        Kind::Sem => {
            let id = item.perm.id;
            let mut numbers = 0..item.size as u32;
            let by = numbers.clone().map(|n| ipc::last_pid(id, n)).find(|p| lives(*p));
            // Nobody knows who waits.
            by.unwrap_or(if numbers.any(|n| ipc::has_waiters(id, n)) { -1 } else { 0 })
        }
    }
}

fn in_the_way(ctx: &Ctx, kind: Kind, id: i32, user: i32) -> Error {
    let what = match kind {
        Kind::Shm => "other System V shared memory is in the way, or in use: id",
        Kind::Sem => "other System V semaphores are in the way, or in use: id",
        Kind::Msg => "another System V message queue is in the way, or in use: id",
    };
    let pid = if user != 0 { user } else { ipc::stat(kind, id).map_or(0, |r| r.pids(kind)[0]) };
    let name = if pid > 0 { name_of(ctx, pid) } else { b"" };
    Error::new(what).on(On::Held(id, pid, name)).remedy(
        "end the program that uses it (ipcs -p lists them) or remove it (ipcrm), or use --pid ns, where the \
         program gets an IPC namespace of its own",
    )
}

/// Makes all objects, with their contents. In the root, before there are other processes.
pub fn create(ctx: &Ctx) -> Result<()> {
    if had_own_namespace(ctx) && ctx.mode() != Mode::Ns {
        match process::unshare(CLONE_NEWIPC) {
            Ok(()) => ctx.sysv.private.store(1, Ordering::SeqCst),
            Err(e) if has_any(ctx) => {
                return Err(Error::os("cannot create an IPC namespace")(e).remedy("use --pid ns"));
            }
            Err(e) => note(format_args!("not in an IPC namespace of its own: {e}")),
        }
    }
    for (slot, item) in items(ctx).enumerate() {
        let is_there = patiently(|| find(ctx, &item, false))?;
        if !is_there {
            make(ctx, &item)?;
            if let Some(made) = ctx.sysv.objects.get(slot) {
                made.store(1, Ordering::SeqCst);
            }
        }
        set(ctx, &item)?;
    }
    Ok(())
}

/// After a restore that failed: in the process that is left.
pub fn remove_made(ctx: &Ctx) {
    if ctx.sysv.private.load(Ordering::SeqCst) != 0 {
        return;
    }
    for (index, queue) in mqueue::queues(ctx) {
        if ctx.sysv.queues.get(index).is_some_and(|made| made.swap(0, Ordering::SeqCst) != 0) {
            mqueue::remove(ctx, queue);
        }
    }
    for (slot, item) in ctx.sysv.objects.iter().zip(items(ctx)) {
        if slot.swap(0, Ordering::SeqCst) != 0 {
            let _ = ipc::remove(item.kind, item.perm.id);
        }
    }
}

fn failed(item: &Item, e: Errno) -> Error {
    let what = match item.kind {
        Kind::Shm => "cannot make System V shared memory with the id",
        Kind::Sem => "cannot make System V semaphores with the id",
        Kind::Msg => "cannot make a System V message queue with the id",
    };
    let error = Error::os(what)(e).on(On::Number(item.perm.id as u64));
    match e {
        Errno::ENOSPC | Errno::EINVAL | Errno::ENOMEM => {
            error.remedy("raise kernel.shmmni, shmall, shmmax, sem or msgmni (sysctl) to what they were")
        }
        _ => error,
    }
}

/// Tries again what fails because of somebody else. Another image that is being restored may get an id that
/// was meant for us, and removes the object at once.
fn patiently<R>(mut attempt: impl FnMut() -> Result<R>) -> Result<R> {
    for _ in 0..10 {
        if let Ok(done) = attempt() {
            return Ok(done);
        }
        give_way();
    }
    attempt()
}

/// Sleeps for 1 to 4 ms, in which two that disturb each other get out of step.
fn give_way() {
    process::sleep_ms(1 + (process::clock_ns(CLOCK_MONOTONIC) / 1000 % 4) as u32);
}

/// A new object with the id. The kernel takes the wish as a hint, and somebody may come between: there is one
/// wish for all (`ipc_ids.next_id`, ipc/util.c).
fn make(ctx: &Ctx, item: &Item) -> Result<()> {
    for _ in 0..50 {
        let id = crate::sys::Decimal::new(item.perm.id as u64);
        if let Err(e) = fd::write_file(next_id(item.kind), id.as_bytes()) {
            return Err(match e {
                Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::ENOENT => forbidden(item),
                e => failed(item, e),
            });
        }
        match create_as(item) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(e) => {
                let _ = fd::write_file(next_id(item.kind), b"-1");
                return Err(failed(item, e));
            }
        }
        give_way();
        patiently(|| find(ctx, item, false))?;
    }
    Err(in_the_way(ctx, item.kind, item.perm.id, 0))
}

/// Creates it in the name of its creator, which a process of its own does: to change one's ids has
/// effects that stay. Whether it has the id; there is no object otherwise.
fn create_as(item: &Item) -> crate::sys::Result<bool> {
    let Item { kind, perm, .. } = *item;
    let create = || {
        // Its owner may always read and write until all is done.
        let mode = perm.mode & 0o777 | 0o600;
        let id = ipc::create(kind, perm.key, item.size, mode, item.hugetlb_shift)?;
        if id != perm.id {
            let _ = ipc::remove(kind, id);
        }
        Ok(id == perm.id)
    };
    let (uids, gids) = (process::uids(), process::gids());
    if (perm.cuid, perm.cgid) == (uids[1], gids[1]) {
        return create();
    }
    let child = process::fork(0, None)?;
    if child == 0 {
        let set = process::set_gids(&[gids[0], perm.cgid, gids[2], perm.cgid])
            .and_then(|()| process::set_uids(&[uids[0], perm.cuid, uids[2], perm.cuid]));
        process::exit_group(match set.and_then(|()| create()) {
            Ok(true) => 0,
            Ok(false) => 1,
            Err(_) => 2,
        });
    }
    match process::wait(child, __WALL)? {
        Some((_, Wait::Exited(status @ 0..=1))) => Ok(status == 0),
        _ => {
            let id = crate::sys::Decimal::new(perm.id as u64);
            fd::write_file(next_id(kind), id.as_bytes())?;
            let created = create();
            note(format_args!("System V object {}: its creator was user {}", perm.id, perm.cuid));
            created
        }
    }
}

/// Gives an object its contents and rights.
fn set(ctx: &Ctx, item: &Item) -> Result<()> {
    let Item { kind, perm, .. } = *item;
    let failed = |e| failed(item, e);
    let mut record = ipc::stat(kind, perm.id).map_err(failed)?;
    let [uid, gid, _, _, mode] = record.rights();
    if mode & 0o600 != 0o600 {
        record.set_rights(uid, gid, mode & 0o777 | 0o600);
        ipc::set(kind, perm.id, &record).map_err(failed)?;
    }
    match kind {
        Kind::Shm => {
            let shm = Image::get(ctx.image.shms, item.index as u32, "segment")?;
            mem::sysv::fill(ctx, shm)?;
            if perm.mode & shm_mode::LOCKED != 0 {
                ipc::lock_segment(perm.id).map_err(|e| {
                    failed(e).remedy("to lock shared memory, raise the limit of locked memory (ulimit -l)")
                })?;
            }
        }
        Kind::Sem => set_values(ctx, Image::get(ctx.image.sems, item.index as u32, "semaphores")?)?,
        Kind::Msg => {
            let queue = Image::get(ctx.image.msgs, item.index as u32, "message queue")?;
            refill(ctx, queue, &mut record).map_err(failed)?;
            record.set_qbytes(queue.qbytes);
        }
    }
    // Rights may have been taken away from those who have attached it already: see `finish`.
    if kind == Kind::Shm { Ok(()) } else { set_rights(item, record) }
}

/// Owner and mode, and what else the record says.
fn set_rights(item: &Item, mut record: ipc::Record) -> Result<()> {
    let Item { kind, perm, .. } = *item;
    let failed = |e| failed(item, e);
    let [uid, gid, ..] = record.rights();
    record.set_rights(perm.uid, perm.gid, perm.mode & 0o777);
    let rights = ipc::set(kind, perm.id, &record);
    if rights.is_err() && (perm.uid, perm.gid) != (uid, gid) {
        // Users that do not exist in this user namespace.
        note(format_args!("System V object {}: it belonged to user {}", perm.id, perm.uid));
        record.set_rights(uid, gid, perm.mode & 0o777);
        return ipc::set(kind, perm.id, &record).map_err(failed);
    }
    rights.map_err(failed)
}

fn set_values(ctx: &Ctx, sem: &SysvSem) -> Result<()> {
    ipc::set_values(sem.perm.id, ctx.image.records(sem.values)?)
        .map_err(|e| Error::os("cannot set System V semaphores: id")(e).on(On::Number(sem.perm.id as u64)))
}

/// Sends all messages again, in order.
fn refill(ctx: &Ctx, queue: &SysvMsg, record: &mut ipc::Record) -> crate::sys::Result<()> {
    let id = queue.perm.id;
    for _ in 0..record.messages() {
        ipc::discard(id)?;
    }
    let mut rest = ctx.image.blob(queue.messages).map_err(|_| Errno::EINVAL)?;
    // The limit may have been lowered below what is in the queue.
    let room = queue.qbytes.max(rest.len() as u64);
    if room > record.qbytes() {
        record.set_qbytes(room);
        ipc::set(Kind::Msg, id, record)?;
    }
    while !rest.is_empty() {
        let (message, text) = SysvMessage::ref_from_prefix(rest).map_err(|_| Errno::EINVAL)?;
        let len = usize::try_from(message.len).map_err(|_| Errno::EINVAL)?;
        // The type must stand right before the text.
        let buf = ctx.files.buffer(len as u64 + 8).ok_or(Errno::EINVAL)?;
        buf[..8].copy_from_slice(&message.kind.to_le_bytes());
        buf[8..].copy_from_slice(text.get(..len).ok_or(Errno::EINVAL)?);
        ipc::send(id, buf)?;
        rest = text.get(len.next_multiple_of(8)..).unwrap_or(&[]);
    }
    Ok(())
}

/// What is left when all processes have attached what they had attached.
pub fn finish(ctx: &Ctx, task: &Task) -> Result<()> {
    for undo in ctx.image.sem_undos.iter().filter(|u| u.pid == task.pid) {
        let sem = Image::get(ctx.image.sems, undo.set, "semaphores")?;
        adjust(ctx, sem, undo)?;
    }
    if ctx.is_root() {
        for item in items(ctx).filter(|i| i.kind == Kind::Shm) {
            let failed = |e| failed(&item, e);
            set_rights(&item, ipc::stat(Kind::Shm, item.perm.id).map_err(failed)?)?;
            if item.perm.mode & shm_mode::DEST != 0 {
                ipc::remove(Kind::Shm, item.perm.id).map_err(failed)?;
            }
        }
    } else if !is_brief(task) {
        touch(ctx, task)?;
    }
    Ok(())
}

/// At most: empty it, two steps of two operations, set it.
type Ops = ([SemOp; 8], usize);

fn add(ops: &mut Ops, number: u32, change: i32, flags: u32) {
    // No change would mean "wait for zero".
    if change != 0 && ops.1 < ops.0.len() {
        ops.0[ops.1] = SemOp { number: number as u16, change: change as i16, flags: flags as i16 };
        ops.1 += 1;
    }
}

fn value_of(ctx: &Ctx, sem: &SysvSem, number: u32) -> Result<i32> {
    let values = ctx.image.records::<u16>(sem.values)?;
    let value = values.get(number as usize).copied();
    value.map(i32::from).ok_or(Error::new("the image is damaged: no such semaphore"))
}

/// Gives the calling process an adjustment at exit; the value stays, and is never out of range.
fn adjust(ctx: &Ctx, sem: &SysvSem, undo: &SemUndo) -> Result<()> {
    let value = value_of(ctx, sem, undo.number)?;
    let mut ops = ([SemOp::default(); 8], 0);
    add(&mut ops, undo.number, -value, 0);
    let mut rest = undo.adjustment.clamp(-32768, 32767);
    while rest != 0 {
        let step = rest.clamp(-32767, 32767);
        let (first, second) = if step > 0 { (0, SEM_UNDO) } else { (SEM_UNDO, 0) };
        add(&mut ops, undo.number, step.abs(), first);
        add(&mut ops, undo.number, -step.abs(), second);
        rest -= step;
    }
    add(&mut ops, undo.number, value, 0);
    ipc::operate(sem.perm.id, &mut ops.0[..ops.1])
        .map_err(|e| Error::os("cannot set SEM_UNDO of semaphores")(e).on(On::Number(sem.perm.id as u64)))
}

/// Makes the calling process the last that operated on the semaphores of which it was. The root was, by
/// making them.
fn touch(ctx: &Ctx, task: &Task) -> Result<()> {
    for sem in ctx.image.sems {
        let pids = ctx.image.records::<i32>(sem.pids)?;
        for (number, _) in pids.iter().enumerate().filter(|(_, pid)| **pid == task.pid) {
            let value = value_of(ctx, sem, number as u32)?;
            let first = if value > 0 { -1 } else { 1 };
            let mut ops = ([SemOp::default(); 8], 0);
            add(&mut ops, number as u32, first, 0);
            add(&mut ops, number as u32, -first, 0);
            let _ = ipc::operate(sem.perm.id, &mut ops.0[..ops.1]);
        }
    }
    Ok(())
}
