/* Threads: a queue with mutex and condition variables, barriers, a read-write lock, semaphores, thread-local and
 * thread-specific data, detached threads that come and go, deep recursion on small stacks, pthread_t kept in memory,
 * timed waits, robust and priority-inheriting mutexes, cancellation.
 *
 * Variant "many": 64 threads, most of them blocked in futexes.
 */
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>

enum { WORKERS = 4, SLOTS = 8 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t filled, drained;
    uint64_t item[SLOTS];
    unsigned head, count;
    uint64_t taken, given;
} queue = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, {0}, 0, 0, 0, 0 };

static volatile int stopping;
static _Thread_local uint64_t own;
static _Thread_local char name[16];
static pthread_key_t key;
static pthread_barrier_t barrier;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static uint64_t guarded[2];
static sem_t ping, pong;
static uint64_t destroyed;

static void put(uint64_t value)
{
    pthread_mutex_lock(&queue.lock);
    while (queue.count == SLOTS)
        pthread_cond_wait(&queue.drained, &queue.lock);
    queue.item[(queue.head + queue.count++) % SLOTS] = value;
    queue.given += value;
    pthread_cond_signal(&queue.filled);
    pthread_mutex_unlock(&queue.lock);
}

static uint64_t take(void)
{
    pthread_mutex_lock(&queue.lock);
    while (!queue.count)
        pthread_cond_wait(&queue.filled, &queue.lock);
    uint64_t value = queue.item[queue.head];
    queue.head = (queue.head + 1) % SLOTS, queue.count--;
    queue.taken += value;
    pthread_cond_signal(&queue.drained);
    pthread_mutex_unlock(&queue.lock);
    return value;
}

/* Every frame has live values in all widths; the sum is known. */
static uint64_t __attribute__((noinline)) deep(unsigned n, uint64_t a, double b)
{
    if (!n)
        return a + (uint64_t)b;
    uint64_t below = deep(n - 1, a + n, b + 1.0);
    return below + (a & 1) + (own & 0) + (uint64_t)(b * 0.0);
}

static uint64_t deep_expected(unsigned n, uint64_t a)
{
    uint64_t odd = 0, x = a;
    for (unsigned i = n; i; i--)
        odd += x & 1, x += i;
    return x + n + odd;
}

static void *worker(void *argument)
{
    uintptr_t number = (uintptr_t)argument;
    pthread_t self = pthread_self();
    uint64_t *mine = malloc(sizeof *mine), sum = 0, state = check_seed + number;
    CHECK(mine && pthread_setspecific(key, mine) == 0, "key");
    *mine = 0;
    snprintf(name, sizeof name, "worker %d", (int)number);
    for (;;) {
        uint64_t value = take();
        if (!value)
            break;
        own += value, sum += value, *mine += value;
        unsigned n = 20 + check_next(&state) % 200;
        CHECK(deep(n, value & 0xffff, 0.0) == deep_expected(n, value & 0xffff), "recursion of %u", n);
        CHECK(own == sum && *(uint64_t *)pthread_getspecific(key) == sum, "own data of %s", name);
        CHECK(pthread_equal(self, pthread_self()), "pthread_self of %s", name);
        pthread_rwlock_rdlock(&rwlock);
        CHECK(guarded[0] == guarded[1], "read lock");
        pthread_rwlock_unlock(&rwlock);
        if (value % 7 == 0) {
            pthread_rwlock_wrlock(&rwlock);
            guarded[0] += value;
            for (volatile int i = 0; i < 1000; i++)
                ;
            guarded[1] += value;
            pthread_rwlock_unlock(&rwlock);
        }
    }
    char want[16];
    snprintf(want, sizeof want, "worker %d", (int)number);
    CHECK(strcmp(name, want) == 0, "name of %s", want);
    return (void *)(uintptr_t)sum;
}

static void destroy(void *value)
{
    free(value);
    __atomic_add_fetch(&destroyed, 1, __ATOMIC_RELAXED);
}

/* Meet at the barrier again and again; one of them is the serial one each time. */
static uint64_t serial, meetings;
static void *meeter(void *argument)
{
    (void)argument;
    uint64_t mine = 0;
    for (;;) {
        int r = pthread_barrier_wait(&barrier);
        CHECK(r == 0 || r == PTHREAD_BARRIER_SERIAL_THREAD, "barrier %d", r);
        if (r)
            serial++;
        mine++;
        pthread_barrier_wait(&barrier);
        CHECK(serial == mine, "serial %lu of %lu", (unsigned long)serial, (unsigned long)mine);
        int end = stopping;
        pthread_barrier_wait(&barrier);
        if (r)
            meetings = end;
        pthread_barrier_wait(&barrier);
        if (meetings)
            return (void *)(uintptr_t)mine;
    }
}

static void *ponger(void *argument)
{
    uint64_t *count = argument;
    while (sem_wait(&ping) == 0 && !stopping) {
        ++*count;
        sem_post(&pong);
    }
    sem_post(&pong);
    return 0;
}

static void *short_lived(void *argument)
{
    uint64_t *done = argument;
    own = 17;
    CHECK(deep(50, 3, 0.0) == deep_expected(50, 3), "detached");
    CHECK(own == 17, "own");
    __atomic_add_fetch(done, 1, __ATOMIC_RELEASE);
    return 0;
}

/* Spins without a call, then waits: only a poll stops it. */
static void *spinner(void *argument)
{
    uint64_t *rounds = argument;
    uint64_t a = check_seed | 1;
    while (!stopping) {
        uint64_t first = 0;
        for (int again = 0; again < 2; again++) {
            uint64_t x = a;
            for (int i = 0; i < 300000; i++)
                x = x * 6364136223846793005ull + (uint64_t)i;
            if (again)
                CHECK(x == first, "spin");
            first = x;
        }
        a += first | 1;
        ++*rounds;
    }
    return 0;
}

static void *forever(void *argument)
{
    for (;;)
        pause();
    return argument;
}

static void *robust_owner(void *argument)
{
    pthread_mutex_lock(argument);
    return 0;
}

/* The whole stack but a little is in use while it sleeps, so that frames may have to grow into the guard. */
static void *tight(void *argument)
{
    sem_t *gate = argument;
    pthread_attr_t attr;
    void *low;
    size_t size;
    CHECK(pthread_getattr_np(pthread_self(), &attr) == 0 && pthread_attr_getstack(&attr, &low, &size) == 0, "attr");
    pthread_attr_destroy(&attr);
    uint64_t n = 0;
    /* One for each round, however late, and one for the end. */
    while (sem_wait(gate) == 0 && !(stopping && n == check_rounds))
        n++;
    return (void *)(uintptr_t)n;
}

static uint64_t __attribute__((noinline)) tight_deep(unsigned n, sem_t *gate, uint64_t a)
{
    if (!n)
        return (uint64_t)(uintptr_t)tight(gate) + a;
    uint64_t r = tight_deep(n - 1, gate, a + 1);
    return r + (a >> 60);
}

enum { TIGHT = 700 };
static void *tight_start(void *argument)
{
    uint64_t n = tight_deep(TIGHT, argument, 0);
    return (void *)(uintptr_t)(n - TIGHT);
}

static void mutexes(void)
{
    pthread_mutexattr_t attr;
    pthread_mutex_t robust, inheriting;
    pthread_t t;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    CHECK(pthread_mutex_init(&robust, &attr) == 0, "robust");
    CHECK(pthread_create(&t, 0, robust_owner, &robust) == 0 && pthread_join(t, 0) == 0, "owner");
    CHECK(pthread_mutex_lock(&robust) == EOWNERDEAD, "a dead owner");
    CHECK(pthread_mutex_consistent(&robust) == 0 && pthread_mutex_unlock(&robust) == 0, "consistent");
    pthread_mutex_destroy(&robust);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_STALLED);
    if (pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT) == 0) {
        CHECK(pthread_mutex_init(&inheriting, &attr) == 0, "PI");
        CHECK(pthread_mutex_lock(&inheriting) == 0 && pthread_mutex_unlock(&inheriting) == 0, "PI lock");
        pthread_mutex_destroy(&inheriting);
    }
    pthread_mutexattr_destroy(&attr);
}

static void timed_wait(void)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_condattr_t attr;
    pthread_cond_t never;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&never, &attr);
    int64_t start = check_now();
    struct timespec until = { (start + 20000000) / 1000000000, (start + 20000000) % 1000000000 };
    pthread_mutex_lock(&lock);
    int r;
    while ((r = pthread_cond_timedwait(&never, &lock, &until)) == 0)
        ;
    pthread_mutex_unlock(&lock);
    CHECK(r == ETIMEDOUT && check_now() - start >= 20000000, "timed wait: %d", r);
    pthread_cond_destroy(&never);
    pthread_condattr_destroy(&attr);
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    int extra = strcmp(check_variant, "many") == 0 ? 50 : 0;
    pthread_t workers[WORKERS], meeters[3], pong_thread, spin_thread, idle[50], *tight_thread = malloc(sizeof *tight_thread);
    uint64_t pongs = 0, spins = 0, gone = 0, sent = 0, state = check_seed, expected = 0, started = 0;
    CHECK(pthread_key_create(&key, destroy) == 0, "key");
    CHECK(pthread_barrier_init(&barrier, 0, 3) == 0, "barrier");
    sem_t gate;
    sem_init(&ping, 0, 0), sem_init(&pong, 0, 0), sem_init(&gate, 0, 0);
    for (uintptr_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&workers[i], 0, worker, (void *)i) == 0, "create");
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&meeters[i], 0, meeter, 0) == 0, "create");
    CHECK(pthread_create(&pong_thread, 0, ponger, &pongs) == 0, "create");
    CHECK(pthread_create(&spin_thread, 0, spinner, &spins) == 0, "create");
    for (int i = 0; i < extra; i++)
        CHECK(pthread_create(&idle[i], 0, forever, 0) == 0, "create");
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    CHECK(pthread_create(tight_thread, &attr, tight_start, &gate) == 0, "create");
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    do {
        for (int i = 0; i < 40; i++) {
            uint64_t value = (check_next(&state) & 0xffffff) | 1;
            put(value);
            sent += value;
        }
        for (int i = 0; i < 10; i++) {
            sem_post(&ping);
            CHECK(sem_wait(&pong) == 0, "pong");
            CHECK(pongs == ++expected, "pongs %lu", (unsigned long)pongs);
        }
        pthread_t t;
        CHECK(pthread_create(&t, &attr, short_lived, &gone) == 0, "detached");
        started++;
        mutexes();
        timed_wait();
        CHECK(pthread_create(&t, 0, forever, 0) == 0, "cancelled");
        CHECK(pthread_cancel(t) == 0, "cancel");
        void *result;
        CHECK(pthread_join(t, &result) == 0 && result == PTHREAD_CANCELED, "join");
        sem_post(&gate);
    } while (check_go_on());
    for (int i = 0; i < WORKERS; i++)
        put(0);
    uint64_t sum = 0;
    for (int i = 0; i < WORKERS; i++) {
        void *result;
        CHECK(pthread_join(workers[i], &result) == 0, "join");
        sum += (uintptr_t)result;
    }
    CHECK(sum == sent && queue.taken == sent && queue.given == sent, "sums %lu %lu", (unsigned long)sum, (unsigned long)sent);
    CHECK(destroyed == WORKERS, "destructors");
    stopping = 1;
    sem_post(&ping);
    sem_post(&gate);
    CHECK(pthread_join(pong_thread, 0) == 0 && pthread_join(spin_thread, 0) == 0, "join");
    void *rounds;
    CHECK(pthread_join(*tight_thread, &rounds) == 0 && (uintptr_t)rounds == check_rounds, "tight");
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(meeters[i], 0) == 0, "join");
    for (int i = 0; i < extra; i++) {
        CHECK(pthread_cancel(idle[i]) == 0, "cancel");
        CHECK(pthread_join(idle[i], 0) == 0, "join");
    }
    while (__atomic_load_n(&gone, __ATOMIC_ACQUIRE) != started)
        usleep(1000);
    return check_pass();
}
