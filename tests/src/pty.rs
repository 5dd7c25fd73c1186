//! Pseudo-terminals, for programs that are dumped in one and go on in another.

use crate::{Launch, suite::Handle};
use anyhow::Context;
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// The master side of a pseudo-terminal; all that was written to the terminal is collected.
#[derive(Debug)]
pub struct Terminal {
    t: Handle,
    master: File,
    slave: OwnedFd,
    path: String,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub(crate) fn open(t: Handle) -> anyhow::Result<Self> {
        // Not openpty(3): victims that are started meanwhile would inherit its descriptors.
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).context("openpt")?;
        grantpt(&master).context("grantpt")?;
        unlockpt(&master).context("unlockpt")?;
        let path = ptsname_r(&master).context("ptsname")?;
        let slave =
            File::options().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(&path)?;
        let master = File::from(OwnedFd::from(master));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut reader = master.try_clone()?;
        let sink = seen.clone();
        // Ends with EIO when the last slave is closed.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if let Ok(mut all) = sink.lock() {
                    all.extend_from_slice(&buffer[..n]);
                }
            }
        });
        let terminal = Self { t, master, slave: slave.into(), path, seen };
        terminal.resize(24, 80)?;
        Ok(terminal)
    }

    /// `/dev/pts/N`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Gives the terminal to a command: its stdio, and the controlling terminal of a new session.
    pub fn attach<'t>(&self, launch: Launch<'t>) -> anyhow::Result<Launch<'t>> {
        Ok(launch
            .same_group()
            .prefix(["setsid", "--ctty", "--"].map(OsString::from))
            .stdin(self.slave.try_clone()?)
            .stdout(self.slave.try_clone()?)
            .stderr(self.slave.try_clone()?))
    }

    /// Another descriptor of the terminal, for use as stdio.
    pub fn stdio(&self) -> anyhow::Result<Stdio> {
        Ok(self.slave.try_clone()?.into())
    }

    /// Types. `"\x03"` is Ctrl-C, `"\x1a"` is Ctrl-Z.
    pub fn send(&self, keys: &str) -> anyhow::Result<()> {
        (&self.master).write_all(keys.as_bytes()).context("typing into the terminal")
    }

    /// All output so far, escape sequences included.
    pub fn output(&self) -> String {
        self.seen.lock().map(|s| String::from_utf8_lossy(&s).into_owned()).unwrap_or_default()
    }

    /// Forgets the output so far.
    pub fn clear(&self) {
        if let Ok(mut seen) = self.seen.lock() {
            seen.clear();
        }
    }

    /// Waits until the output contains a text; gives all output since the last [`Terminal::clear`].
    pub fn expect(&self, text: &str) -> anyhow::Result<String> {
        self.t
            .wait_for(&format!("{text:?} on the terminal"), || {
                let output = self.output();
                Ok(output.contains(text).then_some(output))
            })
            .with_context(|| format!("the terminal shows: {:?}", self.output()))
    }

    /// Changes the window size (SIGWINCH to the foreground).
    pub fn resize(&self, rows: u16, columns: u16) -> anyhow::Result<()> {
        let (rows, columns) = (rows.to_string(), columns.to_string());
        let status = Command::new("stty")
            .args(["-F", &self.path, "rows", &rows, "cols", &columns])
            .status()
            .context("stty")?;
        anyhow::ensure!(status.success(), "stty: {status}");
        Ok(())
    }

    /// `stty -a` of the terminal.
    pub fn modes(&self) -> anyhow::Result<String> {
        let output = Command::new("stty").args(["-F", &self.path, "-a"]).output().context("stty")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
