//! The command line of an image.

use crate::paths::Renamed;
use crate::report::{Error, On, Result};
use ckpt_format::ObjectKind;

/// --pid
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PidMode {
    Auto,
    Same,
    New,
    Ns,
}

/// --memory
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// All is read before the program runs.
    Eager,
    /// What can be stays mapped from the image.
    Map,
    /// What can be is read while the program runs already.
    Lazy,
}

/// `--fd N=PATH`.
#[derive(Clone, Copy)]
pub struct FdOverride {
    pub fd: i32,
    pub path: &'static [u8],
}

/// Most `--fd` options.
const MAX_FDS: usize = 64;
/// Most `--keep-fd` options.
const MAX_KEPT: usize = 256;
/// Most `--port` options.
const MAX_PORTS: usize = 16;
/// Most `--path` options.
const MAX_PATHS: usize = 32;

#[derive(Clone, Copy)]
pub struct Options {
    pub pid: PidMode,
    pub memory: Memory,
    pub help: bool,
    /// An account of what is saved.
    pub info: bool,
    /// Only checks all checksums.
    pub verify: bool,
    pub verbose: bool,
    /// Where all that is done is written to.
    pub log: Option<&'static [u8]>,
    /// Clocks of the program continue, in a namespace of its own.
    pub time_namespace: bool,
    /// Leave everything in SIGSTOP.
    pub stopped: bool,
    pub chdir: Option<&'static [u8]>,
    pub ignore_changed_files: bool,
    /// Do not check the checksums of page data.
    pub no_verify: bool,
    /// `--fail-point fill`, for tests: what fills memory while the program runs stops before it begins.
    pub fill_stopped: bool,
    /// Go on in spite of missing CPU features.
    pub ignore_cpu: bool,
    fds: [FdOverride; MAX_FDS],
    fd_count: usize,
    kept: [i32; MAX_KEPT],
    kept_count: usize,
    /// Connections to others come back as reset.
    pub reset_tcp: bool,
    ports: [(u16, u16); MAX_PORTS],
    port_count: usize,
    paths: [Renamed; MAX_PATHS],
    path_count: usize,
}

impl Options {
    /// Descriptors that the caller replaces by files.
    pub fn fds(&self) -> &[FdOverride] {
        &self.fds[..self.fd_count]
    }

    pub fn maps_memory(&self) -> bool {
        self.memory == Memory::Map
    }

    pub fn is_lazy(&self) -> bool {
        self.memory == Memory::Lazy
    }

    /// Memory is not read before the program runs.
    pub fn is_at_once(&self) -> bool {
        self.memory != Memory::Eager
    }

    /// The path that the caller gave for a descriptor.
    pub fn fd_path(&self, fd: i32) -> Option<&'static [u8]> {
        self.fds().iter().find(|o| o.fd == fd).map(|o| o.path)
    }
}

/// Reads the arguments after the image's own name.
pub fn parse(args: impl Iterator<Item = &'static [u8]>) -> Result<Options> {
    let mut o = Options {
        pid: PidMode::Auto,
        memory: Memory::Eager,
        help: false,
        info: false,
        verify: false,
        verbose: false,
        log: None,
        time_namespace: false,
        stopped: false,
        chdir: None,
        ignore_changed_files: false,
        no_verify: false,
        fill_stopped: false,
        ignore_cpu: false,
        fds: [FdOverride { fd: -1, path: b"" }; MAX_FDS],
        fd_count: 0,
        kept: [-1; MAX_KEPT],
        kept_count: 0,
        reset_tcp: false,
        ports: [(0, 0); MAX_PORTS],
        port_count: 0,
        paths: [Renamed { old: b"", new: b"" }; MAX_PATHS],
        path_count: 0,
    };
    let mut args = args;
    while let Some(arg) = args.next() {
        let (name, mut value) = match arg.iter().position(|b| *b == b'=') {
            Some(at) if arg.starts_with(b"--") => (&arg[..at], Some(&arg[at + 1..])),
            _ => (arg, None),
        };
        let mut needed = || {
            value
                .take()
                .or_else(|| args.next())
                .ok_or(Error::new("a value is missing after").path(name).remedy("--help lists the options"))
        };
        match name {
            b"--pid" => o.pid = pid_mode(needed()?)?,
            b"--memory" => o.memory = memory(needed()?)?,
            b"--chdir" => o.chdir = Some(needed()?),
            b"--fd" => o.add_fd(needed()?)?,
            b"--keep-fd" => o.add_kept(needed()?)?,
            b"--tcp" => o.reset_tcp = is_reset(needed()?)?,
            b"--port" => o.add_port(needed()?)?,
            b"--path" => o.add_path(needed()?)?,
            b"--log" => o.log = Some(needed()?),
            b"--time-namespace" => o.time_namespace = true,
            b"--info" => o.info = true,
            b"--verify" => o.verify = true,
            b"--help" | b"-h" => o.help = true,
            b"--verbose" | b"-v" => o.verbose = true,
            b"--stopped" => o.stopped = true,
            b"--ignore-changed-files" => o.ignore_changed_files = true,
            b"--fail-point" => o.fill_stopped = needed()? == b"fill",
            b"--no-verify" => o.no_verify = true,
            b"--ignore-cpu" => o.ignore_cpu = true,
            _ => {
                return Err(Error::new("unknown argument").path(arg).remedy(
                    "--help lists the options; the program's own arguments are those it was started with",
                ));
            }
        }
        if value.is_some() {
            return Err(Error::new("no value is allowed in").path(arg).remedy("--help lists the options"));
        }
    }
    Ok(o)
}

/// --tcp
fn is_reset(value: &'static [u8]) -> Result<bool> {
    match value {
        b"repair" => Ok(false),
        b"reset" => Ok(true),
        _ => Err(Error::new("--tcp does not know").path(value).remedy("use repair or reset")),
    }
}

fn memory(value: &'static [u8]) -> Result<Memory> {
    match value {
        b"eager" => Ok(Memory::Eager),
        b"map" => Ok(Memory::Map),
        b"lazy" => Ok(Memory::Lazy),
        _ => Err(Error::new("--memory does not know").path(value).remedy("use eager, lazy or map")),
    }
}

fn pid_mode(value: &'static [u8]) -> Result<PidMode> {
    Ok(match value {
        b"auto" => PidMode::Auto,
        b"same" => PidMode::Same,
        b"new" => PidMode::New,
        b"ns" => PidMode::Ns,
        _ => {
            return Err(Error::new("--pid does not know").path(value).remedy("use auto, same, new or ns"));
        }
    })
}

impl Options {
    fn add_fd(&mut self, value: &'static [u8]) -> Result<()> {
        let bad = Error::new("--fd does not understand").path(value).remedy("use --fd NUMBER=PATH");
        let at = value.iter().position(|b| *b == b'=').ok_or(bad)?;
        let fd = core::str::from_utf8(&value[..at]).ok().and_then(|s| s.parse::<i32>().ok()).ok_or(bad)?;
        let path = &value[at + 1..];
        if fd < 0 || path.is_empty() {
            return Err(bad);
        }
        *self.fds.get_mut(self.fd_count).ok_or(Error::new("too many --fd options"))? =
            FdOverride { fd, path };
        self.fd_count += 1;
        Ok(())
    }

    fn add_kept(&mut self, value: &'static [u8]) -> Result<()> {
        let bad = Error::new("--keep-fd does not understand").path(value).remedy("use --keep-fd NUMBER");
        let fd = core::str::from_utf8(value).ok().and_then(|s| s.parse::<i32>().ok()).filter(|fd| *fd > 2);
        *self.kept.get_mut(self.kept_count).ok_or(Error::new("too many --keep-fd options"))? =
            fd.ok_or(bad)?;
        self.kept_count += 1;
        Ok(())
    }

    /// Descriptors of the caller that the program gets besides its own.
    pub fn kept(&self) -> &[i32] {
        &self.kept[..self.kept_count]
    }

    fn add_port(&mut self, value: &'static [u8]) -> Result<()> {
        let bad = Error::new("--port does not understand").path(value).remedy("use --port OLD=NEW");
        let at = value.iter().position(|b| *b == b'=').ok_or(bad)?;
        let port = |text| {
            core::str::from_utf8(text).ok().and_then(|s| s.parse::<u16>().ok()).filter(|n| *n > 0).ok_or(bad)
        };
        let pair = (port(&value[..at])?, port(&value[at + 1..])?);
        *self.ports.get_mut(self.port_count).ok_or(Error::new("too many --port options"))? = pair;
        self.port_count += 1;
        Ok(())
    }

    fn add_path(&mut self, value: &'static [u8]) -> Result<()> {
        let renamed = Renamed::parse(value)?;
        if self.paths().iter().any(|p| p.old == renamed.old) {
            return Err(Error::new("--path is given twice for").path(renamed.old));
        }
        *self.paths.get_mut(self.path_count).ok_or(Error::new("too many --path options"))? = renamed;
        self.path_count += 1;
        Ok(())
    }

    /// Names that lead elsewhere.
    pub fn paths(&self) -> &[Renamed] {
        &self.paths[..self.path_count]
    }

    /// Saved ports, and those to be used instead.
    pub fn ports(&self) -> &[(u16, u16)] {
        &self.ports[..self.port_count]
    }

    /// Refuses `--fd` for descriptors that the image does not have.
    pub fn check_fds(&self, image: &ckpt_format::Image<'static>, table: u32) -> Result<()> {
        let table = ckpt_format::Image::get(image.fd_tables, table, "descriptor table")?;
        let fds = ckpt_format::Image::slice(image.fds, table.fds, "descriptors")?;
        for o in self.fds() {
            let entry = fds.iter().find(|e| e.fd == o.fd).ok_or(
                Error::new("--fd: the saved program has no descriptor")
                    .on(On::Number(o.fd as u64))
                    .remedy("see ckpt-info for the list"),
            )?;
            let object = ckpt_format::Image::get(image.objects, entry.object, "object")?;
            if ObjectKind::from_u32(object.kind) == Some(ObjectKind::Epoll) {
                return Err(Error::new("--fd cannot replace an epoll descriptor").fd(o.fd));
            }
        }
        Ok(())
    }
}
