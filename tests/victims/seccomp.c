// seccomp KIND: strict mode and filters, which hold again after a restore, and nothing of ours runs under them.
#include "tree.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

#ifndef SECCOMP_RET_KILL_PROCESS
#define SECCOMP_RET_KILL_PROCESS 0x80000000u
#endif

#define LOAD_NUMBER BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))
#define ON(number, what) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, what)
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static int install(struct sock_filter *filter, int count, unsigned flags) {
    struct sock_fprog program = {(unsigned short)count, filter};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

#define INSTALL(filter, flags) install(filter, sizeof(filter) / sizeof((filter)[0]), flags)

// This call gives this error from now on.
static void deny(long number, int error, unsigned flags) {
    struct sock_filter filter[] = {LOAD_NUMBER, ON((unsigned)number, SECCOMP_RET_ERRNO | (unsigned)error), ALLOW};
    if (INSTALL(filter, flags)) fail("seccomp: %s", strerror(errno));
}

static void no_new_privs(void) { CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0); }

static int filters_of(const char *path) {
    char text[8192];
    FILE *f = fopen(path, "r");
    CHECK(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = 0;
    fclose(f);
    const char *line = strstr(text, "\nSeccomp_filters:");
    return line ? atoi(line + 17) : -1;
}

// What ckpt needs for a dump and a restore is forbidden, as it is to many sandboxed programs.
static void forbid_ours(void) {
    struct sock_filter filter[] = {
        LOAD_NUMBER,
        ON(SYS_mmap, SECCOMP_RET_KILL_PROCESS),
        ON(SYS_munmap, SECCOMP_RET_KILL_PROCESS),
        ON(SYS_mprotect, SECCOMP_RET_KILL_PROCESS),
        ON(SYS_mremap, SECCOMP_RET_KILL_PROCESS),
        ON(SYS_prctl, SECCOMP_RET_KILL_PROCESS),
        ON(SYS_ptrace, SECCOMP_RET_KILL_PROCESS),
        ON(SYS_clone, SECCOMP_RET_KILL_PROCESS),
        ON(SYS_close_range, SECCOMP_RET_KILL_PROCESS),
        ON(SYS_sigaltstack, SECCOMP_RET_KILL_PROCESS),
        ON(SYS_set_robust_list, SECCOMP_RET_KILL_PROCESS),
        ON(SYS_seccomp, SECCOMP_RET_KILL_PROCESS),
        ON(SYS_futex, SECCOMP_RET_KILL_PROCESS),
        ON(SYS_getppid, SECCOMP_RET_ERRNO | 77),
        ALLOW,
    };
    CHECK(INSTALL(filter, SECCOMP_FILTER_FLAG_LOG) == 0);
}

static void check_denied(long number, int error) {
    errno = 0;
    EQ(syscall(number, 0, 0, 0, 0, 0, 0), -1);
    EQ(errno, error);
}

static void filter(void) {
    no_new_privs();
    forbid_ours();
    ready();
    wait_go();
    check_denied(SYS_getppid, 77);
    // It still kills.
    siginfo_t info;
    pid_t child = (pid_t)syscall(SYS_fork);
    if (child == 0) {
        syscall(SYS_munmap, 0, 0);
        _exit(0);
    }
    CHECK(child > 0 && waitid(P_PID, (id_t)child, &info, WEXITED) == 0);
    EQ(info.si_status, SIGSYS);
}

// Installed one on the other, each of which the ones before allow.
static void stacked(void) {
    no_new_privs();
    for (int i = 0; i < 20; i++) deny(SYS_getppid, 50 + i, 0);
    deny(SYS_getpgrp, 60, 0);
    ready();
    wait_go();
    // Of several the latest error counts; the first one if all are of one kind is the last installed.
    check_denied(SYS_getppid, 69);
    check_denied(SYS_getpgrp, 60);
    CHECK(filters_of("/proc/self/status") == 21 || filters_of("/proc/self/status") == -1);
    CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    deny(SYS_getuid, 61, 0);
    check_denied(SYS_getuid, 61);
}

static pthread_barrier_t ready_barrier, go_barrier;
static int results[3];

static void *thread(void *arg) {
    long i = (long)arg;
    // Thread 2 has one of its own.
    if (i == 2) deny(SYS_getpgrp, 70, 0);
    pthread_barrier_wait(&ready_barrier);
    pthread_barrier_wait(&go_barrier);
    errno = 0;
    CHECK(syscall(SYS_getppid) == -1 && errno == 55);
    errno = 0;
    results[i] = syscall(SYS_getpgrp) == -1 ? errno : 0;
    pthread_barrier_wait(&go_barrier);
    return NULL;
}

static void threads(bool differ) {
    no_new_privs();
    pthread_barrier_init(&ready_barrier, NULL, 3);
    pthread_barrier_init(&go_barrier, NULL, 3);
    deny(SYS_getppid, 55, 0);
    pthread_t other[3];
    for (long i = 1; i < (differ ? 3 : 2); i++) CHECK(pthread_create(&other[i], NULL, thread, (void *)i) == 0);
    if (!differ) CHECK(pthread_create(&other[2], NULL, thread, (void *)0l) == 0);
    pthread_barrier_wait(&ready_barrier);
    ready();
    wait_go();
    // All threads share what they had when they were made: a new one for all is only possible then.
    if (!differ) deny(SYS_getpgrp, 71, SECCOMP_FILTER_FLAG_TSYNC);
    pthread_barrier_wait(&go_barrier);
    check_denied(SYS_getppid, 55);
    pthread_barrier_wait(&go_barrier);
    EQ(results[1], differ ? 0 : 71);
    if (differ) EQ(results[2], 70);
    for (int i = 1; i < 3; i++) CHECK(pthread_join(other[i], NULL) == 0);
}

// With CAP_SYS_ADMIN there is no need for no_new_privs.
static void privileged(void) {
    deny(SYS_getppid, 56, 0);
    ready();
    wait_go();
    check_denied(SYS_getppid, 56);
    EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
}

// A child in strict mode, which may only read, write and end; and one that inherits a filter.
static void children(void) {
    int in[2], out[2];
    CHECK(pipe(in) == 0 && pipe(out) == 0);
    tree_begin();
    pid_t strict = forked();
    if (strict == 0) {
        char c;
        prepared();
        CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
        CHECK(write(out[1], "r", 1) == 1);
        while (read(in[0], &c, 1) == 1 && c != 'q') syscall(SYS_write, out[1], "a", 1);
        if (c == 'q') syscall(SYS_getppid); // forbidden: it is killed
        syscall(SYS_exit, 5);
    }
    no_new_privs();
    deny(SYS_getppid, 57, 0);
    pid_t inherits = forked();
    if (inherits == 0) {
        deny(SYS_getpgrp, 58, 0);
        prepared();
        await_go();
        check_denied(SYS_getppid, 57);
        check_denied(SYS_getpgrp, 58);
        _exit(0);
    }
    wait_prepared(2);
    char c;
    CHECK(read(out[0], &c, 1) == 1 && c == 'r');
    ready();
    wait_go();
    check_denied(SYS_getppid, 57);
    char path[60], text[4096] = {0};
    snprintf(path, sizeof path, "/proc/%d/status", strict);
    int status = open(path, O_RDONLY);
    CHECK(read(status, text, sizeof text - 1) > 0 && strstr(text, "Seccomp:\t1\n"));
    CHECK(write(in[1], "x", 1) == 1 && read(out[0], &c, 1) == 1 && c == 'a');
    CHECK(write(in[1], "q", 1) == 1);
    reap(strict, SIGKILL);
    reap(inherits, 0);
}

static void notify(void) {
    struct sock_filter filter[] = {LOAD_NUMBER, ON(SYS_getppid, SECCOMP_RET_USER_NOTIF), ALLOW};
    no_new_privs();
    int listener = INSTALL(filter, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    if (listener < 0) skip("no user notification here: %s", strerror(errno));
    ready();
    wait_go();
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "";
    if (!strcmp(kind, "filter")) filter();
    else if (!strcmp(kind, "stacked")) stacked();
    else if (!strcmp(kind, "threads")) threads(false);
    else if (!strcmp(kind, "differ")) threads(true);
    else if (!strcmp(kind, "privileged")) privileged();
    else if (!strcmp(kind, "children")) children();
    else if (!strcmp(kind, "notify")) notify();
    else fail("seccomp KIND");
    return ok();
}
