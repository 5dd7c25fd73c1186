//! Who has which children: all that wait(2) could return, zombies included.

use super::proc;
use std::collections::HashMap;

/// Reading the list of each thread of a process with more than this takes longer than looking through all
/// processes once, if it has no children at all.
const MANY_THREADS: usize = 32;

/// Answers for one moment.
#[derive(Debug)]
pub struct Children {
    /// The kernel lists children (CONFIG_PROC_CHILDREN).
    listed: bool,
    /// By parent, once that was asked for.
    by_parent: Option<HashMap<i32, Vec<i32>>>,
}

impl Default for Children {
    fn default() -> Self {
        let us = std::process::id();
        Self {
            listed: std::fs::exists(format!("/proc/self/task/{us}/children")).unwrap_or(false),
            by_parent: None,
        }
    }
}

impl Children {
    /// From now on answers are for another moment.
    pub fn refresh(&mut self) {
        self.by_parent = None;
    }

    /// Children of the process `pid` with these threads.
    pub fn of(&mut self, pid: i32, tids: &[i32]) -> Vec<i32> {
        if self.listed && tids.len() <= MANY_THREADS {
            return proc::children(pid, tids);
        }
        let found = self.by_parent.get_or_insert_with(by_parent).get(&pid).cloned().unwrap_or_default();
        // For their order, which is that of wait(2).
        if self.listed && !found.is_empty() { proc::children(pid, tids) } else { found }
    }
}

fn by_parent() -> HashMap<i32, Vec<i32>> {
    let mut map: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in proc::processes() {
        if let Some(stat) = proc::stat_of(&format!("/proc/{pid}")) {
            map.entry(stat.ppid).or_default().push(pid);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn all_ways_of_finding_children_agree() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let us = std::process::id() as i32;
        let tids: Vec<i32> = crate::ptrace::threads(us).unwrap();
        let many: Vec<i32> = tids.iter().copied().cycle().take(MANY_THREADS + tids.len()).collect();
        for (listed, tids) in [(true, &tids), (true, &many), (false, &tids)] {
            let mut lists = Children { listed, by_parent: None };
            assert!(lists.of(us, tids).contains(&(child.id() as i32)));
            assert_eq!(lists.of(i32::MAX, tids), []);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
