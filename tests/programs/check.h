/* What every self-checking program shares.
 *
 * Usage of a program: PROGRAM STOPFILE SEED [VARIANT]
 * It works in rounds until STOPFILE exists, checks every round against what the round must give, and
 * ends with a line "PASS rounds=N" and status 0. A failed check prints "FAIL file:line: what" and ends
 * with status 1. It can be dumped, moved and restored at any moment in between, any number of times.
 */
#ifndef CHECK_H
#define CHECK_H
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *check_stop_file;
static const char *check_variant = "";
static uint64_t check_seed;
static unsigned long check_rounds;

#define CHECK(cond, ...)                                           \
    do {                                                           \
        if (!(cond)) {                                             \
            printf("FAIL %s:%d: %s: ", __FILE__, __LINE__, #cond); \
            printf(__VA_ARGS__);                                   \
            printf("\n");                                          \
            fflush(stdout);                                        \
            _exit(1);                                              \
        }                                                          \
    } while (0)

static inline void check_init(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s STOPFILE SEED [VARIANT]\n", argv[0]);
        exit(2);
    }
    check_stop_file = argv[1];
    check_seed = strtoull(argv[2], NULL, 0);
    if (argc > 3)
        check_variant = argv[3];
    printf("READY pid=%d\n", (int)getpid());
    fflush(stdout);
}

/* One more round? */
static inline int check_go_on(void)
{
    check_rounds++;
    return access(check_stop_file, F_OK) != 0;
}

static inline int check_pass(void)
{
    printf("PASS rounds=%lu\n", check_rounds);
    return fflush(stdout) == 0 ? 0 : 1;
}

/* splitmix64: a small generator whose state is one word. */
static inline uint64_t check_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* CLOCK_MONOTONIC in nanoseconds. */
static inline int64_t check_now(void)
{
    struct timespec ts;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &ts) == 0, "errno %d", errno);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Keeps a value from being computed at compile time. */
static inline uint64_t check_opaque(uint64_t value)
{
    volatile uint64_t cell = value;
    return cell;
}
#endif
