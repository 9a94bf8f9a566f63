//! The process as a whole: `core-TID.img` and `timens-0.img`.
use super::freeze::{Frozen, FrozenThread};
use super::self_report::{Interval, Queue, SelfReport, ThreadReport};
use super::survey::Survey;
use super::tree::CGROUP_SET;
use super::{Error, Result, thread};
use crate::image::proto;
use crate::tracee::proc::{self, Stat, Status};

/// States of tasks in images.
const ALIVE: u32 = 1;
const STOPPED: u32 = 3;

/// The core entries of a process's threads, the leader's with what concerns the process.
///
/// # Errors
/// Something cannot be read any more.
pub fn cores(survey: &Survey, frozen: &Frozen, own: &SelfReport) -> Result<Vec<proto::CoreEntry>> {
    let threads = frozen.threads.iter().zip(&own.threads);
    let mut cores = threads.map(|(thread, own)| of_thread(thread, own)).collect::<Result<Vec<_>>>()?;
    if let Some(leader) = cores.first_mut() {
        leader.tc = Some(of_process(survey, frozen, own)?);
    }
    Ok(cores)
}

fn of_process(survey: &Survey, frozen: &Frozen, own: &SelfReport) -> Result<proto::TaskCoreEntry> {
    let pid = survey.pid;
    let mut limits = Vec::new();
    for (cur, max) in proc::limits(pid)? {
        limits.push(proto::RlimitEntry { cur, max });
    }
    let loginuid = proc::number(pid, "loginuid", 10)?.map(|uid| uid as u32).filter(|uid| *uid != u32::MAX);
    Ok(proto::TaskCoreEntry {
        task_state: if frozen.group_stopped { STOPPED } else { ALIVE },
        exit_code: 0,
        personality: proc::number(pid, "personality", 16)?.unwrap_or(0) as u32,
        flags: survey.stat.flags,
        blk_sigset: frozen.leader()?.stopped()?.sigmask()?,
        comm: survey.stat.comm.clone(),
        timers: Some(timers(own)),
        rlimits: Some(proto::TaskRlimitsEntry { rlimits: limits }),
        cg_set: Some(CGROUP_SET),
        signals_s: Some(queue(&own.queued)),
        loginuid,
        oom_score_adj: proc::number(pid, "oom_score_adj", 10)?.map(|score| score as i32),
        sigactions: actions(own),
        child_subreaper: Some(own.child_subreaper),
        ..Default::default()
    })
}

fn of_thread(thread: &FrozenThread, own: &ThreadReport) -> Result<proto::CoreEntry> {
    let mut core = thread::core(thread, own)?;
    if let Some(state) = &mut core.thread_core {
        state.signals_p = Some(queue(&own.queued));
        state.blk_sigset = Some(thread.stopped()?.sigmask()?);
        state.comm = Some(Stat::read(thread.tid)?.comm);
        state.creds = Some(credentials(&Status::read(thread.tid)?, own));
    }
    Ok(core)
}

fn queue(signals: &Queue) -> proto::SignalQueueEntry {
    let signals = signals.iter().map(|info| proto::SiginfoEntry { siginfo: info.to_vec() });
    proto::SignalQueueEntry { signals: signals.collect() }
}

fn actions(own: &SelfReport) -> Vec<proto::SaEntry> {
    let fixed = [libc::SIGKILL as usize, libc::SIGSTOP as usize];
    let settable = own.actions.iter().enumerate().filter(|(i, _)| !fixed.contains(&(i + 1)));
    settable
        .map(|(_, action)| proto::SaEntry {
            sigaction: action.handler,
            flags: action.flags,
            restorer: action.restorer,
            mask: action.mask,
            compat_sigaction: Some(false),
            mask_extended: None,
        })
        .collect()
}

fn timers(own: &SelfReport) -> proto::TaskTimersEntry {
    let interval = |timer: &Interval| proto::ItimerEntry {
        isec: timer.interval.0,
        iusec: timer.interval.1,
        vsec: timer.value.0,
        vusec: timer.value.1,
    };
    let [real, virt, prof] = &own.interval_timers;
    let posix = own.posix_timers.iter().map(|state| proto::PosixTimerEntry {
        it_id: state.timer.id,
        clock_id: state.timer.clock.cast_unsigned(),
        si_signo: state.timer.signal,
        it_sigev_notify: state.timer.notify,
        sival_ptr: state.timer.value,
        overrun: state.overrun,
        isec: state.setting.interval.0,
        insec: state.setting.interval.1,
        vsec: state.setting.value.0,
        vnsec: state.setting.value.1,
        notify_thread_id: state.timer.thread,
    });
    proto::TaskTimersEntry { real: interval(real), virt: interval(virt), prof: interval(prof), posix: posix.collect() }
}

fn credentials(status: &Status, own: &ThreadReport) -> proto::CredsEntry {
    let halves = |set: u64| vec![set as u32, (set >> 32) as u32];
    let [inheritable, permitted, effective, bounding, ambient] = status.caps;
    proto::CredsEntry {
        uid: status.uids[0],
        gid: status.gids[0],
        euid: status.uids[1],
        egid: status.gids[1],
        suid: status.uids[2],
        sgid: status.gids[2],
        fsuid: status.uids[3],
        fsgid: status.gids[3],
        cap_inh: halves(inheritable),
        cap_prm: halves(permitted),
        cap_eff: halves(effective),
        cap_bnd: halves(bounding),
        secbits: own.secure_bits,
        groups: status.groups.clone(),
        no_new_privs: status.no_new_privs.then_some(1),
        cap_amb: if ambient == 0 { Vec::new() } else { halves(ambient) },
        ..Default::default()
    }
}

/// What the process's CLOCK_MONOTONIC and CLOCK_BOOTTIME say now; our own plus the difference of the
/// time namespaces.
///
/// # Errors
/// The offsets cannot be read.
pub fn clocks(pid: i32) -> Result<proto::TimensEntry> {
    let theirs = proc::timens_offsets(pid)?;
    let ours = proc::timens_offsets(std::process::id() as i32)?;
    let now = |clock: libc::clockid_t, i: usize| -> Result<proto::Timespec> {
        // SAFETY: zeros are a valid timespec.
        let mut time: libc::timespec = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes the timespec.
        if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
            return Err(Error::last_os("reading a clock"));
        }
        let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec) + theirs[i] - ours[i];
        let nanoseconds = nanoseconds.max(0);
        Ok(proto::Timespec {
            tv_sec: (nanoseconds / 1_000_000_000) as u64,
            tv_nsec: (nanoseconds % 1_000_000_000) as u64,
        })
    };
    Ok(proto::TimensEntry { monotonic: now(libc::CLOCK_MONOTONIC, 0)?, boottime: now(libc::CLOCK_BOOTTIME, 1)? })
}
