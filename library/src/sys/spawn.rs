//! Starts ckpt-dump so that the calling program has no child of it, not even for a moment that it could notice.
//!
//! A child of the caller, in the caller's memory and without a signal at its end, starts the helper and ends at
//! once: it is waited for before this returns, and only those who ask for such children (`__WALL`) could have
//! seen it. The helper is adopted by init, or a nearer subreaper, waits until the caller lets it go on, and calls
//! execve(2). Nothing is forked: that would take long with much memory, and may need more than there is.

use super::raw::{self, Raw};
use super::signals;
use std::ffi::CString;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

/// What is executed.
#[derive(Debug)]
pub enum Program {
    Path(CString),
    /// An open file.
    File(RawFd),
}

/// A program to be started.
#[derive(Debug)]
pub struct Command {
    pub program: Program,
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    /// Descriptors that it gets under the same numbers, besides its standard streams.
    pub inherits: Vec<RawFd>,
}

/// Bytes of a stack of the helper's; little runs on it.
const STACK: usize = 16 << 10;

/// What the helper reads, in the caller's memory, until it has called execve(2).
struct Start {
    path: *const libc::c_char,
    /// Instead of `path`, if not -1.
    file: RawFd,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    inherits: *const RawFd,
    inherit_count: usize,
    /// Its end of the sockets, and the caller's.
    channel: RawFd,
    callers: RawFd,
    stack_top: *mut u8,
    /// Its id, or a negative errno.
    pid: AtomicI32,
    /// Why it could not be executed.
    errno: AtomicI32,
    /// 1 as long as it uses this memory.
    here: AtomicI32,
}

/// A helper that waits for the word to go on. Keeps what it reads.
pub struct Helper {
    start: Box<Start>,
    channel: ManuallyDrop<OwnedFd>,
    is_open: bool,
    _stacks: Vec<u128>,
    _lists: [Vec<*const libc::c_char>; 2],
    _command: Command,
}

impl Helper {
    /// Starts it, with the other end of the sockets. All signals must be blocked.
    ///
    /// # Errors
    /// When no socket or process can be made.
    pub fn start(command: Command, (ours, its): (OwnedFd, OwnedFd)) -> io::Result<Self> {
        // Two, one after the other, aligned to 16 bytes.
        let mut stacks = vec![0u128; 2 * STACK / 16];
        // SAFETY: both are within the allocation, or one past its end.
        let (middle, end) = unsafe {
            let base = stacks.as_mut_ptr().cast::<u8>();
            (base.add(STACK), base.add(2 * STACK))
        };
        let list = |of: &[CString]| -> Vec<*const libc::c_char> {
            of.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
        };
        let lists = [list(&command.args), list(&command.env)];
        let (path, file) = match &command.program {
            Program::Path(path) => (path.as_ptr(), -1),
            Program::File(file) => (ptr::null(), *file),
        };
        let start = Box::new(Start {
            path,
            file,
            argv: lists[0].as_ptr(),
            envp: lists[1].as_ptr(),
            inherits: command.inherits.as_ptr(),
            inherit_count: command.inherits.len(),
            channel: its.as_raw_fd(),
            callers: ours.as_raw_fd(),
            stack_top: end,
            pid: AtomicI32::new(0),
            errno: AtomicI32::new(0),
            here: AtomicI32::new(0),
        });
        let argument = (&raw const *start).cast::<u8>();
        // SAFETY: `start` and both stacks live longer than their users: the caller waits for the end of the first
        // here, and keeps `Self` until the second has ended or has another memory.
        unsafe {
            // Not with CLONE_VFORK: who dumps us from outside could not stop us meanwhile.
            let between = raw::clone(libc::CLONE_VM, middle, make_helper, argument, ptr::null_mut());
            check(between)?;
            let args = [between as usize, 0, libc::__WALL as usize, 0, 0, 0];
            // An error: another thread that waits for all kinds of children has taken it, so it has ended.
            raw::syscall(libc::SYS_wait4, args);
        }
        check(start.pid.load(Ordering::SeqCst) as Raw)?;
        let channel = ManuallyDrop::new(ours);
        Ok(Self { start, channel, is_open: true, _stacks: stacks, _lists: lists, _command: command })
    }

    pub fn pid(&self) -> i32 {
        self.start.pid.load(Ordering::SeqCst)
    }

    /// Lets it go on, and reads what it says until it ends. `None` in a restored run: there it never was, nor
    /// is the channel open.
    ///
    /// # Errors
    /// When it cannot be executed, or the channel fails.
    pub fn run(mut self) -> io::Result<Option<Vec<u8>>> {
        let channel = self.channel.as_raw_fd() as usize;
        let go = [1u8];
        // SAFETY: reads one byte; MSG_NOSIGNAL, as the other end may have ended.
        unsafe {
            let args = [channel, go.as_ptr() as usize, 1, libc::MSG_NOSIGNAL as usize, 0, 0];
            check(raw::syscall(libc::SYS_sendto, args))?;
        }
        let mut said = Vec::new();
        let mut buffer = [0u8; 4096];
        loop {
            let args = [channel, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0];
            // SAFETY: the kernel writes at most that many bytes. The program is dumped while it is in here.
            let n = unsafe { raw::syscall(libc::SYS_read, args) };
            if n as u64 == ckpt_format::RESTORED_CALL {
                // The number is not ours here: another thread may have opened something by now.
                self.is_open = false;
                return Ok(None);
            }
            match check(n)? {
                0 => break,
                n => said.extend_from_slice(&buffer[..n]),
            }
        }
        match self.start.errno.load(Ordering::SeqCst) {
            0 => Ok(Some(said)),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if self.is_open {
            // SAFETY: not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.channel) };
        }
        // It ends when the channel does, unless it has long been another program. Not before that may what
        // it uses be freed.
        while self.start.here.load(Ordering::SeqCst) != 0 {
            let here = self.start.here.as_ptr();
            // SAFETY: the word lives as long as `self`; no timeout.
            unsafe { libc::syscall(libc::SYS_futex, here, libc::FUTEX_WAIT, 1, ptr::null::<u8>()) };
        }
    }
}

fn check(result: Raw) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result as i32))
}

/// The process between the caller and the helper. As all below: no thread-local memory, no locks, no panics.
extern "C" fn make_helper(argument: *const u8) -> ! {
    // SAFETY: the caller's, which waits.
    let start = unsafe { &*argument.cast::<Start>() };
    // SAFETY: the second stack is the helper's alone.
    let pid = unsafe {
        start.here.store(1, Ordering::SeqCst);
        let flags = libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID;
        raw::clone(flags, start.stack_top, helper, argument, start.here.as_ptr())
    };
    if pid < 0 {
        start.here.store(0, Ordering::SeqCst);
    }
    start.pid.store(pid as i32, Ordering::SeqCst);
    raw::exit(0)
}

extern "C" fn helper(argument: *const u8) -> ! {
    // SAFETY: the caller keeps it until this has ended or has another memory, unless the caller itself ends
    // before it lets us go on.
    let start = unsafe { &*argument.cast::<Start>() };
    // SAFETY: numbers, and memory on this stack or in `start`.
    unsafe {
        // Our copy, else the end of the caller would not be seen.
        call(libc::SYS_close, [start.callers as usize, 0, 0, 0]);
        let mut word = 0u8;
        if call(libc::SYS_read, [start.channel as usize, &raw mut word as usize, 1, 0]) != 1 {
            raw::exit(0);
        }
        // Not in the caller's session: its terminal's signals, and those for its group, are not for us.
        call(libc::SYS_setsid, [0; 4]);
        // Before they can act: handlers are the caller's, in the caller's memory.
        signals::default_all();
        signals::set(0);
        let null = call(libc::SYS_open, [c"/dev/null".as_ptr() as usize, libc::O_RDWR as usize, 0, 0]);
        let input = if null < 0 { start.channel } else { null as RawFd };
        call(libc::SYS_dup3, [input as usize, 0, 0, 0]);
        call(libc::SYS_dup3, [start.channel as usize, 1, 0, 0]);
        call(libc::SYS_dup3, [start.channel as usize, 2, 0, 0]);
        // CLOSE_RANGE_CLOEXEC, of all but the standard streams.
        call(libc::SYS_close_range, [3, u32::MAX as usize, 4, 0]);
        for i in 0..start.inherit_count {
            call(libc::SYS_fcntl, [*start.inherits.add(i) as usize, libc::F_SETFD as usize, 0, 0]);
        }
        let (argv, envp) = (start.argv as usize, start.envp as usize);
        let result = if start.file < 0 {
            call(libc::SYS_execve, [start.path as usize, argv, envp, 0])
        } else {
            let (file, flags) = (start.file as usize, libc::AT_EMPTY_PATH as usize);
            raw::syscall(libc::SYS_execveat, [file, c"".as_ptr() as usize, argv, envp, flags, 0])
        };
        start.errno.store(-result as i32, Ordering::SeqCst);
    }
    raw::exit(127)
}

/// # Safety
/// As the call demands.
unsafe fn call(number: i64, args: [usize; 4]) -> Raw {
    // SAFETY: the caller's.
    unsafe { raw::syscall(number, [args[0], args[1], args[2], args[3], 0, 0]) }
}
