/* Gives itself all the state that a dump and a restore must carry, says READY, waits for SIGUSR2,
 * and checks that everything is still so. `state nobody` does it without privileges. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <grp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
static int failed;
#define CHECK(c) ((c) ? 0 : (failed = 1, printf("FAIL line %d: %s (errno %d)\n", __LINE__, #c, errno)))

static volatile sig_atomic_t go;
static volatile int on_alt_stack;
static char alt[65536];
static void on_usr2(int s, siginfo_t *i, void *u)
{
	char here;
	(void)s, (void)i, (void)u;
	on_alt_stack = &here >= alt && &here < alt + sizeof alt;
	go = 1;
}

static double now(clockid_t c)
{
	struct timespec t;
	clock_gettime(c, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	int nobody = argc > 1 && !strcmp(argv[1], "nobody");
	setvbuf(stdout, 0, _IOLBF, 0);
	pid_t pid = getpid();

	/* Files. */
	int file = open("file", O_RDWR | O_CREAT | O_TRUNC, 0644);
	char text[3 * PAGE];
	memset(text, 'a', sizeof text);
	CHECK(write(file, text, sizeof text) == sizeof text);
	lseek(file, 1234, SEEK_SET);
	int twin = dup(file);
	int cloexec = fcntl(file, F_DUPFD_CLOEXEC, 200);
	int append = open("file", O_WRONLY | O_APPEND | O_NONBLOCK);
	int dir = open(".", O_RDONLY | O_DIRECTORY);
	int null = open("/dev/null", O_WRONLY);

	/* Pipes, eventfd, epoll, timerfd, signalfd. */
	int p[2];
	CHECK(!pipe2(p, O_NONBLOCK));
	CHECK(write(p[1], "xyz", 3) == 3);
	int event = eventfd(5, EFD_NONBLOCK);
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event e = { .events = EPOLLIN, .data.u64 = 0x123456789abcdef };
	CHECK(!epoll_ctl(epoll, EPOLL_CTL_ADD, p[0], &e));
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	struct itimerspec hour = { .it_value.tv_sec = 3600, .it_interval = { 7, 8 } };
	CHECK(!timerfd_settime(timer, 0, &hour, 0));
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGRTMIN + 1);
	CHECK(!sigprocmask(SIG_BLOCK, &mask, 0));
	int sigfd = signalfd(-1, &mask, SFD_NONBLOCK);

	/* Memory. */
	char *shared = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int n = 0; n < 4; n++)
		memset(shared + n * PAGE, 'A' + n, PAGE);
	char *view = mremap(shared + PAGE, 0, PAGE, MREMAP_MAYMOVE); /* the same page a second time */
	CHECK(view != MAP_FAILED);
	mprotect(shared + 2 * PAGE, PAGE, PROT_READ);
	char *private = mmap(0, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	private[PAGE] = 'P';
	mprotect(private, 3 * PAGE, PROT_READ);
	char *mapped = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, PAGE);
	char *none = mmap(0, 16 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	mprotect(none + 3 * PAGE, PAGE, PROT_READ | PROT_WRITE);
	none[3 * PAGE + 7] = 'N';
	char *big = malloc(3 << 20);
	for (size_t n = 0; n < 3 << 20; n += PAGE / 2)
		big[n] = (char)(n / 777);

	/* Signals, timers. */
	stack_t stack = { .ss_sp = alt, .ss_size = sizeof alt };
	CHECK(!sigaltstack(&stack, 0));
	struct sigaction act = { .sa_sigaction = on_usr2, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
	sigaddset(&act.sa_mask, SIGTERM);
	CHECK(!sigaction(SIGUSR2, &act, 0));
	signal(SIGHUP, SIG_IGN);
	union sigval value = { .sival_int = 77 };
	CHECK(!sigqueue(pid, SIGRTMIN + 1, value));
	value.sival_int = 78;
	CHECK(!sigqueue(pid, SIGRTMIN + 1, value));
	raise(SIGUSR1);
	struct itimerval real = { .it_value = { 5000, 0 }, .it_interval = { 3, 4 } };
	CHECK(!setitimer(ITIMER_REAL, &real, 0));
	struct sigevent quiet = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 5, .sigev_value.sival_int = 9 };
	timer_t ids[3];
	for (int n = 0; n < 3; n++)
		CHECK(!timer_create(CLOCK_MONOTONIC, &quiet, &ids[n]));
	timer_delete(ids[0]);
	CHECK(!timer_settime(ids[2], 0, &hour, 0));

	/* Attributes. */
	umask(027);
	prctl(PR_SET_NAME, "renamed");
	CHECK(!setpriority(PRIO_PROCESS, 0, 3));
	struct rlimit files = { 300, 400 };
	CHECK(!setrlimit(RLIMIT_NOFILE, &files));
	fesetround(FE_UPWARD);
	volatile double third = 1.0;
	third /= 3.0;
	if (nobody) {
		gid_t groups[] = { 100, 200 };
		CHECK(!setgroups(2, groups));
		CHECK(!setresgid(65534, 65534, 65534));
		CHECK(!setresuid(65534, 65534, 65534));
		CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	}
	errno = 4321;
	double before = now(CLOCK_MONOTONIC), boot = now(CLOCK_BOOTTIME);
	printf("READY %d\n", pid);
	while (!go) {
		struct timespec ms = { 0, 1000000 };
		syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &ms, 0);
		double then = now(CLOCK_MONOTONIC);
		CHECK(then >= before && then - before < 60);
	}

	CHECK(errno == 4321 || errno == EINTR);
	CHECK(getpid() == pid && syscall(SYS_gettid) == pid);
	CHECK(now(CLOCK_BOOTTIME) >= boot);
	CHECK(on_alt_stack);
	CHECK(lseek(file, 0, SEEK_CUR) == 1234);
	lseek(file, 99, SEEK_SET);
	CHECK(lseek(twin, 0, SEEK_CUR) == 99 && lseek(cloexec, 0, SEEK_CUR) == 99);
	CHECK(cloexec >= 200 && fcntl(cloexec, F_GETFD) == FD_CLOEXEC && fcntl(twin, F_GETFD) == 0);
	CHECK((fcntl(file, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK)) == O_RDWR);
	CHECK((fcntl(append, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK)) == (O_WRONLY | O_APPEND | O_NONBLOCK));
	CHECK(fcntl(dir, F_GETFL) & O_DIRECTORY);
	CHECK(!faccessat(dir, "file", R_OK, 0) || nobody);
	CHECK(write(null, "x", 1) == 1);
	char got[8] = { 0 };
	struct epoll_event ready[4];
	CHECK(epoll_wait(epoll, ready, 4, 0) == 1 && ready[0].data.u64 == 0x123456789abcdef);
	CHECK(read(p[0], got, 8) == 3 && !memcmp(got, "xyz", 3));
	CHECK(read(p[0], got, 8) == -1 && errno == EAGAIN);
	CHECK(epoll_wait(epoll, ready, 4, 0) == 0);
	CHECK(fcntl(epoll, F_GETFD) == FD_CLOEXEC);
	uint64_t counter;
	CHECK(read(event, &counter, 8) == 8 && counter == 5);
	CHECK(read(event, &counter, 8) == -1 && errno == EAGAIN);
	struct itimerspec left;
	CHECK(!timerfd_gettime(timer, &left) && left.it_value.tv_sec > 3500 && left.it_interval.tv_nsec == 8);
	struct signalfd_siginfo info[4];
	CHECK(read(sigfd, info, sizeof info) == 3 * sizeof *info);
	CHECK(info[0].ssi_signo == SIGUSR1 && info[1].ssi_int == 77 && info[2].ssi_int == 78);

	for (int n = 0; n < 4; n++)
		CHECK(shared[n * PAGE] == 'A' + n && shared[n * PAGE + PAGE - 1] == 'A' + n);
	shared[PAGE + 5] = 'z';
	CHECK(view[5] == 'z' && view[6] == 'B');
	CHECK(private[PAGE] == 'P' && private[0] == 'a' && private[2 * PAGE] == 'a');
	mapped[1] = 'M';
	CHECK(pread(file, got, 1, PAGE + 1) == 1 && got[0] == 'M');
	CHECK(none[3 * PAGE + 7] == 'N' && none[3 * PAGE + 8] == 0);
	for (size_t n = 0; n < 3 << 20; n += PAGE / 2)
		if (big[n] != (char)(n / 777)) {
			CHECK(!"heap");
			break;
		}
	/* Reading memory that must not be readable or writable, without a signal. */
	CHECK(write(p[1], none, 1) == -1 && errno == EFAULT);
	CHECK(read(null, none, 0) == -1);
	CHECK(syscall(SYS_getcwd, shared + 2 * PAGE, PAGE) == -1 && errno == EFAULT);
	CHECK(syscall(SYS_getcwd, private, PAGE) == -1 && errno == EFAULT);

	stack_t s;
	CHECK(!sigaltstack(0, &s) && s.ss_sp == (void *)alt && s.ss_size == sizeof alt && s.ss_flags == 0);
	struct sigaction a;
	CHECK(!sigaction(SIGUSR2, 0, &a) && a.sa_sigaction == on_usr2 && sigismember(&a.sa_mask, SIGTERM));
	CHECK((a.sa_flags & (SA_SIGINFO | SA_ONSTACK | SA_RESTART)) == (SA_SIGINFO | SA_ONSTACK | SA_RESTART));
	CHECK(!sigaction(SIGHUP, 0, &a) && a.sa_handler == SIG_IGN);
	sigset_t m;
	sigprocmask(SIG_BLOCK, 0, &m);
	CHECK(sigismember(&m, SIGUSR1) && sigismember(&m, SIGRTMIN + 1) && !sigismember(&m, SIGUSR2));
	struct itimerval r;
	CHECK(!getitimer(ITIMER_REAL, &r) && r.it_value.tv_sec > 4900 && r.it_interval.tv_usec == 4);
	CHECK(!timer_gettime(ids[2], &left) && left.it_value.tv_sec > 3500 && left.it_interval.tv_sec == 7);
	CHECK(!timer_gettime(ids[1], &left) && left.it_value.tv_sec == 0);
	CHECK(timer_gettime(ids[0], &left) == -1);
	char name[16];
	CHECK(!prctl(PR_GET_NAME, name) && !strcmp(name, "renamed"));
	CHECK(umask(0) == 027);
	CHECK(getpriority(PRIO_PROCESS, 0) == 3);
	struct rlimit l;
	CHECK(!getrlimit(RLIMIT_NOFILE, &l) && l.rlim_cur == 300 && l.rlim_max == 400);
	CHECK(fegetround() == FE_UPWARD);
	volatile double again = 1.0;
	again /= 3.0;
	CHECK(again == third);
	CHECK(getsid(0) == pid && getpgid(0) == pid);
	if (nobody) {
		uid_t u[3];
		gid_t g[3], groups[4];
		CHECK(!getresuid(u, u + 1, u + 2) && u[0] == 65534 && u[1] == 65534 && u[2] == 65534);
		CHECK(!getresgid(g, g + 1, g + 2) && g[0] == 65534 && g[1] == 65534 && g[2] == 65534);
		CHECK(getgroups(4, groups) == 2 && groups[0] + groups[1] == 300);
		CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
		CHECK(setuid(0) == -1);
		CHECK(open("/proc/1/mem", O_RDONLY) == -1);
	}
	printf(failed ? "BAD\n" : "OK\n");
	return failed ? 1 : 42;
}
