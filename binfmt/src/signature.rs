//! Signatures of images, made by minisign(1): `saved.ckpt.minisig`, over the whole file.

use anyhow::{Context, Result, bail};
use minisign_verify::{PublicKey, Signature, StreamVerifier};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// A key whose signatures are trusted.
pub struct Key(PublicKey);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// A key as a line of text: "RW...".
///
/// # Errors
/// When it is none.
pub fn key_line(line: &str) -> Result<Key> {
    PublicKey::from_base64(line).map(Key).map_err(|e| anyhow::anyhow!("{line:?} is no minisign key: {e}"))
}

/// A key as a line or as the file that `minisign -G` makes.
///
/// # Errors
/// When it is none.
pub fn key(text: &str) -> Result<Key> {
    if let Ok(key) = key_line(text) {
        return Ok(key);
    }
    let file = std::fs::read_to_string(text)
        .with_context(|| format!("no minisign key, nor a file of one: {text}"))?;
    PublicKey::decode(&file).map(Key).map_err(|e| anyhow::anyhow!("{text} is no minisign key: {e}"))
}

/// Where the signature of an image is.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}

/// `None` if the signature is not by this key.
fn verifier<'a>(key: &'a Key, signature: &'a Signature) -> Result<Option<StreamVerifier<'a>>> {
    match key.0.verify_stream(signature) {
        Err(minisign_verify::Error::UnsupportedLegacyMode) => {
            bail!("a signature of a legacy kind; sign again with minisign 0.10 or later")
        }
        other => Ok(other.ok()),
    }
}

/// One of the keys has signed what is in the file.
///
/// # Errors
/// When not, or that cannot be told.
pub fn check(file: &File, path: &Path, keys: &[Key]) -> Result<()> {
    let at = beside(path);
    let text = match std::fs::read_to_string(&at) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            bail!(
                "the image is not signed, and only signed ones are restored here: no {} (minisign -Sm)",
                at.display()
            )
        }
        other => other.with_context(|| at.display().to_string())?,
    };
    let signature = Signature::decode(&text).map_err(|e| anyhow::anyhow!("{}: {e}", at.display()))?;
    // Whose it is says the signature.
    let mut verifiers: Vec<_> = keys
        .iter()
        .filter_map(|key| verifier(key, &signature).transpose())
        .collect::<Result<_>>()
        .with_context(|| at.display().to_string())?;
    if verifiers.is_empty() {
        bail!("{} is by none of the keys that are trusted here", at.display());
    }
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        match file.read_at(&mut buffer, offset) {
            Ok(0) => break,
            Ok(n) => {
                verifiers.iter_mut().for_each(|v| v.update(&buffer[..n]));
                offset += n as u64;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("cannot read the image"),
        }
    }
    match verifiers.into_iter().any(|mut v| v.finalize().is_ok()) {
        true => Ok(()),
        false => bail!(
            "the signature {} is not of this image: it was changed, or another was signed",
            at.display()
        ),
    }
}
