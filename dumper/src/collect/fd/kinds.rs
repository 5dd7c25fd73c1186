//! Of which kind a descriptor is.

use super::*;

type Collect = fn(&mut Context<'_>, &Probe) -> Result<Detail>;

/// How a kind is recognised.
enum Sign {
    /// The link starts with this.
    Link(&'static str),
    /// A regular file, to its mode, on a file system of this type (statfs(2)).
    FileSystem(i64),
    /// `S_IFMT` of the mode.
    Mode(u32),
    /// A character device with one of these major numbers.
    Major(std::ops::RangeInclusive<u32>),
    /// The character device with this number.
    Device(u32, u32),
    /// AF_* of a socket.
    Family(i32),
}

/// Kinds in the order in which they are tried.
const KINDS: &[(Sign, Collect)] = &[
    (Sign::Link("anon_inode:[eventfd]"), event::eventfd),
    (Sign::Link("anon_inode:[eventpoll]"), event::epoll),
    (Sign::Link("anon_inode:[timerfd]"), event::timerfd),
    (Sign::Link("anon_inode:[signalfd]"), event::signalfd),
    (Sign::Link("anon_inode:[pidfd]"), pidfd::collect),
    (Sign::Link("pidfd:"), pidfd::collect),
    (Sign::Link("anon_inode:inotify"), inotify::collect),
    (Sign::Link("anon_inode:[inotify]"), inotify::collect),
    (Sign::Link("anon_inode:[fanotify]"), fanotify::collect),
    (Sign::Link("anon_inode:"), unknown),
    (Sign::Link("/memfd:"), regular::memfd),
    (Sign::FileSystem(mqueue::FILE_SYSTEM), mqueue::collect),
    (Sign::Mode(libc::S_IFREG), regular::collect),
    (Sign::Mode(libc::S_IFDIR), regular::collect),
    (Sign::Mode(libc::S_IFLNK), regular::collect),
    (Sign::Mode(libc::S_IFBLK), regular::collect),
    (Sign::Mode(libc::S_IFIFO), pipe::collect),
    // Unix 98 pty slaves (Documentation/admin-guide/devices.txt), 5:2 /dev/ptmx, virtual consoles,
    // serial lines, and 5:0 /dev/tty, 5:1 /dev/console.
    (Sign::Major(136..=143), tty::collect),
    (Sign::Device(5, 2), pty::master),
    (Sign::Major(4..=5), tty::collect),
    (Sign::Mode(libc::S_IFCHR), regular::collect),
    (Sign::Family(libc::AF_INET), inet::collect),
    (Sign::Family(libc::AF_INET6), inet::collect),
    (Sign::Family(libc::AF_UNIX), unix::collect),
    (Sign::Family(libc::AF_NETLINK), netlink::collect),
    (Sign::Family(libc::AF_PACKET), packet::collect),
    (Sign::Mode(libc::S_IFSOCK), socket::unknown),
];

/// The collector of the kind that a descriptor is of.
pub fn collector(cx: &mut Context<'_>, probe: &Probe) -> Result<Collect> {
    let mode = probe.stat.kind();
    let device = (libc::major(probe.stat.rdev), libc::minor(probe.stat.rdev));
    let by_path = probe.link.starts_with(b"/") && !probe.link.starts_with(b"/memfd:");
    if by_path && probe.info.flags as i32 & libc::O_PATH != 0 {
        return Ok(regular::collect);
    }
    let family = if mode == libc::S_IFSOCK && probe.link.starts_with(b"socket:") {
        let ours = cx.duplicate(probe)?;
        sys::socket::option_int(ours.as_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN)?
    } else {
        libc::AF_UNSPEC
    };
    // A message queue has no device.
    let no_device = mode == libc::S_IFREG && libc::major(probe.stat.dev) == 0;
    let fs_type = if no_device { cx.fs_type(probe) } else { 0 };
    let matches = |sign: &Sign| match sign {
        Sign::Link(prefix) => probe.link.starts_with(prefix.as_bytes()),
        Sign::FileSystem(kind) => no_device && fs_type == *kind,
        Sign::Mode(m) => mode == *m,
        Sign::Major(range) => mode == libc::S_IFCHR && range.contains(&device.0),
        Sign::Device(major, minor) => mode == libc::S_IFCHR && device == (*major, *minor),
        Sign::Family(f) => family == *f,
    };
    Ok(KINDS.iter().find(|(sign, _)| matches(sign)).map_or(unknown as Collect, |(_, collect)| *collect))
}

fn unknown(_: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    Ok(Detail::Unknown(probe.link_text()))
}
