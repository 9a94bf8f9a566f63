/* Blocked in a system call again and again: the total waiting time is right and no EINTR is invented.
 * Variants: nanosleep clock_nanosleep read poll ppoll select epoll_wait sigtimedwait futex; and with an EINTR that is
 * due, when a timer's signal comes: pause sigsuspend interrupted */
#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>

/* Milliseconds of each wait, and how late it may end: a tenth of it. A fourth argument `WAIT[,LATE]` says otherwise. */
static int wait_ms = 1500, late_ms;
#define WAIT_MS wait_ms

static int pipe_fds[2];
static volatile sig_atomic_t ticks;

static void tick(int sig)
{
    (void)sig;
    ticks++;
    CHECK(write(pipe_fds[1], "t", 1) == 1, "errno %d", errno);
}

static volatile sig_atomic_t rings;

static void ring(int sig)
{
    (void)sig;
    rings++;
}

/* A POSIX timer rings after the waiting time, once. */
static void alarm_once(void)
{
    static timer_t timer;
    static int made;
    struct sigaction sa = {.sa_handler = ring};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGVTALRM};
    struct itimerspec once = {.it_value = {WAIT_MS / 1000, WAIT_MS % 1000 * 1000000L}};
    if (!made) {
        CHECK(sigaction(SIGVTALRM, &sa, NULL) == 0, "errno %d", errno);
        CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "errno %d", errno);
        made = 1;
    }
    rings = 0;
    CHECK(timer_settime(timer, 0, &once, NULL) == 0, "errno %d", errno);
}

static void wait_once(const char *how)
{
    struct timespec ts = {WAIT_MS / 1000, WAIT_MS % 1000 * 1000000L};
    if (strcmp(how, "nanosleep") == 0) {
        CHECK(nanosleep(&ts, NULL) == 0, "errno %d", errno);
    } else if (strcmp(how, "clock_nanosleep") == 0) {
        CHECK(clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL) == 0, "clock_nanosleep");
    } else if (strcmp(how, "poll") == 0) {
        struct pollfd p = {pipe_fds[0], POLLIN, 0};
        CHECK(poll(&p, 1, WAIT_MS) == 0, "errno %d", errno);
    } else if (strcmp(how, "ppoll") == 0) {
        struct pollfd p = {pipe_fds[0], POLLIN, 0};
        sigset_t none;
        sigemptyset(&none);
        CHECK(ppoll(&p, 1, &ts, &none) == 0, "errno %d", errno);
    } else if (strcmp(how, "select") == 0) {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(pipe_fds[0], &set);
        struct timeval tv = {WAIT_MS / 1000, WAIT_MS % 1000 * 1000};
        CHECK(select(pipe_fds[0] + 1, &set, NULL, NULL, &tv) == 0, "errno %d", errno);
    } else if (strcmp(how, "epoll_wait") == 0) {
        static int ep = -1;
        if (ep < 0) {
            struct epoll_event e = {.events = EPOLLIN, .data.u64 = 0x1122334455667788ull};
            ep = epoll_create1(EPOLL_CLOEXEC);
            CHECK(ep >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, pipe_fds[0], &e) == 0, "errno %d", errno);
        }
        struct epoll_event got;
        CHECK(epoll_wait(ep, &got, 1, WAIT_MS) == 0, "errno %d", errno);
        CHECK(write(pipe_fds[1], "e", 1) == 1, "errno %d", errno);
        CHECK(epoll_wait(ep, &got, 1, WAIT_MS) == 1 && got.data.u64 == 0x1122334455667788ull, "event");
        char c;
        CHECK(read(pipe_fds[0], &c, 1) == 1 && c == 'e', "read");
    } else if (strcmp(how, "sigtimedwait") == 0) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR2);
        CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0, "errno %d", errno);
        CHECK(sigtimedwait(&set, NULL, &ts) == -1 && errno == EAGAIN, "errno %d", errno);
    } else if (strcmp(how, "futex") == 0) {
        static int word = 5;
        CHECK(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 5, &ts, NULL, 0) == -1 && errno == ETIMEDOUT, "errno %d", errno);
    } else if (strcmp(how, "read") == 0) {
        /* The timer's handler writes; SA_RESTART brings read back. */
        struct itimerval once = {.it_value = {WAIT_MS / 1000, WAIT_MS % 1000 * 1000}};
        int before = ticks;
        CHECK(setitimer(ITIMER_REAL, &once, NULL) == 0, "errno %d", errno);
        char c;
        CHECK(read(pipe_fds[0], &c, 1) == 1 && c == 't', "errno %d", errno);
        CHECK(ticks == before + 1, "ticks");
    } else if (strcmp(how, "pause") == 0) {
        alarm_once();
        CHECK(pause() == -1 && errno == EINTR && rings == 1, "errno %d, %d rings", errno, (int)rings);
    } else if (strcmp(how, "sigsuspend") == 0) {
        sigset_t alarm, none;
        sigemptyset(&none);
        sigemptyset(&alarm);
        sigaddset(&alarm, SIGVTALRM);
        CHECK(sigprocmask(SIG_BLOCK, &alarm, NULL) == 0, "errno %d", errno);
        alarm_once();
        CHECK(sigsuspend(&none) == -1 && errno == EINTR && rings == 1, "errno %d, %d rings", errno, (int)rings);
        CHECK(sigprocmask(SIG_BLOCK, NULL, &none) == 0 && sigismember(&none, SIGVTALRM) == 1, "mask");
    } else if (strcmp(how, "interrupted") == 0) {
        struct timespec longer = {WAIT_MS / 1000 + 10, WAIT_MS % 1000 * 1000000L}, left;
        alarm_once();
        CHECK(nanosleep(&longer, &left) == -1 && errno == EINTR && rings == 1, "errno %d, %d rings", errno, (int)rings);
        CHECK(left.tv_sec == 9 || left.tv_sec == 10, "%ld s left", (long)left.tv_sec);
    } else {
        CHECK(0, "unknown variant %s", how);
    }
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    if (argc > 4)
        sscanf(argv[4], "%d,%d", &wait_ms, &late_ms);
    CHECK(pipe2(pipe_fds, O_CLOEXEC) == 0, "errno %d", errno);
    struct sigaction sa = {.sa_handler = tick, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGALRM, &sa, NULL) == 0, "errno %d", errno);
    int64_t slack = WAIT_MS / 10 * 1000000LL, late = late_ms ? late_ms * 1000000LL : slack;
    do {
        int64_t start = check_now();
        wait_once(check_variant);
        int64_t waited = check_now() - start;
        CHECK(waited >= WAIT_MS * 1000000LL - slack / 10, "%s: woke after %ld us", check_variant, (long)(waited / 1000));
        CHECK(waited <= WAIT_MS * 1000000LL + late, "%s: woke after %ld us", check_variant, (long)(waited / 1000));
    } while (check_go_on());
    return check_pass();
}
