// Attributes that few programs set. What is left of them is compared from outside (suite "exact").
#include "victim.h"

int main(void) {
    int fd = open("/proc/self/coredump_filter", O_WRONLY);
    CHECK(fd >= 0 && write(fd, "0x7f", 4) == 4);
    close(fd);
    (void)prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0); // where permitted
    CHECK(mlockall(MCL_CURRENT) == 0 || errno == ENOMEM || errno == EPERM);
    // A name, where the kernel gives names to memory (CONFIG_ANON_VMA_NAME).
    char *named = map(3 * PAGE, PROT_READ | PROT_WRITE);
    (void)prctl(0x53564d41, 0, named, 3 * PAGE, "a name");
    fill(named, 3 * PAGE, 1);
    ready();
    wait_go();
    verify(named, 3 * PAGE, 1);
    return ok();
}
