//! Which process is meant: by id, by name, by the file that a service writes its id to.

use crate::collect::proc;
use crate::error::Failure;
use anyhow::{Context, Result};
use std::path::Path;

/// How the process is named.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    Pid(i32),
    /// Its name as ps(1) shows it (comm, 15 bytes), or the last part of its command or executable.
    Name(&'a str),
    /// A file whose first word is the id.
    File(&'a Path),
}

/// Its id.
///
/// # Errors
/// [`Failure::NoProcess`] and its kin when there is none, or more than one.
pub fn resolve(target: Target<'_>) -> Result<i32> {
    match target {
        Target::Pid(pid) => Ok(pid),
        Target::Name(name) => by_name(name),
        Target::File(path) => {
            let shown = path.display();
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
            let word = text.split_whitespace().next().unwrap_or_default();
            let pid = word.parse::<i32>().ok().filter(|pid| *pid > 0);
            pid.with_context(|| format!("{shown} holds no process id, but {word:?}"))
        }
    }
}

fn by_name(name: &str) -> Result<i32> {
    let own = std::process::id() as i32;
    let all: Vec<(i32, i32)> = proc::processes()
        .filter(|pid| *pid != own && is_called(*pid, name))
        .filter_map(|pid| Some((pid, proc::stat_of(&format!("/proc/{pid}"))?.ppid)))
        .collect();
    match topmost(&all)[..] {
        [] => Err(Failure::NoneCalled(name.into()).into()),
        [pid] => Ok(pid),
        ref several => {
            let list = several.iter().map(|pid| format!("{pid} ({})", command(*pid)));
            Err(Failure::SeveralCalled(name.into(), list.collect::<Vec<_>>().join(", ")).into())
        }
    }
}

/// Those that are not below another one: a tree is dumped from its root.
fn topmost(all: &[(i32, i32)]) -> Vec<i32> {
    let is_one = |pid: i32| all.iter().any(|(p, _)| *p == pid);
    all.iter().filter(|(_, parent)| !is_one(*parent)).map(|(pid, _)| *pid).collect()
}

fn is_called(pid: i32, name: &str) -> bool {
    let last = |path: &str| path.rsplit('/').next() == Some(name);
    let words = proc::bytes(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // Kernel threads and zombies have none.
    let Some(first) = words.split(|b| *b == 0).next().filter(|w| !w.is_empty()) else { return false };
    proc::name(pid) == name
        || last(&String::from_utf8_lossy(first))
        || std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| last(&exe.to_string_lossy()))
}

fn command(pid: i32) -> String {
    let words = proc::bytes(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = words.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
    words.join(" ").trim_end().chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_master_and_its_workers_the_master_is_meant() {
        assert_eq!(topmost(&[(10, 1), (11, 10), (12, 10)]), [10]);
        assert_eq!(topmost(&[(10, 1), (20, 1)]), [10, 20]);
    }

    #[test]
    fn files_hold_ids() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        std::fs::write(&path, "4242\n").unwrap();
        assert_eq!(resolve(Target::File(&path)).unwrap(), 4242);
        std::fs::write(&path, "-1").unwrap();
        assert!(resolve(Target::File(&path)).unwrap_err().to_string().contains("no process id"));
    }
}
