// One process that leads a session on a terminal that it provides itself: Ctrl-C comes from its own hand.
#include "victim.h"
#include <sys/ioctl.h>
#include <termios.h>

static volatile int interrupts;

static void on_signal(int sig) {
    (void)sig;
    interrupts++;
}

int main(void) {
    int unlock = 0, number;
    char name[40];
    // The leader of a group cannot start a session; the test waits for who says ready.
    if (getpid() == getpgid(0) && getpid() != getsid(0) && setpgid(0, getpgid(getppid())))
        skip("cannot leave the process group: %s", strerror(errno));
    if (getpid() != getsid(0)) CHECK(setsid() == getpid());
    int m = open("/dev/ptmx", O_RDWR | O_NOCTTY);
    CHECK(m >= 0 && ioctl(m, TIOCSPTLCK, &unlock) == 0 && ioctl(m, TIOCGPTN, &number) == 0);
    snprintf(name, sizeof name, "/dev/pts/%d", number);
    int s = open(name, O_RDWR);
    CHECK(s >= 0 && tcgetsid(s) == getpid());
    int tty = open("/dev/tty", O_RDWR);
    CHECK(tty >= 0);
    signal(SIGINT, on_signal);
    ready();
    wait_go();
    EQ(tcgetsid(s), getsid(0));
    EQ(getsid(0), getpid());
    EQ(tcgetpgrp(tty), getpgid(0));
    CHECK(write(m, "\3", 1) == 1);
    for (int i = 0; !interrupts; i++) {
        if (i > 10000) fail("no interrupt within 10 s");
        sleep_ms(1);
    }
    int again = open("/dev/tty", O_RDWR);
    struct stat a, b;
    CHECK(again >= 0 && fstat(again, &a) == 0 && fstat(tty, &b) == 0);
    EQ(a.st_rdev, b.st_rdev);
    return ok();
}
