//! Networks of tests: no port of a test is in the way of another's.

use crate::T;
use anyhow::Context;
use nix::sched::{CloneFlags, setns, unshare};
use std::net::{TcpListener, UdpSocket};
use std::process::Command;

impl T {
    /// The test, and all that it starts from now on, has a network of its own with nothing but loopback,
    /// where that is permitted. Then ports that are used, or that were a moment ago, are the test's own. (The
    /// calling thread enters the namespace. The next test on that thread is there, too, alone.)
    pub fn own_network(&self) -> anyhow::Result<()> {
        let before = std::fs::File::open("/proc/thread-self/ns/net")?;
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return Ok(());
        }
        if !loopback_is_up() {
            return setns(before, CloneFlags::CLONE_NEWNET)
                .context("cannot go back to the network of the suite");
        }
        // Everybody may ping.
        let _ = std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0\t2147483647");
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

/// Brings it up; whether it is.
fn loopback_is_up() -> bool {
    [&["ip"][..], &["busybox", "ip"]].into_iter().any(|words| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["link", "set", "lo", "up"]).stderr(std::process::Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}
