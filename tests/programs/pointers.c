/* Pointers to locals kept in the heap, in other frames and in globals stay valid wherever they were stored. */
#include "check.h"

struct node {
    struct node *next;
    uint64_t *local;
    uint64_t expect;
};

static struct node *chain;

static void verify(uint64_t depth)
{
    uint64_t seen = 0;
    for (struct node *n = chain; n; n = n->next, seen++)
        CHECK(*n->local == n->expect, "link %lu: %lx != %lx", (unsigned long)seen, (unsigned long)*n->local,
              (unsigned long)n->expect);
    CHECK(seen == depth, "%lu links", (unsigned long)seen);
}

static uint64_t grow(uint64_t depth, uint64_t *state, uint64_t *caller_local)
{
    uint64_t local = check_next(state);
    uint64_t array[4] = {local, local + 1, local + 2, local + 3};
    struct node *n = malloc(sizeof *n);
    CHECK(n, "malloc");
    *n = (struct node){chain, &array[depth & 3], local + (depth & 3)};
    chain = n;
    uint64_t before = *caller_local;
    *caller_local = before + local;
    if (depth < 60)
        grow(depth + 1, state, &local);
    else
        verify(depth);
    CHECK(*caller_local == before + local - (depth < 60 ? local - array[0] : 0), "depth %lu", (unsigned long)depth);
    *caller_local = before;
    CHECK(chain == n, "unwound out of order");
    chain = n->next;
    free(n);
    return array[1] - 1;
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    uint64_t state = check_seed, mine = 7;
    do {
        grow(1, &state, &mine);
        CHECK(mine == 7, "%lu", (unsigned long)mine);
        CHECK(chain == NULL, "chain left");
    } while (check_go_on());
    return check_pass();
}
