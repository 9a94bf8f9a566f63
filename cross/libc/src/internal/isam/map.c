// Places mappings. The kernels differ in where they put a mapping without an address (aarch64's above 2^47, where x86_64
// cannot follow), so portable processes choose for themselves: downwards from the main thread's stacks, by a cursor in
// memory that moves along with the process.
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include "syscall.h"
#include "record.h"

#define PAGE 4096UL
#define MAX_LENGTH (ISAM_MAP_TOP - ISAM_MAP_BOTTOM)

static unsigned long round_up(unsigned long n, unsigned long to)
{
	return (n + to - 1) & -to;
}

// The next place to try. After a failure the steps grow, so that a crowded stretch is soon left behind; below the
// bottom the search starts again at the top, into what has been unmapped since.
static unsigned long next_place(unsigned long at, unsigned long len, unsigned long align)
{
	if (at < ISAM_MAP_BOTTOM + len || at > ISAM_MAP_TOP)
		at = ISAM_MAP_TOP;
	return (at - len) & -align;
}

// mmap at exactly `at`. A kernel (or an emulator) that does not know MAP_FIXED_NOREPLACE takes it for a hint.
static long map_at(unsigned long at, unsigned long len, long prot, long flags, long fd, long off)
{
	long got = __isam_syscall(SYS_mmap, at, len, prot, flags | MAP_FIXED_NOREPLACE, fd, off);
	if (got < 0 && got > -4096UL || (unsigned long)got == at)
		return got;
	__isam_syscall(SYS_munmap, got, len, 0, 0, 0, 0);
	return -EEXIST;
}

static long map_anywhere(unsigned long len, long prot, long flags, long fd, long off)
{
	unsigned long align = PAGE, step = 1UL << 16;
	if (flags & MAP_HUGETLB)
		align = flags >> 26 & 63 ? 1UL << (flags >> 26 & 63) : 1UL << 21;
	len = round_up(len, align);
	if (len > MAX_LENGTH)
		return -ENOMEM;
	unsigned long cursor = __atomic_load_n(&__isam_map_next, __ATOMIC_RELAXED), at = cursor;
	for (int tries = 0; tries < 1 << 16; tries++) {
		at = next_place(at, len, align);
		long got = map_at(at, len, prot, flags, fd, off);
		if (got != -EEXIST) {
			if ((unsigned long)got == at)
				__atomic_compare_exchange_n(&__isam_map_next, &cursor, at, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
			return got;
		}
		at -= step;
		if (step < 1UL << 36)
			step *= 2;
	}
	return -ENOMEM;
}

static long place_mmap(unsigned long addr, unsigned long len, long prot, long flags, long fd, long off)
{
	if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) || !len || len > MAX_LENGTH)
		return len > MAX_LENGTH ? -ENOMEM : __isam_syscall(SYS_mmap, addr, len, prot, flags, fd, off);
	addr &= -PAGE;
	if (addr && addr < ISAM_VA_LIMIT - len) {
		long got = map_at(addr, len, prot, flags, fd, off);
		if ((unsigned long)got == addr)
			return got;
	}
	return map_anywhere(len, prot, flags, fd, off);
}

static long place_mremap(long old, long old_len, unsigned long len, long flags, long new)
{
	if (flags & MREMAP_FIXED || !(flags & MREMAP_MAYMOVE))
		return __isam_syscall(SYS_mremap, old, old_len, len, flags, new, 0);
	if (!(flags & MREMAP_DONTUNMAP)) {
		long got = __isam_syscall(SYS_mremap, old, old_len, len, 0, 0, 0);
		if (got != -ENOMEM)
			return got;
	}
	// A reservation first: MREMAP_FIXED replaces whatever is there.
	long at = map_anywhere(len, PROT_NONE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
	if (at < 0)
		return -ENOMEM;
	long got = __isam_syscall(SYS_mremap, old, old_len, len, flags | MREMAP_FIXED, at, 0);
	if (got < 0)
		__isam_syscall(SYS_munmap, at, len, 0, 0, 0, 0);
	return got;
}

static long place_shmat(long id, long addr, long flags)
{
	struct shmid_ds info;
	if (addr || __isam_syscall(SYS_shmctl, id, IPC_STAT, (long)&info, 0, 0, 0) < 0)
		return __isam_syscall(SYS_shmat, id, addr, flags, 0, 0, 0); // also for the kernel's own errors
	// A reservation, so that the place is free but for it; SHM_REMAP replaces it.
	unsigned long len = round_up(info.shm_segsz, PAGE);
	long at = map_anywhere(len, PROT_NONE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
	if (at < 0)
		return -ENOMEM;
	long got = __isam_syscall(SYS_shmat, id, at, flags | SHM_REMAP, 0, 0, 0);
	if (got < 0)
		__isam_syscall(SYS_munmap, at, len, 0, 0, 0, 0);
	return got;
}

static long unmap(unsigned long addr, unsigned long len)
{
	long got = __isam_syscall(SYS_munmap, addr, len, 0, 0, 0, 0);
	unsigned long cursor = addr; // the mapping made last: take its place back
	if (!got && addr >= ISAM_MAP_BOTTOM && addr < ISAM_MAP_TOP)
		__atomic_compare_exchange_n(&__isam_map_next, &cursor, addr + round_up(len, PAGE), 0, __ATOMIC_RELAXED,
		                            __ATOMIC_RELAXED);
	return got;
}

long __isam_map(long n, long a, long b, long c, long d, long e, long f)
{
	switch (n) {
	case SYS_mmap: return place_mmap(a, b, c, d, e, f);
	case SYS_mremap: return place_mremap(a, b, c, d, e);
	case SYS_shmat: return place_shmat(a, b, c);
	default: return unmap(a, b);
	}
}
