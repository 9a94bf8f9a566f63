/* An ordinary process whose threads all have state of their own: says READY when they have it, waits for SIGUSR2, and
 * checks that each still has it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 16 };
static int failed;
#define CHECK(c) ((c) ? 0 : (failed = 1, printf("FAIL line %d: %s (errno %d)\n", __LINE__, #c, errno)))

static volatile sig_atomic_t go;
static void on_usr2(int s) { (void)s, go = 1; }

static pthread_barrier_t ready;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, robust;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int woken;
static _Thread_local uint64_t own[8];

static void *thread(void *argument)
{
	int n = (int)(intptr_t)argument;
	pid_t tid = (pid_t)syscall(SYS_gettid);
	char wanted[16], name[16];
	snprintf(wanted, sizeof wanted, "thread %d", n);
	CHECK(!prctl(PR_SET_NAME, wanted));
	CHECK(!setpriority(PRIO_PROCESS, 0, n));
	stack_t stack = { .ss_sp = malloc(32768), .ss_size = 32768 }, old;
	CHECK(!sigaltstack(&stack, 0));
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2), sigaddset(&mask, SIGUSR1), sigaddset(&mask, SIGRTMIN + 1 + n);
	CHECK(!pthread_sigmask(SIG_SETMASK, &mask, 0));
	/* A signal of tgkill(2), which only the thread itself may pretend to have sent, and two with a value. */
	union sigval value = { .sival_int = 100 + n };
	CHECK(!pthread_kill(pthread_self(), SIGUSR1));
	CHECK(!pthread_sigqueue(pthread_self(), SIGRTMIN + 1 + n, value));
	value.sival_int++;
	CHECK(!pthread_sigqueue(pthread_self(), SIGRTMIN + 1 + n, value));
	for (int i = 0; i < 8; i++)
		own[i] = (uint64_t)n << 32 | (uint64_t)i;
	fesetround(n % 2 ? FE_DOWNWARD : FE_UPWARD);
	if (n == 5)
		setfsuid(4321);
	if (n == 6)
		CHECK(!prctl(PR_SET_PDEATHSIG, SIGTERM));
	if (n == 7)
		CHECK(!pthread_mutex_lock(&robust));
	pthread_barrier_wait(&ready);
	if (n % 3 == 0) {
		pthread_mutex_lock(&lock);
		while (!woken)
			pthread_cond_wait(&changed, &lock);
		pthread_mutex_unlock(&lock);
	} else if (n % 3 == 1) {
		while (!*(volatile int *)&woken)
			usleep(1000);
	} else {
		while (!*(volatile int *)&woken)
			;
	}
	CHECK(syscall(SYS_gettid) == tid && getpid() != tid);
	CHECK(!prctl(PR_GET_NAME, name) && !strcmp(name, wanted));
	CHECK(getpriority(PRIO_PROCESS, 0) == n);
	CHECK(!sigaltstack(0, &old) && old.ss_sp == stack.ss_sp && old.ss_size == 32768);
	sigset_t now;
	CHECK(!pthread_sigmask(SIG_BLOCK, 0, &now));
	for (int s = 1; s < 65; s++)
		CHECK(s == 32 || s == 33 || sigismember(&now, s) == sigismember(&mask, s));
	siginfo_t info;
	struct timespec zero = { 0, 0 };
	sigdelset(&mask, SIGUSR2);
	/* The C library would call it SI_USER. */
	CHECK(syscall(SYS_rt_sigtimedwait, &mask, &info, &zero, 8) == SIGUSR1 && info.si_code == SI_TKILL);
	CHECK(info.si_pid == getpid());
	for (int i = 0; i < 2; i++)
		CHECK(sigtimedwait(&mask, &info, &zero) == SIGRTMIN + 1 + n && info.si_value.sival_int == 100 + n + i);
	CHECK(sigtimedwait(&mask, &info, &zero) == -1 && errno == EAGAIN);
	for (int i = 0; i < 8; i++)
		CHECK(own[i] == ((uint64_t)n << 32 | (uint64_t)i));
	CHECK(fegetround() == (n % 2 ? FE_DOWNWARD : FE_UPWARD));
	CHECK(setfsuid((uid_t)-1) == (n == 5 ? 4321 : 0));
	int death;
	CHECK(!prctl(PR_GET_PDEATHSIG, &death) && death == (n == 6 ? SIGTERM : 0));
	return argument;
}

int main(void)
{
	setvbuf(stdout, 0, _IOLBF, 0);
	pthread_t threads[THREADS];
	struct sigaction act = { .sa_handler = on_usr2 };
	CHECK(!sigaction(SIGUSR2, &act, 0));
	pthread_mutexattr_t attr;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	CHECK(!pthread_mutex_init(&robust, &attr));
	CHECK(!pthread_barrier_init(&ready, 0, THREADS + 1));
	for (intptr_t n = 0; n < THREADS; n++)
		CHECK(!pthread_create(&threads[n], 0, thread, (void *)n));
	pthread_barrier_wait(&ready);
	printf("READY %d\n", getpid());
	while (!go)
		usleep(1000);
	pthread_mutex_lock(&lock);
	woken = 1;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	for (intptr_t n = 0; n < THREADS; n++) {
		void *result;
		CHECK(!pthread_join(threads[n], &result) && result == (void *)n);
	}
	/* Its owner ended with it. */
	CHECK(pthread_mutex_lock(&robust) == EOWNERDEAD);
	printf(failed ? "BAD\n" : "OK\n");
	return failed ? 1 : 42;
}
