/* Thread-local variables, initialised and not, aligned, with addresses kept; errno. */
#include "check.h"

static _Thread_local uint64_t counter = 42;
static _Thread_local uint64_t zeroed[100];
static _Thread_local struct { _Alignas(64) uint64_t a; char text[24]; } aligned = {7, "thread-local"};
static uint64_t *kept;

int main(int argc, char **argv)
{
    check_init(argc, argv);
    uint64_t state = check_seed, n = 0, sum = 0;
    kept = &counter;
    CHECK(counter == 42 && aligned.a == 7 && strcmp(aligned.text, "thread-local") == 0, "image");
    CHECK((uintptr_t)&aligned % 64 == 0, "alignment");
    int *where = &errno;
    do {
        uint64_t r = check_next(&state);
        counter++, n++;
        zeroed[r % 100] += r;
        sum += r;
        CHECK(*kept == 42 + n && &counter == kept, "kept %lu", (unsigned long)*kept);
        uint64_t total = 0;
        for (int i = 0; i < 100; i++)
            total += zeroed[i];
        CHECK(total == sum, "sum");
        errno = 0;
        CHECK(access("/no/such/file", F_OK) == -1 && errno == ENOENT, "errno %d", errno);
        CHECK(&errno == where, "errno moved");
        CHECK((int)getpid() > 0 && errno == ENOENT, "errno kept");
        CHECK(close(-1) == -1 && errno == EBADF, "errno %d", errno);
        CHECK(strcmp(aligned.text, "thread-local") == 0, "text");
    } while (check_go_on());
    return check_pass();
}
