/* Variable-length arrays and alloca in recursion and loops, with addresses taken. */
#include "check.h"
#include <alloca.h>

static uint64_t sum(const uint32_t *p, size_t n)
{
    uint64_t s = 0;
    for (size_t i = 0; i < n; i++)
        s = s * 31 + p[i];
    return s;
}

static uint64_t vla(size_t n, uint64_t seed, int depth)
{
    uint32_t a[n];
    uint64_t state = seed;
    for (size_t i = 0; i < n; i++)
        a[i] = (uint32_t)check_next(&state);
    uint64_t before = sum(a, n);
    if (depth > 0)
        vla(n * 7 % 97 + 1, state, depth - 1);
    for (int k = 0; k < 3; k++) {
        uint8_t inner[(n + (size_t)k) % 33 + 1];
        memset(inner, k + depth, sizeof inner);
        CHECK(inner[sizeof inner - 1] == (uint8_t)(k + depth), "inner");
    }
    CHECK(sum(a, n) == before, "n %zu depth %d", n, depth);
    return before;
}

static uint64_t with_alloca(uint64_t seed)
{
    struct cell {
        struct cell *next;
        uint64_t value;
    } *list = NULL;
    uint64_t state = seed, expect = 0;
    for (int i = 0; i < 200; i++) {
        struct cell *c = alloca(sizeof *c + (size_t)i % 5 * 8);
        c->next = list;
        c->value = check_next(&state);
        expect += c->value;
        list = c;
        if (i % 50 == 0)
            vla((size_t)i + 1, seed, 2);
    }
    uint64_t total = 0;
    for (struct cell *c = list; c; c = c->next)
        total += c->value;
    CHECK(total == expect, "alloca list");
    return total;
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    uint64_t state = check_seed;
    do {
        uint64_t s = check_next(&state);
        CHECK(vla(s % 500 + 1, s, 40) == vla(s % 500 + 1, s, 0), "vla");
        CHECK(with_alloca(s) == with_alloca(s), "alloca");
    } while (check_go_on());
    return check_pass();
}
