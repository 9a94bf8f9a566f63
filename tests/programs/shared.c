/* Shared memory across the move: anonymous, mapped twice and partly protected; variant `memfd`: a sealed memfd, mapped and open. */
#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { PAGES = 16, PAGE = 4096 };

int main(int argc, char **argv)
{
    check_init(argc, argv);
    int memfd = strcmp(check_variant, "memfd") == 0, fd = -1;
    if (memfd) {
        fd = memfd_create("a name", MFD_ALLOW_SEALING | MFD_CLOEXEC);
        CHECK(fd >= 0 && ftruncate(fd, PAGES * PAGE) == 0, "errno %d", errno);
        CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0, "errno %d", errno);
    }
    uint64_t *all = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | (memfd ? 0 : MAP_ANONYMOUS), fd, 0);
    CHECK(all != MAP_FAILED, "errno %d", errno);
    /* The second half once more, elsewhere. */
    uint64_t *half = mremap((char *)all + PAGES / 2 * PAGE, 0, PAGES / 2 * PAGE, MREMAP_MAYMOVE);
    CHECK(half != MAP_FAILED, "errno %d", errno);
    CHECK(mprotect(half, PAGE, PROT_READ) == 0, "errno %d", errno);
    uint64_t state = check_seed, expected[PAGES] = {0};
    do {
        uint64_t r = check_next(&state), page = r % PAGES, word = r / PAGES % (PAGE / 8);
        for (uint64_t p = 0; p < PAGES; p++)
            CHECK(all[p * PAGE / 8] == expected[p], "page %lu", (unsigned long)p);
        expected[page] = all[page * PAGE / 8] = r;
        all[page * PAGE / 8 + word] = r;
        if (word != 0 && page >= PAGES / 2)
            CHECK(half[(page - PAGES / 2) * PAGE / 8 + word] == r, "the other mapping");
        if (page > PAGES / 2) {
            half[(page - PAGES / 2) * PAGE / 8 + 1] = ~r;
            CHECK(all[page * PAGE / 8 + 1] == ~r, "back through the other mapping");
        }
        if (memfd) {
            struct stat st;
            uint64_t back;
            CHECK(pread(fd, &back, sizeof back, (off_t)(page * PAGE)) == sizeof back && back == r, "through the descriptor");
            CHECK(lseek(fd, 0, SEEK_CUR) == (off_t)(check_rounds % 1000), "offset");
            CHECK(lseek(fd, (off_t)((check_rounds + 1) % 1000), SEEK_SET) >= 0, "errno %d", errno);
            CHECK(fcntl(fd, F_GET_SEALS) == (F_SEAL_SHRINK | F_SEAL_GROW), "seals %x", fcntl(fd, F_GET_SEALS));
            CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC, "cloexec");
            CHECK(fstat(fd, &st) == 0 && st.st_size == PAGES * PAGE, "size %ld", (long)st.st_size);
        }
    } while (check_go_on());
    return check_pass();
}
