// Input that nobody has read yet, in the terminal of a child.
#include "tree.h"
#include <sys/ioctl.h>

int main(void) {
    int unlock = 0, number, waiting = 0;
    char name[40], got[20];
    tree_begin();
    int m = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(m >= 0 && ioctl(m, TIOCSPTLCK, &unlock) == 0 && ioctl(m, TIOCGPTN, &number) == 0);
    snprintf(name, sizeof name, "/dev/pts/%d", number);
    pid_t child = forked();
    if (child == 0) {
        close(m);
        CHECK(setsid() == getpid() && open(name, O_RDWR) >= 0);
        prepared();
        await_go();
        _exit(3);
    }
    wait_prepared(1);
    CHECK(write(m, "typed\n", 6) == 6);
    int s = open(name, O_RDWR | O_NOCTTY);
    while (ioctl(s, FIONREAD, &waiting) == 0 && waiting < 6) sleep_ms(1);
    close(s);
    // The echo.
    CHECK(read(m, got, sizeof got) == 7);
    ready();
    wait_go();
    reap(child, EXITED(3));
    return ok();
}
