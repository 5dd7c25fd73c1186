//! eventfd, timerfd, signalfd, epoll: fdinfo tells everything.

use super::{Context, Description, Detail, Probe};
use crate::sys;
use anyhow::{Result, anyhow};
use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFdFacts {
    pub count: u64,
    /// EFD_SEMAPHORE; `None` where it could not be told.
    pub semaphore: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimerFdFacts {
    pub clock: i32,
    pub ticks: u64,
    /// TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET.
    pub settime_flags: u32,
    pub remaining_ns: u64,
    pub interval_ns: u64,
    /// CLOCK_REALTIME when this was asked, in ns.
    pub asked_at: u64,
}

/// One registration of an epoll instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpollTarget {
    /// Number under which it was registered.
    pub fd: i32,
    pub events: u32,
    pub data: u64,
    /// Inode and `s_dev` of what is watched.
    pub ino: u64,
    pub sdev: u64,
    /// Index of the description that is watched; `None` when no descriptor refers to it any more.
    pub description: Option<usize>,
    /// Edge-triggered: events that are true, and of which the program knows already.
    pub seen: u32,
}

impl EpollTarget {
    /// Set once by the caller, never reported (EP_PRIVATE_BITS in fs/eventpoll.c).
    const HOW: u32 = (libc::EPOLLWAKEUP | libc::EPOLLONESHOT | libc::EPOLLET | libc::EPOLLEXCLUSIVE) as u32;

    fn is_edge_triggered(&self) -> bool {
        self.events & libc::EPOLLET as u32 != 0
    }

    /// Not after a one-shot has fired.
    fn is_armed(&self) -> bool {
        self.events & !Self::HOW != 0
    }
}

pub fn eventfd(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let count = probe.info.hex("eventfd-count").ok_or_else(|| missing(probe, "eventfd-count"))?;
    let semaphore = match probe.info.number("eventfd-semaphore") {
        Some(n) => Some(n != 0),
        None => sys::fd::eventfd_is_semaphore(cx.duplicate(probe)?.as_fd(), count),
    };
    Ok(Detail::EventFd(EventFdFacts { count, semaphore }))
}

pub fn timerfd(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let ours = cx.duplicate(probe)?;
    let look = || -> Result<TimerFdFacts> {
        sys::fd::timerfd_touch(ours.as_fd())?;
        let facts = probe.fdinfo()?.timerfd().ok_or_else(|| missing(probe, "timerfd fields"))?;
        let asked_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
        Ok(TimerFdFacts { asked_at, ..facts })
    };
    let facts = look()?;
    // Disarmed, or expired at this very moment: that is counted by the next look.
    let unsure = facts.remaining_ns == 0 && facts.interval_ns != 0 && facts.ticks == 0;
    Ok(Detail::TimerFd(if unsure { look()? } else { facts }))
}

pub fn signalfd(_: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    probe.info.hex("sigmask").map(Detail::SignalFd).ok_or_else(|| missing(probe, "sigmask"))
}

/// Targets are looked up by [`resolve_targets`], when all descriptions are known.
pub fn epoll(_: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    Ok(Detail::Epoll(probe.info.epoll_targets()))
}

/// Finds the description behind each registration: the number is a hint only, as it may have been
/// closed or reused since (the registration lives as long as the description), and may be one of any
/// process that has the epoll instance.
pub fn resolve_targets(cx: &Context<'_>, epoll: (usize, i32, i32), targets: &mut [EpollTarget]) {
    let (description, pid, fd) = epoll;
    for i in 0..targets.len() {
        let number = targets[i].fd;
        let nth = targets[..i].iter().filter(|t| t.fd == number).count() as u32;
        let is_it = |candidate| sys::fd::kcmp_epoll_target(candidate, (pid, fd), number, nth);
        // Without kcmp: the number and the inode must do.
        let ino = targets[i].ino;
        let hinted = cx
            .behind(number, description)
            .find(|(_, holder, found)| is_it((*holder, number)).unwrap_or(*found == ino))
            .map(|(d, ..)| d);
        let all = || cx.first.iter().position(|first| is_it(*first).unwrap_or(false));
        targets[i].description = hinted.or_else(all);
    }
}

/// Finds which edge-triggered events the program has been told of. An event that is true is either in the
/// instance's list of what is ready, or was reported before. The list is shown nowhere, but whether there is
/// anything in it (poll(2) of the instance). If so, nothing is taken for reported: once too often is better
/// than never.
pub fn seen_edges(cx: &Context<'_>, descriptions: &mut [Description]) {
    for index in 0..descriptions.len() {
        let Detail::Epoll(targets) = &descriptions[index].detail else { continue };
        if !targets.iter().any(|t| t.is_edge_triggered() && t.is_armed()) {
            continue;
        }
        let Ok(ours) = cx.duplicate_of(&descriptions[index]) else { continue };
        if sys::fd::poll_now(ours.as_fd(), libc::POLLIN).is_ok_and(|events| events != 0) {
            continue;
        }
        let now: Vec<u32> = targets.iter().map(|t| true_now(cx, descriptions, t)).collect();
        if let Detail::Epoll(targets) = &mut descriptions[index].detail {
            for (t, now) in targets.iter_mut().zip(now).filter(|(t, _)| t.is_edge_triggered()) {
                t.seen = now;
            }
        }
    }
}

/// Events of a registration that are true now. What waits for a signalfd depends on who asks.
fn true_now(cx: &Context<'_>, descriptions: &[Description], t: &EpollTarget) -> u32 {
    let Some(d) = t.description.and_then(|index| descriptions.get(index)) else { return 0 };
    if !t.is_armed() || matches!(d.detail, Detail::SignalFd(_)) {
        return 0;
    }
    let events = (t.events & !EpollTarget::HOW) as i16;
    let now = cx.duplicate_of(d).and_then(|ours| Ok(sys::fd::poll_now(ours.as_fd(), events)?));
    now.map_or(0, |now| u32::from(now as u16))
}

fn missing(probe: &Probe, what: &str) -> anyhow::Error {
    anyhow!("fd {}: /proc shows no {what} for {}", probe.fd, probe.link_text())
}
