// eventfd as a semaphore, in all forms; others that are full, or empty.
#include "forms.h"
#include <sys/eventfd.h>

static int full, empty;

static int make(void) {
    uint64_t most = UINT64_MAX - 1;
    full = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    empty = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
    CHECK(write(full, &most, 8) == 8 && empty >= 0);
    return eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
}

static void check(int fd) {
    uint64_t value, one = 1;
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(read(fd, &value, 8) == 8);
        EQ(value, 1);
    }
    CHECK(read(fd, &value, 8) == -1 && errno == EAGAIN);
    CHECK(write(full, &one, 8) == -1 && errno == EAGAIN);
    CHECK(read(full, &value, 8) == 8);
    EQ(value, UINT64_MAX - 1);
    CHECK(read(empty, &value, 8) == -1 && errno == EAGAIN);
}

int main(int argc, char **argv) {
    return forms(argc, argv, &(struct kind){make, check, EPOLLIN | EPOLLOUT, false});
}
