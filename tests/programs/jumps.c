/* setjmp and longjmp over a move: buffers that outer frames filled, several at a time, in loops, with variable-length
 * arrays in between, on the heap; a chain of handlers as interpreters have it. */
#include "check.h"
#include <setjmp.h>

static uint64_t work(uint64_t seed, int rounds)
{
    uint64_t state = seed, h = 0;
    for (int i = 0; i < rounds; i++)
        h = h * 31 + check_next(&state);
    return h;
}

/* Many frames between the jump and where it goes. */
static void dive(jmp_buf *to, int depth, int value, uint64_t seed)
{
    uint32_t a[depth % 13 + 1];
    for (int i = 0; i <= depth % 13; i++)
        a[i] = (uint32_t)(seed + (uint64_t)i);
    if (depth == 0) {
        work(seed, 20000);
        longjmp(*to, value);
    }
    dive(to, depth - 1, value, seed + a[depth % 13]);
    CHECK(0, "came back from a jump");
}

/* What is not changed between the two returns keeps its value; what is volatile is what it was last. */
static uint64_t values(uint64_t seed)
{
    jmp_buf buf;
    uint64_t state = seed;
    uint64_t a = check_next(&state), b = check_next(&state), c = check_next(&state);
    double d = (double)(a >> 12) / 3, e = (double)(b >> 12) * 7;
    volatile uint64_t changed = 1;
    long double q = (long double)a / 3;
    uint64_t vla[a % 50 + 1];
    for (size_t i = 0; i <= a % 50; i++)
        vla[i] = b + i;
    int r = setjmp(buf);
    if (r < 5) {
        CHECK(changed == (uint64_t)r + 1, "volatile %lu after %d", (unsigned long)changed, r);
        changed++;
        uint8_t inner[b % 100 + 1];
        memset(inner, r, sizeof inner);
        dive(&buf, 10 + r, r + 1, c);
    }
    state = seed;
    CHECK(a == check_next(&state) && b == check_next(&state) && c == check_next(&state), "integers");
    CHECK(d == (double)(a >> 12) / 3 && e == (double)(b >> 12) * 7 && q == (long double)a / 3, "floats");
    for (size_t i = 0; i <= a % 50; i++)
        CHECK(vla[i] == b + i, "vla[%zu]", i);
    CHECK(changed == 6 && r == 5, "returns");
    return a ^ b;
}

/* Two calls in one function, both pending, jumped to in an order that the seed chooses. */
static void two(uint64_t seed)
{
    jmp_buf one, other;
    volatile int ones = 0, others = 0, left = 6;
    volatile uint64_t state = seed;
    int r;
    if ((r = setjmp(one)) != 0) {
        CHECK(r == 11, "one: %d", r);
        ones++;
    }
    if (ones + others == 0 && (r = setjmp(other)) != 0) {
        CHECK(r == 22, "other: %d", r);
        others++;
    }
    if (left > 0) {
        uint64_t s = state;
        int first = check_next(&s) & 1;
        state = s;
        left--;
        dive(first ? &one : &other, 5, first ? 11 : 22, s);
    }
    CHECK(ones + others == 6, "%d + %d", ones, others);
}

/* A loop around setjmp, and a buffer per round that stays pending. */
static void loops(uint64_t seed)
{
    volatile uint64_t total = 0;
    for (volatile int i = 0; i < 20; i++) {
        jmp_buf buf;
        switch (setjmp(buf)) {
        case 0:
            total += work(seed + (uint64_t)i, 500);
            longjmp(buf, i % 3 + 1);
        case 1:
            total += 1;
            break;
        case 2:
            total += 2;
            continue;
        case 3:
            total += 3;
        }
        total *= 3;
    }
    uint64_t expect = 0;
    for (int i = 0; i < 20; i++) {
        expect += work(seed + (uint64_t)i, 500) + (uint64_t)(i % 3) + 1;
        if (i % 3 != 1)
            expect *= 3;
    }
    CHECK(total == expect, "loop");
}

/* Errors as interpreters throw them: a chain of handlers on the heap, frames of every depth. */
struct handler {
    struct handler *outer;
    jmp_buf buf;
    int caught;
};
static struct handler *innermost;

static void throw(int what)
{
    longjmp(innermost->buf, what);
}

static int protected(void (*f)(uint64_t, int), uint64_t seed, int depth)
{
    struct handler *h = malloc(sizeof *h);
    CHECK(h != NULL, "malloc");
    h->outer = innermost;
    h->caught = 0;
    innermost = h;
    int r = setjmp(h->buf);
    if (r == 0)
        f(seed, depth);
    else
        h->caught = r;
    int caught = h->caught;
    CHECK(innermost == h, "the chain of handlers");
    innermost = h->outer;
    free(h);
    return caught;
}

static void body(uint64_t seed, int depth)
{
    uint64_t state = seed;
    uint64_t what = check_next(&state) % 100 + 1;
    if (depth > 0) {
        uint64_t inner = check_next(&state);
        int caught = protected(body, inner, depth - 1);
        uint64_t again = inner;
        CHECK((uint64_t)caught == check_next(&again) % 100 + 1, "caught %d at depth %d", caught, depth);
    } else {
        work(seed, 30000);
    }
    throw((int)what);
}

/* longjmp(…, 0) is 1; the same buffer again and again. */
static void zero(void)
{
    static jmp_buf buf;
    volatile int times = 0;
    int r = _setjmp(buf);
    CHECK(r == (times > 0), "%d after %d", r, times);
    if (times++ < 50)
        _longjmp(buf, 0);
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    /* Pending all the time, over every move; taken once a round. */
    jmp_buf *outermost = malloc(sizeof *outermost);
    CHECK(outermost != NULL, "malloc");
    volatile uint64_t state = check_seed, rounds = 0;
    for (;;) {
        if (rounds == 0 && setjmp(*outermost) != 0) {
            CHECK(rounds > 0, "rounds");
        }
        rounds++;
        uint64_t s = state, seed = check_next(&s);
        state = s;
        values(seed);
        two(seed);
        loops(seed);
        zero();
        int caught = protected(body, seed, 30);
        uint64_t again = seed;
        CHECK((uint64_t)caught == check_next(&again) % 100 + 1, "caught %d", caught);
        if (!check_go_on())
            break;
        if (rounds % 2)
            dive(outermost, 20, 1, seed);
    }
    free(outermost);
    return check_pass();
}
