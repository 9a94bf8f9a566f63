/* What C leaves undefined and machines do differently has one meaning in portable programs (docs/isamorph-cc.md):
 * x/0 = 0, x%0 = x, MIN/-1 = MIN, MIN%-1 = 0, shifts modulo the width, conversions from floating point saturate. */
#include "check.h"
#include <limits.h>
#include <math.h>

typedef __int128 i128;
typedef unsigned __int128 u128;
typedef int v4si __attribute__((vector_size(16)));
typedef unsigned v4su __attribute__((vector_size(16)));
typedef long v2di __attribute__((vector_size(16)));

/* Operands are opaque: the optimiser must not know them. */
#define OPAQUE(type, value) ({ volatile type opaque_ = (value); opaque_; })

#define DIVISIONS(type, minimum)                                                                                  \
    do {                                                                                                          \
        type zero_ = OPAQUE(type, 0), x_ = OPAQUE(type, (type)(check_next(&state) | 1)), m_ = OPAQUE(type, minimum); \
        type minus_ = OPAQUE(type, (type)-1), three_ = OPAQUE(type, 3);                                           \
        CHECK((type)(x_ / zero_) == 0 && (type)(x_ % zero_) == x_, #type " by zero");                             \
        CHECK((type)(m_ / zero_) == 0 && (type)(m_ % zero_) == m_, #type " minimum by zero");                     \
        CHECK((type)(x_ / three_ * three_ + x_ % three_) == x_, #type " by three");                               \
        if ((type)-1 < (type)1) {                                                                                 \
            CHECK((type)(m_ / minus_) == m_ && (type)(m_ % minus_) == 0, #type " minimum by -1");                 \
            CHECK((type)(x_ / minus_) == (type)(0 - (u128)x_) && (type)(x_ % minus_) == 0, #type " by -1");       \
        }                                                                                                         \
    } while (0)

#define SHIFTS(type, width)                                                                            \
    do {                                                                                               \
        type x_ = OPAQUE(type, (type)check_next(&state));                                              \
        for (int n_ = 0; n_ < 3 * (width); n_++) {                                                     \
            int count_ = OPAQUE(int, n_), in_ = n_ % (width);                                          \
            CHECK((type)(x_ << count_) == (type)(x_ << in_), #type " << %d", n_);                      \
            CHECK((type)(x_ >> count_) == (type)(x_ >> in_), #type " >> %d", n_);                      \
        }                                                                                              \
    } while (0)

static void vectors(uint64_t state)
{
    volatile v4si xs = { (int)check_next(&state), INT_MIN, 7, -7 };
    volatile v4si ds = { 0, -1, 0, 2 };
    v4si x = xs, d = ds, q = x / d, r = x % d;
    CHECK(q[0] == 0 && q[1] == INT_MIN && q[2] == 0 && q[3] == -3, "vector /: %d %d %d %d", q[0], q[1], q[2], q[3]);
    CHECK(r[0] == x[0] && r[1] == 0 && r[2] == 7 && r[3] == -1, "vector %%: %d %d %d %d", r[0], r[1], r[2], r[3]);
    volatile v4su us = { 1, 0x80000000u, 3, 4 }, cs = { 32, 63, 1, 100 };
    v4su u = us, c = cs, left = u << c, right = u >> c;
    CHECK(left[0] == 1 && left[1] == 0 && left[2] == 6 && left[3] == 64, "vector <<");
    CHECK(right[0] == 1 && right[1] == 1 && right[2] == 1 && right[3] == 0, "vector >>");
    volatile v2di ls = { -8, LONG_MIN }, lc = { 65, 128 };
    v2di l = ls >> lc;
    CHECK(l[0] == -4 && l[1] == LONG_MIN, "vector >> of 64 bits");
}

static void conversions(void)
{
    double huge_ = OPAQUE(double, 1e300), nan_ = OPAQUE(double, NAN), minus = OPAQUE(double, -1e300);
    float big = OPAQUE(float, 3e38f);
    CHECK((int)huge_ == INT_MAX && (int)minus == INT_MIN && (int)nan_ == 0, "int");
    CHECK((long)huge_ == LONG_MAX && (long)minus == LONG_MIN && (long)nan_ == 0, "long");
    CHECK((unsigned)huge_ == UINT_MAX && (unsigned)minus == 0 && (unsigned)nan_ == 0, "unsigned");
    CHECK((unsigned long)huge_ == ULONG_MAX && (unsigned long)minus == 0, "unsigned long");
    CHECK((int)big == INT_MAX && (unsigned char)OPAQUE(float, 300.0f) == UCHAR_MAX, "float");
    CHECK(abs(OPAQUE(int, INT_MIN)) == INT_MIN && labs(OPAQUE(long, LONG_MIN)) == LONG_MIN, "abs");
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    uint64_t state = check_seed;
    do {
        DIVISIONS(signed char, SCHAR_MIN);
        DIVISIONS(unsigned char, 0x80);
        DIVISIONS(short, SHRT_MIN);
        DIVISIONS(unsigned short, 0x8000);
        DIVISIONS(int, INT_MIN);
        DIVISIONS(unsigned, 0x80000000u);
        DIVISIONS(long, LONG_MIN);
        DIVISIONS(unsigned long, 1ul << 63);
        DIVISIONS(i128, (i128)1 << 127);
        DIVISIONS(u128, (u128)1 << 127);
        SHIFTS(int, 32);
        SHIFTS(unsigned, 32);
        SHIFTS(long, 64);
        SHIFTS(unsigned long, 64);
        SHIFTS(i128, 128);
        SHIFTS(u128, 128);
        vectors(check_next(&state));
        conversions();
    } while (check_go_on());
    return check_pass();
}
