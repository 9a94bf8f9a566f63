/* Variadic functions: integers, doubles, long double, structs of all sizes, 128-bit integers, va_copy, va_list passed on. */
#include "check.h"
#include <stdarg.h>

struct small { int a, b; };
struct pair { uint64_t a, b; };
struct big { uint64_t w[7]; };

static uint64_t scan(const char *kinds, va_list ap)
{
    uint64_t h = 1469598103934665603ull;
#define MIX(v) (h = (h ^ (uint64_t)(v)) * 1099511628211ull)
    for (; *kinds; kinds++) {
        switch (*kinds) {
        case 'i': MIX(va_arg(ap, int)); break;
        case 'l': MIX(va_arg(ap, int64_t)); break;
        case 'd': MIX((int64_t)(va_arg(ap, double) * 1024)); break;
        case 'L': MIX((int64_t)(va_arg(ap, long double) * 4096)); break;
        case 's': { struct small s = va_arg(ap, struct small); MIX(s.a); MIX(s.b); break; }
        case 'p': { struct pair p = va_arg(ap, struct pair); MIX(p.a); MIX(p.b); break; }
        case 'b': { struct big b = va_arg(ap, struct big); for (int i = 0; i < 7; i++) MIX(b.w[i]); break; }
        case 'q': { unsigned __int128 q = va_arg(ap, unsigned __int128); MIX(q >> 64); MIX(q); break; }
        case 'z': MIX(strlen(va_arg(ap, const char *))); break;
        }
        if (*kinds == 'd')
            access("/", F_OK); /* a system call in the middle of the list */
    }
    return h;
}

static uint64_t hash(const char *kinds, ...)
{
    va_list ap, again;
    va_start(ap, kinds);
    va_copy(again, ap);
    uint64_t first = scan(kinds, ap);
    uint64_t second = scan(kinds, again);
    va_end(again);
    va_end(ap);
    CHECK(first == second, "%s", kinds);
    return first;
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    uint64_t state = check_seed;
    do {
        uint64_t r = check_next(&state);
        int i = (int)r;
        double d = (double)(int32_t)r / 64;
        long double L = (long double)(int64_t)(r >> 8) / 128;
        struct small s = {(int)(r >> 3), (int)(r >> 40)};
        struct pair p = {r, ~r};
        struct big b = {{r, 1, 2, 3, 4, 5, r >> 1}};
        unsigned __int128 q = (unsigned __int128)r * r;
        uint64_t h = hash("ildLspbqzLdqil", i, (int64_t)r, d, L, s, p, b, q, "text", L + 1, d + 1, q + 1, i + 1, (int64_t)1);
        uint64_t k = hash("ildLspbqzLdqil", i, (int64_t)r, d, L, s, p, b, q, "text", L + 1, d + 1, q + 1, i + 1, (int64_t)1);
        CHECK(h == k, "hash");
        CHECK(h != hash("ildLspbqzLdqil", i, (int64_t)r, d, L, s, p, b, q, "text", L + 1, d + 1, q + 2, i + 1, (int64_t)1), "differs");
        char text[200], want[200];
        snprintf(text, sizeof text, "%d %ld %.3f %.4Lf %s", i, (long)r, d, L / 1e6L, "x");
        snprintf(want, sizeof want, "%d %ld %.3f %.4Lf %s", i, (long)r, d, L / 1e6L, "x");
        CHECK(strcmp(text, want) == 0, "%s", text);
        CHECK(atoi(text) == i, "%s", text);
    } while (check_go_on());
    return check_pass();
}
