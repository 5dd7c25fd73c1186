//! A process that stays when ckpt-dump has ended, and how it is spoken to: unix sockets that carry descriptors.

use super::{child, socket};
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::mem::{offset_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Most descriptors in one message of ours.
const MOST: usize = 4;

/// Forks a process that does `work` with its end of a connection, and ends. It is in a session of its own, holds
/// nothing open that we have, and reacts to signals as any program.
///
/// # Errors
/// EAGAIN when there is no process to be had.
///
/// # Safety
/// We have no other thread: it might hold a lock that `work` needs.
pub unsafe fn spawn(name: &std::ffi::CStr, work: impl FnOnce(UnixStream)) -> Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: the child ends in here, and no other thread held a lock.
    let child = unsafe { child::fork() }?;
    if child != 0 {
        let status = child::wait(child)?;
        return if status == 0 { Ok(ours) } else { Err(ErrorKind::WouldBlock.into()) };
    }
    // Not our child: nobody here would wait for it.
    // SAFETY: as above.
    match unsafe { child::fork() } {
        Ok(0) => {}
        // SAFETY: ends the process.
        other => unsafe { libc::_exit(i32::from(other.is_err())) },
    }
    // SAFETY: calls with numbers, or pointers to what lives here. Descriptors are closed whose owners on this copy
    // of the stack are never used again; the process ends by _exit(2).
    unsafe {
        libc::setsid();
        for fd in 0..3 {
            libc::dup2(null.as_raw_fd(), fd);
        }
        child::close_all_but(&[0, 1, 2, theirs.as_raw_fd()]);
        libc::chdir(c"/".as_ptr());
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(theirs)));
    // SAFETY: ends the process.
    unsafe { libc::_exit(i32::from(done.is_err())) }
}

/// Pid and uid of who has the other end of a connection, or listens there.
///
/// # Errors
/// As getsockopt(2).
pub fn peer(stream: &UnixStream) -> Result<(i32, u32)> {
    let mut who = libc::ucred { pid: 0, uid: u32::MAX, gid: 0 };
    let mut len = size_of::<libc::ucred>() as u32;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: a `struct ucred` and its length.
    let r = unsafe { libc::getsockopt(stream.as_raw_fd(), level, name, (&raw mut who).cast(), &raw mut len) };
    if r < 0 { Err(Error::last_os_error()) } else { Ok((who.pid, who.uid)) }
}

/// `struct cmsghdr` and descriptors.
#[repr(C, align(8))]
struct Control {
    len: usize,
    level: i32,
    kind: i32,
    fds: [i32; MOST],
}

/// Sends a message with descriptors.
///
/// # Errors
/// As sendmsg(2).
pub fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut control = Control {
        len: offset_of!(Control, fds) + size_of_val(fds),
        level: libc::SOL_SOCKET,
        kind: libc::SCM_RIGHTS,
        fds: [-1; MOST],
    };
    if fds.len() > MOST {
        return Err(ErrorKind::InvalidInput.into());
    }
    control.fds.iter_mut().zip(fds).for_each(|(to, fd)| *to = fd.as_raw_fd());
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero `msghdr` is valid; what it leads to lives until the call returns, and is only read.
    let sent = unsafe {
        let mut msg: libc::msghdr = zeroed();
        (msg.msg_iov, msg.msg_iovlen) = (&raw mut iov, 1);
        if !fds.is_empty() {
            (msg.msg_control, msg.msg_controllen) = ((&raw mut control).cast(), control.len);
        }
        libc::sendmsg(stream.as_raw_fd(), &raw const msg, libc::MSG_NOSIGNAL)
    };
    match usize::try_from(sent) {
        Err(_) => Err(Error::last_os_error()),
        Ok(n) if n == bytes.len() => Ok(()),
        Ok(_) => Err(ErrorKind::WriteZero.into()),
    }
}

/// Receives a message of exactly this length, with its descriptors.
///
/// # Errors
/// UnexpectedEof at the end; as recvmsg(2).
pub fn receive(stream: &UnixStream, bytes: &mut [u8]) -> Result<Vec<OwnedFd>> {
    let mut control = [0_u64; 16];
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero `msghdr` is valid; its buffers live until the call returns and have the lengths given.
    let (got, fds) = unsafe {
        let mut msg: libc::msghdr = zeroed();
        (msg.msg_iov, msg.msg_iovlen) = (&raw mut iov, 1);
        (msg.msg_control, msg.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control));
        let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_WAITALL;
        let got = libc::recvmsg(stream.as_raw_fd(), &raw mut msg, flags);
        (got, if got < 0 { Vec::new() } else { socket::received(&msg).0 })
    };
    match usize::try_from(got) {
        Err(_) => Err(Error::last_os_error()),
        Ok(n) if n == bytes.len() => Ok(fds),
        Ok(_) => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// Which of these can be read from, or have ended; waits until there is one.
///
/// # Errors
/// As poll(2).
pub fn wait(fds: &[BorrowedFd<'_>]) -> Result<Vec<bool>> {
    let pollfd = |fd: &BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut all: Vec<libc::pollfd> = fds.iter().map(pollfd).collect();
    // SAFETY: as many as it says.
    if unsafe { libc::poll(all.as_mut_ptr(), all.len() as u64, -1) } < 0 {
        return Err(Error::last_os_error());
    }
    Ok(all.iter().map(|p| p.revents != 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn messages_carry_descriptors() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"x").unwrap();
        send(&a, b"hello", &[file.as_fd(), a.as_fd()]).unwrap();
        send(&a, b"again", &[]).unwrap();
        let mut five = [0; 5];
        let fds = receive(&b, &mut five).unwrap();
        assert_eq!((&five, fds.len()), (b"hello", 2));
        assert_eq!(File::from(fds.into_iter().next().unwrap()).metadata().unwrap().len(), 1);
        assert!(receive(&b, &mut five).unwrap().is_empty() && &five == b"again");
        assert_eq!(peer(&b).unwrap().0, std::process::id() as i32);
        drop(a);
        assert!(wait(&[b.as_fd()]).unwrap()[0]);
        assert!(receive(&b, &mut five).is_err());
        assert_eq!((&b).read(&mut five).unwrap(), 0);
    }
}
