// System calls: neutral numbers and structures, by the runtime's stub. Calls that may place a mapping go by way of
// __isam_map, which keeps it below 2^47 on both ISAs. No vDSO: its address would be per ISA (and per boot).
#define __SYSCALL_LL_E(x) (x)
#define __SYSCALL_LL_O(x) (x)

long __isam_syscall(long, long, long, long, long, long, long);
hidden long __isam_map(long, long, long, long, long, long, long);

static inline long __syscall6(long n, long a, long b, long c, long d, long e, long f)
{
	if (n == SYS_mmap || n == SYS_munmap || n == SYS_mremap || n == SYS_shmat)
		return __isam_map(n, a, b, c, d, e, f);
	return __isam_syscall(n, a, b, c, d, e, f);
}

static inline long __syscall0(long n)
{
	return __syscall6(n, 0, 0, 0, 0, 0, 0);
}

static inline long __syscall1(long n, long a)
{
	return __syscall6(n, a, 0, 0, 0, 0, 0);
}

static inline long __syscall2(long n, long a, long b)
{
	return __syscall6(n, a, b, 0, 0, 0, 0);
}

static inline long __syscall3(long n, long a, long b, long c)
{
	return __syscall6(n, a, b, c, 0, 0, 0);
}

static inline long __syscall4(long n, long a, long b, long c, long d)
{
	return __syscall6(n, a, b, c, d, 0, 0);
}

static inline long __syscall5(long n, long a, long b, long c, long d, long e)
{
	return __syscall6(n, a, b, c, d, e, 0);
}

#define IPC_64 0
