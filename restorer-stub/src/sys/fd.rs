//! Descriptors and files.

use super::{CPath, Errno, Fd, Result, sys};
pub use linux_raw_sys::general::stat as Stat;
use linux_raw_sys::general::*;

/// openat(2) relative to the working directory, O_CLOEXEC always.
pub fn open(path: &[u8], flags: u32, mode: u32) -> Result<Fd> {
    open_at(Fd::CWD, &CPath::new(path)?, flags, mode)
}

pub fn open_at(dir: Fd, path: &CPath, flags: u32, mode: u32) -> Result<Fd> {
    // SAFETY: `path` is NUL-terminated and only read.
    unsafe { sys!(__NR_openat, dir.0, path.as_ptr(), flags | O_CLOEXEC, mode) }.map(|fd| Fd(fd as i32))
}

pub fn close(fd: Fd) {
    // SAFETY: touches no memory; an error means that the number was not open.
    let _ = unsafe { sys!(__NR_close, fd.0) };
}

/// close_range(2) (Linux 5.9): every descriptor of `first..=last`.
pub fn close_range(first: u32, last: u32) -> Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_close_range, first, last, 0) }.map(drop)
}

/// A duplicate at the lowest free number that is `min` or above, close-on-exec.
pub fn dup_above(fd: Fd, min: u32) -> Result<Fd> {
    fcntl(fd, F_DUPFD_CLOEXEC, min as usize).map(|n| Fd(n as i32))
}

/// dup3(2); the same number is no error.
pub fn dup_to(fd: Fd, to: i32, cloexec: bool) -> Result<()> {
    if fd.0 == to {
        return fcntl(fd, F_SETFD, if cloexec { FD_CLOEXEC as usize } else { 0 }).map(drop);
    }
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_dup3, fd.0, to, if cloexec { O_CLOEXEC } else { 0 }) }.map(drop)
}

/// fcntl(2) with an integer argument.
pub fn fcntl(fd: Fd, op: u32, arg: usize) -> Result<usize> {
    debug_assert!(!matches!(op, F_GETLK | F_SETLK | F_SETLKW | F_SETOWN_EX | F_GETOWN_EX | F_OFD_SETLK));
    // SAFETY: operations with a pointer argument are not asked for here (asserted above).
    unsafe { sys!(__NR_fcntl, fd.0, op, arg) }
}

pub fn read(fd: Fd, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most `buf.len()` bytes of `buf`.
    unsafe { sys!(__NR_read, fd.0, buf.as_mut_ptr(), buf.len()) }
}

pub fn write(fd: Fd, buf: &[u8]) -> Result<usize> {
    // SAFETY: `buf` is only read.
    unsafe { sys!(__NR_write, fd.0, buf.as_ptr(), buf.len()) }
}

/// One pread64(2).
pub fn pread(fd: Fd, buf: &mut [u8], offset: u64) -> Result<usize> {
    // SAFETY: the kernel writes at most `buf.len()` bytes of `buf`.
    unsafe { sys!(__NR_pread64, fd.0, buf.as_mut_ptr(), buf.len(), offset) }
}

/// The whole buffer; a short file gives EIO.
pub fn pread_exact(fd: Fd, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
    while !buf.is_empty() {
        match pread(fd, buf, offset) {
            Ok(0) => return Err(Errno::EIO),
            Ok(n) => {
                buf = &mut buf[n..];
                offset += n as u64;
            }
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The whole buffer with pwrite64(2).
pub fn pwrite_all(fd: Fd, mut buf: &[u8], mut offset: u64) -> Result<()> {
    while !buf.is_empty() {
        // SAFETY: `buf` is only read.
        match unsafe { sys!(__NR_pwrite64, fd.0, buf.as_ptr(), buf.len(), offset) } {
            Ok(0) => return Err(Errno::EIO),
            Ok(n) => {
                buf = &buf[n..];
                offset += n as u64;
            }
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The whole buffer with write(2).
pub fn write_all(fd: Fd, mut buf: &[u8]) -> Result<()> {
    while !buf.is_empty() {
        match write(fd, buf) {
            Ok(0) => return Err(Errno::EIO),
            Ok(n) => buf = &buf[n..],
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn empty_stat() -> Stat {
    // SAFETY: `struct stat` is integers only.
    unsafe { core::mem::zeroed() }
}

pub fn fstat(fd: Fd) -> Result<Stat> {
    let mut stat = empty_stat();
    // SAFETY: the kernel fills exactly one `struct stat`.
    unsafe { sys!(__NR_fstat, fd.0, &raw mut stat) }?;
    Ok(stat)
}

pub fn lseek(fd: Fd, offset: u64, whence: u32) -> Result<u64> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_lseek, fd.0, offset, whence) }.map(|n| n as u64)
}

pub fn ftruncate(fd: Fd, len: u64) -> Result<()> {
    // SAFETY: touches no memory of ours (nothing of the stub is mapped from `fd`).
    unsafe { sys!(__NR_ftruncate, fd.0, len) }.map(drop)
}

pub fn unlink(path: &[u8]) -> Result<()> {
    let path = CPath::new(path)?;
    // SAFETY: `path` is NUL-terminated and only read.
    unsafe { sys!(__NR_unlinkat, AT_FDCWD, path.as_ptr(), 0) }.map(drop)
}

pub fn mkdir(path: &CPath, mode: u32) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and only read.
    unsafe { sys!(__NR_mkdirat, AT_FDCWD, path.as_ptr(), mode) }.map(drop)
}

pub fn rmdir(path: &CPath) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and only read.
    unsafe { sys!(__NR_unlinkat, AT_FDCWD, path.as_ptr(), AT_REMOVEDIR) }.map(drop)
}

pub fn mkfifo(path: &CPath, mode: u32) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and only read.
    unsafe { sys!(__NR_mknodat, AT_FDCWD, path.as_ptr(), S_IFIFO | mode, 0) }.map(drop)
}

pub fn fchmod(fd: Fd, mode: u32) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_fchmod, fd.0, mode) }.map(drop)
}

pub fn fchown(fd: Fd, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_fchown, fd.0, uid, gid) }.map(drop)
}

/// memfd_create(2); `name` without the NUL.
pub fn memfd_create(name: &[u8], flags: u32) -> Result<Fd> {
    let name = CPath::new(if name.is_empty() { b" " } else { name })?;
    // SAFETY: the name is NUL-terminated and only read.
    unsafe { sys!(__NR_memfd_create, name.as_ptr(), flags) }.map(|fd| Fd(fd as i32))
}

pub fn chdir(path: &[u8]) -> Result<()> {
    let path = CPath::new(path)?;
    // SAFETY: `path` is NUL-terminated and only read.
    unsafe { sys!(__NR_chdir, path.as_ptr()) }.map(drop)
}

pub fn chroot(path: &[u8]) -> Result<()> {
    let path = CPath::new(path)?;
    // SAFETY: `path` is NUL-terminated and only read.
    unsafe { sys!(__NR_chroot, path.as_ptr()) }.map(drop)
}

pub fn umask(mask: u32) -> u32 {
    // SAFETY: touches no memory and cannot fail.
    unsafe { sys!(__NR_umask, mask) }.unwrap_or(0) as u32
}

/// Replaces the contents of a small file in /proc.
pub fn write_file(path: &[u8], contents: &[u8]) -> Result<()> {
    let fd = open(path, O_WRONLY, 0)?;
    let written = write_all(fd, contents);
    close(fd);
    written
}

/// mount(2) without data.
pub fn mount(source: &[u8], target: &[u8], fstype: &[u8], flags: u32) -> Result<()> {
    let source = CPath::new(source)?;
    let target = CPath::new(target)?;
    let fstype = CPath::new(fstype)?;
    // SAFETY: all strings are NUL-terminated and only read; no data.
    unsafe { sys!(__NR_mount, source.as_ptr(), target.as_ptr(), fstype.as_ptr(), flags, 0) }.map(drop)
}

/// Calls `f` with the name of each entry of an open directory but `.` and `..`, until it gives something.
pub fn each_entry(dir: Fd, mut f: impl FnMut(&[u8]) -> Option<()>) {
    // `struct linux_dirent64`: inode and offset (8 bytes each), length (2), type (1), the name with its NUL.
    const NAME: usize = 19;
    let mut buffer = [0u64; 256];
    loop {
        // SAFETY: the kernel writes at most as much as there is room.
        let read = unsafe { sys!(__NR_getdents64, dir.0, buffer.as_mut_ptr(), size_of_val(&buffer)) };
        let Ok(len @ 1..) = read else { return };
        // SAFETY: initialised bytes of the buffer, which nobody changes meanwhile.
        let mut rest = unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), len) };
        while rest.len() > NAME {
            let entry = (u16::from_le_bytes([rest[16], rest[17]]) as usize).clamp(NAME, rest.len());
            let name = rest[NAME..entry].split(|b| *b == 0).next().unwrap_or(b"");
            if name != b"." && name != b".." && f(name).is_some() {
                return;
            }
            rest = &rest[entry..];
        }
    }
}

/// readlinkat(2): the length of the target, of which what has room is in `target`.
pub fn read_link_at(dir: Fd, name: &CPath, target: &mut [u8]) -> Result<usize> {
    // SAFETY: `name` is NUL-terminated and only read; the kernel writes at most as much as there is room.
    unsafe { sys!(__NR_readlinkat, dir.0, name.as_ptr(), target.as_mut_ptr(), target.len()) }
}
