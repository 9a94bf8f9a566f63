/* Deep recursion: 10,000 frames, and frames to within 5 % of the stack limit, each checked on the way back. */
#include "check.h"
#include <fcntl.h>
#include <sys/resource.h>

static uint64_t lowest;
static int spins, measuring;

/* The native stack pointer. No address that C can take is of that stack; the kernel says it with the call that asks. */
static uint64_t stack_pointer(void)
{
    char text[256];
    int fd = open("/proc/self/syscall", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0, "errno %d", errno);
    ssize_t n = read(fd, text, sizeof text - 1);
    CHECK(n > 0 && close(fd) == 0, "errno %d", errno);
    text[n] = 0;
    unsigned long sp;
    CHECK(sscanf(text, "%*d %*x %*x %*x %*x %*x %*x %lx", &sp) == 1, "%s", text);
    return sp;
}

/* At the bottom, where a dump is most likely to come. */
static void __attribute__((noinline)) dwell(void)
{
    uint64_t state = check_seed, h = 1;
    if (measuring)
        lowest = stack_pointer();
    for (int i = 0; i < spins; i++)
        h = h * 31 + check_next(&state);
    CHECK(h != 0, "dwell");
}

static uint64_t descend(uint64_t depth, uint64_t key)
{
    uint64_t mine = key * 0x9e3779b97f4a7c15ull + depth;
    if (depth == 0) {
        dwell();
        return mine;
    }
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

int main(int argc, char **argv)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_STACK, &limit) == 0, "errno %d", errno);
    uint64_t deepest = 10000, bytes = limit.rlim_cur == RLIM_INFINITY ? 8u << 20 : limit.rlim_cur;
    if (argc > 3 && strcmp(argv[3], "limit") == 0) {
        /* Before the program may be dumped: a file about itself cannot come along. Frames are of one size on both. */
        uint64_t top = stack_pointer();
        measuring = 1;
        CHECK(descend(1000, 1) == fold(1000, 1), "depth 1000");
        measuring = 0;
        uint64_t frame = (top - lowest) / 1000;
        CHECK(frame >= 16 && frame <= 4096, "frames of %lu bytes", (unsigned long)frame);
        deepest = bytes / 1000 * 955 / frame;
        spins = 10000000;
    }
    check_init(argc, argv);
    uint64_t key = check_seed;
    do {
        key = check_next(&key);
        CHECK(descend(deepest, key) == fold(deepest, key), "depth %lu", (unsigned long)deepest);
        CHECK(descend(key % 100, key) == fold(key % 100, key), "short");
    } while (check_go_on());
    return check_pass();
}
