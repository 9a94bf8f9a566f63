/* A heap at work: small and large blocks come and go, inside malloc at any moment. Variant big: 1 GiB after every move. */
#include "check.h"
#include <sys/utsname.h>

enum { SLOTS = 400 };
static struct { uint8_t *p; size_t n; uint8_t fill; } slot[SLOTS];

static void verify(int i)
{
    for (size_t k = 0; k < slot[i].n; k += slot[i].n / 16 + 1)
        CHECK(slot[i].p[k] == slot[i].fill, "slot %d byte %zu", i, k);
    CHECK(slot[i].n == 0 || slot[i].p[slot[i].n - 1] == slot[i].fill, "slot %d end", i);
}

static void gigabyte(void)
{
    size_t n = (size_t)1 << 30;
    uint8_t *p = malloc(n);
    CHECK(p && (uintptr_t)p + n < (uintptr_t)1 << 47, "1 GiB at %p", (void *)p);
    for (size_t k = 0; k < n; k += 4096)
        p[k] = (uint8_t)(k >> 12);
    for (size_t k = 0; k < n; k += 4096)
        CHECK(p[k] == (uint8_t)(k >> 12), "page %zu", k >> 12);
    free(p);
}

int main(int argc, char **argv)
{
    check_init(argc, argv);
    uint64_t state = check_seed;
    int big = strcmp(check_variant, "big") == 0;
    struct utsname here, now;
    CHECK(uname(&here) == 0, "errno %d", errno);
    do {
        CHECK(uname(&now) == 0, "errno %d", errno);
        if (big && strcmp(here.machine, now.machine) != 0) {
            gigabyte();
            printf("1 GiB on %s\n", now.machine);
            fflush(stdout);
            here = now;
        }
        for (int k = 0; k < 500; k++) {
            uint64_t r = check_next(&state);
            int i = (int)(r % SLOTS);
            size_t n = r >> 20 & ((r >> 8 & 15) == 0 ? 0x7ffff : 0x3ff);
            verify(i);
            if (r >> 12 & 1) {
                free(slot[i].p);
                slot[i].p = malloc(n + 1);
            } else {
                slot[i].p = realloc(slot[i].p, n + 1);
            }
            CHECK(slot[i].p, "malloc %zu", n);
            slot[i].n = n, slot[i].fill = (uint8_t)(r >> 50);
            memset(slot[i].p, slot[i].fill, n);
        }
    } while (check_go_on());
    for (int i = 0; i < SLOTS; i++)
        verify(i);
    if (big)
        gigabyte();
    return check_pass();
}
