// What the native leaves need to know of this ISA: raw system calls, and how this kernel's ABI differs from the neutral
// (asm-generic) one.
#include "../record.h"

enum { NR_write = 1, NR_mmap = 9, NR_mprotect = 10, NR_munmap = 11, NR_brk = 12, NR_prctl = 157, NR_clock_gettime = 228,
       NR_exit_group = 231, NR_prlimit64 = 302, NR_arch_prctl = 158 };

INLINE i64 native6(u64 n, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	i64 ret;
	register u64 r10 __asm__("r10") = d;
	register u64 r8 __asm__("r8") = e;
	register u64 r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
	                 : "rcx", "r11", "memory");
	return ret;
}

// fs_base lies past the TLS block, at a word that holds its own address (variant II).
INLINE i64 set_thread_pointer(u64 tpidr)
{
	u64 fs = tpidr + __isam_tls.span;
	*(u64 *)fs = fs;
	return native6(NR_arch_prctl, 0x1002 /* ARCH_SET_FS */, fs, 0, 0, 0, 0);
}

// The native number, or -1.
INLINE i64 native_number(u64 n)
{
	static const unsigned short numbers[] __attribute__((section(".rodata.isam.numbers"))) = {
#define N(generic, here) [generic] = (here) + 1,
#include "numbers.inc"
#undef N
	};
	if (n >= 424)
		return (i64)n;
	return n < sizeof numbers / sizeof *numbers ? (i64)numbers[n] - 1 : -1;
}

struct neutral_stat {
	u64 dev, ino;
	u32 mode, nlink, uid, gid;
	u64 rdev, pad1;
	i64 size;
	i32 blksize, pad2;
	i64 blocks, times[6];
	u32 unused[2];
};
struct native_stat {
	u64 dev, ino, nlink;
	u32 mode, uid, gid, pad;
	u64 rdev;
	i64 size, blksize, blocks, times[6], unused[3];
};
_Static_assert(sizeof(struct neutral_stat) == 128 && sizeof(struct native_stat) == 144, "struct stat");

// struct semid64_ds: after its 48 bytes of permissions, x86 has a spare word behind each of the two times.
enum { SEM_PERM = 6, SEM_NEUTRAL = 11, SEM_NATIVE = 13 }; // in words
enum { POST_STAT = 16, POST_EPOLL, POST_SEM };

INLINE int plausible(u64 p) { return p >= 4096 && p < ISAM_VA_LIMIT; }

// Converts the native arguments in place; may ask for a post-conversion. Pointers that cannot be valid are left to the
// kernel, for its EFAULT.
INLINE void native_arguments(struct isam_record *r)
{
	u64 *a = r->native, t;
	switch (r->nr) {
	case 21: // epoll_ctl: the event is packed on x86_64
		if (plausible(a[3])) {
			const u32 *from = (const u32 *)a[3];
			u32 *to = (u32 *)r->buf;
			to[0] = from[0], to[1] = from[2], to[2] = from[3];
			a[3] = (u64)to;
		}
		break;
	case 22: case 441: // epoll_pwait, epoll_pwait2
		r->post = POST_EPOLL;
		break;
	case 79: // newfstatat
		if (plausible(a[2]))
			a[2] = (u64)r->buf, r->post = POST_STAT;
		break;
	case 80: // fstat
		if (plausible(a[1]))
			a[1] = (u64)r->buf, r->post = POST_STAT;
		break;
	case 191: // semctl
		if (!plausible(a[3]))
			break;
		if (a[2] == 1 /* IPC_SET */) {
			const u64 *from = (const u64 *)a[3];
			for (int i = 0; i < SEM_PERM; i++)
				r->buf[i] = from[i];
			for (int i = SEM_PERM; i < SEM_NATIVE; i++)
				r->buf[i] = 0; // IPC_SET takes nothing but permissions
			a[3] = (u64)r->buf;
		} else if (a[2] == 2 /* IPC_STAT */ || a[2] == 18 /* SEM_STAT */ || a[2] == 20 /* SEM_STAT_ANY */) {
			a[3] = (u64)r->buf, r->post = POST_SEM;
		}
		break;
	case 220: // clone: x86_64 has ctid before tls
		t = a[3], a[3] = a[4], a[4] = t;
		break;
	}
}

INLINE i64 native_post(struct isam_record *r, i64 ret)
{
	if (ret < 0)
		return ret;
	switch (r->post) {
	case POST_STAT: {
		const struct native_stat *from = (const void *)r->buf;
		struct neutral_stat *to = (void *)r->args[r->nr == 80 ? 1 : 2];
		to->dev = from->dev, to->ino = from->ino, to->mode = from->mode, to->nlink = (u32)from->nlink;
		to->uid = from->uid, to->gid = from->gid, to->rdev = from->rdev, to->pad1 = 0;
		to->size = from->size, to->blksize = (i32)from->blksize, to->pad2 = 0, to->blocks = from->blocks;
		for (int i = 0; i < 6; i++)
			to->times[i] = from->times[i];
		to->unused[0] = to->unused[1] = 0;
		break;
	}
	case POST_EPOLL: // the kernel packed 12-byte events into the caller's array of 16-byte ones: spread them, last first
		for (i64 i = ret - 1; i >= 0; i--) {
			const u32 *from = (const u32 *)(r->args[1] + 12 * (u64)i);
			u32 events = from[0], low = from[1], high = from[2];
			u32 *to = (u32 *)(r->args[1] + 16 * (u64)i);
			to[0] = events, to[1] = 0, to[2] = low, to[3] = high;
		}
		break;
	case POST_SEM: {
		u64 *to = (u64 *)r->args[3];
		for (int i = 0; i < SEM_PERM; i++)
			to[i] = r->buf[i];
		to[SEM_PERM] = r->buf[SEM_PERM];
		to[SEM_PERM + 1] = r->buf[SEM_PERM + 2];
		for (int i = SEM_PERM + 2; i < SEM_NEUTRAL; i++)
			to[i] = r->buf[i + SEM_NATIVE - SEM_NEUTRAL];
		break;
	}
	}
	return ret;
}

// Where a signal frame's ucontext keeps what cancellation needs.
INLINE u64 *context_pc(void *uc) { return (u64 *)uc + (40 + 16 * 8) / 8; }
INLINE u64 *context_sp(void *uc) { return (u64 *)uc + (40 + 15 * 8) / 8; }
INLINE u64 *context_mask(void *uc) { return (u64 *)uc + 296 / 8; }
