/* Calls with 7 and 9 arguments, in tail position too: some travel on the stack on one instruction set only. */
#include "check.h"

static uint64_t nine(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h,
                     uint64_t depth);

static uint64_t __attribute__((noinline)) seven(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
                                                uint64_t depth)
{
    return nine(f, e, d, c, b, a, a + b, c * d, depth);
}

static uint64_t __attribute__((noinline)) nine(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
                                               uint64_t g, uint64_t h, uint64_t depth)
{
    if (depth == 0)
        return a ^ b << 1 ^ c << 2 ^ d << 3 ^ e << 4 ^ f << 5 ^ g << 6 ^ h << 7;
    if (depth % 64 == 0)
        access("/", F_OK);
    return seven(b + 1, c, d ^ g, e, f, a + h, depth - 1);
}

static uint64_t plain(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t depth)
{
    for (;;) {
        uint64_t A = f, B = e, C = d, D = c, E = b, F = a, G = a + b, H = c * d;
        if (depth == 0)
            return A ^ B << 1 ^ C << 2 ^ D << 3 ^ E << 4 ^ F << 5 ^ G << 6 ^ H << 7;
        a = B + 1, b = C, c = D ^ G, d = E, e = F, f = A + H, depth--;
    }
}

static double __attribute__((noinline)) mixed(double a, int i, double b, float c, long j, double d, double e, double f,
                                              double g, double h, double k, char l, short m, int n, long o, long p)
{
    access("/", F_OK);
    return a + i * b + (double)c * j - d + e * f - g + h / k + l + m - n + o - p;
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    uint64_t state = check_seed;
    do {
        uint64_t r = check_next(&state);
        CHECK(seven(r, r >> 3, r >> 5, r * 3, r * 5, r * 7, 500) == plain(r, r >> 3, r >> 5, r * 3, r * 5, r * 7, 500), "ints");
        double x = (double)(r & 0xffff);
        double want = x + 2 * 3.0 + 4.0 * 5 - 6 + 7.0 * 8 - 9 + 10.0 / 4 + 1 + 2 - 3 + 4 - 5;
        CHECK(mixed(x, 2, 3, 4, 5, 6, 7, 8, 9, 10, 4, 1, 2, 3, 4, 5) == want, "doubles");
    } while (check_go_on());
    return check_pass();
}
