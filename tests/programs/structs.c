/* Big structures by value and as return values, small ones in registers, nested, through pointers. */
#include "check.h"

struct tiny { uint8_t a, b, c; };
struct two { uint64_t a; double b; };
struct big { uint64_t w[20]; struct tiny t; };
struct floats { float x, y, z; };

static struct big __attribute__((noinline)) make(uint64_t seed, int depth)
{
    struct big b;
    memset(&b, 0, sizeof b);
    for (int i = 0; i < 20; i++)
        b.w[i] = check_next(&seed);
    b.t = (struct tiny){(uint8_t)seed, 2, 3};
    if (depth > 0) {
        struct big c = make(seed, depth - 1);
        for (int i = 0; i < 20; i++)
            b.w[i] ^= c.w[19 - i];
    } else {
        access("/", F_OK);
    }
    return b;
}

static uint64_t __attribute__((noinline)) digest(struct big b, struct tiny t, struct two two, struct floats f)
{
    uint64_t h = b.t.a + t.a + (uint64_t)two.b + two.a + (uint64_t)(f.x + f.y + f.z);
    access("/", F_OK);
    for (int i = 0; i < 20; i++)
        h = h * 31 + b.w[i];
    b.w[0] = 0; /* the caller's copy stays */
    return h;
}

static struct two __attribute__((noinline)) swap(struct two v)
{
    access("/", F_OK);
    return (struct two){(uint64_t)v.b, (double)v.a};
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    uint64_t state = check_seed;
    do {
        uint64_t r = check_next(&state);
        struct big a = make(r, 10), b = make(r, 10);
        CHECK(memcmp(&a, &b, sizeof a) == 0, "make");
        struct tiny t = {1, 2, 3};
        struct two two = {r & 0xffff, 3.0};
        struct floats f = {1, 2, 3};
        uint64_t first = a.w[0];
        CHECK(digest(a, t, two, f) == digest(b, t, two, f), "digest");
        CHECK(a.w[0] == first, "copy");
        struct two back = swap(swap(two));
        CHECK(back.a == two.a && back.b == two.b, "swap");
    } while (check_go_on());
    return check_pass();
}
