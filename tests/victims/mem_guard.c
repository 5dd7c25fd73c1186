// Guard regions (Linux 6.13): no VMA of their own, and a fault when touched.
#include "maps.h"
#include <setjmp.h>

#define GUARD_INSTALL 102
#define GUARD_REMOVE 103

static sigjmp_buf back;
static void *faulted;

static void on_segv(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)context;
    faulted = info->si_addr;
    siglongjmp(back, 1);
}

static bool faults(volatile char *p) {
    faulted = NULL;
    if (sigsetjmp(back, 1) == 0) {
        (void)*p;
        return false;
    }
    return faulted == p;
}

int main(void) {
    char *p = map(32 * PAGE, PROT_READ | PROT_WRITE);
    fill(p, 32 * PAGE, 1);
    if (madvise(p + 4 * PAGE, 2 * PAGE, GUARD_INSTALL)) skip("this kernel has no MADV_GUARD_INSTALL");
    CHECK(madvise(p + 31 * PAGE, PAGE, GUARD_INSTALL) == 0);
    struct sigaction action = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
    CHECK(faults(p + 4 * PAGE));
    maps_save();
    ready();
    wait_go();
    maps_check();
    CHECK(!faults(p + 3 * PAGE));
    CHECK(faults(p + 4 * PAGE));
    CHECK(faults(p + 5 * PAGE + 7));
    CHECK(!faults(p + 6 * PAGE));
    CHECK(faults(p + 31 * PAGE));
    verify(p, 4 * PAGE, 1);
    CHECK(madvise(p + 4 * PAGE, 2 * PAGE, GUARD_REMOVE) == 0);
    verify_zero(p + 4 * PAGE, 2 * PAGE);
    return ok();
}
