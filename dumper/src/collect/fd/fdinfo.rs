//! `/proc/PID/fdinfo/N` (Documentation/filesystems/proc.rst, 3.8). Pure.

use super::event::{EpollTarget, TimerFdFacts};

/// What every descriptor's fdinfo says, and its text for what only some kinds say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FdInfo {
    pub pos: u64,
    /// F_GETFL, without O_CLOEXEC.
    pub flags: u32,
    pub cloexec: bool,
    pub locks: Vec<LockFacts>,
    text: String,
}

/// A lock that this open file description (flock, OFD) or this process through it (POSIX) holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockFacts {
    /// FLOCK, POSIX, OFDLCK, LEASE, DELEG ...
    pub kind: String,
    /// READ or WRITE.
    pub write: bool,
    pub start: u64,
    /// Last byte; `None` for "to the end".
    pub last: Option<u64>,
    /// A lease that somebody waits for, or that is over.
    pub breaking: bool,
}

impl FdInfo {
    /// Parses the text of a fdinfo file; `None` when `flags` is missing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let flags = u32::from_str_radix(field(text, "flags")?, 8).ok()?;
        let pos = field(text, "pos").and_then(|v| v.parse::<i64>().ok()).unwrap_or(0);
        let cloexec = libc::O_CLOEXEC as u32;
        Some(Self {
            pos: pos as u64,
            flags: flags & !cloexec,
            cloexec: flags & cloexec != 0,
            locks: text.lines().filter_map(|l| lock(l.strip_prefix("lock:")?)).collect(),
            text: text.to_owned(),
        })
    }

    /// A decimal field of its kind.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        field(&self.text, name)?.parse().ok()
    }

    /// A decimal field that may be negative.
    #[must_use]
    pub fn signed(&self, name: &str) -> Option<i32> {
        field(&self.text, name)?.parse().ok()
    }

    /// The lines that begin with a word, without it.
    pub fn lines(&self, word: &'static str) -> impl Iterator<Item = &str> {
        self.text.lines().filter_map(move |l| l.strip_prefix(word))
    }

    /// A hexadecimal field of its kind.
    #[must_use]
    pub fn hex(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(field(&self.text, name)?, 16).ok()
    }

    /// The `tfd:` lines of an epoll instance.
    #[must_use]
    pub fn epoll_targets(&self) -> Vec<EpollTarget> {
        self.text.lines().filter_map(epoll_target).collect()
    }

    /// The fields of a timerfd; `settime flags` is octal, times are `(seconds, nanoseconds)`.
    #[must_use]
    pub fn timerfd(&self) -> Option<TimerFdFacts> {
        let time = |name| {
            let (s, ns) = field(&self.text, name)?.strip_prefix('(')?.strip_suffix(')')?.split_once(", ")?;
            Some(s.parse::<u64>().ok()? * 1_000_000_000 + ns.trim().parse::<u64>().ok()?)
        };
        Some(TimerFdFacts {
            clock: field(&self.text, "clockid")?.parse().ok()?,
            ticks: self.number("ticks")?,
            settime_flags: u32::from_str_radix(field(&self.text, "settime flags")?, 8).ok()?,
            remaining_ns: time("it_value")?,
            interval_ns: time("it_interval")?,
            asked_at: 0,
        })
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|l| Some(l.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// ` 1: POSIX  ADVISORY  WRITE 4242 08:01:12345 0 EOF` (fs/locks.c, lock_get_status).
fn lock(line: &str) -> Option<LockFacts> {
    let mut words = line.split_whitespace().skip(1);
    let kind = words.next()?;
    let state = words.next()?;
    let mode = words.find(|w| ["READ", "WRITE", "RW", "NONE", "UNLCK"].contains(w))?;
    let mut range = words.skip(2);
    Some(LockFacts {
        kind: kind.to_owned(),
        write: mode == "WRITE",
        start: range.next()?.parse().ok()?,
        last: range.next()?.parse().ok(),
        breaking: state == "BREAKING" || state == "BREAKER",
    })
}

/// `tfd:        5 events:       19 data:                5  pos:0 ino:61 sdev:7` (fs/eventpoll.c).
fn epoll_target(line: &str) -> Option<EpollTarget> {
    let mut target = EpollTarget::default();
    let line = line.strip_prefix("tfd:")?;
    let spaced = line.replace(':', ": ");
    let mut words = spaced.split_whitespace();
    target.fd = words.next()?.parse().ok()?;
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        match key {
            "events:" => target.events = u32::from_str_radix(value, 16).ok()?,
            "data:" => target.data = u64::from_str_radix(value, 16).ok()?,
            "ino:" => target.ino = u64::from_str_radix(value, 16).ok()?,
            "sdev:" => target.sdev = u64::from_str_radix(value, 16).ok()?,
            _ => {}
        }
    }
    Some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_fields() {
        let i = FdInfo::parse("pos:\t12\nflags:\t02100001\nmnt_id:\t15\nino:\t7\n").unwrap();
        assert_eq!((i.pos, i.flags, i.cloexec), (12, 0o100_001, true));
        assert!(FdInfo::parse("pos:\t0\n").is_none());
    }

    #[test]
    fn locks_of_all_kinds() {
        let text = "pos:\t0\nflags:\t02\n\
            lock:\t1: POSIX  ADVISORY  WRITE 4242 08:01:12345 100 199\n\
            lock:\t2: FLOCK  ADVISORY  READ  4242 08:01:12345 0 EOF\n\
            lock:\t3: OFDLCK ADVISORY  WRITE -1 08:01:12345 7 EOF\n\
            lock:\t4: LEASE  ACTIVE    READ 4242 08:01:12345 0 EOF\n\
            lock:\t5: LEASE  BREAKING  READ 4242 08:01:12345 0 EOF\n";
        let mut locks = FdInfo::parse(text).unwrap().locks;
        assert!(locks.pop().unwrap().breaking && !locks.iter().any(|l| l.breaking));
        let kinds: Vec<_> = locks.iter().map(|l| (l.kind.as_str(), l.write, l.start, l.last)).collect();
        assert_eq!(
            kinds,
            [
                ("POSIX", true, 100, Some(199)),
                ("FLOCK", false, 0, None),
                ("OFDLCK", true, 7, None),
                ("LEASE", false, 0, None)
            ]
        );
    }

    #[test]
    fn epoll_lines() {
        let text = "pos:\t0\nflags:\t02\nmnt_id:\t15\n\
            tfd:        5 events:       19 data:                5  pos:0 ino:61 sdev:7\n\
            tfd:      123 events: 80000001 data: ffffffff00000123  pos:0 ino:a sdev:9\n";
        let t = FdInfo::parse(text).unwrap().epoll_targets();
        assert_eq!(t.len(), 2);
        assert_eq!((t[0].fd, t[0].events, t[0].data, t[0].ino, t[0].sdev), (5, 0x19, 5, 0x61, 7));
        assert_eq!((t[1].fd, t[1].events, t[1].data), (123, 0x8000_0001, 0xffff_ffff_0000_0123));
    }

    #[test]
    fn timerfd_fields() {
        let text = "pos:\t0\nflags:\t02\nclockid: 1\nticks: 3\nsettime flags: 01\n\
            it_value: (1, 500)\nit_interval: (0, 20000000)\n";
        let t = FdInfo::parse(text).unwrap().timerfd().unwrap();
        assert_eq!((t.clock, t.ticks, t.settime_flags), (1, 3, 1));
        assert_eq!((t.remaining_ns, t.interval_ns), (1_000_000_500, 20_000_000));
    }

    #[test]
    fn signal_and_event_fields() {
        let i = FdInfo::parse("flags:\t02\neventfd-count:               2a\nsigmask:\t0000000000000202\n");
        let i = i.unwrap();
        assert_eq!((i.hex("eventfd-count"), i.hex("sigmask")), (Some(0x2a), Some(0x202)));
        assert_eq!(i.number("eventfd-semaphore"), None);
    }
}
