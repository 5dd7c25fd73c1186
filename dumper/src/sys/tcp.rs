//! TCP connections to ends that are not dumped: a look at what TCP_REPAIR needs to make them again, and the
//! means to end them without a word to the other end.
//!
//! A process of its own does both ([`Hold`]): should ckpt-dump be killed, it puts everything back. While it
//! holds a connection, a socket filter drops all that comes in, unseen and unacknowledged, so that the other
//! end sends it again later, and nothing arrives that the image does not know.

use super::child;
use super::fd::unreceived_bytes;
use super::guard::SharedMemory;
use super::socket::{option, option_int};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// What repair mode shows of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// include/net/tcp_states.h.
    pub state: u8,
    /// `TCPI_OPT_*` and the window scales.
    pub options: u32,
    pub send_scale: u32,
    pub receive_scale: u32,
    pub mss: u32,
    pub timestamp: u32,
    /// Sequence numbers behind what was written, and what was received.
    pub written: u32,
    pub received: u32,
    /// `struct tcp_repair_window`.
    pub window: [u32; 5],
    /// So many bytes at the end of `unacked` were never sent.
    pub unsent: u32,
    pub unacked: Vec<u8>,
    pub send_buffer: u32,
    pub receive_buffer: u32,
}

const TCP_REPAIR: i32 = 19;
const TCP_REPAIR_QUEUE: i32 = 20;
const TCP_QUEUE_SEQ: i32 = 21;
const TCP_TIMESTAMP: i32 = 24;
const TCP_REPAIR_WINDOW: i32 = 29;
const SIOCOUTQNSD: libc::Ioctl = 0x894b;
/// Values of TCP_REPAIR_QUEUE.
const NO_QUEUE: i32 = 0;
const RECEIVED: i32 = 1;
const SENT: i32 = 2;
/// Values of TCP_REPAIR; leaving it by 0 would send a window probe (Linux 4.19).
const ON: i32 = 1;
const OFF: i32 = -1;

/// One connection, as both processes know it.
struct Held {
    fd: OwnedFd,
    /// SO_REUSEADDR, which leaving the repair mode takes away (net/ipv4/tcp.c).
    reuse: i32,
    /// Its place in the shared memory, and room there for what was not acknowledged.
    at: usize,
    room: usize,
}

/// What the process finds, in the shared memory; the bytes follow.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Found {
    errno: i32,
    timestamp: u32,
    mss: u32,
    written: u32,
    received: u32,
    window: [u32; 5],
    /// Bytes that are not acknowledged, and of these not sent, both with the end of the stream.
    queued: u32,
    unsent: u32,
    /// Bytes seen.
    len: u32,
}

/// How long and under which name connections stay held after the end of the dumped processes.
#[derive(Debug)]
pub struct Afterwards {
    /// A unix socket: who connects, and is the same user or root, ends the hold.
    pub door: OwnedFd,
    pub time: Duration,
}

/// Connections at which nothing arrives. Dropped, it lets them go on as if nothing had been.
#[derive(Debug)]
pub struct Hold {
    child: i32,
    control: Option<OwnedFd>,
}

/// Takes hold of connections whose processes are stopped, and looks into each.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN over their network namespace; nothing has changed then. What failed for one
/// connection only is told for that.
pub fn hold(fds: Vec<OwnedFd>, afterwards: Option<Afterwards>) -> Result<(Hold, Vec<Result<Look>>)> {
    let mut at = 0;
    let mut held = Vec::with_capacity(fds.len());
    for fd in fds {
        let reuse = option_int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
        // Nothing is written meanwhile, so there will not be more.
        let room = unreceived_bytes(fd.as_fd()).unwrap_or(0);
        held.push(Held { fd, reuse, at, room });
        at += (size_of::<Found>() + room).next_multiple_of(8);
    }
    let memory = SharedMemory::new(at.max(8))?;
    let (ours, theirs) = pair()?;
    let mut kept: Vec<i32> = held.iter().map(|h| h.fd.as_raw_fd()).collect();
    kept.push(theirs.as_raw_fd());
    kept.extend(afterwards.as_ref().map(|a| a.door.as_raw_fd()));
    kept.sort_unstable();
    // SAFETY: the child runs `run_child` only, which ends it.
    let child = unsafe { child::fork() }?;
    if child == 0 {
        // SAFETY: it allocates nothing and takes no lock. The memory has room for all that is held, and we
        // read it only after its word.
        unsafe { run_child(&held, memory.start(), theirs.as_raw_fd(), &kept, afterwards.as_ref()) }
    }
    drop((theirs, afterwards));
    let hold = Hold { child, control: Some(ours) };
    if hold.answer()? != LOOKED {
        return Err(Error::other("the process that holds TCP connections has ended"));
    }
    let looks = held.iter().map(|h| look_of(h, memory.bytes())).collect();
    Ok((hold, looks))
}

/// What the child found, with what can be asked without it.
fn look_of(held: &Held, memory: &[u8]) -> Result<Look> {
    let word = |i: usize| {
        let at = held.at + i * 4;
        memory.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    };
    if word(0) != 0 {
        return Err(Error::from_raw_os_error(word(0) as i32));
    }
    let fd = held.fd.as_fd();
    // `struct tcp_info`: state, options in byte 5, both window scales in byte 6.
    let info = option(fd, libc::SOL_TCP, libc::TCP_INFO)?;
    let byte = |i: usize| info.get(i).copied().unwrap_or(0);
    let (queued, unsent, len) = (word(10), word(11), word(12));
    // The end of the stream counts as one, and is no byte.
    let ended = queued - len.min(queued);
    if ended > 1 {
        return Err(Error::other(format!("only {len} of {queued} unacknowledged bytes can be seen")));
    }
    let start = held.at + size_of::<Found>();
    Ok(Look {
        state: byte(0),
        options: u32::from(byte(5)),
        send_scale: u32::from(byte(6) & 15),
        receive_scale: u32::from(byte(6) >> 4),
        timestamp: word(1),
        mss: word(2),
        written: word(3),
        received: word(4),
        window: [word(5), word(6), word(7), word(8), word(9)],
        unsent: unsent.saturating_sub(ended).min(len),
        unacked: memory.get(start..start + len as usize).unwrap_or_default().to_vec(),
        send_buffer: option_int(fd, libc::SOL_SOCKET, libc::SO_SNDBUF)? as u32,
        receive_buffer: option_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF)? as u32,
    })
}

/// Words of the child, and ours to it.
const LOOKED: u8 = b'L';
const SILENCE: u8 = b'S';
const FINISH: u8 = b'F';

impl Hold {
    /// The process that holds them.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child
    }

    fn answer(&self) -> Result<u8> {
        let Some(control) = &self.control else { return Ok(0) };
        let mut byte = 0_u8;
        loop {
            // SAFETY: the kernel writes at most one byte.
            match unsafe { libc::read(control.as_raw_fd(), (&raw mut byte).cast(), 1) } {
                1 => return Ok(byte),
                0 => return Ok(0),
                _ if Error::last_os_error().kind() == ErrorKind::Interrupted => {}
                _ => return Err(Error::last_os_error()),
            }
        }
    }

    fn tell(&self, word: u8) -> Result<()> {
        let Some(control) = &self.control else { return Ok(()) };
        // SAFETY: one byte, only read; MSG_NOSIGNAL: no SIGPIPE.
        let n = unsafe { libc::send(control.as_raw_fd(), (&raw const word).cast(), 1, libc::MSG_NOSIGNAL) };
        if n == 1 { Ok(()) } else { Err(Error::last_os_error()) }
    }

    /// The processes are about to be killed: nobody is to be told that the connections end.
    ///
    /// # Errors
    /// When the process that holds them is gone.
    pub fn silence(&self) -> Result<()> {
        self.tell(SILENCE)?;
        match self.answer()? {
            SILENCE => Ok(()),
            _ => Err(Error::other("the process that holds TCP connections has ended")),
        }
    }

    /// They have been killed.
    pub fn finish(mut self) {
        let _ = self.tell(FINISH);
        // It goes on alone.
        self.control = None;
        self.child = 0;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // The end of the control connection tells it to let go.
        self.control = None;
        if self.child > 0 {
            // It has ended, one way or the other.
            let _ = child::wait(self.child);
        }
    }
}

/// Two ends of a connection between us and the child.
fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0_i32; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) } < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: fresh descriptors, owned by nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// The socket whose name a restore knows: abstract, `ckpt-` and the image's UUID.
///
/// # Errors
/// As bind(2).
pub fn door(uuid: &[u8; 16]) -> Result<OwnedFd> {
    use std::os::linux::net::SocketAddrExt;
    let name: String = uuid.iter().map(|b| format!("{b:02x}")).collect();
    let name = format!("ckpt-{name}");
    let addr = std::os::unix::net::SocketAddr::from_abstract_name(std::ffi::OsStr::new(&name).as_bytes())?;
    Ok(std::os::unix::net::UnixListener::bind_addr(&addr)?.into())
}

/// The life of the child.
///
/// # Safety
/// `memory` has room for what is held; nobody else uses it until the child's first word.
unsafe fn run_child(
    held: &[Held],
    memory: *mut u8,
    control: i32,
    kept: &[i32],
    afterwards: Option<&Afterwards>,
) -> ! {
    // SAFETY: raw system calls with memory that the caller promises; the process ends here.
    unsafe {
        child::seclude();
        // Among them our end of the control connection: who else has it would keep it open.
        child::close_all_but(kept);
        for h in held {
            let errno = filter(h.fd.as_raw_fd(), true);
            let found = memory.add(h.at).cast::<Found>();
            found.write(Found { errno, ..Found::default() });
        }
        for h in held {
            let found = &mut *memory.add(h.at).cast::<Found>();
            if found.errno == 0 {
                found.errno = look(h, found, memory.add(h.at + size_of::<Found>()));
            }
        }
        let tell = |word: u8| libc::send(control, (&raw const word).cast(), 1, libc::MSG_NOSIGNAL);
        let hear = || {
            let mut word = 0_u8;
            if libc::read(control, (&raw mut word).cast(), 1) == 1 { word } else { 0 }
        };
        tell(LOOKED);
        if hear() == SILENCE {
            held.iter().for_each(|h| {
                set(h.fd.as_raw_fd(), libc::SOL_TCP, TCP_REPAIR, ON);
            });
            tell(SILENCE);
            if hear() == FINISH {
                if let Some(a) = afterwards {
                    libc::close(control);
                    if let Some(guest) = wait_at(a) {
                        held.chunks(MAX_CARRIED).for_each(|h| hand_over(guest, h));
                    }
                }
                // Closed in repair mode, a connection ends without a word.
                held.iter().for_each(|h| {
                    libc::close(h.fd.as_raw_fd());
                });
                libc::_exit(0);
            }
            held.iter().for_each(|h| {
                leave_repair(h);
            });
        }
        held.iter().for_each(|h| {
            filter(h.fd.as_raw_fd(), false);
        });
        libc::_exit(0);
    }
}

/// Until somebody who may comes to the door, or the time is over. What is returned stays open until the end
/// of the process, when all else is closed.
fn wait_at(a: &Afterwards) -> Option<i32> {
    let mut left = a.time.as_millis().min(i32::MAX as u128) as i32;
    // SAFETY: raw system calls on descriptors of ours and memory of this frame.
    unsafe {
        let own = libc::geteuid();
        while left > 0 {
            let mut poll = libc::pollfd { fd: a.door.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let step = left.min(1000);
            match libc::poll(&raw mut poll, 1, step) {
                0 => left -= step,
                1 => {
                    let guest =
                        libc::accept4(a.door.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), 0);
                    let mut who = libc::ucred { pid: 0, uid: u32::MAX, gid: 0 };
                    let mut len = size_of::<libc::ucred>() as u32;
                    let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
                    libc::getsockopt(guest, level, name, (&raw mut who).cast(), &raw mut len);
                    if who.uid == 0 || who.uid == own {
                        return Some(guest);
                    }
                    libc::close(guest);
                }
                _ => return None,
            }
        }
    }
    None
}

/// Most descriptors in one message (SCM_MAX_FD).
const MAX_CARRIED: usize = 253;

/// Sends connections to whom they go on with. Failing that, they end here.
fn hand_over(guest: i32, held: &[Held]) {
    /// `struct cmsghdr` and the descriptors.
    #[repr(C, align(8))]
    struct Control {
        len: usize,
        level: i32,
        kind: i32,
        fds: [i32; MAX_CARRIED + 1],
    }
    let len = std::mem::offset_of!(Control, fds) + held.len() * size_of::<i32>();
    let fds = [-1; MAX_CARRIED + 1];
    let mut control = Control { len, level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS, fds };
    control.fds.iter_mut().zip(held).for_each(|(to, h)| *to = h.fd.as_raw_fd());
    let mut byte = 0_u8;
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: an all-zero `msghdr` is valid; what it leads to lives until the call returns, and is only read.
    unsafe {
        let mut msg: libc::msghdr = std::mem::zeroed();
        (msg.msg_iov, msg.msg_iovlen) = (&raw mut iov, 1);
        (msg.msg_control, msg.msg_controllen) = ((&raw mut control).cast(), len);
        libc::sendmsg(guest, &raw const msg, libc::MSG_NOSIGNAL);
    }
}

/// setsockopt(2) of an int: 0 or an errno.
fn set(fd: i32, level: i32, name: i32, value: i32) -> i32 {
    // SAFETY: an int as value.
    match unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), 4) } {
        0 => 0,
        _ => errno(),
    }
}

/// getsockopt(2) into `value`: 0 or an errno.
fn get<T>(fd: i32, name: i32, value: &mut T) -> i32 {
    let mut len = size_of::<T>() as u32;
    // SAFETY: `value` has `len` bytes, all values of which are valid for the integers used here.
    match unsafe { libc::getsockopt(fd, libc::SOL_TCP, name, std::ptr::from_mut(value).cast(), &raw mut len) }
    {
        0 => 0,
        _ => errno(),
    }
}

fn errno() -> i32 {
    // SAFETY: the errno of this thread.
    unsafe { *libc::__errno_location() }
}

/// Attaches a filter that drops everything, or detaches it. It needs no privilege.
fn filter(fd: i32, attach: bool) -> i32 {
    if !attach {
        return set(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0);
    }
    let mut nothing = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    let len = size_of::<libc::sock_fprog>() as u32;
    // SAFETY: a program of one instruction, only read.
    match unsafe { libc::setsockopt(fd, level, name, (&raw const program).cast(), len) } {
        0 => 0,
        _ => errno(),
    }
}

fn leave_repair(h: &Held) -> i32 {
    let left = set(h.fd.as_raw_fd(), libc::SOL_TCP, TCP_REPAIR, OFF);
    set(h.fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, h.reuse);
    left
}

/// In repair mode for as long as it takes: 0 or an errno. On an error nothing stays changed but the filter.
///
/// # Safety
/// `bytes` has room for what is held.
unsafe fn look(h: &Held, found: &mut Found, bytes: *mut u8) -> i32 {
    let fd = h.fd.as_raw_fd();
    match set(fd, libc::SOL_TCP, TCP_REPAIR, ON) {
        0 => {}
        errno => return errno,
    }
    let mut ask = || {
        let errors = [
            get(fd, libc::TCP_MAXSEG, &mut found.mss),
            get(fd, TCP_TIMESTAMP, &mut found.timestamp),
            get(fd, TCP_REPAIR_WINDOW, &mut found.window),
            set(fd, libc::SOL_TCP, TCP_REPAIR_QUEUE, RECEIVED),
            get(fd, TCP_QUEUE_SEQ, &mut found.received),
            set(fd, libc::SOL_TCP, TCP_REPAIR_QUEUE, SENT),
            get(fd, TCP_QUEUE_SEQ, &mut found.written),
            ask_int(fd, libc::TIOCOUTQ, &mut found.queued),
            ask_int(fd, SIOCOUTQNSD, &mut found.unsent),
        ];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: the caller promises room for as much.
        let n = if h.room > 0 { unsafe { libc::recv(fd, bytes.cast(), h.room, flags) } } else { 0 };
        let peeked = if n < 0 { errno() } else { 0 };
        found.len = n.max(0) as u32;
        set(fd, libc::SOL_TCP, TCP_REPAIR_QUEUE, NO_QUEUE);
        errors.into_iter().chain([peeked]).find(|e| *e != 0).unwrap_or(0)
    };
    let result = ask();
    leave_repair(h);
    result
}

/// ioctl(2) that gives an int.
fn ask_int(fd: i32, what: libc::Ioctl, value: &mut u32) -> i32 {
    // SAFETY: the kernel writes one int.
    match unsafe { libc::ioctl(fd, what, std::ptr::from_mut(value)) } {
        0 => 0,
        _ => errno(),
    }
}
