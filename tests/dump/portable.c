// A process like one of a pair, without isamorph-cc: the real runtime, and polls written by hand. What is dumped here
// never changes its ISA, so that its frames may be any compiler's. `./build OUTPUT` makes it; the first argument is what to do.
typedef unsigned long u64;

int __isam_clone(int (*fn)(void *), void *stack, int flags, void *arg, int *ptid, void *tls, int *ctid);
long __isam_syscall(long n, long a, long b, long c, long d, long e, long f);
void __isam_safepoint(void);
extern const char __isam_restore_rt[];
#define S(n, ...) S_(n, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define S_(n, a, b, c, d, e, f, ...) \
	__isam_syscall(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
enum { EPOLL_CREATE1 = 20, EPOLL_CTL = 21, EPOLL_PWAIT = 22, EVENTFD2 = 19, WRITE = 64, EXIT_GROUP = 94, FUTEX = 98, CLOCK_GETTIME = 113,
       CLOCK_NANOSLEEP = 115, KILL = 129, RT_SIGACTION = 134, RT_SIGPROCMASK = 135, SIGTIMEDWAIT = 137, GETPID = 172, MPROTECT = 226, PPOLL = 73 };

// What codegen emits for a poll: a nop that a dump turns into a jump to its cold block.
static inline __attribute__((always_inline)) void poll(void)
{
	__asm__ goto(
#ifdef __x86_64__
		"1: .byte 0x0f, 0x1f, 0x44, 0, 0\n"
#else
		"1: nop\n"
#endif
		".pushsection .isamorph.polls, \"a\"\n .quad 1b, %l[taken]\n .popsection" : : : "memory" : taken);
	return;
taken:
	__isam_safepoint();
}

static void put(const char *word, u64 v)
{
	char b[64];
	int i = sizeof b, n = 0;
	b[--i] = '\n';
	do
		b[--i] = (char)('0' + v % 10);
	while (v /= 10);
	b[--i] = ' ';
	while (word[n])
		n++;
	while (n)
		b[--i] = word[--n];
	S(WRITE, 1, b + i, sizeof b - (u64)i);
}

static u64 now(void)
{
	u64 t[2];
	S(CLOCK_GETTIME, 1, t);
	return t[0] * 1000000000 + t[1];
}

static void __attribute__((noinline)) work(u64 n)
{
	for (u64 i = 0; i < n; i++) {
		__asm__ volatile("" ::: "memory");
		poll();
	}
}

static volatile u64 signals;

static void handler(int signal)
{
	(void)signal;
	put("handler", ++signals);
	u64 half[2] = {0, 500000000};
	S(CLOCK_NANOSLEEP, 1, 0, half, 0);
	work(1000000);
	put("left", signals);
}

static void count(int signal)
{
	(void)signal;
	signals++;
}

// A signal that is pending and let in comes before the call that lets it in returns; dumped at any moment.
static void block_and_let_in(u64 n)
{
	u64 usr1 = 1ul << 9, self = (u64)S(GETPID), got;
	for (u64 i = 0; i < n; i++) {
		u64 before = signals;
		S(RT_SIGPROCMASK, 0, &usr1, 0, 8);
		S(KILL, self, 10);
		work(300);
		if (signals != before)
			put("FAIL: came in while blocked", signals);
		S(RT_SIGPROCMASK, 1, &usr1, 0, 8);
		got = signals;
		if (got != before + 1)
			put("FAIL: sigprocmask returned without its signal, before", before);
	}
}

static _Alignas(4096) volatile char page[4096];

static void allow(int signal)
{
	(void)signal;
	S(MPROTECT, page, sizeof page, 1 /* PROT_READ */);
	signals++;
}

// Every round has a fault, whose handler makes its cause go away.
static void fault(u64 n)
{
	for (u64 i = 0; i < n; i++) {
		S(MPROTECT, page, sizeof page, 0);
		(void)page[7];
	}
	if (signals % n)
		put("FAIL: faults", signals);
}

// Threads: one that only polls, one that mostly sleeps, one that waits for others that come and go, and one in calls.
enum { SPINNER, SLEEPER, PARENT, CALLER, THREADS };
static volatile u64 rounds[THREADS + 1];
static struct { _Alignas(64) char stack[16384], tls[4096]; int tid; } threads[THREADS + 1];

static int start(int number, int (*function)(void *))
{
	// As musl does: VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID.
	int *tid = &threads[number].tid, flags = 0x3d0f00;
	return __isam_clone(function, threads[number].stack + sizeof threads[number].stack, flags, (void *)&rounds[number], tid,
		threads[number].tls + 1024, tid);
}

static int spinner(void *mine)
{
	for (;; ++*(volatile u64 *)mine)
		work(100000);
}

static int sleeper(void *mine)
{
	u64 time[2] = {0, 20000000};
	for (;; ++*(volatile u64 *)mine)
		S(CLOCK_NANOSLEEP, 1, 0, time, 0);
}

static int child(void *mine)
{
	++*(volatile u64 *)mine;
	return 0;
}

static int parent(void *mine)
{
	for (;; ++*(volatile u64 *)mine) {
		start(THREADS, child);
		for (int tid; (tid = *(volatile int *)&threads[THREADS].tid) != 0;)
			S(FUTEX, &threads[THREADS].tid, 0 /* FUTEX_WAIT */, tid, 0);
		if (rounds[THREADS] != *(u64 *)mine + 1)
			put("FAIL: children that ran:", rounds[THREADS]);
		work(1000);
	}
}

static int caller(void *mine)
{
	for (;; ++*(volatile u64 *)mine)
		if (S(GETPID) <= 0)
			put("FAIL: getpid", 0);
}

// A handler that waits for another thread, which takes its time.
static volatile int asked, answered;

static int answer(void *mine)
{
	u64 time[2] = {0, 400000000};
	for (;; ++*(volatile u64 *)mine) {
		while (!asked)
			S(FUTEX, &asked, 0 /* FUTEX_WAIT */, 0, 0);
		asked = 0;
		S(CLOCK_NANOSLEEP, 1, 0, time, 0);
		answered = 1;
		S(FUTEX, &answered, 1 /* FUTEX_WAKE */, 1);
	}
	return 0;
}

static void ask(int signal)
{
	(void)signal;
	put("handler", ++signals);
	answered = 0, asked = 1;
	S(FUTEX, &asked, 1, 1);
	while (!answered)
		S(FUTEX, &answered, 0, 0, 0);
	put("left", signals);
}

// A handler that does not return.
static void stay(int signal)
{
	(void)signal;
	put("handler", ++signals);
	sleeper((void *)&rounds[PARENT]);
}

// One round: every thread has made one.
static void together(void)
{
	static int (*const functions[THREADS])(void *) = {spinner, sleeper, parent, caller};
	u64 before[THREADS], moment[2] = {0, 1000000};
	for (int i = 0; i < THREADS; i++) {
		if (!threads[i].tid && start(i, functions[i]) < 0)
			put("FAIL: no thread", i);
		before[i] = rounds[i];
	}
	for (int i = 0; i < THREADS; i++)
		while (rounds[i] == before[i])
			S(CLOCK_NANOSLEEP, 1, 0, moment, 0);
}

void __isam_entry(long *sp)
{
	const char *what = sp[0] > 1 ? (const char *)sp[2] : "loop";
	struct { void (*handler)(int); u64 flags; const void *restorer; u64 mask; } action = {handler, 0x04000000, __isam_restore_rt, 0};
	if (*what == 'p' || *what == 'b')
		action.handler = count;
	if (*what == 'w' || *what == 'd')
		action.handler = *what == 'w' ? ask : stay;
	S(RT_SIGACTION, 10, &action, 0, 8);
	action.handler = allow;
	S(RT_SIGACTION, 11 /* SIGSEGV */, &action, 0, 8);
	u64 ep = (u64)S(EPOLL_CREATE1, 0), ev = (u64)S(EVENTFD2, 0, 0);
	struct { u64 events, data; } event = {1, 7};
	S(EPOLL_CTL, ep, 1, ev, &event);
	u64 usr2 = 1ul << 11;
	S(RT_SIGPROCMASK, 0, &usr2, 0, 8);
	put("READY", (u64)S(GETPID));
	for (u64 i = 0;; i++) {
		u64 begun = now(), time[2] = {3, 0};
		long r = 0, wanted = 0;
		switch (*what) {
		case 'l': work(20000000); break;
		case 'm': together(); break;
		case 'f': fault(20000); break;
		case 'w':
		case 'd':
			if (!threads[SPINNER].tid && start(SPINNER, *what == 'w' ? answer : sleeper) < 0)
				put("FAIL: no thread", 0);
			work(20000000);
			break;
		case 'h': for (;;) work(1u << 30);
		case 's': r = S(CLOCK_NANOSLEEP, 1, 0, time, 0); break;
		case 'e': r = S(EPOLL_PWAIT, ep, &event, 1, 3000, 0, 8); break;
		case 'p': r = S(PPOLL, 0, 0, 0, 0, 8), wanted = -4, put("woken", signals); break;
		case 'b': block_and_let_in(2000); break;
		case 't': r = S(SIGTIMEDWAIT, &usr2, 0, time, 8), wanted = -11; break;
		}
		u64 took = (now() - begun) / 1000000;
		if (r != wanted)
			put("FAIL: the call returned -", (u64)-r);
		// Frozen time counts, and under emulation a freeze takes a second; a call made anew takes twice as long.
		if (*what != 'l' && *what != 'm' && *what != 'f' && *what != 'w' && *what != 'd' && *what != 'p' && *what != 'b' && (took < 2850 || took > 4500))
			put("FAIL: milliseconds that three seconds took:", took);
		put("n", i);
	}
}
