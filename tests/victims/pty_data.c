// What nobody has read of a terminal's output is neither lost, nor doubled, nor changed: little of it, in
// packet mode, of a slave that is closed by now, and as much as there is room for, with a writer who waits.
#include "tree.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

struct pair {
    int master, slave;
};

static struct pair pair(void) {
    struct pair p;
    int unlock = 0, number;
    char name[40];
    p.master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(p.master >= 0 && ioctl(p.master, TIOCSPTLCK, &unlock) == 0);
    CHECK(ioctl(p.master, TIOCGPTN, &number) == 0);
    snprintf(name, sizeof name, "/dev/pts/%d", number);
    p.slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(p.slave >= 0);
    return p;
}

static void say(int fd, const char *text) {
    EQ(write(fd, text, strlen(text)), strlen(text));
}

// Reads, and tells what is missing.
static void hear(int fd, const char *text, size_t len) {
    char got[200];
    size_t n = 0;
    while (n < len) {
        ssize_t r = read(fd, got + n, sizeof got - n);
        CHECK(r > 0);
        n += (size_t)r;
    }
    if (n != len || memcmp(got, text, n)) fail("'%.*s' instead of '%s'", (int)n, got, text);
}

#define LINES 3000

int main(void) {
    int on = 1;
    tree_begin();
    struct pair small = pair(), packets = pair(), closed = pair(), flood = pair();
    say(small.slave, "one\ntwo\tthree\n\x13\x11\x03 four");
    CHECK(ioctl(packets.master, TIOCPKT, &on) == 0);
    say(packets.slave, "packet\n");
    say(closed.slave, "last words\n");
    close(closed.slave);
    if (forked() == 0) {
        char line[20];
        close(flood.master);
        prepared();
        for (int i = 0; i < LINES; i++) {
            snprintf(line, sizeof line, "%08d\n", i);
            for (size_t n = 0; n < 9;) {
                ssize_t w = write(flood.slave, line + n, 9 - n);
                if (w < 0 && errno != EINTR) fail("write: %s", strerror(errno));
                if (w > 0) n += (size_t)w;
            }
        }
        _exit(7);
    }
    close(flood.slave);
    wait_prepared(1);
    // Until it waits.
    for (int before = -1, now = 0; now != before || now < 1000; sleep_ms(20)) {
        before = now;
        CHECK(ioctl(flood.master, FIONREAD, &now) == 0);
    }
    ready();
    wait_go();
    hear(small.master, "one\r\ntwo\tthree\r\n\x13\x11\x03 four", 24);
    hear(packets.master, "\0packet\r\n", 9);
    hear(closed.master, "last words\r\n", 12);
    char c;
    CHECK(read(closed.master, &c, 1) == -1 && errno == EIO);
    struct termios t;
    CHECK(tcgetattr(small.slave, &t) == 0 && (t.c_oflag & OPOST) && (t.c_iflag & IXON));
    for (int i = 0; i < LINES; i++) {
        char line[20], got[20] = "";
        snprintf(line, sizeof line, "%08d\r\n", i);
        for (int n = 0; n < 10; n++) CHECK(read(flood.master, got + n, 1) == 1);
        if (strcmp(line, got)) fail("line %d is '%s'", i, got);
    }
    int status;
    CHECK(wait(&status) > 0);
    EQ(status, EXITED(7));
    CHECK(read(flood.master, &c, 1) == -1 && errno == EIO);
    return ok();
}
