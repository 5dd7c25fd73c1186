// Nothing of the program changes by a checkpoint: once IMAGE [subreaper]
#include "self.h"

static volatile sig_atomic_t chld, alarms;

static void on_chld(int s) { (void)s, chld++; }
static void on_alarm(int s) { (void)s, alarms++; }

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    CHECK(argc >= 2);
    int subreaper = argc > 2 && !strcmp(argv[2], "subreaper");
    if (subreaper) CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    sigaction(SIGCHLD, &(struct sigaction){.sa_handler = on_chld}, NULL);
    // Comes all the time: blocked during the checkpoint, or not delivered to a thread of the program meanwhile.
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm, .sa_flags = SA_RESTART}, NULL);
    struct itimerval often = {{0, 2000}, {0, 2000}};
    CHECK(!setitimer(ITIMER_REAL, &often, NULL));
    sigset_t mask, now;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR2);
    sigaddset(&mask, SIGTERM);
    CHECK(!sigprocmask(SIG_SETMASK, &mask, NULL));
    CHECK(!raise(SIGUSR2));
    sigprocmask(SIG_SETMASK, NULL, &mask);

    char *heap = malloc(1 << 20), stack[5000];
    memset(heap, 7, 1 << 20);
    memset(stack, 9, sizeof stack);
    const char *before = descriptors();
    uint64_t id = 99;
    errno = 0;
    int result = ckpt_checkpoint(argv[1], NULL, &id);
    CHECK(result == CKPT_SAVED || result == CKPT_RESTORED);
    CHECK(id == 1);
    CHECK(!strcmp(before, descriptors()));
    sigprocmask(SIG_SETMASK, NULL, &now);
    CHECK(!memcmp(&mask, &now, 8));
    sigset_t pending;
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGUSR2));
    int since = alarms;
    while (alarms < since + 3) pause();
    CHECK(chld == 0);
    CHECK(is_childless());
    int is = 0;
    CHECK(!prctl(PR_GET_CHILD_SUBREAPER, &is) && is == subreaper);
    for (int i = 0; i < 1 << 20; i++) CHECK(heap[i] == 7);
    for (size_t i = 0; i < sizeof stack; i++) CHECK(stack[i] == 9);
    printf("%s %d\n", word(result), (int)id);
    return 0;
}
