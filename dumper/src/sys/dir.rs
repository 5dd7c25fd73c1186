//! Files of a directory that is open: the way to it is walked once. Below `/proc/PID` that is most of the cost.

use std::ffi::CString;
use std::fs::File;
use std::io::{Error, Result};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Longest link that is read (PATH_MAX, and what the kernel appends to names of deleted files).
const LONGEST_LINK: usize = 4096 + 16;

/// An open directory.
#[derive(Debug)]
pub struct Dir(OwnedFd);

fn name_of(name: impl std::fmt::Display) -> Result<CString> {
    Ok(CString::new(name.to_string())?)
}

impl Dir {
    /// # Errors
    /// As open(2).
    pub fn open(path: &str) -> Result<Self> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        Ok(Self(File::options().read(true).custom_flags(flags).open(path)?.into()))
    }

    /// # Errors
    /// As readlinkat(2).
    pub fn read_link(&self, name: impl std::fmt::Display) -> Result<Vec<u8>> {
        let name = name_of(name)?;
        let mut link = [MaybeUninit::<u8>::uninit(); LONGEST_LINK];
        // SAFETY: a NUL-terminated name, and room for as many bytes as we say.
        let len = unsafe {
            libc::readlinkat(self.0.as_raw_fd(), name.as_ptr(), link.as_mut_ptr().cast(), link.len())
        };
        let len = usize::try_from(len).map_err(|_| Error::last_os_error())?;
        // SAFETY: the kernel has filled so many bytes.
        Ok(link[..len].iter().map(|b| unsafe { b.assume_init() }).collect())
    }

    /// What a link leads to.
    ///
    /// # Errors
    /// As fstatat(2).
    pub fn stat(&self, name: impl std::fmt::Display) -> Result<libc::stat> {
        let name = name_of(name)?;
        let mut stat = MaybeUninit::uninit();
        // SAFETY: a NUL-terminated name, and room for one `struct stat`.
        let r = unsafe { libc::fstatat(self.0.as_raw_fd(), name.as_ptr(), stat.as_mut_ptr(), 0) };
        if r < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: the kernel has filled it.
        Ok(unsafe { stat.assume_init() })
    }

    /// For reading.
    ///
    /// # Errors
    /// As openat(2).
    pub fn file(&self, name: impl std::fmt::Display) -> Result<File> {
        let name = name_of(name)?;
        // SAFETY: a NUL-terminated name.
        let fd = unsafe { libc::openat(self.0.as_raw_fd(), name.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: a fresh descriptor, owned by nobody else.
        Ok(unsafe { File::from_raw_fd(fd) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn files_of_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("7"), b"seven").unwrap();
        symlink("7", dir.path().join("8")).unwrap();
        let open = Dir::open(dir.path().to_str().unwrap()).unwrap();
        assert_eq!(open.read_link(8).unwrap(), b"7");
        let meta = std::fs::metadata(dir.path().join("7")).unwrap();
        let stat = open.stat(8).unwrap();
        assert_eq!((stat.st_dev, stat.st_ino, stat.st_size), (meta.dev(), meta.ino(), 5));
        let mut text = String::new();
        open.file(7).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "seven");
        assert_eq!(open.stat(9).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }
}
