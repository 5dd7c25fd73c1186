//! Descriptors that are none of the image's business: those by which a process that has itself dumped talks to us.

use super::Probe;
use anyhow::{Context as _, Result};
use std::collections::{HashMap, HashSet};

/// Open files that are not observed, whichever descriptors are of them.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// Descriptors of the first process.
    pub fds: Vec<i32>,
    /// Device and inode of others.
    pub inodes: Vec<(u64, u64)>,
}

impl LeftOut {
    /// Takes them out of what [`super::probe::group`] was given and has returned.
    pub(super) fn apply(&self, probes: Vec<Probe>, owner_of: Vec<usize>) -> Result<(Vec<Probe>, Vec<usize>)> {
        let mut left = HashSet::new();
        for fd in &self.fds {
            let index = probes.iter().position(|p| p.table == 0 && p.fd == *fd);
            left.insert(owner_of[index.with_context(|| format!("fd {fd}, to be left out, is not open"))?]);
        }
        left.extend((0..probes.len()).filter(|i| {
            let Probe { stat, failed, .. } = &probes[*i];
            failed.is_none() && self.inodes.contains(&(stat.dev, stat.ino))
        }));
        // Where each probe goes.
        let stays = |i: &usize| !left.contains(i) && !left.contains(&owner_of[*i]);
        let place: HashMap<usize, usize> = (0..probes.len()).filter(stays).zip(0..).collect();
        let owners = (0..probes.len()).filter(stays).map(|i| place[&owner_of[i]]).collect();
        let probes = probes.into_iter().enumerate().filter(|(i, _)| place.contains_key(i)).map(|(_, p)| p);
        Ok((probes.collect(), owners))
    }
}
