//! Places at which a dump can be made to fail, for tests of its harmlessness.
//!
//! `CKPT_FAILPOINT=name` makes the dump fail there; `CKPT_FAILPOINT=name=kill` makes ckpt-dump die by
//! SIGKILL there, which undoes nothing. Names, in the order in which they are passed: `after-open`
//! (the temporary output file exists), `after-seize` (some threads are traced, none asked to stop),
//! `after-freeze` (all threads stopped), `after-scratch` (our memory is mapped in the target),
//! `after-collect`, `after-plan`, `mid-write` (some extents written), `after-write`, `before-sync`,
//! `before-rename`.

use anyhow::{Result, bail};
use std::sync::OnceLock;

static SETTING: OnceLock<Option<(String, bool)>> = OnceLock::new();

/// Fails, or does not return, if the environment says so.
///
/// # Errors
/// When this place is the one named by `CKPT_FAILPOINT`.
pub fn hit(name: &str) -> Result<()> {
    let setting = SETTING.get_or_init(|| {
        let value = std::env::var("CKPT_FAILPOINT").ok()?;
        Some(match value.strip_suffix("=kill") {
            Some(name) => (name.to_owned(), true),
            None => (value, false),
        })
    });
    match setting {
        Some((wanted, kill)) if wanted == name => {
            if *kill {
                crate::sys::process::kill(std::process::id() as i32, libc::SIGKILL);
            }
            bail!("fail point {name}")
        }
        _ => Ok(()),
    }
}
