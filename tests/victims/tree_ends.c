// tree_ends HOW [odd|file]: a tree that the root ends as HOW says (see ends.c): two children, a grandchild, and
// one more in a session of its own. "odd": the grandchild has what cannot be saved; "file": it has a file open
// ("precious").
#include "tree.h"
#include <linux/perf_event.h>

static volatile sig_atomic_t seen[65];

// Files signal-N of the root, signal-N-child of a child.
static const char *suffix = "";

static void on_signal(int sig) {
    seen[sig] = 1;
}

static void tell_signals(void) {
    for (int sig = 1; sig <= 64; sig++) {
        if (!seen[sig]) continue;
        char name[40];
        seen[sig] = 0;
        snprintf(name, sizeof name, "signal-%d%s", sig, suffix);
        put(name, "");
    }
}

// Blocked until it is told.
static void *teller(void *arg) {
    for (;;) {
        tell_signals();
        sleep_ms(2);
    }
    return arg;
}

static void listen_to(const char *who) {
    suffix = who;
    int signals[] = {SIGUSR1, SIGTERM, SIGINT, SIGHUP, SIGWINCH};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) CHECK(sigaction(signals[i], &action, NULL) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, teller, NULL) == 0);
}

static void nothing_else(void) {
    for (int i = 0; i < 120; i++) sleep_ms(1000);
    _exit(1);
}

static void grandchild(const char *what) {
    char name[64];
    // It is found by this name.
    prctl(PR_SET_NAME, "grandchild");
    if (!strcmp(what, "odd")) {
        struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_TASK_CLOCK};
        attr.exclude_kernel = 1;
        int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
        if (fd < 0) skip("no perf events: %s", strerror(errno));
        CHECK(dup2(fd, 43) == 43 && close(fd) == 0);
    } else if (!strcmp(what, "file")) {
        put("precious", "needed");
        CHECK(open(in_dir("precious"), O_RDONLY) >= 0);
    }
    snprintf(name, sizeof name, "%d", getpid());
    put("grandchild", name);
    prepared();
    nothing_else();
}

int main(int argc, char **argv) {
    CHECK(argc > 1);
    const char *how = argv[1], *what = argc > 2 ? argv[2] : "";
    bool listens = !strcmp(how, "signals");
    tree_begin();
    pid_t one = forked();
    if (one == 0) {
        if (forked() == 0) grandchild(what);
        if (listens) listen_to("-child");
        prepared();
        nothing_else();
    }
    pid_t two = forked();
    if (two == 0) {
        CHECK(setsid() > 0);
        prepared();
        nothing_else();
    }
    wait_prepared(3);
    if (listens) listen_to("");
    ready();
    wait_go();
    // The grandchild first: it is nobody's afterwards.
    char text[20] = "";
    int fd = open(in_dir("grandchild"), O_RDONLY);
    CHECK(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
    CHECK(kill(atoi(text), SIGKILL) == 0 && kill(one, SIGKILL) == 0 && kill(two, SIGKILL) == 0);
    reap(one, SIGKILL);
    reap(two, SIGKILL);
    put("result", "ok");
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    if (!strcmp(how, "exit")) return 7;
    if (!strcmp(how, "signals")) return 0;
    int sig = !strcmp(how, "term") ? SIGTERM : !strcmp(how, "segv") ? SIGSEGV : !strcmp(how, "kill") ? SIGKILL : SIGABRT;
    signal(sig, SIG_DFL);
    raise(sig);
    return 1;
}
