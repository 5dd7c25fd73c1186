// Not dumpable (PR_SET_DUMPABLE 0): only root may dump it, and it stays so.
#include "victim.h"

int main(void) {
    CHECK(prctl(PR_SET_DUMPABLE, 0) == 0);
    ready();
    wait_go();
    EQ(prctl(PR_GET_DUMPABLE), 0);
    return ok();
}
