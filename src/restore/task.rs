//! What the kernel keeps per process and thread: identity, signals, timers, limits, privileges.
use super::program::{Arg, Expect, Program};
use super::tree::{Thread, Tree};
use super::{Options, Result, files, host, launch, privileges};
use crate::image::proto::{MmEntry, PosixTimerEntry, SignalQueueEntry};

/// Signals of the kernel: 1 to 64.
const SIGNALS: usize = 64;
/// POSIX timers are numbered by counting up: more than this many failed attempts are not made.
const MAX_TIMER_ID: u32 = 100_000;

/// Session and process group.
///
/// # Errors
/// The process belongs to somebody else's session and `--shell-job` was not given.
pub fn plan_session(tree: &Tree, options: &Options, program: &mut Program) -> Result<()> {
    let p = &tree.process;
    if p.sid == p.pid {
        program.call_expecting("making a session", libc::SYS_setsid, [], Expect::Exactly(p.pid.into()));
        if p.pgid != p.pid {
            return Err(tree.inconsistent(format!("a session leader in process group {}", p.pgid)));
        }
        return Ok(());
    }
    if !options.shell_job {
        return Err(tree.unsupported(
            format!("its session {} is that of a shell outside of the images", p.sid),
            "restore with -j (--shell-job): it joins the session and process group of this command",
        ));
    }
    // As CRIU does: the shell that started us controls the job by our process group.
    Ok(())
}

/// Bounds of the address space, auxiliary vector, executable; other attributes of the whole process.
///
/// # Errors
/// The images hold what no kernel takes.
pub fn plan_attributes(tree: &Tree, program: &mut Program, exe: i32) -> Result<()> {
    let task = &tree.task;
    let map = mm_map(program, &tree.mm, exe);
    const PR_SET_MM: i32 = 35;
    const PR_SET_MM_MAP: i32 = 14;
    program.call(
        "setting the bounds of the address space",
        libc::SYS_prctl,
        [PR_SET_MM.into(), PR_SET_MM_MAP.into(), map, (MM_MAP_LEN as u32).into(), 0.into()],
    );
    program.call("setting the personality", libc::SYS_personality, [task.personality.into()]);
    if tree.mm.thp_disabled() {
        program.call(
            "disabling huge pages",
            libc::SYS_prctl,
            [libc::PR_SET_THP_DISABLE.into(), 1.into(), 0.into(), 0.into(), 0.into()],
        );
    }
    if task.child_subreaper() {
        program.call("becoming a subreaper", libc::SYS_prctl, [libc::PR_SET_CHILD_SUBREAPER.into(), 1.into()]);
    }
    for bit in (0..32).filter(|bit| task.membarrier_registration_mask() & (1 << bit) != 0) {
        let what = format!("registering for membarrier command {:#x}", 1u32 << bit);
        program.call(what, libc::SYS_membarrier, [(1u32 << bit).into(), 0.into(), 0.into()]);
    }
    Ok(())
}

const MM_MAP_LEN: usize = 13 * 8;

/// `struct prctl_mm_map` (Linux's `include/uapi/linux/prctl.h`).
fn mm_map(program: &mut Program, mm: &MmEntry, exe: i32) -> Arg {
    // The vector ends at the first AT_NULL; kernels differ in how many words they keep behind it.
    let pairs = mm.mm_saved_auxv.chunks_exact(2);
    let used = pairs.clone().position(|pair| pair[0] == 0).map_or(pairs.len(), |n| n + 1) * 2;
    let auxv = &mm.mm_saved_auxv[..used];
    let vector = program.words(auxv);
    let Arg::Data(vector) = vector else { return vector };
    let words = [
        mm.mm_start_code,
        mm.mm_end_code,
        mm.mm_start_data,
        mm.mm_end_data,
        mm.mm_start_brk,
        mm.mm_brk,
        mm.mm_start_stack,
        mm.mm_arg_start,
        mm.mm_arg_end,
        mm.mm_env_start,
        mm.mm_env_end,
    ];
    program.structure(&words, vector, (auxv.len() * 8) as u64 | (exe as u64) << 32)
}

/// Writes to /proc/self, while the process has no descriptors of its own.
pub fn plan_proc(tree: &Tree, program: &mut Program) {
    let own = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).ok().map(|t| t.trim().to_owned());
    if let Some(score) = tree.task.oom_score_adj.filter(|s| own("oom_score_adj").as_deref() != Some(&s.to_string())) {
        files::write_own_proc(program, "oom_score_adj", &score.to_string());
    }
    if let Some(uid) = tree.task.loginuid.filter(|u| own("loginuid").is_some_and(|o| o != u.to_string())) {
        files::write_own_proc(program, "loginuid", &uid.to_string());
    }
}

/// Signal handlers.
///
/// # Errors
/// The images hold too few dispositions.
pub fn plan_actions(tree: &Tree, program: &mut Program) -> Result<()> {
    let skipped = [libc::SIGKILL as usize, libc::SIGSTOP as usize];
    let signals = (1..=SIGNALS).filter(|s| !skipped.contains(s));
    let actions = &tree.task.sigactions;
    if actions.len() != SIGNALS - skipped.len() {
        return Err(tree.inconsistent(format!("{} signal dispositions", actions.len())));
    }
    for (signal, a) in signals.zip(actions) {
        if a.compat_sigaction() {
            return Err(
                tree.unsupported(format!("a 32-bit handler of signal {signal}"), "only 64-bit ones can be restored")
            );
        }
        let action = program.words(&[a.sigaction, a.flags, a.restorer, a.mask]);
        let args = [Arg::Value(signal as u64), action, 0.into(), 8.into()];
        program.call(format!("setting the action of signal {signal}"), libc::SYS_rt_sigaction, args);
    }
    Ok(())
}

/// Name, nice value, alternate stack, and what libc registers per thread: by the thread itself.
pub fn plan_thread(tree: &Tree, thread: &Thread, program: &mut Program) {
    let state = &thread.state;
    let mut name = state.comm.as_ref().unwrap_or(&tree.task.comm).clone().into_bytes();
    name.resize(16, 0);
    name[15] = 0;
    let name = program.data(&name);
    program.call("setting the name", libc::SYS_prctl, [libc::PR_SET_NAME.into(), name]);
    if let Some(nice) = state.sched_nice {
        program.call("setting the nice value", libc::SYS_setpriority, [0.into(), 0.into(), nice.into()]);
    }
    if let Some(sas) = &state.sas {
        // SS_ONSTACK is a report, not a setting; SS_AUTODISARM is one.
        let flags = u64::from(sas.ss_flags & !(libc::SS_ONSTACK as u32));
        let stack = program.words(&[sas.ss_sp, flags, sas.ss_size]);
        program.call("setting the alternate signal stack", libc::SYS_sigaltstack, [stack, 0.into()]);
    }
    program.call(
        "setting the address to clear on exit",
        libc::SYS_set_tid_address,
        [host::clear_tid(&thread.core).into()],
    );
    if state.futex_rla != 0 {
        let args = [state.futex_rla.into(), state.futex_rla_len.into()];
        program.call("setting the robust futex list", libc::SYS_set_robust_list, args);
    }
    if let Some(r) = state.rseq_entry.as_ref().filter(|r| r.rseq_abi_pointer != 0) {
        let args = [r.rseq_abi_pointer.into(), r.rseq_abi_size.into(), 0.into(), r.signature.into()];
        program.call("registering restartable sequences", libc::SYS_rseq, args);
    }
}

/// The other threads: each is started by the leader, does what only it can do, and says so in a pipe.
///
/// # Errors
/// One of them had privileges that this program lacks.
pub fn plan_others(tree: &Tree, pipes: &launch::Pipes, program: &mut Program, without: u64) -> Result<()> {
    const FLAGS: i32 = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM;
    for thread in &tree.others {
        let index = program.thread(|program| {
            plan_thread(tree, thread, program);
            plan_own_pending(tree, thread, program)?;
            plan_privileges(tree, thread, program, without)?;
            pipes.plan_ready(program);
            Ok::<_, super::Error>(())
        })?;
        let Arg::Data(tid) = program.data(&thread.tid.to_le_bytes()) else { continue };
        // `struct clone_args`: no stack, which the interpreter does not need.
        let args = program.structure(&[FLAGS as u64, 0, 0, 0, 0, 0, 0, 0], tid, 1);
        let what = format!("making thread {}", thread.tid);
        let size = Arg::Value(size_of::<host::CloneArgs>() as u64);
        program.call_expecting(what, libc::SYS_clone3, [args, size], Expect::Thread(index));
    }
    for thread in &tree.others {
        pipes.plan_await(program, thread.tid);
    }
    Ok(())
}

/// Timers, which may notify any thread, and signals that wait for the process or its leader.
///
/// # Errors
/// A timer that cannot be made again; a damaged signal.
pub fn plan_pending(tree: &Tree, program: &mut Program) -> Result<()> {
    plan_timers(tree, program)?;
    let pid = Arg::from(tree.pid());
    queue(tree, program, tree.task.signals_s.as_ref(), libc::SYS_rt_sigqueueinfo, &[pid])?;
    plan_own_pending(tree, &tree.leader, program)
}

/// Signals that wait for one thread: queued by itself, because the kernel lets nobody else say that tgkill(2) or the
/// kernel sent them (`do_rt_tgsigqueueinfo`).
fn plan_own_pending(tree: &Tree, thread: &Thread, program: &mut Program) -> Result<()> {
    let whom = [Arg::from(tree.pid()), thread.tid.into()];
    queue(tree, program, thread.state.signals_p.as_ref(), libc::SYS_rt_tgsigqueueinfo, &whom)
}

fn queue(
    tree: &Tree,
    program: &mut Program,
    signals: Option<&SignalQueueEntry>,
    number: libc::c_long,
    whom: &[Arg],
) -> Result<()> {
    for s in signals.map_or(&[][..], |q| &q.signals) {
        let Some(signal) = s.siginfo.get(..4).filter(|_| s.siginfo.len() == 128) else {
            return Err(tree.inconsistent(format!("a queued signal of {} bytes", s.siginfo.len())));
        };
        let signal = u32::from_le_bytes(signal.try_into().unwrap_or_default());
        let info = program.data(&s.siginfo);
        let what = format!("queueing signal {signal}");
        match *whom {
            [pid] => program.call(what, number, [pid, signal.into(), info]),
            [pid, tid, ..] => program.call(what, number, [pid, tid, signal.into(), info]),
            [] => {}
        }
    }
    Ok(())
}

fn plan_timers(tree: &Tree, program: &mut Program) -> Result<()> {
    let Some(timers) = &tree.task.timers else { return Ok(()) };
    for (which, t) in [(0u32, &timers.real), (1, &timers.virt), (2, &timers.prof)] {
        if (t.isec, t.iusec, t.vsec, t.vusec) != (0, 0, 0, 0) {
            // Expired, its signal queued: the kernel would start the next period when that is taken,
            // but a setting with value 0 stops the timer.
            let left = if (t.vsec, t.vusec) == (0, 0) { (t.isec, t.iusec) } else { (t.vsec, t.vusec) };
            let value = program.words(&[t.isec, t.iusec, left.0, left.1]);
            program.call(
                format!("setting interval timer {which}"),
                libc::SYS_setitimer,
                [which.into(), value, 0.into()],
            );
        }
    }
    let mut posix: Vec<&PosixTimerEntry> = timers.posix.iter().collect();
    posix.sort_by_key(|t| t.it_id);
    let mut next = 0;
    for t in posix {
        if t.it_id < next || t.it_id > MAX_TIMER_ID {
            return Err(tree.unsupported(format!("POSIX timer {}", t.it_id), "timers cannot be given such numbers"));
        }
        // The kernel numbers a process's timers by counting; so count up to this one.
        while next <= t.it_id {
            make_timer(tree, program, t)?;
            if next < t.it_id {
                program.call("counting POSIX timers", libc::SYS_timer_delete, [next.into()]);
            }
            next += 1;
        }
        let value = program.words(&[t.isec, t.insec, t.vsec, t.vnsec]);
        // Fails if the kernel counted differently: then there is no such timer.
        let args = [t.it_id.into(), 0.into(), value, 0.into()];
        program.call(format!("setting POSIX timer {}", t.it_id), libc::SYS_timer_settime, args);
    }
    Ok(())
}

fn make_timer(tree: &Tree, program: &mut Program, t: &PosixTimerEntry) -> Result<()> {
    const SIGEV_THREAD_ID: u32 = 4;
    let thread = if t.it_sigev_notify & SIGEV_THREAD_ID != 0 { t.notify_thread_id.unwrap_or(0) } else { 0 };
    if thread != 0 && tree.threads().all(|t| t.tid != thread.cast_unsigned()) {
        return Err(tree.inconsistent(format!("POSIX timer {} notifies thread {thread}", t.it_id)));
    }
    // struct sigevent: value, signal, notification, thread, padding.
    let mut event = t.sival_ptr.to_le_bytes().to_vec();
    event.extend(t.si_signo.to_le_bytes());
    event.extend(t.it_sigev_notify.to_le_bytes());
    event.extend(thread.to_le_bytes());
    event.resize(64, 0);
    let (event, id) = (program.data(&event), program.data(&[0; 8]));
    program.call(format!("making POSIX timer {}", t.it_id), libc::SYS_timer_create, [t.clock_id.into(), event, id]);
    Ok(())
}

/// Resource limits and privileges: what may take rights away comes last. `without` are capabilities that
/// the process loses.
///
/// # Errors
/// This program may not give what the process had.
pub fn plan_rights(tree: &Tree, program: &mut Program, without: u64) -> Result<()> {
    let limits = tree.task.rlimits.as_ref().map_or(&[][..], |l| &l.rlimits);
    for (resource, want) in limits.iter().enumerate() {
        let mut own = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel writes `own`; nothing is read.
        if unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, 0, &raw mut own) } < 0 {
            return Err(tree.unsupported(format!("resource limit {resource}"), "this kernel has no such limit"));
        }
        if own.rlim_cur == want.cur && own.rlim_max == want.max {
            continue;
        }
        if want.max > own.rlim_max && !privileges::has(privileges::SYS_RESOURCE) {
            return Err(tree.unsupported(
                format!("a hard limit of {} for resource {resource}", want.max),
                format!("it is {} here, and only CAP_SYS_RESOURCE may raise it", own.rlim_max),
            ));
        }
        let limit = program.words(&[want.cur, want.max]);
        let args = [0.into(), Arg::Value(resource as u64), limit, 0.into()];
        program.call(format!("setting limit {resource}"), libc::SYS_prlimit64, args);
    }
    plan_privileges(tree, &tree.leader, program, without)?;
    let dumpable = tree.mm.dumpable.unwrap_or(1);
    // 2 (readable by root only) is what a change of privileges leaves; it cannot be asked for.
    if dumpable != 2 {
        program.call(
            "setting the dumpable attribute",
            libc::SYS_prctl,
            [libc::PR_SET_DUMPABLE.into(), dumpable.into()],
        );
    }
    Ok(())
}

fn plan_privileges(tree: &Tree, thread: &Thread, program: &mut Program, without: u64) -> Result<()> {
    privileges::plan(tree, &thread.creds, program, without)?;
    // A change of user forgets it.
    if let Some(signal) = thread.state.pdeath_sig.filter(|s| *s != 0) {
        program.call(
            "setting the signal for the parent's death",
            libc::SYS_prctl,
            [libc::PR_SET_PDEATHSIG.into(), signal.into()],
        );
    }
    Ok(())
}
