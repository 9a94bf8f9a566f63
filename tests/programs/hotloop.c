/* A hot loop without calls: only a poll can stop it. Eight values live, nested loops, and a long inner trip. */
#include "check.h"

static uint64_t __attribute__((noinline)) spin(uint64_t n, uint64_t seed)
{
    uint64_t a = seed, b = seed + 1, c = seed ^ 3, d = ~seed, e = seed * 5, f = seed >> 7, g = seed << 9;
    double x = 1.0, y = 0.5;
    for (uint64_t i = 0; i < n; i++) {
        a += b ^ i, b = b << 7 | b >> 57, c -= a, d ^= c + e, e += f * 3, f ^= g, g += d >> 3;
        x = x * 0.999 + y, y = 1.0 - x * 0.001;
        for (uint64_t j = i & 7; j < 8; j++)
            a ^= g + j;
    }
    return a ^ b ^ c ^ d ^ e ^ f ^ g ^ (uint64_t)(x * 1e6) ^ (uint64_t)(y * 1e6);
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    uint64_t want = 0;
    do {
        uint64_t got = spin(3000000, check_seed);
        CHECK(check_rounds == 0 || got == want, "round %lu", check_rounds);
        want = got;
    } while (check_go_on());
    return check_pass();
}
