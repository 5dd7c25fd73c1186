// /dev files, above 2 so that they are not stdio.
#include "victim.h"

int main(void) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), zero = open("/dev/zero", O_RDONLY);
    int random = open("/dev/urandom", O_RDONLY), full = open("/dev/full", O_WRONLY);
    int proc = open("/proc/self/status", O_RDONLY);
    CHECK(null >= 0 && zero >= 0 && random >= 0 && full >= 0 && proc >= 0);
    char *mapped = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0);
    CHECK(mapped != MAP_FAILED);
    fill(mapped, PAGE, 1);
    close(proc);
    ready();
    wait_go();
    char c = 1;
    EQ(read(null, &c, 1), 0);
    EQ(write(null, "x", 1), 1);
    EQ(fcntl(null, F_GETFD), FD_CLOEXEC);
    CHECK(read(zero, &c, 1) == 1 && c == 0);
    CHECK(read(random, &c, 1) == 1);
    CHECK(write(full, "x", 1) == -1 && errno == ENOSPC);
    verify(mapped, PAGE, 1);
    verify_zero(mapped + PAGE, 3 * PAGE);
    return ok();
}
