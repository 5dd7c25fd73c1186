//! `--keep`: earlier images of the same name.

use crate::error::Failure;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The image number `age` of this name: 0 is the newest.
fn aged(path: &Path, age: u32) -> PathBuf {
    if age == 0 {
        return path.into();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}

/// Makes room for a new image: what has the name is also `NAME.1` afterwards, what was that is `NAME.2`, and so
/// on, `keep` in all with the new one. The name itself is there all the time, as a complete image.
///
/// # Errors
/// [`Failure::Output`]; what has the name still has it.
pub fn age(path: &Path, keep: u32) -> Result<(), Failure> {
    if keep < 2 || !path.exists() {
        return Ok(());
    }
    for age in (1..keep - 1).rev() {
        rename(&aged(path, age), &aged(path, age + 1))?;
    }
    let first = aged(path, 1);
    match fs::remove_file(&first) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(&first, &e)),
        _ => {}
    }
    // Not every file system has hard links; then the name is gone until the new image has it.
    fs::hard_link(path, &first).or_else(|_| rename(path, &first))
}

fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    match fs::rename(from, to) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failed(to, &e)),
        _ => Ok(()),
    }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::Output {
        path: path.display().to_string(),
        cause: format!("--keep: {error}"),
        remedy: "choose another place with -o, or leave --keep out".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_have_the_lowest_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.ckpt");
        let text = |age| fs::read_to_string(aged(&path, age)).ok();
        for round in 0..5 {
            age(&path, 3).unwrap();
            fs::write(path.with_extension("new"), round.to_string()).unwrap();
            fs::rename(path.with_extension("new"), &path).unwrap();
        }
        assert_eq!([0, 1, 2, 3].map(text), [Some("4".into()), Some("3".into()), Some("2".into()), None]);
        age(&path, 1).unwrap();
        assert_eq!(text(0), Some("4".into()));
    }
}
