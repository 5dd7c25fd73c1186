//! The files behind mappings: where they can be found again, and our own handles to read them.

use super::smaps::Entry;
use crate::collect::fd::FileStat;
use crate::sys;
use object::Object;
use object::read::{ReadCache, elf::ElfFile64};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file that is mapped (or executed).
#[derive(Clone, Debug, Default)]
pub struct MappedFile {
    /// As we see it, also when the target has another root; without the kernel's " (deleted)".
    pub path: Vec<u8>,
    pub dev: u64,
    pub ino: u64,
    /// The path leads to this very file.
    pub present: bool,
    /// But only from the target's root or mount namespace.
    pub elsewhere: bool,
    /// Of the mapped file; `None` when neither its path nor a handle led to it.
    pub stat: Option<FileStat>,
    /// GNU build-id, empty for none.
    pub build_id: Vec<u8>,
    /// An image of ours: a program that was restored with `--memory map` has it as its memory.
    pub is_image: bool,
    /// Index in [`Known::handles`], when we may read it.
    pub handle: Option<u32>,
    /// Data of a file without a name, `(offset, length)`; `None` when it cannot be told.
    pub data: Option<Vec<(u64, u64)>>,
}

/// What was found out about files so far, whoever maps them.
#[derive(Debug, Default)]
pub struct Known {
    /// Our handles.
    pub handles: Vec<Arc<File>>,
    files: HashMap<Key, MappedFile>,
}

/// Device, inode, path as shown in maps.
type Key = (u64, u64, Vec<u8>);

impl Known {
    /// Puts what became known of a file later, through another process, in its place.
    pub fn complete(&self, file: &mut MappedFile) {
        if file.present || file.handle.is_some() {
            return;
        }
        let shown = [file.path.clone(), [&file.path, DELETED].concat()];
        let known = shown.into_iter().find_map(|path| self.files.get(&(file.dev, file.ino, path)));
        if let Some(known) = known.filter(|k| !k.present) {
            *file = known.clone();
        }
    }
}

/// Finds the files of one process; each is looked at once.
pub struct Files<'a> {
    pid: i32,
    pub found: Vec<MappedFile>,
    known: &'a mut Known,
    index: HashMap<Key, usize>,
    /// Open descriptors by device and inode, listed when first needed.
    descriptors: Option<HashMap<(u64, u64), PathBuf>>,
}

/// What the kernel appends to the path of a file without a name.
const DELETED: &[u8] = b" (deleted)";

/// File systems whose `st_dev` differs from the device that maps shows.
const ODD_DEVICES: [i64; 2] = [0x9123_683e, 0x794c_7630];

impl<'a> Files<'a> {
    pub fn new(pid: i32, known: &'a mut Known) -> Self {
        Self { pid, found: Vec::new(), known, index: HashMap::new(), descriptors: None }
    }

    /// Index in `found` of the file behind a mapping.
    pub fn of_mapping(&mut self, entry: &Entry) -> usize {
        let dev = libc::makedev(entry.dev.0, entry.dev.1);
        let handle = format!("/proc/{}/map_files/{:x}-{:x}", self.pid, entry.start, entry.end);
        self.find(&entry.path, dev, entry.ino, Path::new(&handle))
    }

    /// Index in `found` of the executable.
    pub fn exe(&mut self) -> Option<usize> {
        let link = PathBuf::from(format!("/proc/{}/exe", self.pid));
        let path = fs::read_link(&link).ok()?;
        let stat = fs::metadata(&link).ok()?;
        let path = path.as_os_str().as_bytes();
        // Usually mapped, then known already under the device that maps shows.
        let known = self.index.iter().find(|((_, ino, p), _)| *ino == stat.ino() && p == path);
        if let Some((_, &index)) = known {
            return Some(index);
        }
        Some(self.find(path, stat.dev(), stat.ino(), &link))
    }

    fn find(&mut self, shown: &[u8], dev: u64, ino: u64, handle: &Path) -> usize {
        let key = (dev, ino, shown.to_vec());
        if let Some(&index) = self.index.get(&key) {
            return index;
        }
        let file = match self.known.files.get(&key) {
            Some(known) => known.clone(),
            None => self.look_at(&key, handle),
        };
        self.found.push(file);
        self.index.insert(key, self.found.len() - 1);
        self.found.len() - 1
    }

    fn look_at(&mut self, key: &Key, handle: &Path) -> MappedFile {
        let (dev, ino, shown) = (key.0, key.1, &key.2[..]);
        let path = shown.strip_suffix(DELETED).unwrap_or(shown).to_vec();
        let mut file = MappedFile { path, dev, ino, ..MappedFile::default() };
        if shown.starts_with(b"/") || shown.starts_with(b"[anon_shmem:") {
            self.locate(&mut file, shown, handle);
        }
        // What only this process sees, another may see otherwise; or find what this one does not.
        if (file.present && !file.elsewhere) || (!file.present && file.handle.is_some()) {
            self.known.files.insert(key.clone(), file.clone());
        }
        file
    }

    fn locate(&mut self, file: &mut MappedFile, shown: &[u8], handle: &Path) {
        // A file may really be called "x (deleted)", so the path as shown is tried as well.
        for path in [&file.path.clone()[..], shown] {
            if let Some((meta, at)) = self.lookup(path, file.dev, file.ino) {
                file.present = true;
                file.elsewhere = at.as_os_str().as_bytes() != path;
                file.path = path.to_vec();
                file.stat = Some(FileStat::of(&meta));
                if meta.is_file()
                    && let Some(open) = open_same(&at, &meta)
                {
                    file.build_id = build_id(&open);
                    file.is_image = is_image(&open);
                    file.handle = Some(self.keep(open));
                }
                return;
            }
        }
        let Some(open) = self.open_unnamed(file, handle) else { return };
        if let Ok(meta) = open.metadata() {
            file.stat = Some(FileStat::of(&meta));
            file.data = Some(data_runs(&open, meta.len()));
        }
        file.build_id = build_id(&open);
        file.is_image = is_image(&open);
        file.handle = Some(self.keep(open));
    }

    /// The file at `path`, if it is the mapped one.
    fn lookup(&self, path: &[u8], dev: u64, ino: u64) -> Option<(fs::Metadata, PathBuf)> {
        let mut through_root = format!("/proc/{}/root", self.pid).into_bytes();
        through_root.extend_from_slice(path);
        [path, &through_root[..]].into_iter().find_map(|candidate| {
            let candidate = Path::new(OsStr::from_bytes(candidate));
            let meta = fs::metadata(candidate).ok()?;
            let same = meta.ino() == ino && (meta.dev() == dev || odd_device(candidate));
            same.then(|| (meta, candidate.to_path_buf()))
        })
    }

    /// A file that no path leads to: through the mapping (needs CAP_CHECKPOINT_RESTORE), else through
    /// a descriptor of the target for the same file.
    fn open_unnamed(&mut self, file: &MappedFile, handle: &Path) -> Option<File> {
        let regular = |path: &Path| {
            let meta = fs::metadata(path).ok()?;
            let kind = meta.file_type();
            // Opening a device may have effects.
            let plain = !kind.is_char_device() && !kind.is_block_device() && !kind.is_fifo();
            plain.then(|| open_same(path, &meta)).flatten()
        };
        regular(handle).or_else(|| {
            let pid = self.pid;
            let all = self.descriptors.get_or_insert_with(|| descriptors(pid));
            regular(all.get(&(file.dev, file.ino))?)
        })
    }

    fn keep(&mut self, file: File) -> u32 {
        self.known.handles.push(Arc::new(file));
        (self.known.handles.len() - 1) as u32
    }
}

/// Opens what `meta` describes. Its owner may put something else in its place meanwhile: a FIFO, whose
/// opening would wait, or a link to a file that is not for everybody's eyes.
fn open_same(path: &Path, meta: &fs::Metadata) -> Option<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    let now = file.metadata().ok()?;
    let same = (now.dev(), now.ino(), now.mode()) == (meta.dev(), meta.ino(), meta.mode());
    same.then_some(file)
}

fn odd_device(path: &Path) -> bool {
    sys::fd::fs_type(path).is_ok_and(|t| ODD_DEVICES.contains(&t))
}

fn descriptors(pid: i32) -> HashMap<(u64, u64), PathBuf> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return HashMap::new() };
    entries
        .flatten()
        .filter_map(|e| {
            let meta = fs::metadata(e.path()).ok()?;
            Some(((meta.dev(), meta.ino()), e.path()))
        })
        .collect()
}

/// Runs of data; the whole file where holes cannot be told.
fn data_runs(file: &File, size: u64) -> Vec<(u64, u64)> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        match sys::fd::next_data(file.as_fd(), at) {
            Ok(Some((start, end))) if start < end.min(size) => {
                runs.push((start, end.min(size) - start));
                at = end;
            }
            Ok(_) => break,
            Err(_) => return vec![(0, size)],
        }
    }
    runs
}

fn is_image(file: &File) -> bool {
    let mut start = [0; 16];
    file.read_exact_at(&mut start, 0).is_ok() && ckpt_format::is_image(&start)
}

fn build_id(file: &File) -> Vec<u8> {
    let cache = ReadCache::new(file);
    let Ok(elf) = ElfFile64::<object::Endianness, _>::parse(&cache) else { return Vec::new() };
    elf.build_id().ok().flatten().unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::memory::smaps;

    #[test]
    fn own_files_are_found() {
        let mut known = Known::default();
        let mut files = Files::new(std::process::id() as i32, &mut known);
        let entries = smaps::parse(&fs::read("/proc/self/smaps").unwrap()).unwrap();
        let libc = entries.iter().find(|e| e.path.windows(7).any(|w| w == b"libc.so")).unwrap();
        let index = files.of_mapping(libc);
        let file = &files.found[index];
        assert!(file.present && file.handle.is_some() && file.stat.unwrap().size > 100_000);
        assert_eq!(file.build_id.len(), 20);
        let exe = files.exe().unwrap();
        assert!(files.found[exe].present);
        assert_eq!(files.of_mapping(libc), index);
    }
}
