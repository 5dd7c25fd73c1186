//! Which unix socket is the other end of which, on a kernel without unix_diag. Guesses, so all that is
//! known must agree with them: a socket without an answer counts as connected to the outside.

use crate::collect::fd::unix::{Peer, UnixFacts};
use std::collections::HashMap;

/// Index of the other end among the descriptions. `at` gives the socket of an inode.
///
/// socketpair(2) makes both inodes one after the other; of a connection through a name, one end has that
/// name and the other is connected to it: good where there is no second such connection.
pub fn other_end<'a>(
    sockets: &HashMap<u64, usize>,
    facts: &UnixFacts,
    at: impl Fn(usize) -> Option<&'a UnixFacts>,
) -> Option<usize> {
    let found = if unnamed(facts) { of_a_pair(sockets, facts, &at) } else { by_name(sockets, facts, &at) };
    found.filter(|i| at(*i).is_some_and(|other| agree(facts, other) && agree(other, facts)))
}

fn unnamed(u: &UnixFacts) -> bool {
    u.name.is_empty() && u.remote.is_empty()
}

/// Both know the same process as the one that made them.
fn alike(a: &UnixFacts, b: &UnixFacts) -> bool {
    b.peer == Peer::Unknown && b.kind == a.kind && b.peer_pid == a.peer_pid && !b.listening
}

/// What `a` has sent and is not received yet waits at `b`.
fn agree(a: &UnixFacts, b: &UnixFacts) -> bool {
    (a.unreceived > 0) != b.queue.is_empty()
}

/// Nothing goes either way any more: closed at the other end, which may have been the neighbour.
fn over(u: &UnixFacts) -> bool {
    u.shutdown == 3
}

/// In a row of such inodes the first two are a pair, and so on: one that is left over shows that the row
/// does not tell.
fn of_a_pair<'a>(
    sockets: &HashMap<u64, usize>,
    facts: &UnixFacts,
    at: impl Fn(usize) -> Option<&'a UnixFacts>,
) -> Option<usize> {
    let member = |ino: &u64| {
        sockets
            .get(ino)
            .copied()
            .filter(|i| at(*i).is_some_and(|u| alike(facts, u) && unnamed(u) && !over(u)))
    };
    member(&facts.ino)?;
    let before = (1..).take_while(|n| facts.ino.checked_sub(*n).as_ref().and_then(member).is_some()).count();
    let behind = (1..).take_while(|n| facts.ino.checked_add(*n).as_ref().and_then(member).is_some()).count();
    if (before + 1 + behind) % 2 != 0 {
        return None;
    }
    member(&if before % 2 == 0 { facts.ino + 1 } else { facts.ino - 1 })
}

fn by_name<'a>(
    sockets: &HashMap<u64, usize>,
    facts: &UnixFacts,
    at: impl Fn(usize) -> Option<&'a UnixFacts>,
) -> Option<usize> {
    let named = |name: &[u8], remote: &[u8]| -> Vec<usize> {
        let all = sockets.values().copied();
        all.filter(|i| at(*i).is_some_and(|u| alike(facts, u) && u.name == name && u.remote == remote))
            .collect()
    };
    let (own, other) = (named(&facts.name, &facts.remote), named(&facts.remote, &facts.name));
    (own.len() == 1 && other.len() == 1).then(|| other[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fd::unix::Queued;

    fn socket(ino: u64) -> UnixFacts {
        UnixFacts {
            kind: libc::SOCK_STREAM,
            ino,
            name: Vec::new(),
            file: None,
            listening: false,
            backlog: 0,
            waiting: Vec::new(),
            unreceived: 0,
            peer: Peer::Unknown,
            outside: Vec::new(),
            peer_pid: 7,
            remote: Vec::new(),
            shutdown: 0,
            queue: Vec::new(),
            queue_problem: None,
            options: Vec::new(),
        }
    }

    fn ends(sockets: &[UnixFacts]) -> Vec<Option<usize>> {
        let table = sockets.iter().enumerate().map(|(i, u)| (u.ino, i)).collect();
        sockets.iter().map(|u| other_end(&table, u, |i| sockets.get(i))).collect()
    }

    #[test]
    fn pairs_are_neighbours() {
        let all: Vec<_> = [4, 5, 6, 7, 20, 21].map(socket).into();
        assert_eq!(ends(&all), [Some(1), Some(0), Some(3), Some(2), Some(5), Some(4)]);
    }

    #[test]
    fn an_end_whose_other_end_was_closed_does_not_take_its_neighbour() {
        // 4 was closed; 6 and 7 are a pair.
        let mut all: Vec<_> = [5, 6, 7].map(socket).into();
        all[0].shutdown = 3;
        assert_eq!(ends(&all), [None, Some(2), Some(1)]);
    }

    #[test]
    fn a_row_with_one_left_over_does_not_tell() {
        let all: Vec<_> = [4, 5, 6].map(socket).into();
        assert_eq!(ends(&all), [None, None, None]);
    }

    #[test]
    fn what_waits_must_have_been_sent_by_the_other() {
        let mut all: Vec<_> = [4, 5].map(socket).into();
        all[0].queue.push(Queued { bytes: b"x".to_vec(), ..Queued::default() });
        assert_eq!(ends(&all), [None, None]);
        all[1].unreceived = 768;
        assert_eq!(ends(&all), [Some(1), Some(0)]);
    }

    #[test]
    fn a_name_tells_when_only_one_is_connected_to_it() {
        let mut all: Vec<_> = [4, 9, 12].map(socket).into();
        all[0].name = b"\0service".to_vec();
        all[1].remote = b"\0service".to_vec();
        all[2].kind = libc::SOCK_SEQPACKET;
        assert_eq!(ends(&all), [Some(1), Some(0), None]);
        all[2] = all[1].clone();
        all[2].ino = 12;
        assert_eq!(ends(&all), [None, None, None]);
    }
}
