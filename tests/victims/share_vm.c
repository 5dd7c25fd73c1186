// share_vm plain|sighand|all|cleartid: processes in one address space, each with a stack of its own.
#include "tree.h"
#include <linux/futex.h>

#define STACK (64 * 1024)

static volatile uint32_t turn, here;
static volatile uint64_t answers[2];
static volatile int tid_word;
static char fresh[32];

// The children share the C library's variables with the root, errno included: only bare system calls.
static long call(long number, long a, long b, long c, long d, long e) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = 0;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static void nothing(int sig) {
    (void)sig;
}

struct kernel_action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    unsigned long mask;
};

static int child(void *arg) {
    volatile uint64_t local[64];
    long number = (long)arg;
    for (int i = 0; i < 64; i++) local[i] = mix(number * 64 + i);
    __atomic_add_fetch(&here, 1, __ATOMIC_SEQ_CST);
    while (turn == 0) call(SYS_futex, (long)&turn, FUTEX_WAIT, 0, 0, 0);
    for (int i = 0; i < 64; i++)
        if (local[i] != mix(number * 64 + i)) call(SYS_exit_group, 99, 0, 0, 0, 0);
    answers[number] = mix(turn + number);
    if (number == 0) {
        struct kernel_action action = {.handler = nothing};
        call(SYS_rt_sigaction, SIGUSR1, (long)&action, 0, 8, 0);
        call(SYS_dup2, 80, 81, 0, 0, 0);
        call(SYS_umask, 055, 0, 0, 0, 0);
        // Memory that only this process maps is everybody's.
        long page = call(SYS_mmap, 0x10000000, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1);
        if (page > 0) *(volatile uint64_t *)page = 4711;
    }
    call(SYS_exit_group, 5 + number, 0, 0, 0, 0);
    return 0;
}

int main(int argc, char **argv) {
    CHECK(argc > 1);
    const char *kind = argv[1];
    bool all = !strcmp(kind, "all"), sighand = all || !strcmp(kind, "sighand"), clear = !strcmp(kind, "cleartid");
    int flags = CLONE_VM | SIGCHLD | (sighand ? CLONE_SIGHAND : 0) | (all ? CLONE_FILES | CLONE_FS : 0);
    if (clear) flags |= CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID;
    int fd = open("/dev/zero", O_RDONLY);
    CHECK(fd >= 0 && dup2(fd, 80) == 80 && close(fd) == 0);
    umask(027);
    uint64_t *memory = map(64 * PAGE, PROT_READ | PROT_WRITE);
    fill(memory, 64 * PAGE, 9);
    pid_t pids[2];
    char *stacks[2];
    for (long i = 0; i < 2; i++) {
        stacks[i] = map(STACK, PROT_READ | PROT_WRITE);
        pids[i] = clone(child, stacks[i] + STACK, flags, (void *)i, NULL, NULL, &tid_word);
        CHECK(pids[i] > 0);
        UNTIL(here == (uint32_t)i + 1);
    }
    snprintf(fresh, sizeof fresh, "written by the root");
    ready();
    wait_go();
    verify(memory, 64 * PAGE, 9);
    int before = tid_word;
    EQ(before, clear ? pids[1] : 0);
    turn = 3;
    CHECK(syscall(SYS_futex, &turn, FUTEX_WAKE, 10, NULL, NULL, 0) == 2);
    reap(pids[0], EXITED(5));
    reap(pids[1], EXITED(6));
    for (int i = 0; i < 2; i++) EQ(answers[i], mix(3 + i));
    EQ(tid_word, 0);
    EQ(*(volatile uint64_t *)0x10000000, 4711);
    struct sigaction action;
    CHECK(sigaction(SIGUSR1, NULL, &action) == 0);
    EQ(action.sa_handler == nothing, sighand);
    EQ(fcntl(81, F_GETFD), all ? 0 : -1);
    EQ(umask(0), all ? 055 : 027);
    no_children();
    return ok();
}
