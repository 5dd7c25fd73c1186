//! Networks of tests: no port of a test is in the way of another's.

use crate::T;
use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, unshare};
use std::net::{TcpListener, UdpSocket};
use std::process::Command;

impl T {
    /// The test, and all that it starts from now on, has a network of its own with nothing but loopback,
    /// where that is permitted. Then ports that are used, or that were a moment ago, are the test's own. (The
    /// calling thread enters the namespace. The next test on that thread is there, too, alone.)
    pub fn own_network(&self) -> anyhow::Result<()> {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return Ok(());
        }
        let up = ["ip", "busybox"].into_iter().find(|command| crate::have(command));
        let Some(up) = up else { crate::skip!("neither ip nor busybox is installed") };
        let mut command = Command::new(up);
        if up == "busybox" {
            command.arg("ip");
        }
        let status = command.args(["link", "set", "lo", "up"]).status().context(up)?;
        ensure!(status.success(), "{up}: {status}");
        Ok(())
    }

    /// A port that nobody has now, by TCP or UDP, and that no connection gets by itself, as those come from
    /// net.ipv4.ip_local_port_range.
    pub fn free_port(&self) -> anyhow::Result<u16> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..20_000 {
            let n = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() * 37;
            let port = 10_000 + (n % 20_000) as u16;
            if TcpListener::bind(("0.0.0.0", port)).is_ok() && UdpSocket::bind(("0.0.0.0", port)).is_ok() {
                return Ok(port);
            }
        }
        anyhow::bail!("no free port")
    }
}
