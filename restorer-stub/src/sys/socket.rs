//! Sockets.

use super::{Errno, Fd, Result, sys};

/// Numbers of include/linux/socket.h, include/linux/net.h and asm-generic/socket.h.
pub const AF_UNIX: u32 = 1;
pub const AF_INET: u32 = 2;
pub const AF_INET6: u32 = 10;
pub const SOCK_STREAM: u32 = 1;
pub const SOCK_DGRAM: u32 = 2;
pub const SOCK_RAW: u32 = 3;
pub const SOCK_CLOEXEC: u32 = 0o2_000_000;
pub const SOL_SOCKET: u32 = 1;
pub const SO_REUSEADDR: u32 = 2;
pub const SO_ERROR: u32 = 4;
pub const SO_SNDBUF: u32 = 7;
pub const SO_RCVBUF: u32 = 8;
pub const SO_DETACH_FILTER: u32 = 27;
pub const SO_LINGER: u32 = 13;
pub const SO_MEMINFO: u32 = 55;
pub const SO_BUF_LOCK: u32 = 72;
const MSG_DONTWAIT: u32 = 0x40;
const MSG_NOSIGNAL: u32 = 0x4000;

/// socket(2), close-on-exec.
pub fn socket(family: u32, kind: u32, protocol: u32) -> Result<Fd> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_socket, family, kind | SOCK_CLOEXEC, protocol) }.map(|fd| Fd(fd as i32))
}

/// socketpair(2) of unix sockets, close-on-exec.
pub fn pair(kind: u32) -> Result<(Fd, Fd)> {
    let mut fds = [0i32; 2];
    // SAFETY: the kernel writes two ints.
    unsafe { sys!(__NR_socketpair, AF_UNIX, kind | SOCK_CLOEXEC, 0, fds.as_mut_ptr()) }?;
    Ok((Fd(fds[0]), Fd(fds[1])))
}

/// bind(2) to a `struct sockaddr_*`.
pub fn bind(fd: Fd, addr: &[u8]) -> Result<()> {
    // SAFETY: the address is only read.
    unsafe { sys!(__NR_bind, fd.0, addr.as_ptr(), addr.len()) }.map(drop)
}

pub fn connect(fd: Fd, addr: &[u8]) -> Result<()> {
    // SAFETY: the address is only read.
    unsafe { sys!(__NR_connect, fd.0, addr.as_ptr(), addr.len()) }.map(drop)
}

pub fn listen(fd: Fd, backlog: u32) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_listen, fd.0, backlog) }.map(drop)
}

/// accept4(2) without the address, close-on-exec.
pub fn accept(fd: Fd) -> Result<Fd> {
    // SAFETY: no address is asked for.
    unsafe { sys!(__NR_accept4, fd.0, 0, 0, SOCK_CLOEXEC) }.map(|fd| Fd(fd as i32))
}

/// The `struct sockaddr_*` of a bound socket; its length.
pub fn local_name(fd: Fd, addr: &mut [u8; 32]) -> Result<usize> {
    let mut len = addr.len() as u32;
    // SAFETY: the kernel writes at most `len` bytes of `addr`, and the length.
    unsafe { sys!(__NR_getsockname, fd.0, addr.as_mut_ptr(), &raw mut len) }?;
    Ok((len as usize).min(addr.len()))
}

/// As [`local_name`], of the other end.
pub fn peer_name(fd: Fd, addr: &mut [u8; 32]) -> Result<usize> {
    let mut len = addr.len() as u32;
    // SAFETY: the kernel writes at most `len` bytes of `addr`, and the length.
    unsafe { sys!(__NR_getpeername, fd.0, addr.as_mut_ptr(), &raw mut len) }?;
    Ok((len as usize).min(addr.len()))
}

pub fn set_option(fd: Fd, level: u32, name: u32, value: &[u8]) -> Result<()> {
    // SAFETY: the value is only read.
    unsafe { sys!(__NR_setsockopt, fd.0, level, name, value.as_ptr(), value.len()) }.map(drop)
}

pub fn set_option_int(fd: Fd, level: u32, name: u32, value: i32) -> Result<()> {
    set_option(fd, level, name, &value.to_le_bytes())
}

/// SO_ATTACH_FILTER of `struct sock_filter`s, 8 bytes each.
pub fn attach_filter(fd: Fd, program: &[u8]) -> Result<()> {
    /// `struct sock_fprog`.
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const u8,
    }
    const SO_ATTACH_FILTER: u32 = 26;
    let len = u16::try_from(program.len() / 8).map_err(|_| super::Errno::EINVAL)?;
    let program = Program { len, filter: program.as_ptr() };
    // SAFETY: both are only read, and the program has the length that it says.
    unsafe {
        sys!(__NR_setsockopt, fd.0, SOL_SOCKET, SO_ATTACH_FILTER, &raw const program, size_of::<Program>())
    }
    .map(drop)
}

pub fn option_int(fd: Fd, level: u32, name: u32) -> Result<i32> {
    let mut value = 0i32;
    let mut len = size_of::<i32>() as u32;
    // SAFETY: the kernel writes at most `len` bytes of `value`, and the length.
    unsafe { sys!(__NR_getsockopt, fd.0, level, name, &raw mut value, &raw mut len) }?;
    Ok(value)
}

/// Most descriptors in one message (SCM_MAX_FD).
pub const MAX_CARRIED: usize = 253;

/// `struct cmsghdr` and the descriptors.
#[repr(C, align(8))]
struct Control {
    len: usize,
    level: u32,
    kind: u32,
    fds: [i32; MAX_CARRIED + 1],
}

/// sendmsg(2) without waiting and without SIGPIPE, with descriptors (SCM_RIGHTS); an empty address for
/// a connected socket.
pub fn send_with(fd: Fd, bytes: &[u8], addr: &[u8], carried: &[i32]) -> Result<usize> {
    const SCM_RIGHTS: u32 = 1;
    let head = core::mem::offset_of!(Control, fds);
    let len = head + size_of_val(carried);
    let mut control = Control { len, level: SOL_SOCKET, kind: SCM_RIGHTS, fds: [0; MAX_CARRIED + 1] };
    control.fds[..carried.len()].copy_from_slice(carried);
    let iov = [bytes.as_ptr() as usize, bytes.len()];
    // `struct msghdr`.
    let mut msg = [0usize; 7];
    if !addr.is_empty() {
        (msg[0], msg[1]) = (addr.as_ptr() as usize, addr.len());
    }
    (msg[2], msg[3]) = (iov.as_ptr() as usize, 1);
    if !carried.is_empty() {
        (msg[4], msg[5]) = (&raw const control as usize, len);
    }
    let flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    // SAFETY: bytes, address and control message live until the call returns, and are only read.
    unsafe { sys!(__NR_sendmsg, fd.0, msg.as_ptr(), flags) }
}

/// Waits for a message with a descriptor, and leaves it there for others: a new descriptor, close-on-exec.
pub fn peek_descriptor(fd: Fd) -> Result<Fd> {
    const MSG_PEEK: u32 = 2;
    const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;
    // `struct cmsghdr` (length, level and type), the descriptor, padding.
    let mut control = [0u64; 3];
    let mut byte = 0u8;
    let iov = [&raw mut byte as usize, 1];
    let mut msg = [0usize, 0, iov.as_ptr() as usize, 1, control.as_mut_ptr() as usize, 24, 0];
    loop {
        // SAFETY: byte and control message have the lengths that the message says, and live until the call
        // returns; the kernel may also change `msg`, which is not looked at any more.
        match unsafe { sys!(__NR_recvmsg, fd.0, msg.as_mut_ptr(), MSG_PEEK | MSG_CMSG_CLOEXEC) } {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
            Ok(_) if control[0] < 20 => return Err(Errno::EBADF),
            Ok(_) => return Ok(Fd(control[2] as i32)),
        }
    }
}

/// Waits for a message with descriptors: how many (close-on-exec) are in `into` now; `None` at the end.
pub fn receive_descriptors(fd: Fd, into: &mut [i32; MAX_CARRIED]) -> Result<Option<usize>> {
    const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;
    let mut control = Control { len: 0, level: 0, kind: 0, fds: [0; MAX_CARRIED + 1] };
    let mut byte = 0u8;
    let iov = [&raw mut byte as usize, 1];
    loop {
        let room = size_of::<Control>();
        let mut msg = [0usize, 0, iov.as_ptr() as usize, 1, &raw mut control as usize, room, 0];
        // SAFETY: byte and control message have the lengths that the message says, and live until the call
        // returns; the kernel may also change `msg`, which is not looked at any more.
        match unsafe { sys!(__NR_recvmsg, fd.0, msg.as_mut_ptr(), MSG_CMSG_CLOEXEC) } {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
            Ok(0) => return Ok(None),
            Ok(_) => {
                let head = core::mem::offset_of!(Control, fds);
                let count = (control.len.saturating_sub(head) / size_of::<i32>()).min(MAX_CARRIED);
                into[..count].copy_from_slice(&control.fds[..count]);
                return Ok(Some(count));
            }
        }
    }
}

/// sendmsg(2) of one message in two parts.
pub fn send_parts(fd: Fd, parts: [&[u8]; 2], addr: &[u8]) -> Result<usize> {
    let iov = parts.map(|part| [part.as_ptr() as usize, part.len()]);
    // `struct msghdr`.
    let msg = [addr.as_ptr() as usize, addr.len(), iov.as_ptr() as usize, iov.len(), 0, 0, 0];
    // SAFETY: parts and address live until the call returns, and are only read.
    unsafe { sys!(__NR_sendmsg, fd.0, msg.as_ptr(), MSG_DONTWAIT | MSG_NOSIGNAL) }
}

/// Sends nothing, but gives a socket without a name one, as sending does (MSG_CONFIRM with MSG_PROBE and no
/// bytes ends there: net/ipv4/udp.c, udp_sendmsg).
pub fn give_name(fd: Fd, to: &[u8]) -> Result<()> {
    const MSG_PROBE: u32 = 0x10;
    const MSG_CONFIRM: u32 = 0x800;
    // SAFETY: no bytes are sent; the address is only read.
    unsafe { sys!(__NR_sendto, fd.0, 0, 0, MSG_CONFIRM | MSG_PROBE, to.as_ptr(), to.len()) }.map(drop)
}

/// Takes the first message that waits and forgets it; false when there is none.
pub fn discard(fd: Fd) -> bool {
    let mut byte = 0u8;
    // SAFETY: the kernel writes at most one byte; no address is asked for.
    unsafe { sys!(__NR_recvfrom, fd.0, &raw mut byte, 1, MSG_DONTWAIT, 0, 0) }.is_ok()
}

/// Looks at the first byte that waits, and leaves it there.
pub fn peek(fd: Fd) {
    const MSG_PEEK: u32 = 2;
    let mut byte = 0u8;
    // SAFETY: the kernel writes at most one byte; no address is asked for.
    let _ = unsafe { sys!(__NR_recvfrom, fd.0, &raw mut byte, 1, MSG_PEEK | MSG_DONTWAIT, 0, 0) };
}

/// `how` as shutdown(2): SHUT_RD 0, SHUT_WR 1, SHUT_RDWR 2.
pub fn shutdown(fd: Fd, how: u32) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_shutdown, fd.0, how) }.map(drop)
}
