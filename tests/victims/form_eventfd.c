// eventfd: as a counter, in all forms.
#include "forms.h"
#include <sys/eventfd.h>

static int make(void) {
    int fd = eventfd(5, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t more = 1ull << 40;
    CHECK(write(fd, &more, 8) == 8);
    return fd;
}

static void check(int fd) {
    uint64_t value;
    CHECK(read(fd, &value, 8) == 8);
    EQ(value, 5 + (1ull << 40));
    CHECK(read(fd, &value, 8) == -1 && errno == EAGAIN);
}

int main(int argc, char **argv) {
    return forms(argc, argv, &(struct kind){make, check, EPOLLIN | EPOLLOUT, false});
}
