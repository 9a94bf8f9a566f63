/* siglongjmp out of signal handlers, over a move: from the middle of computations and of system calls, from an alternate
 * stack, with and without the mask. Variant "slow": handlers that work so long before they jump that most moves find the
 * process in one. */
#include "check.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>

static sigjmp_buf *volatile target;
static volatile sig_atomic_t jumps, on_alt;
static char alt[65536];

static void on_alarm(int sig)
{
    sigjmp_buf *to = target;
    uint8_t local[sig % 7 + 20];
    memset(local, sig, sizeof local);
    if (!strcmp(check_variant, "slow")) {
        uint64_t state = check_seed, h = 0;
        for (int i = 0; i < 20000000; i++)
            h = h * 31 + check_next(&state);
        CHECK(h != 1, "h");
    }
    if (to != NULL) {
        target = NULL;
        jumps++;
        siglongjmp(*to, sig);
    }
}

static void on_usr1(int sig)
{
    stack_t now;
    CHECK(sigaltstack(NULL, &now) == 0, "errno %d", errno);
    on_alt += now.ss_flags == SS_ONSTACK;
    on_alarm(sig);
    CHECK(0, "the handler was not left");
}

static int is_blocked(int sig)
{
    sigset_t set;
    CHECK(sigprocmask(SIG_SETMASK, NULL, &set) == 0, "errno %d", errno);
    return sigismember(&set, sig);
}

static uint64_t deep(int depth, uint64_t seed)
{
    volatile uint64_t cells[9];
    uint64_t state = seed;
    for (int i = 0; i < 9; i++)
        cells[i] = check_next(&state);
    if (depth > 0)
        return deep(depth - 1, state) + cells[depth % 9];
    for (;;) {
        uint64_t value = check_next(&state);
        cells[value % 9] += value;
    }
}

/* A computation without end, ended by the timer. */
static void computation(uint64_t seed)
{
    sigjmp_buf buf;
    volatile int before = jumps;
    struct itimerval once = {{0, 0}, {0, 3000}};
    int r = sigsetjmp(buf, 1);
    if (r == 0) {
        target = &buf;
        CHECK(setitimer(ITIMER_REAL, &once, NULL) == 0, "errno %d", errno);
        deep(12, seed);
    }
    CHECK(r == SIGALRM && jumps == before + 1, "%d, %d jumps", r, (int)jumps);
    CHECK(!is_blocked(SIGALRM), "the mask was not restored");
}

/* A system call without end. */
static void call(void)
{
    sigjmp_buf buf;
    struct itimerval once = {{0, 0}, {0, 3000}};
    if (sigsetjmp(buf, 1) == 0) {
        target = &buf;
        CHECK(setitimer(ITIMER_REAL, &once, NULL) == 0, "errno %d", errno);
        for (;;)
            pause();
    }
    CHECK(!is_blocked(SIGALRM), "the mask was not restored");
}

/* From the alternate stack, again and again: it must be free each time. */
static void alternate(void)
{
    sigjmp_buf buf;
    stack_t now;
    volatile int n = 0, before = on_alt;
    if (sigsetjmp(buf, 1) != 0) {
        CHECK(sigaltstack(NULL, &now) == 0 && now.ss_flags == 0, "still on the alternate stack");
        CHECK(!is_blocked(SIGUSR1), "the mask was not restored");
    }
    if (n++ < 5) {
        target = &buf;
        raise(SIGUSR1);
        CHECK(0, "raise returned");
    }
    CHECK(on_alt == before + 5, "%d times on the alternate stack", on_alt - before);
}

/* Without the mask the signal stays blocked, as in its handler. */
static void without_mask(void)
{
    sigjmp_buf buf;
    sigset_t set;
    if (sigsetjmp(buf, 0) == 0) {
        target = &buf;
        raise(SIGUSR1);
        CHECK(0, "raise returned");
    }
    CHECK(is_blocked(SIGUSR1), "the mask was restored");
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0, "errno %d", errno);
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    stack_t ss = {.ss_sp = alt, .ss_size = sizeof alt};
    CHECK(sigaltstack(&ss, NULL) == 0, "errno %d", errno);
    struct sigaction a = {.sa_handler = on_alarm}, u = {.sa_handler = on_usr1, .sa_flags = SA_ONSTACK};
    CHECK(sigaction(SIGALRM, &a, NULL) == 0 && sigaction(SIGUSR1, &u, NULL) == 0, "errno %d", errno);
    uint64_t state = check_seed;
    do {
        for (int i = 0; i < 10; i++)
            computation(check_next(&state));
        call();
        alternate();
        without_mask();
    } while (check_go_on());
    return check_pass();
}
