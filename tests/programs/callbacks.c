/* Function pointers in tables and structures, qsort and bsearch callbacks in libc's frames. */
#include "check.h"

typedef uint64_t (*op)(uint64_t, uint64_t);
static uint64_t add(uint64_t a, uint64_t b) { return a + b; }
static uint64_t xor_(uint64_t a, uint64_t b) { return a ^ b; }
static uint64_t mul(uint64_t a, uint64_t b) { return a * (b | 1); }
static uint64_t rot(uint64_t a, uint64_t b) { return a << (b & 31) | a >> (64 - (b & 31) - !(b & 31)); }
static op table[] = {add, xor_, mul, rot};

struct object {
    op method;
    uint64_t field;
};

static unsigned long compares;

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    if (++compares % 4096 == 0)
        access("/", F_OK); /* a system call below qsort */
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    uint64_t state = check_seed;
    enum { N = 5000 };
    uint64_t *values = malloc(N * sizeof *values);
    CHECK(values, "malloc");
    do {
        uint64_t sum = 0, check = 0, h = 1;
        for (int i = 0; i < N; i++) {
            values[i] = check_next(&state);
            sum += values[i];
            struct object o = {table[values[i] & 3], values[i]};
            h = o.method(h, o.field);
        }
        uint64_t key = values[N / 2];
        qsort(values, N, sizeof *values, ascending);
        for (int i = 0; i < N; i++) {
            check += values[i];
            CHECK(i == 0 || values[i - 1] <= values[i], "order at %d", i);
        }
        CHECK(sum == check, "sum");
        uint64_t *found = bsearch(&key, values, N, sizeof *values, ascending);
        CHECK(found && *found == key, "bsearch");
        op again = (h & 3) == 0 ? add : (h & 3) == 1 ? xor_ : (h & 3) == 2 ? mul : rot;
        CHECK(table[h & 3](h, 1) == again(h, 1), "table");
    } while (check_go_on());
    return check_pass();
}
