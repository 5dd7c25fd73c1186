//! POSIX message queues: attributes, and a look at the messages.

use super::guard::{self, SharedMemory};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct mq_attr`: flags, most messages, size of a message, messages now.
pub type Attributes = [i64; 8];

/// mq_getsetattr(2), without setting.
///
/// # Errors
/// EBADF when it is no queue.
pub fn attributes(queue: BorrowedFd<'_>) -> Result<Attributes> {
    let mut now: Attributes = [0; 8];
    // SAFETY: the kernel writes one `struct mq_attr`, 64 bytes.
    let r = unsafe {
        libc::syscall(libc::SYS_mq_getsetattr, queue.as_raw_fd(), std::ptr::null::<u8>(), now.as_mut_ptr())
    };
    if r < 0 { Err(Error::last_os_error()) } else { Ok(now) }
}

/// Bytes in front of each message in the shared memory: length and priority.
const HEAD: usize = 16;

/// All messages of a queue (open for both, with O_NONBLOCK), with their priorities, in the order in which
/// they would be received. Nobody else may use the queue meanwhile.
///
/// The kernel lets nobody look at messages. So all are received and sent again, which restores the order.
/// A process of its own does that, in its own session and with all signals blocked: should this one be
/// killed, it goes on to the end.
///
/// # Errors
/// EMSGSIZE and the like when the queue is not what `attributes` says; ENOMEM.
pub fn look(queue: BorrowedFd<'_>, attributes: &Attributes) -> Result<Vec<(u32, Vec<u8>)>> {
    let (size, count) = (attributes[2] as usize, attributes[3] as usize);
    let slot = HEAD + size.next_multiple_of(8);
    // The first word says how many there were.
    let mut memory = SharedMemory::new(8 + slot * count.max(1))?;
    // SAFETY: it allocates nothing and takes no lock; the memory has room for `count` slots.
    unsafe {
        guard::run(&mut memory, |memory| {
            take_and_return(queue.as_raw_fd(), memory.as_mut_ptr(), slot, size, count)
        })?;
    }
    let bytes = memory.bytes();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let messages = (0..word(0) as usize).map(|i| {
        let at = 8 + i * slot;
        let len = (word(at) as usize).min(size);
        (word(at + 8) as u32, bytes[at + HEAD..at + HEAD + len].to_vec())
    });
    Ok(messages.collect())
}

/// Receives up to `count` messages into slots and sends them again. Gives an errno, or 0.
///
/// # Safety
/// `at` points to 8 bytes and `count` slots, of which each has room for `size` bytes.
unsafe fn take_and_return(queue: i32, at: *mut u8, slot: usize, size: usize, count: usize) -> i32 {
    // SAFETY: raw system calls with memory that the caller promises.
    unsafe {
        let head = |i: usize| at.add(8 + i * slot).cast::<u64>();
        let text = |i: usize| at.add(8 + i * slot + HEAD);
        let mut taken = 0;
        let mut error = 0;
        while taken < count {
            let mut priority = 0u32;
            let none = std::ptr::null::<libc::timespec>();
            let n =
                libc::syscall(libc::SYS_mq_timedreceive, queue, text(taken), size, &raw mut priority, none);
            if n < 0 {
                let e = *libc::__errno_location();
                error = if e == libc::EAGAIN { 0 } else { e };
                break;
            }
            head(taken).write(n as u64);
            head(taken).add(1).write(u64::from(priority));
            taken += 1;
        }
        at.cast::<u64>().write(taken as u64);
        for i in 0..taken {
            let (len, priority) = (head(i).read(), head(i).add(1).read());
            let none = std::ptr::null::<libc::timespec>();
            // Full only if somebody else has sent meanwhile.
            while libc::syscall(libc::SYS_mq_timedsend, queue, text(i), len, priority, none) < 0 {
                let e = *libc::__errno_location();
                if e != libc::EAGAIN && e != libc::EINTR {
                    error = e;
                    break;
                }
                libc::usleep(1000);
            }
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{FromRawFd, OwnedFd};

    #[test]
    fn looking_changes_nothing() {
        let name = format!("ckpt-test-{}\0", std::process::id());
        let mut wanted: Attributes = [0; 8];
        (wanted[1], wanted[2]) = (5, 40);
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NONBLOCK;
        // SAFETY: a NUL-terminated name and one `struct mq_attr`.
        let fd = unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0o600, wanted.as_ptr()) };
        if fd < 0 {
            return;
        }
        // SAFETY: a new descriptor that nobody else owns.
        let queue = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        // SAFETY: a NUL-terminated name.
        unsafe { libc::syscall(libc::SYS_mq_unlink, name.as_ptr()) };
        for (text, priority) in [("one", 1), ("two", 7), ("three", 1), ("", 0), ("five", 7)] {
            // SAFETY: the text is only read.
            let r =
                unsafe { libc::syscall(libc::SYS_mq_timedsend, fd, text.as_ptr(), text.len(), priority, 0) };
            assert_eq!(r, 0);
        }
        use std::os::fd::AsFd;
        for _ in 0..3 {
            let found = look(queue.as_fd(), &attributes(queue.as_fd()).unwrap()).unwrap();
            let found: Vec<_> = found.iter().map(|(p, t)| (*p, std::str::from_utf8(t).unwrap())).collect();
            assert_eq!(found, [(7, "two"), (7, "five"), (1, "one"), (1, "three"), (0, "")]);
        }
        assert_eq!(attributes(queue.as_fd()).unwrap()[3], 5);
    }
}
