/* Signal handlers run after the move: an interval timer, raise with a mask, queued values, an alternate stack. */
#include "check.h"
#include <signal.h>
#include <sys/time.h>

static volatile sig_atomic_t alarms, on_alt;
static volatile uint64_t shared;
static char alt[65536];
static volatile int queued_value;

static void on_alarm(int sig)
{
    uint64_t local[16];
    for (int i = 0; i < 16; i++)
        local[i] = shared + (uint64_t)i;
    for (int i = 0; i < 16; i++)
        CHECK(local[i] == shared + (uint64_t)i, "handler's locals");
    (void)sig;
    alarms++;
}

static void on_usr1(int sig, siginfo_t *info, void *context)
{
    stack_t now;
    CHECK(sig == SIGUSR1 && info->si_signo == SIGUSR1 && context, "siginfo");
    queued_value = info->si_value.sival_int;
    /* Not by the address of a local: that lies on the portable stack. */
    CHECK(sigaltstack(NULL, &now) == 0, "errno %d", errno);
    on_alt = now.ss_flags == SS_ONSTACK && now.ss_sp == (void *)alt;
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    stack_t ss = {.ss_sp = alt, .ss_size = sizeof alt};
    CHECK(sigaltstack(&ss, NULL) == 0, "errno %d", errno);
    struct sigaction a = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct sigaction u = {.sa_sigaction = on_usr1, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    CHECK(sigaction(SIGALRM, &a, NULL) == 0 && sigaction(SIGUSR1, &u, NULL) == 0, "errno %d", errno);
    struct itimerval every = {{0, 7000}, {0, 7000}};
    CHECK(setitimer(ITIMER_REAL, &every, NULL) == 0, "errno %d", errno);
    uint64_t state = check_seed;
    int value = 0;
    do {
        int before = alarms;
        int64_t start = check_now();
        while (alarms < before + 3) {
            shared = check_next(&state);
            uint64_t s = shared, h = 0;
            for (int i = 0; i < 20000; i++)
                h = h * 31 + check_next(&s);
            CHECK(h != 1 && check_now() - start < 20000000000LL, "no alarm");
        }
        sigset_t set, old;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        CHECK(sigprocmask(SIG_BLOCK, &set, &old) == 0, "errno %d", errno);
        queued_value = -1;
        CHECK(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = ++value}) == 0, "errno %d", errno);
        uint64_t s = shared, h = 0; /* pending for a while */
        for (int i = 0; i < 200000; i++)
            h = h * 31 + check_next(&s);
        CHECK(h != 1 && queued_value == -1, "delivered while blocked");
        CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0, "errno %d", errno);
        CHECK(queued_value == value && on_alt, "queued %d, altstack %d", queued_value, (int)on_alt);
    } while (check_go_on());
    return check_pass();
}
