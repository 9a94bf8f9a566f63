// Tests of the runtime alone, without isamorph-cc and libc: compiled natively per ISA by ./run. Every system call here
// is neutral. The first argument says what to test.
#include "../jump.h"
#include "../record.h"

long __isam_syscall(long n, long a, long b, long c, long d, long e, long f);
long __isam_syscall_cp(volatile int *cancel, long n, long a, long b, long c, long d, long e, long f);
int __isam_clone(int (*fn)(void *), void *stack, int flags, void *arg, int *ptid, void *tls, int *ctid);
void __isam_safepoint(void);
int __isam_setjmp(u64 *, struct isam_cell *) __attribute__((returns_twice));
void *memcpy(void *, const void *, u64), *memmove(void *, const void *, u64), *memset(void *, int, u64);
int memcmp(const void *, const void *, u64);
extern const char __isam_syscall_restart[], __isam_syscall_insn[], __isam_gate_insn[], __isam_restore_rt[];

#define S(n, ...) S_(n, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define S_(n, a, b, c, d, e, f, ...) \
	__isam_syscall(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

enum { EPOLL_CTL = 21, EPOLL_PWAIT = 22, FCNTL = 25, OPENAT = 56, PIPE2 = 59, WRITE = 64, PSELECT6 = 72, PPOLL = 73,
       NEWFSTATAT = 79, FSTAT = 80, EXIT_GROUP = 94, FUTEX = 98, NANOSLEEP = 101, CLOCK_GETTIME = 113, CLOCK_NANOSLEEP = 115,
       PTRACE = 117, KILL = 129, RT_SIGACTION = 134, SIGTIMEDWAIT = 137, GETPID = 172, SEMGET = 190, SEMCTL = 191,
       CLONE = 220, MMAP = 222, MPROTECT = 226, WAIT4 = 260, OPENAT2 = 437, EPOLL_PWAIT2 = 441 };

static int failures;

static void put(const char *s)
{
	u64 n = 0;
	while (s[n])
		n++;
	S(WRITE, 1, s, n);
}

static void number(long v)
{
	char b[24];
	int i = sizeof b - 1;
	u64 u = v < 0 ? -(u64)v : (u64)v;
	b[i] = 0;
	do
		b[--i] = (char)('0' + u % 10);
	while (u /= 10);
	if (v < 0)
		b[--i] = '-';
	put(b + i);
}

static void equal(long got, long wanted, int line, const char *what)
{
	if (got == wanted)
		return;
	failures++;
	put("test.c:"), number(line), put(": "), put(what), put(" is "), number(got), put(", not "), number(wanted), put("\n");
}
#define EQUAL(got, wanted) equal((long)(got), (long)(wanted), __LINE__, #got)
#define CHECK(condition) equal(!!(condition), 1, __LINE__, #condition)

static i64 now(void)
{
	i64 t[2];
	S(CLOCK_GETTIME, 1, t);
	return t[0] * 1000000000 + t[1];
}

// ---- memcpy and its like, against loops

static unsigned char left[9000], right[9000], copy[9000];

static void strings(void)
{
	u64 seed = 12345;
	for (int round = 0; round < 60000; round++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		u64 r = seed >> 20, n = round < 3000 ? (u64)round % 100 : r % (round % 7 ? 300 : 4200);
		u64 from = (r >> 13) % 130, to = (r >> 21) % 130;
		if (round % 50 == 0)
			for (u64 i = 0; i < sizeof left; i++)
				left[i] = right[i] = (unsigned char)(i * 131 ^ seed >> i % 50);
		switch (round % 4) {
		case 0: case 1:
			for (u64 i = 0; i < n; i++)
				copy[i] = right[from + i];
			for (u64 i = 0; i < n; i++)
				right[to + i] = copy[i];
			CHECK(memmove(left + to, left + from, n) == left + to);
			break;
		case 2:
			for (u64 i = 0; i < n; i++)
				right[to + i] = (unsigned char)r;
			CHECK(memset(left + to, (int)r, n) == left + to);
			break;
		case 3:
			for (u64 i = 0; i < n; i++)
				copy[to + i] = left[from + i];
			EQUAL(memcmp(left + from, copy + to, n), 0);
			if (n) {
				u64 at = (seed >> 40) % n;
				copy[to + at] ^= (unsigned char)(1 + (seed >> 50) % 200);
				EQUAL(memcmp(left + from, copy + to, n), left[from + at] - copy[to + at]);
			}
		}
		int differ = 0;
		for (u64 i = 0; i < 4600; i++)
			differ |= left[i] ^ right[i];
		EQUAL(differ, 0);
	}
	// Objects that begin or end at a page which is not there.
	char *m = (char *)S(MMAP, 0, 12 * 4096, 3, 0x22, -1, 0);
	S(MPROTECT, m, 4096, 0), S(MPROTECT, m + 5 * 4096, 2 * 4096, 0), S(MPROTECT, m + 11 * 4096, 4096, 0);
	char *a = m + 4096, *a_end = m + 5 * 4096, *b = m + 7 * 4096, *b_end = m + 11 * 4096;
	for (u64 n = 0; n < 3000; n += n < 200 ? 1 : 37) {
		memset(a, 1, n), memset(a_end - n, 2, n), memset(b, 3, n), memset(b_end - n, 4, n);
		memcpy(a, b, n), memcpy(a_end - n, b_end - n, n), memcpy(a, b_end - n, n), memcpy(b_end - n, a, n);
		memmove(a, a + 1, n), memmove(a_end - n, a_end - n - 1, n), memmove(b_end - n - 1, b_end - n, n);
		memset(a_end - n, 9, n), memset(b_end - n, 9, n);
		EQUAL(memcmp(a_end - n, b_end - n, n), 0);
	}
}

// ---- conversions

struct stat {
	u64 dev, ino;
	u32 mode, nlink, uid, gid;
	u64 rdev, pad;
	i64 size;
	i32 blksize, pad2;
	i64 blocks, times[6];
	u32 unused[2];
	u64 canary;
};
struct epoll_event {
	u32 events, pad;
	u64 data;
};
enum { O_DIRECT = 040000, O_LARGEFILE = 0100000, O_DIRECTORY = 0200000, O_NOFOLLOW = 0400000, O_NONBLOCK = 04000 };
enum { ENOENT = 2, EFAULT = 14, ENOTDIR = 20, EINVAL = 22, ENOSYS = 38, ELOOP = 40, ETIMEDOUT = 110 };

static int handled;
static void handler(int sig) { handled = sig; }
static int sets(void *word) { return *(volatile int *)word = 7, 3; }

static void conversions(int emulated)
{
	struct stat s = { .canary = 0x1234 };
	EQUAL(S(NEWFSTATAT, -100, "/etc/passwd", &s, 0), 0);
	CHECK(s.size > 0 && (s.mode & 0170000) == 0100000 && s.nlink == 1 && s.blksize == 4096 && s.canary == 0x1234);
	CHECK(s.times[2] > 1000000000 && s.unused[1] == 0);
	EQUAL(S(NEWFSTATAT, -100, "/etc/passwd", 1, 0), -EFAULT);
	EQUAL(S(OPENAT, -100, "/etc/passwd", O_DIRECTORY), -ENOTDIR);
	EQUAL(S(OPENAT, -100, "/nowhere", 0), -ENOENT);
	u64 how[3] = { O_DIRECTORY };
	if (!emulated) { // qemu's user mode has its own idea of the link, and no openat2
		EQUAL(S(OPENAT, -100, "/proc/self/exe", O_NOFOLLOW), -ELOOP);
		EQUAL(S(OPENAT2, -100, "/etc/passwd", how, 24), -ENOTDIR);
		EQUAL(how[0], O_DIRECTORY);
	}
	long dir = S(OPENAT, -100, "/etc", O_DIRECTORY);
	CHECK(dir >= 0);
	EQUAL(S(FCNTL, dir, 3) & ~O_LARGEFILE, O_DIRECTORY);
	EQUAL(S(FSTAT, dir, &s), 0);
	EQUAL(s.mode & 0170000, 040000);
	int p[2];
	EQUAL(S(PIPE2, p, O_NONBLOCK), 0);
	EQUAL(S(FCNTL, p[1], 4, O_DIRECT | O_NONBLOCK), 0);
	EQUAL(S(FCNTL, p[1], 3), O_DIRECT | O_NONBLOCK | 1);

	long ep = S(20, 0);
	struct epoll_event in = { 1, 0, 0x1122334455667788 }, out[4];
	EQUAL(S(EPOLL_CTL, ep, 1, p[0], &in), 0);
	in.data = 0x99, in.events = 4;
	EQUAL(S(EPOLL_CTL, ep, 1, p[1], &in), 0);
	S(WRITE, p[1], "x", 1);
	EQUAL(S(EPOLL_PWAIT, ep, out, 4, 1000, 0, 8), 2);
	EQUAL(out[0].events, 4), EQUAL(out[0].data, 0x99), EQUAL(out[1].events, 1), EQUAL(out[1].data, 0x1122334455667788);
	EQUAL(S(EPOLL_PWAIT, ep, 16, 4, 1000, 0, 8), -EFAULT);

	EQUAL(S(435, 0, 0), -ENOSYS), EQUAL(S(244, 0, 0), -ENOSYS), EQUAL(S(1000), -ENOSYS), EQUAL(S(-1), -ENOSYS);
	EQUAL(S(277, 1, 0, 0), -ENOSYS), EQUAL(S(167, 22, 1), -EINVAL);
	EQUAL(S(CLONE, 17, left + 4096, 0, 0, 0), -ENOSYS);

	long sem = S(SEMGET, 0, 3, 01600);
	if (sem != -ENOSYS) {
		u64 ds[14];
		for (int i = 0; i < 14; i++)
			ds[i] = 0xdead;
		EQUAL(S(SEMCTL, sem, 0, 2, ds), 0);
		EQUAL(ds[8], 3), EQUAL(ds[11], 0xdead);
		EQUAL(S(SEMCTL, sem, 0, 1, ds), 0);
		EQUAL(S(SEMCTL, sem, 0, 0, 0), 0);
	}

	int cancel = 0, word = 0, status = 0;
	CHECK(__isam_syscall_cp(&cancel, GETPID, 0, 0, 0, 0, 0, 0) > 0);
	__isam_safepoint();
	void *portable = __isam_psp;
	if (!emulated) { // emulated vfork copies memory
		long pid = __isam_clone(sets, right + 8192, 0x4100 | 17, &word, 0, 0, 0);
		EQUAL(S(WAIT4, pid, &status, 0, 0), pid);
		EQUAL(status, 0x300), EQUAL(word, 7), EQUAL(portable, __isam_psp);
	}
	long pid = S(CLONE, 0x4100 | 17, 0, 0, 0, 0); // a raw vfork: a copy, so that this frame stays whole
	if (!pid)
		S(EXIT_GROUP, 5);
	EQUAL(S(WAIT4, pid, &status, 0, 0), pid);
	EQUAL(status, 0x500);
	struct { void (*handler)(int); u64 flags; const void *restorer; u64 mask; } sa = { handler, 0x04000000, __isam_restore_rt, 0 };
	EQUAL(S(RT_SIGACTION, 10, &sa, 0, 8), 0);
	pid = S(GETPID);
	EQUAL(S(KILL, pid, 10), 0);
	EQUAL(handled, 10);
	volatile char deep[400000]; // the stack grows
	for (int i = sizeof deep - 1; i >= 0; i -= 4096)
		deep[i] = 1;
}

// ---- timed calls, also resumed and gated by a tracer

enum { LENGTH = 800 * 1000000 };
static const char *const timed[] = { "nanosleep", "clock_nanosleep", "ppoll", "pselect6", "epoll_pwait", "epoll_pwait2", "futex",
                                     "sigtimedwait" };

static long wait_by(int which)
{
	i64 ts[2] = { 0, LENGTH };
	u64 set = 1 << 11;
	int word = 0;
	long ep = S(20, 0);
	switch (which) {
	case 0: return S(NANOSLEEP, ts, 0);
	case 1: return S(CLOCK_NANOSLEEP, 1, 0, ts, 0);
	case 2: return S(PPOLL, 0, 0, ts, 0, 8);
	case 3: return S(PSELECT6, 0, 0, 0, 0, ts, 0);
	case 4: return S(EPOLL_PWAIT, ep, left, 1, LENGTH / 1000000, 0, 8);
	case 5: return S(EPOLL_PWAIT2, ep, left, 1, ts, 0, 8);
	case 6: return S(FUTEX, &word, 128, 0, ts) == -ETIMEDOUT ? 0 : -1;
	default: return S(SIGTIMEDWAIT, &set, 0, ts, 8) == -11 ? 0 : -1;
	}
}

// Native registers of a tracee, as far as needed: a test may know what the runtime does not.
#ifdef __x86_64__
enum { REGISTERS = 27, PC = 16, SP = 19, INSN_LENGTH = 2 };
static void trash(u64 *regs)
{
	static const int dead[] = { 4, 6, 7, 8, 9, 10, 11, 12, 13, 14 }; // rbp, r11..r8, rax, rcx, rdx, rsi, rdi
	for (unsigned i = 0; i < sizeof dead / sizeof *dead; i++)
		regs[dead[i]] = 0xdeadbeefdeadbeef;
	regs[15] = (u64)-1; // no system call to restart
}
#else
enum { REGISTERS = 34, PC = 32, SP = 31, INSN_LENGTH = 4 };
static void trash(u64 *regs)
{
	for (int i = 0; i < 19; i++)
		regs[i] = 0xdeadbeefdeadbeef;
	regs[29] = regs[30] = 0xdeadbeefdeadbeef;
}
#endif

static u64 peek(long pid, u64 at)
{
	u64 word = 0;
	EQUAL(S(PTRACE, 2, pid, at, &word), 0);
	return word;
}

// Stops the child in its call, and makes it enter the stub again with nothing but what is neutral. Returns the record.
static u64 reenter(long pid, const char *insn, u64 flags)
{
	u64 regs[REGISTERS];
	struct { void *base; u64 len; } iov = { regs, sizeof regs };
	int status;
	EQUAL(S(PTRACE, 0x4206, pid, 0, 0), 0); // SEIZE
	EQUAL(S(PTRACE, 0x4207, pid, 0, 0), 0); // INTERRUPT
	EQUAL(S(WAIT4, pid, &status, 0x40000000, 0), pid);
	EQUAL(S(PTRACE, 0x4204, pid, 1, &iov), 0); // GETREGSET
	u64 pc = regs[PC] - (u64)insn;
	CHECK(pc == 0 || pc == INSN_LENGTH);
	trash(regs);
	regs[PC] = (u64)__isam_syscall_restart;
	EQUAL(S(PTRACE, 0x4205, pid, 1, &iov), 0); // SETREGSET
	EQUAL(S(PTRACE, 5, pid, regs[SP] + REC_FLAGS, flags), 0); // POKEDATA
	for (u64 at = REC_NATIVE_NR; at < REC_SAVED_FP; at += 8)
		EQUAL(S(PTRACE, 5, pid, regs[SP] + at, 0xeeeeeeeeeeeeeeee), 0);
	CHECK((i64)peek(pid, regs[SP] + REC_DEADLINE) > now() - LENGTH);
	EQUAL(S(PTRACE, 17, pid, 0, 0), 0); // DETACH
	return regs[SP];
}

static void sleep_ms(long ms)
{
	i64 ts[2] = { 0, ms * 1000000 };
	S(NANOSLEEP, ts, 0);
}

static void resumed(void)
{
	for (int which = 0; which < 8; which++) {
		for (int gate = 0; gate < 2; gate++) {
			i64 start = now();
			int status = 0;
			long pid = S(CLONE, 17, 0);
			if (!pid) {
				int failed = wait_by(which) != 0;
				S(EXIT_GROUP, failed);
			}
			sleep_ms(500);
			reenter(pid, __isam_syscall_insn, FLAG_RESUMED | (gate ? FLAG_GATE : 0));
			if (gate) {
				sleep_ms(400);
				EQUAL(S(WAIT4, pid, &status, 1 | 0x40000000, 0), 0); // WNOHANG: behind the gate past its deadline
				reenter(pid, __isam_gate_insn, FLAG_RESUMED);
			}
			EQUAL(S(WAIT4, pid, &status, 0x40000000, 0), pid);
			i64 took = (now() - start) / 1000000, wanted = gate ? 900 : 800;
			if (status || took < wanted - 5 || took > wanted + 350) {
				failures++;
				put(timed[which]), put(gate ? " gated" : ""), put(": status "), number(status), put(", ms "), number(took),
				put("\n");
			}
		}
	}
}

// ---- setjmp: what a call preserves is as it was, and so is the portable stack pointer

#ifdef __x86_64__
#define PRESERVED "rbx", "r12", "r13", "r14", "r15"
#else
#define PRESERVED "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28"
#endif

static struct isam_cell cell;
static u64 buffer[8];

static __attribute__((noinline)) void jump(int value, int depth)
{
	__asm__ volatile("" ::: PRESERVED, "memory"); // they are saved here, and hold anything below
	if (depth)
		jump(value, depth - 1);
	__isam_psp = (char *)__isam_psp - 64;
	__isam_longjmp((const struct isam_cell *)buffer[JB_CELL / 8], value, (void *)buffer[JB_PSP / 8]);
}

static __attribute__((noinline)) void jumps(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	void *psp = __isam_psp;
	volatile int times = 0;
	int value = __isam_setjmp(buffer, &cell);
	EQUAL(value, times ? times * 1000003 : 0);
	CHECK(a == 1 && b == 2 && c == 3 && d == 4 && e == 5 && f == 6 && __isam_psp == psp);
	CHECK(buffer[JB_CELL / 8] == (u64)&cell && buffer[JB_PSP / 8] == (u64)psp && buffer[3] == 0);
	CHECK(cell.key == (JUMP_KEY ^ (u64)&cell) && buffer[JB_KEY / 8] == cell.key && cell.sp % 16 == 0);
	if (times < 100) {
		times++;
		jump(times * 1000003, times % 7);
	}
}

static void timeouts(void)
{
	for (int which = 0; which < 8; which++) {
		i64 start = now();
		EQUAL(wait_by(which), 0);
		i64 took = (now() - start) / 1000000;
		CHECK(took >= 800 && took < 1200);
	}
	i64 bad[2] = { 0, -1 };
	EQUAL(S(NANOSLEEP, bad, 0), -EINVAL);
}

static _Thread_local int initialised = 42;
static _Thread_local int aligned __attribute__((aligned(64)));

void __isam_entry(u64 *sp)
{
	char **argv = (char **)(sp + 1);
	const char *what = sp[0] > 1 ? argv[1] : "";
	CHECK((u64)sp < ISAM_VA_LIMIT && (u64)argv[0] > (u64)sp && (u64)argv[0] < ISAM_VA_LIMIT);
	CHECK(initialised == 42 && aligned == 0 && ((u64)&aligned & 63) == 0 && (u64)&aligned < ISAM_VA_LIMIT);
	CHECK(((u64)__isam_psp & 15) == 0);
	((volatile char *)__isam_psp)[-1] = 1;
	switch (*what) {
	case 's': strings(); break;
	case 'c': conversions(0); break;
	case 'e': conversions(1); break;
	case 't': timeouts(); break;
	case 'r': resumed(); break;
	case 'j': jumps(1, 2, 3, 4, 5, 6); break;
	}
	S(EXIT_GROUP, failures != 0);
}
