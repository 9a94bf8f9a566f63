// The native leaves of the system-call stub: before the call, the neutral record becomes this kernel's number and
// arguments; after it, results become neutral again. Nothing but the record is state: a thread that is frozen at the
// call is translated by copying the record's neutral part and running this again on the other ISA.
#include "native.h"

struct timespec64 {
	i64 sec, nsec;
};

enum { POST_TIMEOUT = 1 };
enum { EINVAL = 22, ENOSYS = 38 };
#define BILLION 1000000000L

INLINE i64 monotonic_now(void)
{
	struct timespec64 now;
	native6(NR_clock_gettime, 1, (u64)&now, 0, 0, 0, 0);
	return now.sec * BILLION + now.nsec;
}

INLINE i64 saturating_add(i64 a, i64 b)
{
	i64 sum;
	return __builtin_add_overflow(a, b, &sum) ? __INT64_MAX__ : sum;
}

// Which argument is a relative timeout that starts to run at the call; -1 for none. Absolute ones need no help, and time
// on a CPU clock does not pass while a process is away.
INLINE int timeout_argument(const struct isam_record *r)
{
	switch (r->nr) {
	case 4: return 4;   // io_getevents
	case 22: return 3;  // epoll_pwait (milliseconds)
	case 72: return 4;  // pselect6
	case 73: return 2;  // ppoll
	case 98: return (r->args[1] & 0x7f) == 0 ? 3 : -1; // futex: FUTEX_WAIT only, the others are absolute
	case 101: return 0; // nanosleep
	case 115:           // clock_nanosleep: not TIMER_ABSTIME; REALTIME, MONOTONIC, BOOTTIME, TAI
		if (r->args[1] & 1)
			return -1;
		return r->args[0] == 0 || r->args[0] == 1 || r->args[0] == 7 || r->args[0] == 11 ? 2 : -1;
	case 137: return 2; // rt_sigtimedwait
	case 192: return 3; // semtimedop
	case 243: return 4; // recvmmsg
	case 292: return 4; // io_pgetevents
	case 441: return 3; // epoll_pwait2
	}
	return -1;
}

// On the first entry the deadline is recorded and the kernel gets the caller's own timeout; a resumed call waits for
// what is left.
INLINE void timed_call(struct isam_record *r)
{
	int at = timeout_argument(r);
	if (at < 0)
		return;
	int resumed = (r->flags & FLAG_RESUMED) != 0;
	if (resumed && r->deadline == -1)
		return;
	if (r->nr == 22) {
		i32 ms = (i32)r->args[3];
		if (resumed) {
			i64 left = r->deadline - monotonic_now();
			left = left <= 0 ? 0 : (left + 999999) / 1000000;
			r->native[3] = left > __INT_MAX__ ? __INT_MAX__ : (u64)left;
		} else if (ms >= 0) {
			r->deadline = saturating_add(monotonic_now(), ms * 1000000L);
		}
		return;
	}
	if (!plausible(r->args[at]))
		return; // none, or the kernel's EFAULT
	if (resumed) {
		i64 left = r->deadline - monotonic_now();
		struct timespec64 *to = (struct timespec64 *)&r->buf[22];
		to->sec = left <= 0 ? 0 : left / BILLION;
		to->nsec = left <= 0 ? 0 : left % BILLION;
		r->native[at] = (u64)to;
		if (r->nr == 72 || r->nr == 73 || r->nr == 243)
			r->post = POST_TIMEOUT; // the kernel writes back what was left
		return;
	}
	const struct timespec64 *from = (const struct timespec64 *)r->args[at];
	if (from->sec < 0 || (u64)from->nsec >= BILLION)
		return; // the kernel's EINVAL
	i64 length = from->sec > __INT64_MAX__ / BILLION - 1 ? __INT64_MAX__ : from->sec * BILLION + from->nsec;
	r->deadline = saturating_add(monotonic_now(), length);
}

// Makes the native call of the neutral record. Nonzero: there is nothing to call, native[0] is the answer.
STUB(prep) long __isam_prep(struct isam_record *r)
{
	r->post = 0;
	for (int i = 0; i < 6; i++)
		r->native[i] = r->args[i];
	i64 nr = native_number(r->nr);
	// Not neutral, so absent on both ISAs, as on a kernel without them: 277 seccomp (filters see native numbers), 293 rseq
	// (registers code addresses), 435 clone3 (a thread pointer and a native stack in one structure; clone() has its own
	// stub), and whatever is newer than this file (462 is mseal, of Linux 6.10).
	if (r->nr == 277 || r->nr == 293 || r->nr == 435 || r->nr > 462)
		nr = -1;
	if (r->nr == 167 && r->args[0] == 22 /* PR_SET_SECCOMP */) {
		r->native[0] = (u64)-EINVAL;
		return 1;
	}
	if (r->nr == 220) {
		// A child on another stack would return into the stub's frame there: __isam_clone is for that. vfork through
		// clone(): the child would write to the stub's own frame; a copy of the memory instead is all that is promised.
		if (r->args[1])
			nr = -1;
		r->native[0] &= ~(u64)0x100; // CLONE_VM
	}
	if (nr < 0) {
		r->native[0] = (u64)-ENOSYS;
		return 1;
	}
	r->native_nr = (u64)nr;
	timed_call(r);
	native_arguments(r);
	return 0;
}

// After the call, if prep asked for it.
STUB(post) long __isam_post(struct isam_record *r, long ret)
{
	if (r->post == POST_TIMEOUT) {
		u64 *to = (u64 *)r->args[timeout_argument(r)];
		to[0] = r->buf[22], to[1] = r->buf[23];
		return ret;
	}
	return native_post(r, ret);
}

extern const char __isam_cp_begin[], __isam_syscall_insn[], __isam_cp_cancel[];

// For libc's cancellation handler: if the interrupted thread is at a cancellation point whose call has not happened yet,
// makes it return to the cancellation instead, and says so.
STUB(cancel_window) int __isam_cancel_window(void *ucontext)
{
	u64 pc = *context_pc(ucontext);
	if (pc < (u64)__isam_cp_begin || pc > (u64)__isam_syscall_insn)
		return 0;
	const struct isam_record *r = (const struct isam_record *)*context_sp(ucontext);
	if (!r->cancel)
		return 0;
	*context_pc(ucontext) = (u64)__isam_cp_cancel;
	return 1;
}

// The signal mask that a handler returns to.
STUB(context_mask) void *__isam_context_mask(void *ucontext)
{
	return context_mask(ucontext);
}
