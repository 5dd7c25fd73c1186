//! From the entry point to the first stage: configuration, arguments, own stack.

use super::work::Work;
use crate::report::{self, Error, Result};
use crate::{arch, signals};
use ckpt_format::StubConfig;

/// Where everything of this image is: patched by the writer, which finds it by its symbol. Mutable
/// so that it lies in writable data, and not zero so that it has bytes in the file.
#[unsafe(no_mangle)]
#[used]
pub static mut CKPT_STUB_CONFIG: StubConfig = StubConfig {
    meta_addr: 1,
    meta_len: 0,
    work_addr: 0,
    work_len: 0,
    parking_addr: 0,
    parking_len: 0,
    hole_addr: 0,
    hole_len: 0,
    stub_addr: 0,
    stub_len: 0,
    first_free_fd: 0,
    shared_addr: 0,
    shared_len: 0,
    image_fd: 0,
    name_addr: 0,
    name_len: 0,
};

/// What the kernel put on the first stack, copied to the work area.
pub struct Initial {
    /// argv, each with its NUL, one after the other.
    pub args: &'static [u8],
    pub execfn: &'static [u8],
    pub page_size: u64,
    /// AT_SECURE: exec changed the credentials (set-user-ID, set-group-ID, file capabilities).
    pub secure: bool,
}

const AT_NULL: u64 = 0;
const AT_PAGESZ: u64 = 6;
const AT_SECURE: u64 = 23;
const AT_EXECFN: u64 = 31;

/// Copies what is needed from the kernel's stack.
///
/// # Safety
/// `sp` is the stack pointer at the entry point, its memory unchanged.
pub unsafe fn read_stack(sp: usize, work: &super::work::Work) -> Result<Initial> {
    // SAFETY: argc, argv[argc], NULL, envp..., NULL, auxv... NULL (System V ABI); see the caller.
    unsafe {
        let words = sp as *const u64;
        let argc = words.read() as usize;
        let argv = core::slice::from_raw_parts(words.add(1), argc);
        let mut at = words.add(argc + 2);
        while at.read() != 0 {
            at = at.add(1);
        }
        at = at.add(1);
        let mut initial = Initial { args: copy_args(argv, work)?, execfn: b"", page_size: 0, secure: false };
        while at.read() != AT_NULL {
            let value = at.add(1).read();
            match at.read() {
                AT_PAGESZ => initial.page_size = value,
                AT_EXECFN => initial.execfn = copy_args(&[value], work)?.strip_suffix(b"\0").unwrap_or(b""),
                AT_SECURE => initial.secure = value != 0,
                _ => {}
            }
            at = at.add(2);
        }
        Ok(initial)
    }
}

/// # Safety
/// Each of `strings` is the address of a NUL-terminated string.
unsafe fn copy_args(strings: &[u64], work: &super::work::Work) -> Result<&'static [u8]> {
    // SAFETY: the caller's.
    let text = |at: &u64| unsafe { core::ffi::CStr::from_ptr(*at as *const _) }.to_bytes_with_nul();
    let copy = work.slice::<u8>(strings.iter().map(|s| text(s).len()).sum())?;
    let mut end = 0;
    for s in strings {
        let s = text(s);
        copy[end..end + s.len()].copy_from_slice(s);
        end += s.len();
    }
    Ok(copy)
}

/// The configuration that the writer patched in.
fn config() -> StubConfig {
    // SAFETY: written by nobody at run time; volatile because the writer changed it after the
    // compiler saw it.
    unsafe { core::ptr::read_volatile(&raw const CKPT_STUB_CONFIG) }
}

/// What the first stage starts from.
pub struct Start {
    pub config: StubConfig,
    pub work: &'static Work,
    pub initial: Initial,
    /// The signals that the caller blocked.
    pub mask: u64,
    /// End of the stack on which everything runs but threads.
    pub stack_top: usize,
}

/// Bytes of the leader's stack. Paths (4 KiB each) and messages are its largest objects.
const STACK: usize = 256 << 10;

/// Called by the entry assembly with the kernel's stack pointer. Leaves the kernel's stack, which
/// will be unmapped.
pub extern "C" fn entry(sp: usize) -> ! {
    let mask = signals::block_all();
    let config = config();
    // SAFETY: `sp` is the entry's (arch); the work area is a fresh PT_LOAD for nobody else.
    match unsafe { start(sp, config, mask) } {
        Ok((start, top)) => {
            let arg = core::ptr::from_ref(start) as usize;
            // SAFETY: the stack is ours alone; what is on this one was copied.
            unsafe { arch::switch_stack(top, on_own_stack, arg) }
        }
        Err(e) => report::fail(e),
    }
}

/// # Safety
/// As [`read_stack`]; the configuration names a zeroed work area, and a name that is mapped or none.
unsafe fn start(sp: usize, config: StubConfig, mask: u64) -> Result<(&'static Start, usize)> {
    if config.work_len == 0 {
        return Err(Error::new("this is the restorer alone, not an image").remedy("ckpt-dump makes images"));
    }
    // SAFETY: the caller's.
    unsafe {
        let work = Work::new(config.work_addr as usize, (config.work_addr + config.work_len) as usize);
        let stack = work.stack(STACK)?;
        let mut initial = read_stack(sp, &work)?;
        if config.name_len != 0 {
            // What was executed is a file without a name; see ckpt-restore.
            let name = core::slice::from_raw_parts(config.name_addr as *const u8, config.name_len as usize);
            let copy = work.slice(name.len())?;
            copy.copy_from_slice(name);
            initial.execfn = copy;
        }
        let place = work.reserve::<Work>()?;
        let work = place.write(work);
        Ok((work.value(Start { config, work, initial, mask, stack_top: stack.top })?, stack.top))
    }
}

/// In a new process: goes on with an empty stack. A tree of some depth would fill it otherwise, as each
/// process is made from within the making of its parent.
pub fn on_empty_stack(ctx: &'static crate::ctx::Ctx) -> ! {
    extern "C" fn go_on(ctx: usize) -> ! {
        // SAFETY: the address of a `Ctx` of the work area, which is there for good.
        crate::restore::become_task(unsafe { &*(ctx as *const crate::ctx::Ctx) })
    }
    // SAFETY: the whole stack is this process's own copy, and nobody returns to what is on it: references
    // to it are gone with `fork_begun`.
    unsafe { arch::switch_stack(ctx.stack_top, go_on, core::ptr::from_ref(ctx) as usize) }
}

extern "C" fn on_own_stack(start: usize) -> ! {
    // SAFETY: `entry` passes a `Start` of the work area.
    crate::main(unsafe { &*(start as *const Start) })
}
