//! Questions about sockets.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

fn check(result: i32) -> Result<i32> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// A socket of our own.
///
/// # Errors
/// As socket(2).
pub fn socket(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: a fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// getsockopt(2), at most 256 bytes of value. Never ask for SO_ERROR: reading it clears it.
///
/// # Errors
/// ENOPROTOOPT, EOPNOTSUPP where the socket has no such option.
pub fn option(fd: BorrowedFd<'_>, level: i32, name: i32) -> Result<Vec<u8>> {
    debug_assert!((level, name) != (libc::SOL_SOCKET, libc::SO_ERROR));
    let mut value = vec![0_u8; 256];
    let mut len = value.len() as libc::socklen_t;
    // SAFETY: `value` has `len` bytes.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len) })?;
    value.truncate(len as usize);
    Ok(value)
}

/// getsockopt(2) of an int.
///
/// # Errors
/// As [`option`].
pub fn option_int(fd: BorrowedFd<'_>, level: i32, name: i32) -> Result<i32> {
    let value = option(fd, level, name)?;
    value.first_chunk().map(|b| i32::from_ne_bytes(*b)).ok_or_else(|| Error::other("short socket option"))
}

/// The classic BPF program of SO_ATTACH_FILTER: `struct sock_filter`s. (SO_GET_FILTER counts instructions,
/// not bytes; with length 0 it only tells how many there are.)
///
/// # Errors
/// An eBPF program, which cannot be read back.
pub fn filter(fd: BorrowedFd<'_>) -> Result<Option<Vec<u8>>> {
    const INSTRUCTION: usize = 8;
    let get = |value: *mut libc::c_void, count: &mut libc::socklen_t| {
        // SAFETY: the callers give room for `count` instructions.
        check(unsafe {
            libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_GET_FILTER, value, count)
        })
    };
    let mut count: libc::socklen_t = 0;
    if let Err(e) = get(std::ptr::null_mut(), &mut count) {
        return match e.raw_os_error() {
            Some(libc::EACCES) => Err(Error::other("an eBPF program cannot be read back")),
            _ => Ok(None),
        };
    }
    if count == 0 {
        return Ok(None);
    }
    let mut program = vec![0_u8; count as usize * INSTRUCTION];
    get(program.as_mut_ptr().cast(), &mut count)?;
    program.truncate(count as usize * INSTRUCTION);
    Ok(Some(program))
}

/// getsockopt(2) MCAST_MSFILTER for the group in `request` (interface and address of `struct
/// group_filter`): all of that structure, or `None` when the socket has not joined it.
#[must_use]
pub fn group_filter(fd: BorrowedFd<'_>, level: i32, request: &[u8]) -> Option<Vec<u8>> {
    const MCAST_MSFILTER: i32 = 48;
    /// Up to its list of sources; one of them.
    const HEAD: usize = 144;
    const SOURCE: usize = 128;
    let mut room = 0_u32;
    loop {
        let mut filter = vec![0_u8; HEAD + room as usize * SOURCE];
        filter[..136].copy_from_slice(request.get(..136)?);
        filter[140..HEAD].copy_from_slice(&room.to_ne_bytes());
        let mut len = filter.len() as libc::socklen_t;
        // SAFETY: `filter` has `len` bytes, and room for as many sources as it says.
        check(unsafe {
            libc::getsockopt(fd.as_raw_fd(), level, MCAST_MSFILTER, filter.as_mut_ptr().cast(), &raw mut len)
        })
        .ok()?;
        let sources = u32::from_ne_bytes(*filter[140..].first_chunk()?);
        if sources <= room {
            filter.truncate(HEAD + sources as usize * SOURCE);
            return Some(filter);
        }
        room = sources;
    }
}

type NameCall = unsafe extern "C" fn(i32, *mut libc::sockaddr, *mut libc::socklen_t) -> i32;

fn name(call: NameCall, fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut addr = vec![0_u8; 128];
    let mut len = addr.len() as libc::socklen_t;
    // SAFETY: `addr` has `len` bytes.
    check(unsafe { call(fd.as_raw_fd(), addr.as_mut_ptr().cast(), &raw mut len) })?;
    addr.truncate(len as usize);
    Ok(addr)
}

/// getsockname(2): a `struct sockaddr_*`.
///
/// # Errors
/// As getsockname(2).
pub fn local_name(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    name(libc::getsockname, fd)
}

/// getpeername(2): `None` when not connected.
///
/// # Errors
/// As getpeername(2).
pub fn peer_name(fd: BorrowedFd<'_>) -> Result<Option<Vec<u8>>> {
    match name(libc::getpeername, fd) {
        Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => Ok(None),
        other => other.map(Some),
    }
}

/// A message that was looked at but left in its queue.
#[derive(Debug, Default)]
pub struct Peeked {
    pub bytes: Vec<u8>,
    /// `struct sockaddr_un` of the sender, empty for none.
    pub from: Vec<u8>,
    /// Duplicates of the descriptors that it carries (SCM_RIGHTS).
    pub descriptors: Vec<OwnedFd>,
    /// What else comes with it.
    pub control: Vec<Control>,
    /// There was no room for all of that.
    pub truncated: bool,
}

/// `struct cmsghdr` and its data.
#[derive(Clone, Debug, Default)]
pub struct Control {
    pub level: i32,
    pub kind: i32,
    pub bytes: Vec<u8>,
}

/// MSG_PEEK of at most `max` bytes: `None` when the queue is empty (or over).
///
/// # Errors
/// As recvmsg(2).
pub fn peek(fd: BorrowedFd<'_>, max: usize) -> Result<Option<Peeked>> {
    let mut bytes = vec![0_u8; max.max(1)];
    let mut from = vec![0_u8; 128];
    // Aligned, and large enough for credentials and the 253 descriptors that one message can carry.
    let mut control = vec![0_u64; 256];
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero `msghdr` is valid.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_name = from.as_mut_ptr().cast();
    msg.msg_namelen = from.len() as u32;
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.as_mut_ptr().cast();
    msg.msg_controllen = control.len() * 8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: all buffers live and have the lengths given.
    let n = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut msg, flags) };
    let Ok(n) = usize::try_from(n) else {
        let e = Error::last_os_error();
        return if e.raw_os_error() == Some(libc::EAGAIN) { Ok(None) } else { Err(e) };
    };
    bytes.truncate(n);
    from.truncate(msg.msg_namelen as usize);
    let (descriptors, control) = received(&msg);
    let truncated = msg.msg_flags & libc::MSG_CTRUNC != 0;
    Ok(Some(Peeked { bytes, from, descriptors, control, truncated }))
}

/// Of the `len` bytes that a peek has found in a stream: how many were sent before the last of the
/// messages that they come from. Every peek shows descriptors that come with the next message but one,
/// so the kernel is made to stop there: it copies message by message, and memory for all but one byte
/// has no room for the last one.
///
/// # Errors
/// As recvmsg(2).
pub fn peek_all_but_last(fd: BorrowedFd<'_>, len: usize) -> Result<usize> {
    let mut bytes = vec![0_u8; len];
    // Nothing is ever mapped at address 0.
    let mut iov = [
        libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len.saturating_sub(1) },
        libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 4096 },
    ];
    // SAFETY: an all-zero `msghdr` is valid.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    (msg.msg_iov, msg.msg_iovlen) = (iov.as_mut_ptr(), iov.len());
    // SAFETY: the first buffer has its length; the kernel cannot write to the second one. Without a
    // control buffer, no descriptor is installed.
    let n = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut msg, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    match usize::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => match Error::last_os_error() {
            // There is but one message.
            e if e.raw_os_error() == Some(libc::EFAULT) => Ok(0),
            e => Err(e),
        },
    }
}

/// The descriptors that recvmsg(2) installed in our table, and the other control messages.
pub(super) fn received(msg: &libc::msghdr) -> (Vec<OwnedFd>, Vec<Control>) {
    let (mut all, mut others) = (Vec::new(), Vec::new());
    // SAFETY: recvmsg filled in `msg`; the CMSG macros walk within its control buffer, each item has the
    // length that it says, and one of SCM_RIGHTS holds descriptors that the kernel has just installed for us.
    unsafe {
        let mut item = libc::CMSG_FIRSTHDR(msg);
        while !item.is_null() {
            let len = (*item).cmsg_len - libc::CMSG_LEN(0) as usize;
            let (level, kind) = ((*item).cmsg_level, (*item).cmsg_type);
            if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let fds = libc::CMSG_DATA(item).cast::<i32>();
                all.extend((0..len / 4).map(|i| OwnedFd::from_raw_fd(fds.add(i).read_unaligned())));
            } else {
                let bytes = std::slice::from_raw_parts(libc::CMSG_DATA(item), len).to_vec();
                others.push(Control { level, kind, bytes });
            }
            item = libc::CMSG_NXTHDR(msg, item);
        }
    }
    (all, others)
}

/// Sets SO_PEEK_OFF for as long as it lives, so that successive [`peek`]s walk a queue of messages.
/// (The only way to see more than the first. It affects nothing but MSG_PEEK, and is undone on drop.)
#[derive(Debug)]
pub struct PeekWalk<'a> {
    fd: BorrowedFd<'a>,
    before: i32,
}

impl<'a> PeekWalk<'a> {
    /// Starts at the head of the queue.
    ///
    /// # Errors
    /// EOPNOTSUPP where the socket has no such option.
    pub fn start(fd: BorrowedFd<'a>) -> Result<Self> {
        let before = option_int(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF)?;
        set_peek_offset(fd, 0)?;
        Ok(Self { fd, before })
    }

    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'a> {
        self.fd
    }

    /// The next peek begins at byte `offset` of the queue.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn seek(&mut self, offset: usize) -> Result<()> {
        set_peek_offset(self.fd, i32::try_from(offset).map_err(Error::other)?)
    }
}

impl Drop for PeekWalk<'_> {
    fn drop(&mut self) {
        // It could be set a moment ago, so it can be set now.
        let _ = set_peek_offset(self.fd, self.before);
    }
}

fn set_peek_offset(fd: BorrowedFd<'_>, offset: i32) -> Result<()> {
    // SAFETY: an int as value.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw const offset).cast(),
            size_of::<i32>() as u32,
        )
    })
    .map(drop)
}

/// SO_RCVLOWAT. Of a TCP socket it also enlarges the receive buffer where that is smaller
/// (net/ipv4/tcp.c, tcp_set_rcvlowat).
///
/// # Errors
/// As setsockopt(2).
pub fn set_receive_low_water(fd: BorrowedFd<'_>, bytes: i32) -> Result<()> {
    let (level, name) = (libc::SOL_SOCKET, libc::SO_RCVLOWAT);
    // SAFETY: an int as value.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const bytes).cast(), 4) }).map(drop)
}

/// SO_LINGER of 0 seconds: the last close(2) sends RST, and nothing lingers in TIME_WAIT.
///
/// # Errors
/// As setsockopt(2).
pub fn reset_when_closed(fd: BorrowedFd<'_>) -> Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let (level, name, len) = (libc::SOL_SOCKET, libc::SO_LINGER, size_of_val(&linger) as u32);
    // SAFETY: a struct linger as value.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const linger).cast(), len) }).map(drop)
}

/// Looks at the `len` bytes that a TCP socket has sent and that were not acknowledged: in repair mode, for
/// a moment. Leaving that mode takes SO_REUSEADDR away, which is put back.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN.
pub fn send_queue(fd: BorrowedFd<'_>, len: usize) -> Result<Vec<u8>> {
    const TCP_REPAIR: i32 = 19;
    const TCP_REPAIR_QUEUE: i32 = 20;
    const TCP_SEND_QUEUE: i32 = 2;
    const OFF_WITHOUT_PROBE: i32 = -1;
    let set = |level, name, value: i32| {
        // SAFETY: an int as value.
        let r = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), 4) };
        check(r).map(drop)
    };
    let mut bytes = vec![0_u8; len];
    let reuse = option_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    set(libc::SOL_TCP, TCP_REPAIR, 1)?;
    let looked = set(libc::SOL_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE).and_then(|()| {
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: `bytes` has the length given.
        let n = unsafe { libc::recv(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), len, flags) };
        check(n as i32)
    });
    set(libc::SOL_TCP, TCP_REPAIR, OFF_WITHOUT_PROBE)?;
    set(libc::SOL_SOCKET, libc::SO_REUSEADDR, reuse)?;
    match looked? as usize {
        // The end of the stream (shutdown) counts as one.
        n if n == len || n + 1 == len => {
            bytes.truncate(n);
            Ok(bytes)
        }
        n => Err(Error::other(format!("only {n} of {len} bytes can be seen"))),
    }
}

/// Sends one netlink request and returns the raw replies.
///
/// # Errors
/// As send(2) and recv(2).
pub fn netlink_dump(socket: BorrowedFd<'_>, request: &[u8]) -> Result<Vec<u8>> {
    // SAFETY: `request` has the length given.
    let n = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    check(n as i32)?;
    let mut all = Vec::new();
    let mut buf = vec![0_u8; 64 << 10];
    loop {
        // SAFETY: `buf` has the length given.
        let n = unsafe { libc::recv(socket.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), 0) };
        let n = check(n as i32)? as usize;
        all.extend_from_slice(&buf[..n]);
        // NLMSG_ERROR 2 or NLMSG_DONE 3 ends it.
        let kind = buf.get(4..6).map_or(3, |b| u16::from_ne_bytes([b[0], b[1]]));
        if n < 16 || kind == 2 || ends_with_done(&buf[..n]) {
            return Ok(all);
        }
    }
}

/// Whether a message of type NLMSG_DONE is among these.
fn ends_with_done(mut bytes: &[u8]) -> bool {
    while let Some(head) = bytes.first_chunk::<8>() {
        let len = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if u16::from_ne_bytes([head[4], head[5]]) == 3 {
            return true;
        }
        let Some(rest) = bytes.get(len.max(16).next_multiple_of(4)..) else { return false };
        bytes = rest;
    }
    false
}

/// Joins the network namespace of `pid`, for the calling thread only.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over it.
pub fn enter_netns(namespace: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}
