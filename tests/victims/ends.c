// ends HOW: ends by an exit status or a signal, or waits for signals of the test.
#include "victim.h"

static void on_signal(int sig) {
    char name[20];
    snprintf(name, sizeof name, "signal-%d", sig);
    put(name, "");
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "exit";
    struct rlimit no_core = {0, 0};
    CHECK(setrlimit(RLIMIT_CORE, &no_core) == 0);
    if (!strcmp(how, "signals")) {
        signal(SIGUSR1, on_signal);
        signal(SIGTERM, on_signal);
        signal(SIGINT, on_signal);
        signal(SIGHUP, on_signal);
    }
    ready();
    wait_go();
    put("result", "ok");
    if (!strcmp(how, "exit")) return 7;
    if (!strcmp(how, "125")) return 3;
    if (!strcmp(how, "term")) raise(SIGTERM);
    if (!strcmp(how, "segv")) *(volatile int *)8 = 1;
    if (!strcmp(how, "kill")) kill(getpid(), SIGKILL);
    if (!strcmp(how, "abort")) abort();
    return 0;
}
