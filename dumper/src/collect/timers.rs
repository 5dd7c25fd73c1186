//! setitimer(2) and timer_create(2) timers.

use super::proc;
use crate::ptrace::{Call, Frozen};
use anyhow::Result;
use ckpt_format::{Itimer, PendingSignal, PosixTimer};

/// Timers of a process.
#[derive(Clone, Debug, Default)]
pub struct TimerFacts {
    /// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
    pub itimers: [Itimer; 3],
    /// Sorted by id. `tid` as the target knows it.
    pub posix: Vec<PosixTimer>,
}

impl TimerFacts {
    /// Makes these agree with queues that were read since `before`: a timer that expired between the
    /// looks, and whose signal came too late to be seen, expires as soon as it is restored.
    pub fn reconcile(&mut self, before: &Self, queues: &[&[PendingSignal]]) {
        let queued = |is_it: &dyn Fn(&PendingSignal) -> bool| queues.iter().any(|q| q.iter().any(is_it));
        // More time than before: a periodic timer began anew.
        let expired = |was: u64, now: u64| was != 0 && (now == 0 || now > was);
        for ((now, was), signo) in self.itimers.iter_mut().zip(&before.itimers).zip(ITIMER_SIGNALS) {
            if expired(was.value_us, now.value_us) && !queued(&|s| word(s, SI_SIGNO) == signo) {
                now.value_us = 1;
            }
        }
        for (now, was) in self.posix.iter_mut().zip(&before.posix) {
            let silent = now.notify == libc::SIGEV_NONE;
            let is_its = |s: &PendingSignal| word(s, SI_CODE) == libc::SI_TIMER && word(s, SI_TID) == now.id;
            if expired(was.remaining_ns, now.remaining_ns) && !silent && !queued(&is_its) {
                now.remaining_ns = 1;
            }
        }
    }
}

/// Signals of the interval timers, by number.
const ITIMER_SIGNALS: [i32; 3] = [libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF];

/// Offsets in `siginfo_t`; `si_tid` is the id of a POSIX timer.
const SI_SIGNO: usize = 0;
const SI_CODE: usize = 8;
const SI_TID: usize = 16;

fn word(signal: &PendingSignal, at: usize) -> i32 {
    i32::from_le_bytes(signal.siginfo[at..at + 4].try_into().unwrap_or_default())
}

/// Size of `struct itimerval` and `struct itimerspec`.
const SPEC: usize = 32;

/// Asks the target for its timers. `own_tid` translates a thread id to the target's pid namespace.
///
/// # Errors
/// When the target died, or its timers cannot be read.
pub fn collect(target: &mut Frozen, own_tid: impl Fn(i32) -> i32) -> Result<TimerFacts> {
    let pid = target.pid();
    let listed = proc::timers(&proc::read(&format!("/proc/{pid}/timers"))?);
    let scratch = target.scratch()?;
    let mut facts = TimerFacts::default();
    let calls: Vec<Call> = (0..3u64)
        .map(|which| Call::new(libc::SYS_getitimer, &[which, scratch.addr.offset(which * SPEC as u64).0]))
        .collect();
    for (which, result) in target.batch(&calls)?.into_iter().enumerate() {
        super::check_call(result, || format!("getitimer {which} in PID {pid}"))?;
    }
    let mut bytes = [0; 3 * SPEC];
    target.read(scratch.addr, &mut bytes)?;
    for (timer, spec) in facts.itimers.iter_mut().zip(bytes.chunks_exact(SPEC)) {
        *timer = itimer(pairs(spec).map(|(s, us)| s * 1_000_000 + us));
    }
    // As many at a time as have room in the scratch memory.
    for chunk in listed.chunks((scratch.len as usize) / SPEC) {
        facts.posix.extend(posix(target, chunk, &own_tid)?);
    }
    facts.posix.sort_by_key(|t| t.id);
    Ok(facts)
}

fn posix(
    target: &mut Frozen,
    timers: &[proc::Timer],
    own_tid: impl Fn(i32) -> i32,
) -> Result<Vec<PosixTimer>> {
    let pid = target.pid();
    let scratch = target.scratch()?;
    let calls: Vec<Call> = timers
        .iter()
        .enumerate()
        .flat_map(|(i, t)| {
            let spec = scratch.addr.offset((i * SPEC) as u64).0;
            [
                Call::new(libc::SYS_timer_gettime, &[t.id as u64, spec]),
                Call::new(libc::SYS_timer_getoverrun, &[t.id as u64]),
            ]
        })
        .collect();
    let results = target.batch(&calls)?;
    let mut bytes = vec![0; timers.len() * SPEC];
    target.read(scratch.addr, &mut bytes)?;
    let mut records = Vec::new();
    for ((timer, result), spec) in timers.iter().zip(results.chunks_exact(2)).zip(bytes.chunks_exact(SPEC)) {
        super::check_call(result[0], || format!("timer_gettime of timer {} in PID {pid}", timer.id))?;
        let [interval, value] = pairs(spec).map(|(s, ns)| s * 1_000_000_000 + ns);
        let to_thread = timer.notify & libc::SIGEV_THREAD_ID != 0;
        records.push(PosixTimer {
            id: timer.id,
            clock: timer.clock,
            notify: timer.notify,
            signo: timer.signo,
            value: timer.value,
            tid: if to_thread { own_tid(timer.target) } else { 0 },
            overrun: result[1].max(0) as i32,
            interval_ns: interval,
            remaining_ns: value,
            ..PosixTimer::default()
        });
    }
    Ok(records)
}

/// A periodic ITIMER_REAL whose signal is pending shows value 0: it is started again when the signal is
/// delivered (kernel/time/itimer.c). setitimer(2) would take the 0 for "off".
fn itimer([interval_us, value_us]: [u64; 2]) -> Itimer {
    Itimer { interval_us, value_us: if value_us == 0 { interval_us } else { value_us } }
}

/// `it_interval` and `it_value`, each seconds and a fraction.
fn pairs(spec: &[u8]) -> [(u64, u64); 2] {
    let word = |i: usize| u64::from_le_bytes(spec[i * 8..i * 8 + 8].try_into().unwrap_or_default());
    [(word(0), word(1)), (word(2), word(3))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_periodic_timer_whose_signal_is_pending_is_on() {
        assert_eq!(itimer([5000, 0]).value_us, 5000);
        assert_eq!(itimer([5000, 7]).value_us, 7);
        assert_eq!(itimer([0, 0]).value_us, 0);
    }

    #[test]
    fn what_expired_between_the_looks_is_not_lost() {
        let at = |real: u64, posix: u64| TimerFacts {
            itimers: [Itimer { interval_us: 0, value_us: real }, Itimer::default(), Itimer::default()],
            posix: vec![PosixTimer { id: 3, remaining_ns: posix, ..PosixTimer::default() }],
        };
        let reconciled = |before: TimerFacts, mut now: TimerFacts, queue: &[PendingSignal]| {
            now.reconcile(&before, &[&[], queue]);
            (now.itimers[0].value_us, now.posix[0].remaining_ns)
        };
        let mut of_timer = PendingSignal { siginfo: [0; 128] };
        of_timer.siginfo[SI_CODE..SI_CODE + 4].copy_from_slice(&libc::SI_TIMER.to_le_bytes());
        of_timer.siginfo[SI_TID] = 3;
        let mut alarm = PendingSignal { siginfo: [0; 128] };
        alarm.siginfo[SI_SIGNO] = libc::SIGALRM as u8;
        let seen = [of_timer, alarm];
        assert_eq!(reconciled(at(10, 10), at(9, 8), &[]), (9, 8));
        assert_eq!(reconciled(at(0, 0), at(0, 0), &[]), (0, 0));
        assert_eq!(reconciled(at(10, 10), at(0, 0), &seen), (0, 0));
        assert_eq!(reconciled(at(10, 10), at(0, 0), &[]), (1, 1));
        assert_eq!(reconciled(at(10, 10), at(11, 12), &[]), (1, 1));
        assert_eq!(reconciled(at(10, 10), at(11, 12), &seen), (11, 12));
    }
}
