//! The images of this process: files by name, and files in memory by their descriptors.
//!
//! An image in memory is known by the name that its file has in /proc/self/fd, and by nothing in the memory of
//! the program: that may be the past, in which the image was not there yet. Its descriptor is not in any image.

use crate::sys::{fd, lock};
use crate::{Error, Id};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Most images in memory: that many descriptors can be passed on to an image.
pub const MOST: usize = 256;

/// Where they are kept, so that low numbers stay free: select(2) ends at 1024, soft limits begin there.
const FIRST_NUMBER: RawFd = 640;

/// Name of the files.
const PREFIX: &str = "ckpt-image-";

/// A file that this process wrote.
#[derive(Clone, Debug)]
struct Named {
    id: Id,
    path: PathBuf,
    uuid: [u8; 16],
}

#[derive(Debug)]
struct Known {
    named: Vec<Named>,
    last: u64,
}

static KNOWN: Mutex<Known> = Mutex::new(Known { named: Vec::new(), last: 0 });

fn known<T>(look: impl FnOnce(&mut Known) -> T) -> T {
    let _short = lock::SHORT.take();
    look(&mut KNOWN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// An id that no checkpoint has.
pub fn new_id() -> Id {
    let kept = in_memory().into_iter().map(|(id, _)| id.0).max().unwrap_or(0);
    known(|k| {
        k.last = k.last.max(kept) + 1;
        Id(k.last)
    })
}

/// Notes a file that is about to be written: the image knows of itself.
pub fn note(id: Id, path: &Path, uuid: [u8; 16]) -> io::Result<()> {
    // The working directory may be another one by then.
    let path = std::path::absolute(path)?;
    known(|k| k.named.push(Named { id, path, uuid }));
    Ok(())
}

/// It was not written.
pub fn unnote(id: Id) {
    known(|k| k.named.retain(|n| n.id != id));
}

/// It was written: an earlier image of that name is no more.
pub fn settle(id: Id) {
    known(|k| {
        if let Some(path) = k.named.iter().find(|n| n.id == id).map(|n| n.path.clone()) {
            k.named.retain(|n| n.id == id || n.path != path);
        }
    });
}

/// Images in memory with their descriptors, by id.
pub fn in_memory() -> Vec<(Id, RawFd)> {
    let mut all: Vec<(Id, RawFd)> = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|n| n.parse::<RawFd>().ok());
        let link = std::fs::read_link(entry.path()).unwrap_or_default();
        let id = link.to_str().and_then(|link| {
            link.strip_prefix("/memfd:")?.strip_prefix(PREFIX)?.strip_suffix(" (deleted)")?.parse().ok()
        });
        if let (Some(number), Some(id)) = (number, id) {
            all.push((Id(id), number));
        }
    }
    all.sort_unstable();
    all
}

/// All ids that can be returned to, in the order in which they were made.
pub fn all() -> Vec<Id> {
    let mut ids: Vec<Id> = known(|k| k.named.iter().map(|n| n.id).collect());
    ids.extend(in_memory().into_iter().map(|(id, _)| id));
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// A new file in memory.
pub fn make(id: Id) -> Result<OwnedFd, Error> {
    let count = in_memory().len();
    if count >= MOST {
        return Err(Error::TooMany(count));
    }
    let failed = || Error::os("cannot make a file in memory for the checkpoint");
    let name = CString::new(format!("{PREFIX}{}", id.0)).unwrap_or_default();
    let file = fd::memfd(&name).map_err(failed())?;
    // Where the limit of descriptors is lower, any number will do.
    let high = fd::duplicate_above(file.as_raw_fd(), FIRST_NUMBER);
    Ok(high.unwrap_or(file))
}

/// An image to return to.
pub struct Found {
    pub file: OwnedFd,
    pub name: String,
    pub image: ckpt_reader::ImageFile,
}

/// Finds an image, and verifies what can be verified.
pub fn find(id: Id) -> Result<Found, Error> {
    if let Some((_, number)) = in_memory().into_iter().find(|(other, _)| *other == id) {
        let failed = || Error::os(format!("cannot use the image of checkpoint {id}"));
        let file = fd::duplicate_above(number, 3).map_err(failed())?;
        let name = format!("checkpoint {id}");
        let image = read(id, Path::new(&name), file.as_fd())?;
        return Ok(Found { file, name, image });
    }
    let named = known(|k| k.named.iter().find(|n| n.id == id).cloned()).ok_or(Error::Unknown(id))?;
    let path = named.path;
    let file = File::open(&path).map_err(Error::os(format!("cannot open {}", path.display())))?;
    let file = OwnedFd::from(file);
    let image = read(id, &path, file.as_fd())?;
    let replaced = |why: String| Error::Replaced { id, path: path.clone(), why };
    let uuid = image.image().map(|i| i.header.uuid).map_err(|e| replaced(e.to_string()))?;
    if uuid != named.uuid {
        return Err(replaced("it was made by another dump".into()));
    }
    // Now there is a way back.
    image.verify(Err).map_err(|damage| replaced(damage.to_string()))?;
    Ok(Found { file, name: path.display().to_string(), image })
}

fn read(id: Id, path: &Path, file: BorrowedFd<'_>) -> Result<ckpt_reader::ImageFile, Error> {
    let replaced = |why: String| Error::Replaced { id, path: path.into(), why };
    let file = file.try_clone_to_owned().map_err(|e| replaced(e.to_string()))?;
    ckpt_reader::ImageFile::read(File::from(file)).map_err(|e| replaced(e.to_string()))
}

/// Forgets a checkpoint. A file stays; what was in memory is gone.
pub fn forget(id: Id) -> bool {
    let numbers: Vec<RawFd> =
        in_memory().into_iter().filter(|(other, _)| *other == id).map(|(_, n)| n).collect();
    numbers.iter().for_each(|number| fd::close_kept(*number));
    let was_named = known(|k| {
        let before = k.named.len();
        k.named.retain(|n| n.id != id);
        k.named.len() < before
    });
    !numbers.is_empty() || was_named
}
