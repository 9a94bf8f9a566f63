// What the native leaves need to know of this ISA: raw system calls, and how this kernel's ABI differs from the neutral
// (asm-generic) one.
#include "../record.h"

enum { NR_write = 64, NR_exit_group = 94, NR_clock_gettime = 113, NR_prctl = 167, NR_brk = 214, NR_munmap = 215,
       NR_mmap = 222, NR_mprotect = 226, NR_prlimit64 = 261 };

INLINE i64 native6(u64 n, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	register u64 x8 __asm__("x8") = n;
	register u64 x0 __asm__("x0") = a;
	register u64 x1 __asm__("x1") = b;
	register u64 x2 __asm__("x2") = c;
	register u64 x3 __asm__("x3") = d;
	register u64 x4 __asm__("x4") = e;
	register u64 x5 __asm__("x5") = f;
	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return (i64)x0;
}

// The word at the other ISA's thread pointer is written here too, so that a translated thread has it.
INLINE i64 set_thread_pointer(u64 tpidr)
{
	u64 fs = tpidr + __isam_tls.span;
	*(u64 *)fs = fs;
	__asm__ volatile("msr tpidr_el0, %0" : : "r"(tpidr) : "memory");
	return 0;
}

// The native number, or -1: the neutral numbers are this kernel's own.
INLINE i64 native_number(u64 n)
{
	return n < 244 || n >= 260 ? (i64)n : -1;
}

// O_DIRECT, O_LARGEFILE, O_DIRECTORY, O_NOFOLLOW: bits 14..17 of the neutral flags are bits 16, 17, 14, 15 here.
// The exchange is its own inverse.
INLINE u64 swap_open_flags(u64 f)
{
	return (f & ~(u64)0x3c000) | (f & 0xc000) << 2 | (f & 0x30000) >> 2;
}

enum { POST_GETFL = 16 };

INLINE int plausible(u64 p) { return p >= 4096 && p < ISAM_VA_LIMIT; }

// Converts the native arguments in place; may ask for a post-conversion. Pointers that cannot be valid are left to the
// kernel, for its EFAULT.
INLINE void native_arguments(struct isam_record *r)
{
	u64 *a = r->native;
	switch (r->nr) {
	case 25: // fcntl
		if ((u32)a[1] == 4 /* F_SETFL */)
			a[2] = swap_open_flags(a[2]);
		else if ((u32)a[1] == 3 /* F_GETFL */)
			r->post = POST_GETFL;
		break;
	case 56: case 265: // openat, open_by_handle_at
		a[2] = swap_open_flags(a[2]);
		break;
	case 59: case 262: // pipe2, fanotify_init
		a[1] = swap_open_flags(a[1]);
		break;
	case 437: // openat2: struct open_how, of a size that may grow
		if (plausible(a[2]) && a[3] >= 24 && a[3] <= sizeof r->buf) {
			const char *from = (const char *)a[2];
			char *to = (char *)r->buf;
			for (u64 i = 0; i < a[3]; i++)
				to[i] = from[i];
			r->buf[0] = swap_open_flags(r->buf[0]);
			a[2] = (u64)r->buf;
		}
		break;
	}
}

INLINE i64 native_post(struct isam_record *r, i64 ret)
{
	if (r->post == POST_GETFL && ret >= 0)
		return (i64)swap_open_flags((u64)ret);
	return ret;
}

// Where a signal frame's ucontext keeps what cancellation needs.
INLINE u64 *context_pc(void *uc) { return (u64 *)uc + 440 / 8; }
INLINE u64 *context_sp(void *uc) { return (u64 *)uc + 432 / 8; }
INLINE u64 *context_mask(void *uc) { return (u64 *)uc + 40 / 8; }
