// thr_many, with handlers for all signals that a program could ignore: none is left by which a thread could
// tell ckpt-dump that it is done.
#define main thr_many_main
#include "thr_many.c"
#undef main

static void catch (int sig) {
    fail("signal %d was caught", sig);
}

int main(int argc, char **argv) {
    for (int sig = 1; sig < 32; sig++) {
        struct sigaction a = {.sa_handler = catch, .sa_flags = SA_RESTART};
        // Not SIGKILL and SIGSTOP.
        sigaction(sig, &a, NULL);
    }
    return thr_many_main(argc, argv);
}
