/* Deep recursion: 10,000 frames, and frames to within 5 % of the stack limit, each checked on the way back. */
#include "check.h"
#include <sys/resource.h>

static uint64_t descend(uint64_t depth, uint64_t key)
{
    uint64_t mine = key * 0x9e3779b97f4a7c15ull + depth;
    if (depth == 0)
        return mine;
    uint64_t below = descend(depth - 1, mine ^ (mine >> 7));
    return below + (mine ^ (below << 3));
}

/* The same fold without a stack. */
static uint64_t fold(uint64_t depth, uint64_t key)
{
    uint64_t *mine = malloc((depth + 1) * sizeof *mine);
    CHECK(mine, "malloc");
    uint64_t value = key;
    for (uint64_t d = depth;; d--) {
        mine[d] = value * 0x9e3779b97f4a7c15ull + d;
        value = mine[d] ^ (mine[d] >> 7);
        if (d == 0)
            break;
    }
    uint64_t result = mine[0];
    for (uint64_t d = 1; d <= depth; d++)
        result = result + (mine[d] ^ (result << 3));
    free(mine);
    return result;
}

static uintptr_t lowest;

static uint64_t measure(uint64_t depth)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    if (here < lowest)
        lowest = here;
    return depth == 0 ? 0 : measure(depth - 1) + (here & 1) + 1;
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_STACK, &limit) == 0, "errno %d", errno);
    uint64_t deepest = 10000;
    if (strcmp(check_variant, "limit") == 0) {
        uintptr_t top = (uintptr_t)__builtin_frame_address(0);
        lowest = top;
        CHECK(measure(1000) == 1000, "measure");
        uint64_t frame = (top - lowest) / 1000;
        uint64_t bytes = limit.rlim_cur == RLIM_INFINITY ? 8u << 20 : limit.rlim_cur;
        deepest = bytes / 100 * 90 / (frame < 64 ? 64 : frame);
    }
    uint64_t key = check_seed;
    do {
        key = check_next(&key);
        CHECK(descend(deepest, key) == fold(deepest, key), "depth %lu", (unsigned long)deepest);
        CHECK(descend(key % 100, key) == fold(key % 100, key), "short");
    } while (check_go_on());
    return check_pass();
}
