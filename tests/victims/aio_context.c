// AIO contexts (io_setup): used, with events that were taken and some that wait; a second one, of another
// size, with the id of a destroyed one before it.
#include "victim.h"
#include <linux/aio_abi.h>

struct ring {
    unsigned id, nr, head, tail, magic, rest[3];
    struct io_event events[];
};

static char buffer[PAGE];

static long submit(aio_context_t context, int fd, uint64_t data, size_t len) {
    struct iocb request = {.aio_data = data, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = fd,
                           .aio_buf = (uint64_t)buffer, .aio_nbytes = len};
    struct iocb *list[1] = {&request};
    return syscall(SYS_io_submit, context, 1, list);
}

static void one(aio_context_t context, uint64_t data, int64_t result) {
    struct io_event event = {0};
    struct timespec soon = {10, 0};
    EQ(syscall(SYS_io_getevents, context, 1, 1, &event, &soon), 1);
    EQ(event.data, data);
    EQ(event.res, result);
}

int main(void) {
    aio_context_t gone = 0, first = 0, second = 0, fresh = 0;
    if (syscall(SYS_io_setup, 10, &gone)) skip("no AIO here: %s", strerror(errno));
    CHECK(syscall(SYS_io_setup, 300, &first) == 0);
    CHECK(syscall(SYS_io_setup, 1000, &second) == 0);
    CHECK(syscall(SYS_io_destroy, gone) == 0);
    int fd = open(in_dir("data"), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    CHECK(fd >= 0 && ftruncate(fd, PAGE) == 0);
    struct ring *ring = (void *)first, before;
    // Round, so that what waits goes over the end.
    unsigned taken = ring->nr * 2 - 5;
    for (unsigned i = 0; i < taken; i++) {
        EQ(submit(first, fd, i, 1), 1);
        one(first, i, 1);
    }
    for (int i = 0; i < 9; i++) EQ(submit(first, fd, 1000 + i, 10 + i), 1);
    before = *ring;
    CHECK(before.tail < before.head);
    unsigned id = ((struct ring *)second)->id;
    ready();
    wait_go();
    EQ(ring->id, before.id);
    EQ(ring->nr, before.nr);
    EQ(ring->head, before.head);
    EQ(ring->tail, before.tail);
    EQ(((struct ring *)second)->id, id);
    for (int i = 0; i < 9; i++) one(first, 1000 + i, 10 + i);
    EQ(ring->head, ring->tail);
    // As many can be in it as before.
    for (unsigned i = 0; i < ring->nr * 3; i++) {
        EQ(submit(first, fd, i, 2), 1);
        one(first, i, 2);
    }
    EQ(submit(second, fd, 77, 3), 1);
    one(second, 77, 3);
    CHECK(syscall(SYS_io_setup, 10, &fresh) == 0);
    EQ(((struct ring *)fresh)->id, 0);
    CHECK(syscall(SYS_io_destroy, first) == 0 && syscall(SYS_io_destroy, second) == 0);
    CHECK(submit(first, fd, 0, 1) == -1 && errno == EINVAL);
    return ok();
}
