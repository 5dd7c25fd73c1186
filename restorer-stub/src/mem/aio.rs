//! Rings of AIO contexts. What was saved of a ring is read into its place like any memory; then a new context
//! is made, its counters are brought to where the old ones were, its ring gets the saved events and is moved
//! into that place: the kernel knows a context by the address of its ring (fs/aio.c, aio_ring_mremap).

use super::map::{len, on};
use crate::report::{Error, Result};
use crate::sys::{Errno, Fd, aio, fd, mm};
use ckpt_format::{Vma, VmaKind};
use linux_raw_sys::general::MFD_CLOEXEC;

/// `struct aio_ring`, 32 bytes: id, number of events, head, tail, magic ...; then the events.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ring {
    id: u32,
    events: u32,
    head: u32,
    tail: u32,
    magic: u32,
    rest: [u32; 3],
}

const MAGIC: u32 = 0xa10a_10a1;
const HEAD: usize = 32;
const EVENT: usize = 32;
/// Contexts of ids that the program does not use.
const MOST_SPARE: usize = 64;

fn is_ring(vma: &&Vma) -> bool {
    vma.kind == VmaKind::AioRing as u32
}

/// The header at the beginning of a ring, or of its saved image.
///
/// # Safety
/// A readable page is mapped there.
unsafe fn header(at: usize) -> Ring {
    // SAFETY: the caller's; pages are aligned.
    unsafe { (at as *const Ring).read_volatile() }
}

/// Makes all contexts, when everything is filled.
pub fn make_all(vmas: &[Vma]) -> Result<()> {
    if vmas.iter().find(is_ring).is_none() {
        return Ok(());
    }
    let file = fd::memfd_create(b"ckpt", MFD_CLOEXEC).map_err(Error::os("cannot make AIO contexts"))?;
    let mut spare = [0usize; MOST_SPARE];
    let mut spares = spare.iter_mut();
    // The kernel gives the lowest id that is free.
    let mut next = 0;
    // SAFETY: filled just now: at least a page, readable.
    let id = |vma: &Vma| unsafe { header(vma.start as usize) }.id;
    while let Some(vma) = vmas.iter().filter(|v| is_ring(v) && id(v) >= next).min_by_key(|v| id(v)) {
        while next < id(vma) {
            let slot =
                spares.next().ok_or(Error::new("the id of an AIO context is too high:").on(on(vma)))?;
            *slot = aio::setup(1).map_err(|e| failed(e, vma))?;
            next += 1;
        }
        make(vma, file)?;
        next += 1;
    }
    for context in spare.into_iter().filter(|context| *context != 0) {
        // SAFETY: made above, and used by nobody.
        let _ = unsafe { aio::destroy(context) };
    }
    fd::close(file);
    Ok(())
}

fn failed(e: Errno, vma: &Vma) -> Error {
    let error = Error::os("cannot make the AIO context (io_setup) of")(e).on(on(vma));
    match e {
        Errno::EAGAIN => error.remedy("raise fs.aio-max-nr (sysctl)"),
        _ => error,
    }
}

fn make(vma: &Vma, file: Fd) -> Result<()> {
    let place = vma.start as usize;
    // SAFETY: as in `make_all`.
    let saved = unsafe { header(place) };
    let slots = (len(vma) - HEAD) / EVENT;
    let sound = saved.magic == MAGIC && saved.events as usize == slots;
    if !sound || saved.head >= saved.events || saved.tail >= saved.events {
        return Err(Error::new("not the ring of an AIO context:").on(on(vma)));
    }
    // As many as give a ring of so many pages: twice the number, and two (ioctx_alloc, aio_setup_ring).
    let context = aio::setup((saved.events - 2) / 2).map_err(|e| failed(e, vma))?;
    // SAFETY: the ring that io_setup(2) just mapped.
    let made = unsafe { header(context) };
    if made.events != saved.events || made.id != saved.id {
        return Err(Error::new("the ring of an AIO context is of another size here, or has another id:")
            .on(on(vma))
            .remedy("run it where there are as many CPUs as at the dump"));
    }
    let waiting = (saved.tail + saved.events - saved.head) % saved.events;
    for _ in 0..saved.head {
        aio::submit_nothing(context, file)
            .and_then(|()| aio::take_event(context))
            .map_err(|e| failed(e, vma))?;
    }
    for _ in 0..waiting {
        aio::submit_nothing(context, file).map_err(|e| failed(e, vma))?;
    }
    // SAFETY: as above.
    let made = unsafe { header(context) };
    if (made.head, made.tail) != (saved.head, saved.tail) {
        return Err(Error::new("the counters of an AIO context are not what they were:").on(on(vma)));
    }
    // SAFETY: both rings are mapped with this length, and do not overlap; then the new one takes the place of
    // the saved image, to which there is no reference.
    unsafe {
        let events = len(vma) - HEAD;
        core::ptr::copy_nonoverlapping((place + HEAD) as *const u8, (context + HEAD) as *mut u8, events);
        mm::mremap_to(context, len(vma), len(vma), place)
    }
    .map_err(|e| Error::os("cannot move the ring of an AIO context to")(e).on(on(vma)))
}
