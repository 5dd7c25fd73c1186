//! Credentials of a thread. Only what differs from the caller's is changed: ids must become exactly
//! what they were; capabilities as far as the caller has them.

use crate::ctx::Ctx;
use crate::report::{Error, On, Result, note, say};
use crate::sys::process::{self, Caps};
use ckpt_format::Creds;
use core::sync::atomic::{AtomicBool, Ordering};
use linux_raw_sys::prctl::{
    PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, PR_CAP_AMBIENT_RAISE, PR_CAPBSET_DROP, PR_CAPBSET_READ,
    PR_GET_SECUREBITS, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS, PR_SET_SECUREBITS,
};

/// SECBIT_KEEP_CAPS.
const KEEP_CAPS: u32 = 1 << 4;

/// More groups than any system allows a user in practice.
const MAX_GROUPS: usize = 4096;

/// Ids of whoever runs the image, read before any namespace is entered.
pub struct Caller {
    pub uids: [u32; 4],
    pub gids: [u32; 4],
    groups: &'static [u32],
}

impl Caller {
    pub fn read(work: &crate::mem::work::Work) -> Result<Self> {
        let groups = process::groups(work.slice(MAX_GROUPS)?).map_err(Error::os("cannot read groups"))?;
        Ok(Self { uids: process::uids(), gids: process::gids(), groups })
    }
}

/// What of the ids differs.
struct Differs {
    uids: bool,
    gids: bool,
    groups: bool,
}

fn differs(ctx: &Ctx, saved: &Creds) -> Result<Differs> {
    let groups = ctx.image.records::<u32>(saved.groups)?;
    let same =
        groups.len() == ctx.caller.groups.len() && groups.iter().all(|g| ctx.caller.groups.contains(g));
    Ok(Differs { uids: saved.uid != ctx.caller.uids, gids: saved.gid != ctx.caller.gids, groups: !same })
}

/// Refuses what the caller may not become, before anything is done. `in_user_ns`: only the
/// caller's own ids exist there.
pub fn check(ctx: &Ctx, saved: &Creds, in_user_ns: bool) -> Result<()> {
    const CAP_SETGID: u64 = 1 << 6;
    const CAP_SETUID: u64 = 1 << 7;
    let d = differs(ctx, saved)?;
    let may = if in_user_ns { 0 } else { process::caps().effective };
    let own = |ids: &[u32; 4], now: &[u32; 4]| !in_user_ns && ids.iter().all(|id| now[..3].contains(id));
    if d.uids && may & CAP_SETUID == 0 && !own(&saved.uid, &ctx.caller.uids) {
        return Err(Error::new("the program ran as another user: uid")
            .on(On::Number(u64::from(saved.uid[1])))
            .remedy("run the image as that user or as root"));
    }
    if d.gids && may & CAP_SETGID == 0 && !own(&saved.gid, &ctx.caller.gids) {
        return Err(Error::new("the program ran with another group: gid")
            .on(On::Number(u64::from(saved.gid[1])))
            .remedy("run the image with that group (newgrp) or as root"));
    }
    if d.groups && may & CAP_SETGID == 0 {
        return Err(Error::new("the program had other supplementary groups")
            .remedy("run the image with the same groups (a new login), or as root"));
    }
    Ok(())
}

/// Sets the calling thread's credentials.
pub fn set(ctx: &Ctx, saved: &Creds) -> Result<()> {
    let d = differs(ctx, saved)?;
    drop_bounding(saved.cap_bounding)?;
    if d.groups {
        process::set_groups(ctx.image.records(saved.groups)?)
            .map_err(Error::os("cannot set the supplementary groups"))?;
    }
    if d.gids {
        process::set_gids(&saved.gid).map_err(Error::os("cannot set the group ids"))?;
    }
    if d.uids {
        // Keeps the permitted set across the change; the saved sets decide afterwards.
        process::prctl(PR_SET_KEEPCAPS, 1, 0).map_err(Error::os("cannot keep capabilities"))?;
        process::set_uids(&saved.uid).map_err(Error::os("cannot set the user ids"))?;
    }
    set_caps(saved, d.uids)?;
    if saved.no_new_privs != 0 {
        process::prctl(PR_SET_NO_NEW_PRIVS, 1, 0).map_err(Error::os("cannot set no_new_privs"))?;
    }
    Ok(())
}

fn set_caps(saved: &Creds, keep_is_set: bool) -> Result<()> {
    let now = process::caps();
    let wanted = Caps {
        effective: saved.cap_effective & now.permitted,
        permitted: saved.cap_permitted & now.permitted,
        inheritable: saved.cap_inheritable & (now.inheritable | now.permitted),
    };
    // Once, not for each thread.
    static SAID: AtomicBool = AtomicBool::new(false);
    if wanted.permitted != saved.cap_permitted && !SAID.swap(true, Ordering::Relaxed) {
        let missing = saved.cap_permitted & !now.permitted;
        say(format_args!("capabilities that the program had are missing here: {missing:#x}"));
    }
    let failed = Error::os("cannot set the capabilities");
    let bits = process::prctl(PR_GET_SECUREBITS, 0, 0).unwrap_or(0) as u32;
    if bits & !KEEP_CAPS == saved.securebits & !KEEP_CAPS {
        // Needs no privilege, unlike the others.
        if bits != saved.securebits || keep_is_set {
            let keep = u64::from(saved.securebits & KEEP_CAPS != 0);
            process::prctl(PR_SET_KEEPCAPS, keep, 0).map_err(Error::os("cannot set PR_SET_KEEPCAPS"))?;
        }
    } else {
        // Needs an effective CAP_SETPCAP, which a change of user took from the effective set.
        let _ = process::set_caps(Caps { effective: now.permitted, ..now });
        process::prctl(PR_SET_SECUREBITS, u64::from(saved.securebits), 0)
            .map_err(Error::os("cannot set the securebits"))?;
    }
    if wanted != process::caps() {
        process::set_caps(wanted).map_err(&failed)?;
    }
    set_ambient(saved.cap_ambient & wanted.permitted & wanted.inheritable)
}

/// Cleared, then raised one by one: two calls where there are none, as nearly always.
fn set_ambient(wanted: u64) -> Result<()> {
    let failed = Error::os("cannot set the ambient capabilities");
    // EINVAL before Linux 4.3, which has none.
    let _ = process::prctl(PR_CAP_AMBIENT, u64::from(PR_CAP_AMBIENT_CLEAR_ALL), 0);
    for cap in (0..64u64).filter(|c| wanted & 1 << c != 0) {
        process::prctl(PR_CAP_AMBIENT, u64::from(PR_CAP_AMBIENT_RAISE), cap).map_err(&failed)?;
    }
    Ok(())
}

/// Takes capabilities out of the bounding set; none can come back.
fn drop_bounding(saved: u64) -> Result<()> {
    for cap in (0..64u64).filter(|c| saved & 1 << c == 0) {
        match process::prctl(PR_CAPBSET_READ, cap, 0) {
            Ok(1) => {}
            Ok(_) => continue,
            // Beyond the last capability of this kernel.
            Err(_) => break,
        }
        if let Err(e) = process::prctl(PR_CAPBSET_DROP, cap, 0) {
            // Without CAP_SETPCAP the set only matters to programs that become privileged by exec.
            note(format_args!("the bounding set of capabilities stays larger than it was: {e}"));
            break;
        }
    }
    Ok(())
}
