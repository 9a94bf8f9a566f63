/* 128-bit integers live across calls: multiplication, division, shifts, as arguments and results. */
#include "check.h"

typedef unsigned __int128 u128;
typedef __int128 i128;

static u128 __attribute__((noinline)) mulmod(u128 a, u128 b, u128 m)
{
    u128 r = 0;
    for (a %= m; b; b >>= 1) {
        if (b & 1)
            r = (r + a) % m;
        a = (a + a) % m;
    }
    return r;
}

static u128 __attribute__((noinline)) power(u128 base, u128 e, u128 m)
{
    u128 r = 1;
    for (; e; e >>= 1) {
        if (e & 1)
            r = mulmod(r, base, m);
        base = mulmod(base, base, m);
        if ((e & 0xff) == 0)
            access("/", F_OK);
    }
    return r;
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    uint64_t state = check_seed;
    const u128 p = ((u128)1 << 89) - 1; /* a Mersenne prime */
    do {
        u128 a = ((u128)check_next(&state) << 64 | check_next(&state)) % (p - 2) + 2;
        CHECK(power(a, p - 1, p) == 1, "Fermat");
        i128 s = -(i128)(a >> 1);
        u128 q = a / 1000003, rest = a % 1000003;
        access("/", F_OK);
        CHECK(q * 1000003 + rest == a, "division");
        CHECK(s / 7 * 7 + s % 7 == s && (s >> 100) < 0, "signed");
    } while (check_go_on());
    return check_pass();
}
