// memfds: mapped shared and private, with a descriptor and without, with seals, offset and name.
#include "maps.h"

#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_GET_SEALS 1034
#endif

int main(void) {
    int fd = memfd_create("mapped and open", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, 16 * PAGE) == 0);
    char *shared = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *private = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 4 * PAGE);
    CHECK(shared != MAP_FAILED && private != MAP_FAILED);
    fill(shared, 8 * PAGE, 1);
    fill(private, PAGE, 2);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    CHECK(lseek(fd, 123, SEEK_SET) == 123);

    int closed = memfd_create("mapped only", 0);
    CHECK(closed >= 0 && ftruncate(closed, 2 * PAGE) == 0);
    char *only = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, closed, 0);
    fill(only, PAGE, 3);
    close(closed);

    int sealed = memfd_create("sealed", MFD_ALLOW_SEALING);
    CHECK(sealed >= 0 && write(sealed, "constant", 8) == 8);
    CHECK(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
    int twin = dup(sealed);
    maps_save();
    ready();
    wait_go();
    maps_check();
    verify(shared, 8 * PAGE, 1);
    verify_zero(shared + 8 * PAGE, 8 * PAGE);
    verify(private, PAGE, 2);
    EQ(memcmp(private + PAGE, shared + 5 * PAGE, 3 * PAGE), 0);
    EQ(lseek(fd, 0, SEEK_CUR), 123);
    EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
    EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK(ftruncate(fd, PAGE) == -1 && errno == EPERM);
    CHECK(pwrite(fd, "through", 7, 9 * PAGE) == 7);
    EQ(memcmp(shared + 9 * PAGE, "through", 7), 0);
    verify(only, PAGE, 3);
    char text[9] = {0};
    EQ(lseek(twin, 0, SEEK_CUR), 8);
    CHECK(pread(sealed, text, 8, 0) == 8);
    EQ(strcmp(text, "constant"), 0);
    CHECK(write(sealed, "x", 1) == -1 && errno == EPERM);
    EQ(fcntl(twin, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    char link[200] = {0}, path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    CHECK(readlink(path, link, sizeof link - 1) > 0);
    EQ(strcmp(link, "/memfd:mapped and open (deleted)"), 0);
    return ok();
}
