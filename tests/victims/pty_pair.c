// Both ends of a pseudo-terminal in one process: modes, size, packet mode, exclusive use, lock, owner,
// shared descriptions; and a second one, whose slave has been closed, and a third that was never opened.
#include "victim.h"
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>

static int master(int *number) {
    int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(fd >= 0);
    int unlock = 0;
    CHECK(ioctl(fd, TIOCSPTLCK, &unlock) == 0 && ioctl(fd, TIOCGPTN, number) == 0);
    return fd;
}

static int events(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLPRI};
    CHECK(poll(&p, 1, 0) >= 0);
    return p.revents;
}

// What is written to `from` comes out of `to`.
static void passes(int from, const char *text, int to, const char *expected) {
    char got[200] = "";
    size_t n = 0, want = strlen(expected);
    EQ(write(from, text, strlen(text)), (ssize_t)strlen(text));
    while (n < want) {
        ssize_t r = read(to, got + n, sizeof got - n);
        CHECK(r > 0);
        n += (size_t)r;
    }
    if (n != want || memcmp(got, expected, n)) fail("'%s' came out as '%.*s'", text, (int)n, got);
}

int main(void) {
    int number, closed_number, fresh_number, on = 1, value;
    int m = master(&number);
    char name[40], link[40] = "", path[40];
    snprintf(name, sizeof name, "/dev/pts/%d", number);
    int s = open(name, O_RDWR | O_NOCTTY), reader = open(name, O_RDONLY | O_NOCTTY | O_NONBLOCK);
    CHECK(s >= 0 && reader >= 0);
    int same = dup(s), same_master = dup2(m, 200);
    CHECK(same >= 0 && same_master == 200);
    struct termios t, now;
    CHECK(tcgetattr(s, &t) == 0);
    t.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
    t.c_lflag |= ICANON;
    t.c_oflag |= OPOST | ONLCR;
    t.c_cc[VERASE] = 'x';
    t.c_cc[VEOF] = 7;
    cfsetispeed(&t, B9600);
    cfsetospeed(&t, B9600);
    CHECK(tcsetattr(s, TCSANOW, &t) == 0 && tcgetattr(s, &t) == 0);
    struct winsize size = {33, 77, 5, 6}, size_now;
    CHECK(ioctl(s, TIOCSWINSZ, &size) == 0);
    CHECK(fchmod(s, 0622) == 0);
    CHECK(ioctl(m, TIOCPKT, &on) == 0 && ioctl(s, TIOCEXCL) == 0);

    int closed = master(&closed_number);
    snprintf(path, sizeof path, "/dev/pts/%d", closed_number);
    close(open(path, O_RDWR | O_NOCTTY));
    CHECK(events(closed) & POLLHUP);
    int fresh = master(&fresh_number);
    CHECK(ioctl(fresh, TIOCSPTLCK, &on) == 0);
    EQ(events(fresh), 0);

    ready();
    wait_go();

    CHECK(ioctl(m, TIOCGPTN, &value) == 0);
    bool renamed = value != number && getenv("CKPT_RENAMED");
    if (value != number && !renamed) fail("pseudo-terminal %d is %d now", number, value);
    snprintf(name, sizeof name, "/dev/pts/%d", value);
    snprintf(path, sizeof path, "/proc/self/fd/%d", same);
    CHECK(readlink(path, link, sizeof link - 1) > 0);
    if (strcmp(link, name)) fail("the slave is %s, not %s", link, name);
    CHECK(tcgetattr(m, &now) == 0);
    CHECK(now.c_iflag == t.c_iflag && now.c_oflag == t.c_oflag && now.c_lflag == t.c_lflag);
    CHECK(now.c_cflag == t.c_cflag && !memcmp(now.c_cc, t.c_cc, sizeof t.c_cc));
    CHECK(cfgetospeed(&now) == B9600);
    CHECK(ioctl(m, TIOCGWINSZ, &size_now) == 0 && !memcmp(&size, &size_now, sizeof size));
    struct stat st;
    CHECK(fstat(s, &st) == 0);
    EQ(st.st_mode & 07777, 0622);
    EQ(st.st_uid, geteuid());
    CHECK(ioctl(m, TIOCGPKT, &value) == 0 && value == 1);
    CHECK(ioctl(s, TIOCGEXCL, &value) == 0 && value == 1);
    CHECK(ioctl(m, TIOCGEXCL, &value) == 0 && value == 0);
    CHECK(ioctl(m, TIOCGPTLCK, &value) == 0 && value == 0);
    // Dups share a description, a second open(2) does not.
    CHECK(fcntl(s, F_SETFL, O_NONBLOCK) == 0 && (fcntl(same, F_GETFL) & O_NONBLOCK));
    CHECK(fcntl(s, F_SETFL, 0) == 0);
    CHECK((fcntl(reader, F_GETFL) & (O_NONBLOCK | O_ACCMODE)) == (O_NONBLOCK | O_RDONLY));
    CHECK((fcntl(m, F_GETFD) & FD_CLOEXEC) && !(fcntl(200, F_GETFD) & FD_CLOEXEC));
    // Data, in both directions; packets from the master begin with a zero.
    CHECK(write(s, "one\n", 4) == 4);
    char got[20], line[20] = "";
    // It may come in several packets.
    for (size_t len = 0; len < 5;) {
        ssize_t n = read(same_master, got, sizeof got);
        CHECK(n > 1 && n < 7 && got[0] == 0 && len + (size_t)n <= 6);
        memcpy(line + len, got + 1, (size_t)n - 1);
        len += (size_t)n - 1;
    }
    CHECK(!strcmp(line, "one\r\n"));
    passes(m, "axb\n", s, "b\n");
    passes(m, "line\nrest", same, "line\n");
    CHECK(read(reader, got, 20) == -1 && errno == EAGAIN);
    passes(m, "\n", reader, "rest\n");

    CHECK(events(closed) & POLLHUP);
    CHECK(read(closed, got, 1) == -1 && errno == EIO);
    EQ(events(fresh), 0);
    CHECK(ioctl(fresh, TIOCGPTLCK, &value) == 0 && value == 1);
    CHECK(ioctl(fresh, TIOCGPTN, &value) == 0 && (renamed || value == fresh_number));
    value = 0;
    CHECK(ioctl(fresh, TIOCSPTLCK, &value) == 0 && ioctl(fresh, TIOCGPTN, &value) == 0);
    snprintf(path, sizeof path, "/dev/pts/%d", value);
    int opened = open(path, O_RDWR | O_NOCTTY);
    CHECK(opened >= 0);
    passes(fresh, "hello\n", opened, "hello\n");
    // The last close of the slave is seen by the master.
    close(s), close(same), close(reader);
    CHECK(events(m) & POLLHUP);
    return ok();
}
