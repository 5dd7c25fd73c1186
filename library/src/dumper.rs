//! Which ckpt-dump is used, and what it says.

use crate::sys::spawn::Program;
use crate::{Error, Obstacle, sys};
use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where packages put it, for programs that run with another PATH.
const PLACES: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/usr/lib/ckpt"];

/// A ckpt-dump; one that is inside of the library in a file of ours, which is closed by dropping this.
pub struct Found {
    pub program: Program,
    pub file: Option<OwnedFd>,
}

/// CKPT_DUMP, the one inside of the library, PATH, the usual places.
pub fn find() -> Result<Found, Error> {
    let by_path = |path: &Path| {
        let path = CString::new(path.as_os_str().as_bytes()).ok()?;
        Some(Found { program: Program::Path(path), file: None })
    };
    let env = |name: &str| -> Option<OsString> {
        // Whoever starts a set-user-ID program must not choose what it executes.
        if sys::is_secure() { None } else { std::env::var_os(name).filter(|v| !v.is_empty()) }
    };
    if let Some(path) = env("CKPT_DUMP") {
        let path = PathBuf::from(path);
        let missing = || Error::NoDumper(format!("CKPT_DUMP={}", path.display()));
        return is_program(&path).then(|| by_path(&path)).flatten().ok_or_else(missing);
    }
    if let Some(file) = embedded::program()? {
        return Ok(Found { program: Program::File(file.as_raw_fd()), file: Some(file) });
    }
    let path = env("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(PLACES.map(PathBuf::from));
    let mut found = places.map(|dir| dir.join("ckpt-dump")).filter(|path| is_program(path));
    found
        .find_map(|path| by_path(&path))
        .ok_or_else(|| Error::NoDumper(format!("in PATH or {}", PLACES.join(", "))))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(ckpt_embed)]
mod embedded {
    use super::*;
    use std::io::Write;

    static PROGRAM: &[u8] = include_bytes!(env!("CKPT_EMBED_PROGRAM"));

    /// In memory, for this dump.
    pub fn program() -> Result<Option<OwnedFd>, Error> {
        let failed = || Error::os("cannot make a file in memory for ckpt-dump");
        let mut file = std::fs::File::from(sys::fd::memfd(c"ckpt-dump").map_err(failed())?);
        file.write_all(PROGRAM).map_err(failed())?;
        Ok(Some(file.into()))
    }
}

#[cfg(not(ckpt_embed))]
mod embedded {
    use super::*;

    pub fn program() -> Result<Option<OwnedFd>, Error> {
        Ok(None)
    }
}

/// What it says with --json.
#[derive(Debug, serde::Deserialize)]
struct Said {
    #[serde(default)]
    exit_status: i32,
    error: Option<String>,
    #[serde(default)]
    obstacles: Vec<Obstacle>,
}

/// What came of the dump: the last line is the result, others are messages.
pub fn result(said: &[u8]) -> Result<(), Error> {
    let text = String::from_utf8_lossy(said);
    let mut lines = text.lines().rev();
    let said = lines.find_map(|line| serde_json::from_str::<Said>(line).ok());
    let messages = || text.trim().to_owned();
    match said {
        Some(Said { exit_status: 0, .. }) => Ok(()),
        Some(Said { obstacles, .. }) if !obstacles.is_empty() => Err(Error::Refused(obstacles)),
        Some(Said { exit_status, error, .. }) => {
            Err(Error::Dump { exit_status, message: error.unwrap_or_else(messages) })
        }
        // Wrong options, or not our ckpt-dump; or somebody killed it.
        None if text.trim().is_empty() => Err(Error::Dump {
            exit_status: 1,
            message: "ckpt-dump ended without a word: was it killed?".into(),
        }),
        None => Err(Error::Dump { exit_status: 2, message: messages() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said() {
        assert!(result(b"warning\n{\"pid\":7,\"losses\":[]}\n").is_ok());
        let refused = br#"{"exit_status":5,"obstacles":[{"pid":7,"name":"a","fd":3,"also":[],"what":"fd 3: a thing","remedy":"close it","allow":null}],"pid":7}"#;
        let error = result(refused).unwrap_err();
        assert!(matches!(&error, Error::Refused(list) if list.len() == 1), "{error:?}");
        assert_eq!(error.to_string(), "PID 7 (a) fd 3: a thing; close it");
        let error = result(br#"{"error":"cannot write x","exit_status":6,"pid":7}"#).unwrap_err();
        assert!(matches!(&error, Error::Dump { exit_status: 6, message } if message == "cannot write x"));
        assert!(matches!(result(b""), Err(Error::Dump { exit_status: 1, .. })));
        let error = result(b"error: unexpected argument\n").unwrap_err();
        assert!(
            matches!(&error, Error::Dump { exit_status: 2, .. }) && error.to_string().contains("argument")
        );
    }
}
