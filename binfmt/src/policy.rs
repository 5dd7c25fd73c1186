//! What is demanded of images before they are restored: `/etc/ckpt/restore.conf`, and options.
//!
//! It protects who runs an image from images of others. It is no prison: whoever can run programs of his own
//! can restore what he can read.

use crate::signature::{self, Key};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where the administrator says what is demanded.
pub const SYSTEM: &str = "/etc/ckpt/restore.conf";

/// Whose images are restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Owner {
    #[default]
    Any,
    /// The caller's only.
    Same,
}

/// All demands must be met.
#[derive(Debug, Default)]
pub struct Policy {
    /// Check every checksum first.
    pub verify: bool,
    pub owner: Owner,
    /// A signature by one of these, if there are any.
    pub keys: Vec<Key>,
}

/// What the administrator demands; nothing without that file.
///
/// # Errors
/// When it cannot be read or understood, or others than root could have written it.
pub fn system() -> Result<Policy> {
    let path = Path::new(SYSTEM);
    match File::open(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Policy::default()),
        Err(e) => Err(e).context(SYSTEM),
        Ok(file) => {
            let stat = file.metadata().context(SYSTEM)?;
            // In a user namespace, root outside is nobody that is known here.
            let roots = stat.uid() == 0 || (is_overflow(stat.uid()) && !in_first_namespace());
            if !roots || stat.mode() & 0o022 != 0 {
                bail!(
                    "{SYSTEM} must belong to root and be writable for nobody else (chown root, chmod go-w)"
                );
            }
            parse_file(file, path)
        }
    }
}

/// The same, from a file that the caller has named.
///
/// # Errors
/// When it cannot be read or understood.
pub fn read(path: &Path) -> Result<Policy> {
    parse_file(File::open(path).with_context(|| path.display().to_string())?, path)
}

fn parse_file(mut file: File, path: &Path) -> Result<Policy> {
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(|| path.display().to_string())?;
    parse(&text).with_context(|| path.display().to_string())
}

fn is_overflow(uid: u32) -> bool {
    let overflow = std::fs::read_to_string("/proc/sys/kernel/overflowuid");
    overflow.map_or(uid == 65534, |text| text.trim().parse() == Ok(uid))
}

fn in_first_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// What is not understood is refused: it may be a demand.
fn parse(text: &str) -> Result<Policy> {
    let mut policy = Policy::default();
    for (line, n) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').map_or((line, ""), |(k, v)| (k.trim(), v.trim()));
        match (key, value) {
            ("verify", "always") => policy.verify = true,
            ("verify", "never") => policy.verify = false,
            ("owner", "same") => policy.owner = Owner::Same,
            ("owner", "any") => policy.owner = Owner::Any,
            ("trusted-key", key) => {
                policy.keys.push(signature::key_line(key).with_context(|| format!("line {n}"))?);
            }
            _ => bail!(
                "line {n}: {line:?} is not understood (verify = always|never, owner = same|any, trusted-key = RW...)"
            ),
        }
    }
    Ok(policy)
}

impl Policy {
    /// Checks what concerns the file, before it is looked into.
    ///
    /// # Errors
    /// What is not as demanded.
    pub fn check_file(&self, file: &File, path: &Path) -> Result<()> {
        let stat = file.metadata().context("cannot stat the image")?;
        let me = nix::unistd::geteuid().as_raw();
        if self.owner == Owner::Same && stat.uid() != me {
            bail!(
                "the image belongs to uid {}, and only those of uid {me} are restored here (owner = same)",
                stat.uid()
            );
        }
        if self.owner == Owner::Same || !self.keys.is_empty() {
            // Else it could be changed while it is restored.
            if stat.mode() & 0o022 != 0 {
                bail!("others may write to the image, which its checks would not survive; chmod go-w");
            }
        }
        if self.keys.is_empty() {
            return Ok(());
        }
        if ![0, me].contains(&stat.uid()) {
            bail!(
                "the image belongs to uid {}, who could change it after its signature was checked; copy it",
                stat.uid()
            );
        }
        signature::check(file, path, &self.keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    #[test]
    fn a_policy_is_read() {
        let text =
            format!("# comment\n\nverify = always\nowner=same\n trusted-key = {KEY}\ntrusted-key={KEY}\n");
        let policy = parse(&text).unwrap();
        assert!(policy.verify && policy.owner == Owner::Same && policy.keys.len() == 2);
        let policy = parse("").unwrap();
        assert!(!policy.verify && policy.owner == Owner::Any && policy.keys.is_empty());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in ["verify", "verify = yes", "owner = me", "trusted-key = x", "sign = RWQ", "verify always"]
        {
            let error = format!("{:#}", parse(&format!("\n{text}")).unwrap_err());
            assert!(error.contains("line 2"), "{text}: {error}");
        }
    }

    #[test]
    fn files_of_others_and_for_others_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let check = |mode, policy: &Policy| {
            file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
            policy.check_file(file.as_file(), file.path())
        };
        let same = Policy { owner: Owner::Same, ..Policy::default() };
        check(0o700, &same).unwrap();
        assert!(check(0o720, &same).is_err() && check(0o702, &same).is_err());
        check(0o722, &Policy::default()).unwrap();
    }
}
