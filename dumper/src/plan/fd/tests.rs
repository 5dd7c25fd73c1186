//! Decisions about whole tables.

use super::*;
use crate::collect::fd::event::EventFdFacts;
use crate::collect::fd::pipe::{PipeData, PipeFacts};
use crate::collect::fd::tty::TtyFacts;
use crate::collect::fd::{FdEntryFacts, FdInfo, FdTableFacts, FileStat};
use crate::plan::Options;

fn description(fd: i32, link: &str, flags: &str, ino: u64, detail: Detail) -> Description {
    let info = FdInfo::parse(&format!("pos:\t0\nflags:\t{flags}\n")).unwrap();
    let stat = FileStat { ino, ..FileStat::default() };
    Description {
        pid: 77,
        fd,
        on_the_way_to: None,
        link: link.into(),
        stat,
        info,
        owner: (0, 0),
        signal: 0,
        detail,
    }
}

fn task(descriptions: Vec<Description>, more: &[(i32, usize)]) -> Facts {
    let mut fds: Vec<FdEntryFacts> = descriptions
        .iter()
        .enumerate()
        .map(|(i, d)| FdEntryFacts { fd: d.fd, cloexec: false, description: i })
        .collect();
    fds.extend(more.iter().map(|(fd, description)| FdEntryFacts {
        fd: *fd,
        cloexec: false,
        description: *description,
    }));
    fds.sort_by_key(|f| f.fd);
    let tables = vec![FdTableFacts { tasks: vec![0], fds, ..FdTableFacts::default() }];
    Facts {
        tasks: vec![TaskFacts { pid: 77, ..TaskFacts::default() }],
        fds: FdFacts { hold: None, tables, descriptions, files: Vec::new() },
        ..Facts::default()
    }
}

fn pipe(data: Option<&[u8]>, other_end_closed: bool) -> Detail {
    let data = data.map(|d| PipeData { messages: vec![d.to_vec()] });
    Detail::Pipe(PipeFacts {
        capacity: 65536,
        named: false,
        other_end_closed,
        no_writer_yet: false,
        outside: Vec::new(),
        data,
    })
}

#[test]
fn both_ends_share_one_pipe() {
    let t = task(
        vec![
            description(3, "pipe:[9]", "00", 9, pipe(Some(b"abc"), false)),
            description(4, "pipe:[9]", "01", 9, pipe(None, false)),
        ],
        &[],
    );
    let mut b = Builder::default();
    plan(&mut b, &t);
    assert!(b.obstacles.is_empty(), "{:?}", b.obstacles);
    let o = &b.tables.objects;
    assert_eq!((o.len(), o[0].inner, o[1].inner), (3, 2, 2));
    assert_eq!((o[2].kind, o[2].queue.len), (ObjectKind::Pipe as u32, 24));
}

#[test]
fn a_pipe_to_the_outside_is_refused_by_name_or_inherited() {
    let outside = |fd| task(vec![description(fd, "pipe:[9]", "00", 9, pipe(Some(b""), false))], &[]);
    let mut b = Builder::default();
    plan(&mut b, &outside(5));
    assert!(b.obstacles[0].what.contains("fd 5 (pipe:[9])"), "{:?}", b.obstacles);
    assert!(b.obstacles[0].remedy.contains("--allow pipe-outside"));
    let options = Options { allow: ["pipe-outside".to_owned()].into(), ..Options::default() };
    let mut b = Builder::new(options);
    plan(&mut b, &outside(5));
    assert!(b.obstacles.is_empty() && b.tables.losses.len() == 1);
    let mut b = Builder::default();
    plan(&mut b, &outside(0));
    assert!(b.obstacles.is_empty());
    assert_eq!(b.tables.objects[0].kind, ObjectKind::Inherited as u32);
}

#[test]
fn standard_descriptors_on_one_terminal_are_three_objects_and_further_ones_share() {
    let tty = Detail::Tty(TtyFacts { termios: Some([1; 44]), ..TtyFacts::default() });
    let t = task(vec![description(0, "/dev/pts/1", "02", 4, tty)], &[(1, 0), (2, 0), (10, 0)]);
    let mut b = Builder::default();
    plan(&mut b, &t);
    assert!(b.obstacles.is_empty());
    let objects: Vec<u32> = b.tables.fds.iter().map(|f| f.object).collect();
    assert_eq!(objects[0], objects[3]);
    assert_ne!(objects[0], objects[1]);
    assert_ne!(objects[1], objects[2]);
    for o in &objects[..3] {
        let o = &b.tables.objects[*o as usize];
        assert_eq!(o.kind, ObjectKind::Inherited as u32);
        assert_eq!(b.tables.objects[o.inner as usize].kind, ObjectKind::Tty as u32);
    }
}

#[test]
fn all_obstacles_at_once() {
    let semaphore = Detail::EventFd(EventFdFacts { count: 1, semaphore: Some(true) });
    let t = task(
        vec![
            description(3, "anon_inode:[io_uring]", "02", 1, Detail::Unknown("anon_inode:[io_uring]".into())),
            description(4, "anon_inode:[eventfd]", "02", 1, semaphore),
            description(
                5,
                "anon_inode:[perf_event]",
                "02",
                1,
                Detail::Unknown("anon_inode:[perf_event]".into()),
            ),
        ],
        &[],
    );
    let mut b = Builder::default();
    plan(&mut b, &t);
    assert_eq!(b.obstacles.len(), 2);
    assert!(b.obstacles[0].what.contains("fd 3") && b.obstacles[0].remedy.contains("UV_USE_IO_URING=0"));
    assert!(b.obstacles[1].what.contains("a perf event"));
}
