// What our files change in musl, seen by an ordinary program: compiled by isamorph-cc, run on both ISAs by ./run.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT (1UL << 47)

static int failures;
#define CHECK(c) \
	do { \
		if (!(c)) { \
			printf("libc.c:%d: %s (errno %d)\n", __LINE__, #c, errno); \
			failures++; \
		} \
	} while (0)

extern char **environ;

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static void basics(void)
{
	char b[200];
	int v[50];
	for (int i = 0; i < 50; i++)
		v[i] = i * 37 % 50;
	qsort(v, 50, sizeof *v, compare);
	for (int i = 0; i < 50; i++)
		CHECK(v[i] == i);
	snprintf(b, sizeof b, "%.20Lf %g %Lg %a %d%%", 3.14159265358979323846264338327950288L, 1.0 / 3, sqrtl(2), 0.1, -5);
	CHECK(!strcmp(b, "3.14159265358979323846 0.333333 1.41421 0x1.999999999999ap-4 -5%"));
	CHECK(sqrt(2.0) * 1e15 == 1414213562373095.25 || fabs(sqrt(2.0) - 1.4142135623730951) < 1e-16);
	CHECK(strtold("1.5e4000", 0) > 1e308L);
	CHECK(!setenv("ISAM", "yes", 1) && !strcmp(getenv("ISAM"), "yes"));
	char name[] = "/tmp/isamXXXXXX";
	int fd = mkstemp(name);
	FILE *f = fdopen(fd, "w+");
	CHECK(f && fprintf(f, "abc %d\n", 42) == 7);
	rewind(f);
	CHECK(fgets(b, sizeof b, f) && !strcmp(b, "abc 42\n"));
	struct stat st;
	CHECK(!fstat(fd, &st) && st.st_size == 7 && S_ISREG(st.st_mode) && st.st_nlink == 1 && st.st_mtime > 1000000000);
	CHECK(!stat(name, &st) && st.st_size == 7 && !unlink(name) && !fclose(f));
	CHECK(stat(name, &st) == -1 && errno == ENOENT);
	CHECK(open("/etc/passwd", O_RDONLY | O_DIRECTORY) == -1 && errno == ENOTDIR);
	CHECK((fd = open("/etc", O_RDONLY | O_DIRECTORY)) >= 0 && fcntl(fd, F_GETFL) & O_DIRECTORY);
	close(fd);
	CHECK(sysconf(_SC_PAGESIZE) == 4096);
}

static void waiting(void)
{
	int p[2];
	char c;
	CHECK(!pipe(p));
	struct pollfd pf = { p[0], POLLIN, 0 };
	CHECK(poll(&pf, 1, 10) == 0 && write(p[1], "x", 1) == 1 && poll(&pf, 1, 10) == 1);
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event e = { EPOLLIN, { .u64 = 0x123456789abcdef } }, out[3];
	CHECK(!epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &e));
	CHECK(epoll_wait(ep, out, 3, 100) == 1 && out[0].data.u64 == 0x123456789abcdef && out[0].events == EPOLLIN);
	CHECK(read(p[0], &c, 1) == 1 && c == 'x');
	int64_t t = now_ms();
	CHECK(epoll_wait(ep, out, 3, 20) == 0);
	fd_set set;
	FD_ZERO(&set);
	FD_SET(p[0], &set);
	CHECK(select(p[0] + 1, &set, 0, 0, &(struct timeval){ 0, 20000 }) == 0 && !FD_ISSET(p[0], &set));
	usleep(20000);
	CHECK(now_ms() - t >= 60);
	close(ep), close(p[0]), close(p[1]);
}

static void memory(void)
{
	unsigned char *p[300];
	size_t n[300];
	for (int i = 0; i < 300; i++) {
		n[i] = (size_t)i * 7919 % 500000 + 1;
		p[i] = malloc(n[i]);
		CHECK(p[i] && (uintptr_t)p[i] + n[i] < LIMIT);
		memset(p[i], i, n[i]);
	}
	for (int i = 0; i < 300; i += 2)
		free(p[i]);
	for (int i = 1; i < 300; i += 2) {
		p[i] = realloc(p[i], 700000);
		CHECK(p[i] && p[i][0] == (unsigned char)i && p[i][n[i] - 1] == (unsigned char)i);
		free(p[i]);
	}
	int anonymous = MAP_PRIVATE | MAP_ANON, rw = PROT_READ | PROT_WRITE;
	char *m = mmap(0, 1 << 20, rw, anonymous, -1, 0), *taken = mmap(m, 4096, rw, anonymous, -1, 0);
	CHECK(m != MAP_FAILED && (uintptr_t)m < LIMIT && taken != MAP_FAILED && taken != m);
	m[5] = 5;
	char *moved = mremap(m, 1 << 20, 1 << 24, MREMAP_MAYMOVE);
	CHECK(moved != MAP_FAILED && (uintptr_t)moved < LIMIT && moved[5] == 5);
	moved[(1 << 24) - 1] = 1;
	CHECK(!munmap(moved, 1 << 24) && !munmap(taken, 4096));
	CHECK(mmap((void *)0x123456000, 4096, rw, anonymous, -1, 0) == (void *)0x123456000);
	CHECK(mmap((void *)0x123456000, 4096, rw, anonymous | MAP_FIXED, -1, 0) == (void *)0x123456000);
	// EEXIST; qemu's user mode does not know the flag and maps elsewhere
	CHECK(mmap((void *)0x123456000, 4096, rw, anonymous | MAP_FIXED_NOREPLACE, -1, 0) != (void *)0x123456000);
	CHECK(mmap(0, 1UL << 60, rw, anonymous, -1, 0) == MAP_FAILED && errno == ENOMEM);
	CHECK(mmap(0, 0, rw, anonymous, -1, 0) == MAP_FAILED && errno == EINVAL);
	CHECK(mmap(0, 4096, PROT_READ, MAP_PRIVATE, 999, 0) == MAP_FAILED && errno == EBADF);
	// Mapping and unmapping again and again stays in one place; so does it when the order is another.
	uintptr_t low = LIMIT;
	for (int i = 0; i < 1000; i++) {
		size_t len = 4096 * (1 + i % 7);
		uintptr_t a = (uintptr_t)mmap(0, len, rw, anonymous, -1, 0);
		low = a < low ? a : low;
		CHECK(a < LIMIT && a - low < 1 << 20 && !munmap((void *)a, len));
	}
	int id = shmget(IPC_PRIVATE, 10000, 0600);
	if (id >= 0) {
		char *s = shmat(id, 0, 0);
		CHECK(s != (char *)-1 && (uintptr_t)s < LIMIT);
		s[9999] = 1;
		CHECK(!shmdt(s) && !shmctl(id, IPC_RMID, 0));
	}
}

static volatile sig_atomic_t got;

static void handler(int sig, siginfo_t *info, void *context)
{
	const stack_t *stack = &((ucontext_t *)context)->uc_stack;
	got = info->si_signo == sig && stack->ss_flags != 12345 ? sig : -1;
}

static void signals(void)
{
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };
	sigaction(SIGUSR1, &sa, 0);
	raise(SIGUSR1);
	CHECK(got == SIGUSR1);
	stack_t stack = { malloc(20000), 0, 6143 };
	CHECK(sigaltstack(&stack, 0) == -1 && errno == ENOMEM);
	stack.ss_size = 20000;
	CHECK(!sigaltstack(&stack, 0));
	sa.sa_flags |= SA_ONSTACK;
	sigaction(SIGUSR2, &sa, 0);
	raise(SIGUSR2);
	CHECK(got == SIGUSR2);
	timer_t timer;
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	CHECK(!timer_create(CLOCK_MONOTONIC, &event, &timer));
	timer_settime(timer, 0, &(struct itimerspec){ .it_value.tv_nsec = 200000000 }, 0);
	struct timespec left = { 3, 0 };
	CHECK(nanosleep(&left, &left) == -1 && errno == EINTR && left.tv_sec == 2 && got == SIGUSR1);
	timer_delete(timer);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, 0);
	struct timespec brief = { 0, 20000000 };
	CHECK(sigtimedwait(&set, 0, &brief) == -1 && errno == EAGAIN);
	raise(SIGUSR1);
	CHECK(sigtimedwait(&set, 0, &brief) == SIGUSR1);
	sigprocmask(SIG_UNBLOCK, &set, 0);
	stack.ss_flags = SS_DISABLE;
	CHECK(!sigaltstack(&stack, 0));
}

static void processes(void)
{
	int status;
	char b[10];
	fflush(stdout);
	pid_t pid = fork();
	if (!pid)
		_exit(7);
	CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7);
	pid = vfork();
	if (!pid)
		_exit(8);
	CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 8);
	CHECK(system("exit 3") == 3 << 8);
	char *argv[] = { "true", 0 };
	CHECK(!posix_spawnp(&pid, "true", 0, 0, argv, environ) && waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(posix_spawnp(&pid, "nothing-of-that-name", 0, 0, argv, environ) == ENOENT);
	FILE *f = popen("echo hi", "r");
	CHECK(f && fgets(b, sizeof b, f) && !strcmp(b, "hi\n") && pclose(f) == 0);
}

static _Thread_local int initialised = 5;
static _Thread_local char aligned[100] __attribute__((aligned(128)));

static void *thread(void *argument)
{
	CHECK(initialised == 5 && ((uintptr_t)aligned & 127) == 0 && aligned[3] == 0);
	initialised = (int)(intptr_t)argument;
	aligned[3] = 1, errno = 7;
	volatile char big[1 << 20]; // far more than the native stack has
	for (size_t i = 0; i < sizeof big; i += 1000)
		big[i] = 1;
	free(malloc(1000));
	return (void *)(intptr_t)(initialised + 1);
}

static void *blocked(void *fd)
{
	char c;
	read(*(int *)fd, &c, 1);
	return 0;
}

static void *spinning(void *started)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, 0);
	sem_post(started);
	for (volatile int i = 0;; i++)
		;
}

static sigjmp_buf jump_buffer;

static void jumps_out(int sig)
{
	siglongjmp(jump_buffer, sig);
}

static void jumps_back(void)
{
	longjmp(jump_buffer, 7);
}

// A child that misuses longjmp ends by SIGABRT, and says why.
static void misuse(void (*how)(void), const char *why)
{
	int p[2], status;
	char b[100] = "";
	CHECK(!pipe(p));
	pid_t pid = fork();
	if (!pid) {
		dup2(p[1], 2);
		how();
		_exit(0);
	}
	close(p[1]);
	CHECK(read(p[0], b, sizeof b - 1) > 0 && strstr(b, why));
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	close(p[0]);
}

static void never_filled(void)
{
	static jmp_buf buffer;
	longjmp(buffer, 1);
}

static int fills(void)
{
	return setjmp(jump_buffer);
}

static void returned(void)
{
	if (!fills())
		jumps_back();
}

static void *jumper(void *arg)
{
	jmp_buf buffer;
	volatile intptr_t n = 0;
	if (setjmp(buffer) < 50)
		longjmp(buffer, (int)++n);
	return (void *)(n + (intptr_t)arg);
}

static sem_t notified;
static _Thread_local int notifications = 5;

// The thread is used again after it has left like this: then its variables are as at its start.
static void notify(union sigval value)
{
	CHECK(value.sival_int == 77 && notifications == 5);
	notifications++;
	sem_post(&notified);
	pthread_exit(0);
}

static void jumps(void)
{
	volatile int n = 0;
	int r = setjmp(jump_buffer);
	CHECK(r == (n ? 7 : 0));
	if (n++ < 3)
		jumps_back();
	CHECK(n == 4);

	sigset_t mask;
	struct sigaction sa = { .sa_handler = jumps_out };
	CHECK(!sigaction(SIGUSR2, &sa, 0));
	n = 0;
	r = sigsetjmp(jump_buffer, 1);
	CHECK(r == (n ? SIGUSR2 : 0) && !sigprocmask(SIG_SETMASK, 0, &mask) && !sigismember(&mask, SIGUSR2));
	if (n++ < 3)
		raise(SIGUSR2);
	n = 0;
	if (!sigsetjmp(jump_buffer, 0))
		raise(SIGUSR2);
	CHECK(!sigprocmask(SIG_SETMASK, 0, &mask) && sigismember(&mask, SIGUSR2));
	sigemptyset(&mask);
	CHECK(!sigprocmask(SIG_SETMASK, &mask, 0));
	signal(SIGUSR2, SIG_DFL);

	misuse(never_filled, "was not filled");
	misuse(returned, "has returned");

	pthread_t t[4];
	void *result;
	for (intptr_t i = 0; i < 4; i++)
		CHECK(!pthread_create(&t[i], 0, jumper, (void *)i));
	for (intptr_t i = 0; i < 4; i++)
		CHECK(!pthread_join(t[i], &result) && (intptr_t)result == i + 50);

	timer_t timer;
	struct sigevent event = { .sigev_notify = SIGEV_THREAD, .sigev_value.sival_int = 77, .sigev_notify_function = notify };
	struct itimerspec every = { { 0, 5000000 }, { 0, 5000000 } };
	sem_init(&notified, 0, 0);
	CHECK(!timer_create(CLOCK_MONOTONIC, &event, &timer) && !timer_settime(timer, 0, &every, 0));
	for (int i = 0; i < 4; i++)
		sem_wait(&notified);
	CHECK(!timer_delete(timer));
}

static void *posts(void *sem)
{
	sem_post(sem);
	return 0;
}

static void threads(void)
{
	pthread_t t[20];
	void *result;
	for (intptr_t i = 0; i < 20; i++)
		CHECK(!pthread_create(&t[i], 0, thread, (void *)i));
	for (intptr_t i = 0; i < 20; i++)
		CHECK(!pthread_join(t[i], &result) && (intptr_t)result == i + 1);
	CHECK(initialised == 5);
	sem_t sem;
	pthread_attr_t attr;
	sem_init(&sem, 0, 0);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	for (int i = 0; i < 100; i++) {
		CHECK(!pthread_create(t, &attr, posts, &sem));
		sem_wait(&sem);
	}
	int p[2];
	CHECK(!pipe(p));
	CHECK(!pthread_create(t, 0, blocked, p));
	usleep(50000);
	CHECK(!pthread_cancel(*t) && !pthread_join(*t, &result) && result == PTHREAD_CANCELED);
	CHECK(!pthread_create(t, 0, spinning, &sem));
	sem_wait(&sem);
	CHECK(!pthread_cancel(*t) && !pthread_join(*t, &result) && result == PTHREAD_CANCELED);
	static char stack[300000];
	pthread_attr_init(&attr);
	pthread_attr_setstack(&attr, stack, sizeof stack);
	CHECK(!pthread_create(t, &attr, thread, (void *)3) && !pthread_join(*t, &result) && (intptr_t)result == 4);
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t never = PTHREAD_COND_INITIALIZER;
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (until.tv_nsec + 20000000) / 1000000000;
	until.tv_nsec = (until.tv_nsec + 20000000) % 1000000000;
	pthread_mutex_lock(&mutex);
	CHECK(pthread_cond_timedwait(&never, &mutex, &until) == ETIMEDOUT);
}

int main(void)
{
	basics();
	waiting();
	memory();
	signals();
	processes();
	threads();
	jumps();
	puts(failures ? "FAILED" : "ok");
	return failures != 0;
}
