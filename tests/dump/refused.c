/* A process that has what images cannot carry: `refused WHAT`; prints READY when it has it. Any C library, statically. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static int is(const char *a, const char *b) { return strcmp(a, b) == 0; }

static void need(int ok, const char *what)
{
    if (!ok) {
        printf("UNAVAILABLE %s: %m\n", what);
        fflush(stdout);
        exit(1);
    }
}

static const char *of_thread;
static pthread_t leader;

/* What a thread has that others have not. */
static void *different(void *nothing)
{
    if (is(of_thread, "leader"))
        pthread_join(leader, NULL);
    else if (is(of_thread, "thread-files"))
        need(unshare(CLONE_FILES) == 0, of_thread);
    else if (is(of_thread, "thread-directory"))
        need(unshare(CLONE_FS) == 0, of_thread);
    else if (is(of_thread, "thread-net"))
        need(unshare(CLONE_NEWNET) == 0, of_thread);
    else if (is(of_thread, "thread-child") && fork() == 0)
        pause();
    if (is(of_thread, "leader"))
        usleep(50000); /* joined a little before it is a zombie */
    printf("READY\n");
    fflush(stdout);
    pause();
    return nothing;
}

static void *forever(void *nothing)
{
    pause();
    return nothing;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    int pair[2];
    pthread_t thread;
    if (is(what, "tcp")) {
        need(socket(AF_INET, SOCK_STREAM, 0) >= 0, what);
    } else if (is(what, "unix")) {
        need(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, what);
    } else if (is(what, "netlink")) {
        need(socket(AF_NETLINK, SOCK_RAW, 0) >= 0, what);
    } else if (is(what, "leader") || strncmp(what, "thread-", 7) == 0) {
        of_thread = what;
        leader = pthread_self();
        need(pthread_create(&thread, NULL, different, NULL) == 0, what);
        if (is(what, "leader"))
            pthread_exit(NULL);
        forever(NULL);
    } else if (is(what, "child")) {
        if (fork() == 0)
            forever(NULL);
    } else if (is(what, "zombie")) {
        if (fork() == 0)
            _exit(0);
    } else if (is(what, "deleted")) {
        need(open("gone", O_RDWR | O_CREAT, 0600) >= 0 && unlink("gone") == 0, what);
    } else if (is(what, "replaced")) {
        need(open("replaced", O_RDWR | O_CREAT, 0600) >= 0 && unlink("replaced") == 0, what);
        need(open("replaced", O_RDWR | O_CREAT | O_CLOEXEC, 0600) >= 0, what);
    } else if (is(what, "mapped-deleted")) {
        int fd = open("mapped", O_RDWR | O_CREAT, 0600);
        need(fd >= 0 && ftruncate(fd, 4096) == 0, what);
        need(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED, what);
        need(close(fd) == 0 && unlink("mapped") == 0, what);
    } else if (is(what, "no-directory")) {
        need(mkdir("below", 0700) == 0 && chdir("below") == 0 && rmdir("../below") == 0, what);
    } else if (is(what, "proc")) {
        need(open("/proc/self/status", O_RDONLY) >= 0, what);
    } else if (is(what, "flock")) {
        need(flock(open("lock", O_RDWR | O_CREAT, 0600), LOCK_EX) == 0, what);
    } else if (is(what, "posix-lock")) {
        struct flock lock = {.l_type = F_WRLCK};
        need(fcntl(open("lock", O_RDWR | O_CREAT, 0600), F_SETLK, &lock) == 0, what);
    } else if (is(what, "lease")) {
        need(fcntl(open("lease", O_RDONLY | O_CREAT, 0600), F_SETLEASE, F_RDLCK) == 0, what);
    } else if (is(what, "pipe")) {
        need(pipe(pair) == 0 && close(pair[0]) == 0, what);
    } else if (is(what, "packets")) {
        need(pipe2(pair, O_DIRECT) == 0, what);
    } else if (is(what, "fifo")) {
        need(mkfifo("fifo", 0600) == 0 && open("fifo", O_RDWR) >= 0, what);
    } else if (is(what, "memfd")) {
        need(memfd_create("memory", 0) >= 0, what);
    } else if (is(what, "inotify")) {
        need(inotify_init1(0) >= 0, what);
    } else if (is(what, "fanotify")) {
        need(syscall(SYS_fanotify_init, 0, O_RDONLY) >= 0, what);
    } else if (is(what, "io_uring")) {
        char params[128] = {0};
        need(syscall(425 /* io_uring_setup */, 4, params) >= 0, what);
    } else if (is(what, "aio")) {
        unsigned long context = 0;
        need(syscall(SYS_io_setup, 8, &context) == 0, what);
    } else if (is(what, "userfaultfd")) {
        need(syscall(SYS_userfaultfd, O_CLOEXEC) >= 0, what);
    } else if (is(what, "pidfd")) {
        need(syscall(434 /* pidfd_open */, getpid(), 0) >= 0, what);
    } else if (is(what, "semaphore")) {
        char path[64], info[512] = "";
        snprintf(path, sizeof path, "/proc/self/fdinfo/%d", eventfd(3, EFD_SEMAPHORE));
        int fd = open(path, O_RDONLY);
        need(fd >= 0 && read(fd, info, sizeof info - 1) > 0 && close(fd) == 0, what);
        need(strstr(info, "eventfd-semaphore") != NULL, "the kernel (before 6.5) does not tell semaphores");
    } else if (is(what, "epoll-closed")) {
        struct epoll_event event = {.events = EPOLLIN};
        int ep = epoll_create1(0), fd = eventfd(0, 0);
        need(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event) == 0 && dup(fd) >= 0 && close(fd) == 0, what);
    } else if (is(what, "sysv-shm")) {
        int id = (int)syscall(SYS_shmget, 0, 4096, 01600);
        need(id >= 0 && syscall(SYS_shmat, id, 0, 0) > 0, what);
        syscall(SYS_shmctl, id, 0 /* IPC_RMID */, 0);
    } else if (is(what, "uts")) {
        need(unshare(CLONE_NEWUTS) == 0, what);
    } else if (is(what, "mnt")) {
        need(unshare(CLONE_NEWNS) == 0, what);
    } else if (is(what, "net")) {
        need(unshare(CLONE_NEWNET) == 0, what);
    } else if (is(what, "ipc")) {
        need(unshare(CLONE_NEWIPC) == 0, what);
    } else if (is(what, "pid-for-children")) {
        need(unshare(CLONE_NEWPID) == 0, what);
    } else if (is(what, "seccomp")) {
        struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        struct sock_fprog program = {1, &allow};
        need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, what);
        need(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, what);
    } else if (is(what, "deadline")) {
        struct { unsigned size, policy; unsigned long flags; int nice; unsigned priority; unsigned long runtime, deadline, period; } attr =
            {sizeof attr, 6 /* SCHED_DEADLINE */, 0, 0, 0, 10000000, 100000000, 100000000};
        need(syscall(SYS_sched_setattr, 0, &attr, 0) == 0, what);
    } else if (!is(what, "nothing")) {
        printf("UNAVAILABLE %s is not known\n", what);
        return 1;
    }
    printf("READY\n");
    fflush(stdout);
    forever(NULL);
}
