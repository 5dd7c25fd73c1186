//! The registration: one line that the kernel is told (Documentation/admin-guide/binfmt-misc.rst).

use anyhow::{Context, Result, bail};
use ckpt_format::EI_PAD_MAGIC;
use nix::mount::{MsFlags, mount};
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the kernel is told.
pub const MOUNT_POINT: &str = "/proc/sys/fs/binfmt_misc";
/// What systemd-binfmt(8) reads at each boot.
pub const AT_BOOT: &str = "/etc/binfmt.d/ckpt.conf";
/// The name of the registration.
const NAME: &str = "ckpt";
/// F: the handler is opened now, so that it is there in other root directories, too, and the one that was
/// registered. O: what was executed is passed on open; its path might lead elsewhere by now. P: the name by which
/// it was called is kept. Not C: the rights of a set-user-ID file are not for its image.
const FLAGS: &str = "FOP";

/// The first 16 bytes of an image.
fn magic() -> [u8; 16] {
    let mut magic = *b"\x7fELF\x02\x01\x01\0\0.......";
    magic[9..].copy_from_slice(&EI_PAD_MAGIC);
    magic
}

/// What the kernel is told: `:name:type:offset:magic:mask:interpreter:flags`.
///
/// # Errors
/// When the handler's path cannot be part of it.
pub fn line(handler: &Path) -> Result<String> {
    let mut magic_text = String::new();
    for byte in magic() {
        match byte {
            b'A'..=b'Z' => magic_text.push(byte.into()),
            _ => write!(magic_text, "\\x{byte:02x}")?,
        }
    }
    let path = handler.to_str().filter(|p| p.starts_with('/') && !p.contains([':', '\n']));
    // BINPRM_BUF_SIZE of old kernels.
    let path = path.filter(|p| p.len() < 127);
    let path = path.with_context(|| {
        format!(
            "{}: the handler's path must be absolute, without ':', and shorter than 127 bytes",
            handler.display()
        )
    })?;
    Ok(format!(":{NAME}:M::{magic_text}::{path}:{FLAGS}"))
}

/// What the kernel says about a registration.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub enabled: bool,
    pub interpreter: String,
    pub flags: String,
    magic: String,
}

impl Entry {
    fn parse(name: &str, text: &str) -> Self {
        let field =
            |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default().trim().to_owned();
        Self {
            name: name.to_owned(),
            enabled: text.lines().next() == Some("enabled"),
            interpreter: field("interpreter "),
            flags: field("flags:"),
            magic: field("magic "),
        }
    }

    fn is_for_images(&self) -> bool {
        let wanted: String = magic().iter().map(|b| format!("{b:02x}")).collect();
        self.magic == wanted
    }
}

/// All registrations for exactly our images, by whatever name.
fn entries(dir: &Path) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "register" && name != "status" {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            found.push(Entry::parse(&name, &text));
        }
    }
    found.retain(|e| e.name == NAME || e.is_for_images());
    Ok(found)
}

/// The file system of registrations, mounted if it is not.
fn mounted() -> Result<PathBuf> {
    let dir = PathBuf::from(MOUNT_POINT);
    // Looking for the file also mounts it where systemd does so on demand.
    if dir.join("register").exists() {
        return Ok(dir);
    }
    let none: Option<&str> = None;
    mount(Some("binfmt_misc"), &dir, Some("binfmt_misc"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, none)
        .with_context(|| {
            format!(
                "cannot mount binfmt_misc at {MOUNT_POINT}; run this as root (the kernel needs CONFIG_BINFMT_MISC; modprobe binfmt_misc)"
            )
        })?;
    Ok(dir)
}

/// The handler beside this program.
///
/// # Errors
/// When there is none.
pub fn default_handler() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let handler = own.with_file_name("ckpt-restore");
    if !handler.is_file() {
        bail!("no {}; name the handler with --handler FILE", handler.display());
    }
    Ok(handler)
}

/// Makes `handler` the handler of images, instead of what was.
///
/// # Errors
/// When it is no program, or it is not permitted.
pub fn register(handler: &Path, boot: bool) -> Result<()> {
    let handler = handler.canonicalize().with_context(|| handler.display().to_string())?;
    let stat = handler.metadata()?;
    if !stat.is_file() || stat.mode() & 0o111 == 0 {
        bail!("{} is not an executable file", handler.display());
    }
    if needs_loader(&handler) == Some(true) {
        eprintln!(
            "ckpt-binfmt: note: {} is dynamically linked: images in other root directories fail (a static one: scripts/deb)",
            handler.display()
        );
    }
    let line = line(&handler)?;
    let dir = mounted()?;
    remove(&dir)?;
    fs::write(dir.join("register"), &line).with_context(|| format!("cannot register ({line})"))?;
    if boot {
        let at = Path::new(AT_BOOT);
        let parent = at.parent().unwrap_or(at);
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::write(at, format!("{CONF_HEAD}{line}\n")).with_context(|| format!("cannot write {AT_BOOT}"))?;
    }
    Ok(())
}

const CONF_HEAD: &str = "# Images of ckpt are restored by ckpt-restore (binfmt.d(5); see ckpt-binfmt(1)).\n";

/// What `packaging` ships for a handler in its usual place.
///
/// # Errors
/// None.
pub fn conf(handler: &Path) -> Result<String> {
    Ok(format!("{CONF_HEAD}{}\n", line(handler)?))
}

/// Whether an ELF file asks for a dynamic loader; `None` if it is no ELF file, but a script for example.
fn needs_loader(handler: &Path) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let bytes = fs::read(handler).ok()?;
    let word = |at: usize, n: usize| {
        let mut out = [0; 8];
        out[..n].copy_from_slice(bytes.get(at..at.checked_add(n)?)?);
        Some(u64::from_le_bytes(out) as usize)
    };
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (start, size, count) = (word(32, 8)?, word(54, 2)?, word(56, 2)?);
    let mut kinds = (0..count).filter_map(|i| word(start.checked_add(i * size)?, 4));
    Some(kinds.any(|kind| kind == PT_INTERP as usize))
}

/// Removes every registration for images.
fn remove(dir: &Path) -> Result<usize> {
    let all = entries(dir)?;
    for entry in &all {
        fs::write(dir.join(&entry.name), "-1")
            .with_context(|| format!("cannot unregister {}", entry.name))?;
    }
    Ok(all.len())
}

/// Lets images restore themselves again; how many registrations there were.
///
/// # Errors
/// When it is not permitted.
pub fn unregister(boot: bool) -> Result<usize> {
    let dir = Path::new(MOUNT_POINT);
    let count = if dir.join("register").exists() { remove(dir)? } else { 0 };
    if boot {
        match fs::remove_file(AT_BOOT) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("cannot remove {AT_BOOT}"));
            }
            _ => {}
        }
    }
    Ok(count)
}

/// Tells what is registered; whether images are handled.
///
/// # Errors
/// When that cannot be read.
pub fn status() -> Result<bool> {
    let dir = Path::new(MOUNT_POINT);
    if !dir.join("register").exists() {
        println!("not registered (binfmt_misc is not mounted at {MOUNT_POINT}): images restore themselves");
        return Ok(false);
    }
    let on = fs::read_to_string(dir.join("status")).is_ok_and(|s| s.trim() == "enabled");
    let all = entries(dir)?;
    for e in &all {
        let state = match (on, e.enabled) {
            (true, true) => "registered",
            (true, false) => "registered, but disabled",
            (false, _) => "registered, but binfmt_misc is disabled",
        };
        println!("{state}: {} (flags {}, name {})", e.interpreter, e.flags, e.name);
        if !Path::new(&e.interpreter).exists() {
            println!("  that file is gone by now; with flag F the handler still works");
        }
    }
    if all.is_empty() {
        println!("not registered: images restore themselves");
    }
    if Path::new(AT_BOOT).exists() {
        println!("at each boot: {AT_BOOT}");
    }
    Ok(on && all.iter().any(|e| e.enabled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_is_what_would_be_registered() {
        let shipped = include_str!("../binfmt.d/ckpt.conf");
        assert_eq!(shipped, conf(Path::new("/usr/bin/ckpt-restore")).unwrap());
        assert!(ckpt_format::is_image(&magic()));
    }

    #[test]
    fn paths_that_the_kernel_would_misread_are_refused() {
        for path in ["relative", "/with:colon", "/with\nnewline", &format!("/{}", "x".repeat(200))] {
            assert!(line(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        let text = "enabled\ninterpreter /usr/bin/ckpt-restore\nflags: POF\noffset 0\n\
                    magic 7f454c46020101000043\n";
        let entry = Entry::parse("x", text);
        assert!(entry.enabled && !entry.is_for_images());
        assert_eq!((&entry.interpreter[..], &entry.flags[..]), ("/usr/bin/ckpt-restore", "POF"));
        let magic = "magic 7f454c460201010000434b5054000001";
        assert!(Entry::parse("x", magic).is_for_images());
    }

    #[test]
    fn a_loader_is_noticed() {
        assert!(needs_loader(&std::env::current_exe().unwrap()).is_some());
        assert_eq!(needs_loader(Path::new("/proc/self/maps")), None);
    }
}
