//! Long output on a terminal goes through a pager, as git's does: `$PAGER`, else less(1).

use std::io::{self, IsTerminal, Write};
use std::process::{Child, Command, Stdio};

/// Where the output goes: standard output, or a pager in front of it, which is waited for on drop.
pub enum Output {
    Plain(io::BufWriter<io::Stdout>),
    Paged(Child),
}

impl Output {
    /// A pager only when a terminal reads, and `wanted`.
    pub fn new(wanted: bool) -> Self {
        let plain = || Self::Plain(io::BufWriter::new(io::stdout()));
        if !wanted || !io::stdout().is_terminal() {
            return plain();
        }
        let pager = std::env::var("PAGER").unwrap_or_else(|_| "less".into());
        if pager.is_empty() || pager == "cat" {
            return plain();
        }
        let mut command = Command::new("sh");
        // F: short output is simply shown; R: colours; X: it stays on the screen.
        command.args(["-c", &pager]).env("LESS", std::env::var("LESS").unwrap_or_else(|_| "FRX".into()));
        command.stdin(Stdio::piped()).spawn().map_or_else(|_| plain(), Self::Paged)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Paged(child) => child.stdin.as_mut().map_or(Ok(bytes.len()), |pipe| pipe.write(bytes)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Paged(child) => child.stdin.as_mut().map_or(Ok(()), Write::flush),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Self::Paged(child) = self {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}
