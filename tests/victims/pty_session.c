// A terminal as expect and sshd use it: the parent has the master, a child leads a session on the slave with
// a foreground and a background group, and a third process in it has no descriptor but /dev/tty.
#include "tree.h"
#include <sys/ioctl.h>
#include <termios.h>

static volatile int interrupts, resizes, hups;

static void on_signal(int sig) {
    if (sig == SIGINT) interrupts++;
    if (sig == SIGWINCH) resizes++;
    if (sig == SIGHUP) hups++;
}

static void handle(int sig) {
    struct sigaction a = {.sa_handler = on_signal};
    CHECK(sigaction(sig, &a, NULL) == 0);
}

#define UNTIL_TRUE(e) \
    do { \
        for (int i_ = 0; !(e); i_++) { \
            if (i_ > 10000) fail("%s:%d: not within 10 s: %s", __FILE__, __LINE__, #e); \
            sleep_ms(1); \
        } \
    } while (0)

static void say(const char *text) {
    CHECK(write(1, text, strlen(text)) == (ssize_t)strlen(text));
}

static void close_but(int keep) {
    for (int fd = 0; fd < 30; fd++)
        if (fd != keep && fd != prepared_pipe[0] && fd != prepared_pipe[1]) close(fd);
}

// In the foreground: gets Ctrl-C and the change of size, reads a line.
static void foreground(pid_t sid) {
    char line[100] = "";
    handle(SIGINT);
    handle(SIGWINCH);
    prepared();
    await_go();
    EQ(getsid(0), sid);
    EQ(tcgetsid(0), sid);
    EQ(tcgetpgrp(0), getpid());
    EQ(interrupts, 0);
    say("foreground\n");
    UNTIL_TRUE(interrupts == 1);
    say("interrupted\n");
    UNTIL_TRUE(resizes == 1);
    struct winsize size;
    CHECK(ioctl(0, TIOCGWINSZ, &size) == 0);
    EQ(size.ws_row, 40);
    say("resized\n");
    ssize_t n;
    while ((n = read(0, line, sizeof line - 1)) < 0 && errno == EINTR) {
    }
    CHECK(n > 0 && !strcmp(line, "a line\n"));
    _exit(4);
}

// In the background: no signal; has /dev/tty only.
static void background(pid_t sid) {
    int tty = open("/dev/tty", O_RDWR);
    CHECK(tty >= 0);
    close_but(tty);
    handle(SIGINT);
    prepared();
    await_go();
    EQ(getsid(0), sid);
    EQ(tcgetsid(tty), sid);
    CHECK(tcgetpgrp(tty) != getpgid(0));
    struct stat st;
    CHECK(fstat(tty, &st) == 0);
    EQ(st.st_rdev, 5 << 8);
    int again = open("/dev/tty", O_RDWR);
    CHECK(again >= 0 && fstat(again, &st) == 0);
    UNTIL_TRUE(access(in_dir("interrupted"), F_OK) == 0);
    EQ(interrupts, 0);
    CHECK(write(tty, "background\n", 11) == 11);
    _exit(5);
}

static void leader(int master, const char *name) {
    CHECK(setsid() == getpid());
    close(master);
    int slave = open(name, O_RDWR);
    CHECK(slave > 2 && dup2(slave, 0) == 0 && dup2(slave, 1) == 1);
    close(slave);
    handle(SIGHUP);
    handle(SIGINT);
    pid_t front = forked();
    if (front == 0) {
        UNTIL_TRUE(getpgid(0) == getpid());
        foreground(getppid());
    }
    CHECK(setpgid(front, front) == 0);
    pid_t back = forked();
    if (back == 0) {
        UNTIL_TRUE(getpgid(0) == getpid());
        background(getppid());
    }
    CHECK(setpgid(back, back) == 0);
    signal(SIGTTOU, SIG_IGN);
    CHECK(tcsetpgrp(0, front) == 0);
    prepared();
    await_go();
    EQ(tcgetpgrp(0), front);
    reap(front, EXITED(4));
    reap(back, EXITED(5));
    CHECK(tcsetpgrp(0, getpid()) == 0);
    EQ(interrupts, 0);
    EQ(hups, 0);
    say("waiting\n");
    UNTIL_TRUE(hups == 1);
    _exit(6);
}

static int m;
static char seen[1000];

static void expect(const char *text) {
    size_t n = strlen(seen);
    while (!strstr(seen, text)) {
        ssize_t r = read(m, seen + n, sizeof seen - 1 - n);
        if (r <= 0) fail("the terminal shows '%s', not '%s': %s", seen, text, strerror(errno));
        seen[n += (size_t)r] = 0;
    }
}

int main(void) {
    int unlock = 0, number;
    char name[40];
    // The pipe of tree_begin() must not have a number below 3.
    tree_begin();
    m = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(m >= 0 && ioctl(m, TIOCSPTLCK, &unlock) == 0 && ioctl(m, TIOCGPTN, &number) == 0);
    struct winsize size = {30, 90, 0, 0};
    CHECK(ioctl(m, TIOCSWINSZ, &size) == 0);
    snprintf(name, sizeof name, "/dev/pts/%d", number);
    pid_t child = forked();
    if (child == 0) leader(m, name);
    wait_prepared(3);
    ready();
    wait_go();
    expect("foreground\r\n");
    CHECK(write(m, "\3", 1) == 1);
    expect("interrupted\r\n");
    put("interrupted", "");
    size.ws_row = 40;
    CHECK(ioctl(m, TIOCSWINSZ, &size) == 0);
    expect("resized\r\n");
    CHECK(write(m, "a line\n", 7) == 7);
    expect("background\r\n");
    expect("waiting\r\n");
    // The end of the terminal ends the session.
    close(m);
    reap(child, EXITED(6));
    no_children();
    return ok();
}
