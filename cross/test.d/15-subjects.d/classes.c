/* What code generation once kept in registers, or read of slots, beyond what a value needs: one function per way, each with
 * calls in between. That it links is the proof that nothing but memory is live there; the sums are those of any compiler. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned u32;
typedef unsigned long u64;

__attribute__((noinline)) static u32 next(u32 *state)
{
    *state = *state * 1103515245 + 12345;
    if (*state == 1)
        puts("never");
    return *state >> 8;
}

/* Counting zeros leaves the register as it was where the operand is zero; here it is known not to be. */
__attribute__((noinline)) static u64 zeros(u32 *s, int n)
{
    u64 sum = 0;
    for (int i = 0; i < n; i++) {
        u32 a = next(s) | 1;
        u64 size = (u64)next(s) + 0x20000;
        u32 high = 31 - (u32)__builtin_clz((u32)size);
        sum += (u32)__builtin_clz(a) + (u32)__builtin_ctz(a << 3) + (size >> 17 < 0x7fff ? high : 31);
        sum += (u32)__builtin_clzll(size | next(s)) + (u32)__builtin_ctzll(size << 1);
    }
    return sum;
}

/* Slots of one and two bytes, whose neighbours need not have been written. */
__attribute__((noinline)) static u64 narrow(u32 *s, int n)
{
    u64 sum = 0;
    short best = 0, second = 0;
    unsigned char mark = 3, other = 7;
    for (int i = 0; i < n; i++) {
        short now = (short)next(s);
        if (now > best) {
            second = best;
            best = now;
            other = mark;
        }
        mark = (unsigned char)(mark + next(s));
        sum += (u64)(best - second) * (u32)(mark ^ other) + (u64)((u32)best << 3 | mark);
    }
    return sum;
}

/* Truth values that live across loops and calls. */
__attribute__((noinline)) static u64 truths(u32 *s, int n)
{
    _Bool odd = 0, large = 0, both = 1;
    u64 sum = 0;
    for (int i = 0; i < n; i++) {
        for (u32 k = next(s) & 3; k; k--) {
            odd = (next(s) & 1) && !both;
            if (k == 2)
                large = next(s) > 1u << 23;
        }
        both = odd && large;
        sum = sum * 3 + (u64)(odd + 2 * large + 4 * both);
    }
    return sum;
}

/* A choice between a slot and something on the portable stack. */
__attribute__((noinline)) static void fill(u64 *to, u32 *s) { *to = next(s); }
__attribute__((noinline)) static u64 choice(u32 *s, int n)
{
    u64 sum = 0;
    for (int i = 0; i < n; i++) {
        u64 filled;
        u32 before = next(s);
        fill(&filled, s);
        u32 chosen = next(s) & 1 ? (u32)filled : before;
        sum += chosen < 256 ? before : chosen;
    }
    return sum;
}

/* A vector all of whose elements are one slot. */
__attribute__((noinline)) static u64 splat(u32 *s, u32 *list, int n)
{
    u64 sum = 0;
    for (int i = 0; i < 8; i++) {
        u32 less = next(s), more = next(s);
        for (int k = 0; k < n; k++)
            list[k] = list[k] < less ? 0 : list[k] - less;
        sum += next(s) + more;
        for (int k = 0; k < n; k++)
            sum += list[k];
    }
    return sum;
}

/* No site: the frame may hold an array, and a leaf may be given its address. */
__attribute__((noinline)) static u32 magic(const void *from, size_t n)
{
    u32 word = 0x1234567;
    memcpy(&word, from, n < 4 ? n : 4);
    return word;
}

/* Fetched ahead of use, across calls. */
__attribute__((noinline)) static u64 ahead(u32 *s, const u32 *list, int n)
{
    u64 sum = 0;
    for (int i = 0; i + 8 < n; i++) {
        __builtin_prefetch(&list[i + 8]);
        __builtin_prefetch(&list[next(s) % (u32)n], 0, 1);
        sum += list[i] ^ next(s);
    }
    return sum;
}

/* Called through a pointer, with fewer arguments than registers. */
__attribute__((noinline)) static u64 through(u64 (*f)(u32 *, int), u32 *s, const char *text)
{
    char copy[64];
    _Bool short_text = strlen(text) < 5;
    strcpy(copy, text);
    u64 sum = f(s, copy[0]);
    return short_text ? sum : sum + (u64)copy[1];
}

int main(int argc, char **argv)
{
    u32 state = 42, list[64];
    int n = argc > 1 ? atoi(argv[1]) : 100;
    for (int i = 0; i < 64; i++)
        list[i] = next(&state) << 4;
    printf("zeros %lu\n", zeros(&state, n));
    printf("narrow %lu\n", narrow(&state, n));
    printf("truths %lu\n", truths(&state, n));
    printf("choice %lu\n", choice(&state, n));
    printf("splat %lu\n", splat(&state, list, 64));
    printf("magic %x %x\n", magic("abcdef", 3), magic(&state, 4));
    printf("ahead %lu\n", ahead(&state, list, 64));
    printf("through %lu\n", through(truths, &state, "day"));
    printf("through %lu\n", through(narrow, &state, "evening"));
    return 0;
}
