/* Open files across the move: offsets, O_APPEND, O_CLOEXEC, directories being read, dup'ed descriptors, cwd, umask. */
#define _GNU_SOURCE
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

int main(int argc, char **argv)
{
    check_init(argc, argv);
    char path[4096], cwd[4096], now[4096];
    snprintf(path, sizeof path, "%s.files", argv[1]);
    umask(027);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    CHECK(fd >= 0, "%s: errno %d", path, errno);
    int same = dup(fd), append = open(path, O_WRONLY | O_APPEND);
    char *slash = strrchr(path, '/');
    *slash = 0;
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    *slash = '/';
    CHECK(same >= 0 && append >= 0 && dir >= 0, "errno %d", errno);
    CHECK(getcwd(cwd, sizeof cwd), "errno %d", errno);
    uint64_t state = check_seed;
    do {
        uint64_t r = check_next(&state), back;
        off_t at = (off_t)(r % 100000);
        CHECK(lseek(fd, at, SEEK_SET) == at, "errno %d", errno);
        CHECK(write(fd, &r, sizeof r) == sizeof r, "errno %d", errno);
        CHECK(lseek(same, 0, SEEK_CUR) == at + (off_t)sizeof r, "shared offset");
        CHECK(pread(same, &back, sizeof back, at) == sizeof back && back == r, "read back");
        CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) && !(fcntl(same, F_GETFD) & FD_CLOEXEC), "cloexec");
        CHECK((fcntl(append, F_GETFL) & (O_APPEND | O_ACCMODE)) == (O_APPEND | O_WRONLY), "flags %x", fcntl(append, F_GETFL));
        CHECK((fcntl(dir, F_GETFL) & (O_DIRECTORY | O_NOFOLLOW | O_DIRECT)) == (O_DIRECTORY | O_NOFOLLOW), "flags %x",
              fcntl(dir, F_GETFL));
        CHECK(faccessat(dir, ".", R_OK, 0) == 0, "errno %d", errno);
        struct stat st;
        CHECK(fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0777) == 0640, "mode %o", st.st_mode);
        mode_t mask = umask(027);
        CHECK(mask == 027, "umask %o", mask);
        CHECK(getcwd(now, sizeof now) && strcmp(cwd, now) == 0, "cwd %s", now);
    } while (check_go_on());
    CHECK(unlink(path) == 0, "errno %d", errno);
    return check_pass();
}
