/* Floating point live across calls: NaN payloads, denormals, signed zeros, infinities, libm, long double. */
#include "check.h"
#include <math.h>

static double from_bits(uint64_t b) { double d; memcpy(&d, &b, sizeof d); return d; }
static uint64_t to_bits(double d) { uint64_t b; memcpy(&b, &d, sizeof b); return b; }

static uint64_t __attribute__((noinline)) carry(double a, double b, double c, float d, long double e, unsigned calls)
{
    long double sum = e;
    for (unsigned i = 0; i < calls; i++) {
        access("/", F_OK);
        sum += (long double)i / 3;
    }
    float back = d;
    uint32_t bits;
    memcpy(&bits, &back, sizeof bits);
    return to_bits(a) ^ to_bits(b) * 3 ^ to_bits(c) * 5 ^ bits ^ (uint64_t)(sum * 1000);
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    uint64_t state = check_seed;
    double total = 0, again = 0;
    do {
        uint64_t r = check_next(&state);
        double nan = from_bits(0x7ff8000000000000ull | (r & 0x0007ffffffffffffull));
        double denormal = from_bits(r & 0x000fffffffffffffull);
        double zero = from_bits(0x8000000000000000ull);
        CHECK(carry(nan, denormal, zero, (float)(int32_t)r, 1.5L, 10) ==
                  (to_bits(nan) ^ to_bits(denormal) * 3 ^ to_bits(zero) * 5 ^ carry(0, 0, 0, (float)(int32_t)r, 1.5L, 10)),
              "carried");
        double x = (double)(r >> 40) / 4096 + 0.25;
        double s = sin(x), c = cos(x);
        access("/", F_OK);
        CHECK(fabs(s * s + c * c - 1) < 1e-12, "sin cos %g", x);
        CHECK(fabs(exp(log(x)) - x) < 1e-9 * x, "exp log %g", x);
        CHECK(fabs(pow(x, 0.5) - sqrt(x)) < 1e-9 * x + 1e-12, "pow sqrt %g", x);
        CHECK(floor(x) <= x && ceil(x) >= x && fmod(x, 1.0) == x - floor(x), "floor ceil fmod %g", x);
        CHECK(isinf(1.0 / check_opaque(0)) && isnan(nan) && signbit(zero), "specials");
        long double q = 1.0L / 3;
        access("/", F_OK);
        CHECK(q * 3 > 0.99999999999999999L && q + 1e-18L != q, "long double");
        total += s;
        again = total;
        access("/", F_OK);
        CHECK(to_bits(total) == to_bits(again), "total");
    } while (check_go_on());
    return check_pass();
}
