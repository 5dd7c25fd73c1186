// memfd with contents and all seals, in all forms; others that cannot be sealed, that nobody may write to from
// now on but who has it mapped, and that cannot be executed.
#include "forms.h"
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif

#define SIZE (64 * PAGE)
#define ALL (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

static int plain, future, not_exec, not_exec_seals;
static mode_t modes[4];
static char *writable;

static mode_t mode_of(int fd) {
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    return st.st_mode;
}

static int filled(const char *name, unsigned flags, uint64_t seed) {
    static uint64_t page[PAGE / 8];
    int fd = memfd_create(name, flags | MFD_CLOEXEC);
    if (fd < 0) return fd;
    fill(page, PAGE, seed);
    // A hole before it.
    CHECK(pwrite(fd, page, PAGE, SIZE - PAGE) == PAGE);
    CHECK(lseek(fd, 4321, SEEK_SET) == 4321);
    return fd;
}

static int make(void) {
    plain = filled("plain", 0, 1);
    future = filled("future", MFD_ALLOW_SEALING, 2);
    writable = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, future, 0);
    CHECK(writable != MAP_FAILED && fcntl(future, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0);
    not_exec = filled("not exec", MFD_NOEXEC_SEAL, 3);
    if (not_exec >= 0) not_exec_seals = fcntl(not_exec, F_GET_SEALS);
    int fd = filled("a name, with blanks", MFD_ALLOW_SEALING, 4);
    CHECK(fcntl(fd, F_ADD_SEALS, ALL) == 0);
    int fds[4] = {plain, future, not_exec, fd};
    for (int i = 0; i < 4; i++) modes[i] = fds[i] < 0 ? 0 : mode_of(fds[i]);
    return fd;
}

static void contents(int fd, uint64_t seed) {
    uint64_t page[PAGE / 8];
    EQ(lseek(fd, 0, SEEK_CUR), 4321);
    EQ(lseek(fd, 0, SEEK_END), SIZE);
    CHECK(pread(fd, page, PAGE, SIZE - PAGE) == PAGE);
    verify(page, PAGE, seed);
    CHECK(pread(fd, page, PAGE, 0) == PAGE);
    verify_zero(page, PAGE);
}

static void check(int fd) {
    char link[200] = "", path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    CHECK(readlink(path, link, sizeof link - 1) > 0);
    if (strcmp(link, "/memfd:a name, with blanks (deleted)")) fail("the memfd is %s", link);
    EQ(fcntl(fd, F_GET_SEALS), ALL);
    contents(fd, 4);
    CHECK(pwrite(fd, "x", 1, 0) == -1 && errno == EPERM);
    CHECK(ftruncate(fd, 1) == -1 && errno == EPERM);
    CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    EQ(fcntl(plain, F_GET_SEALS), F_SEAL_SEAL);
    contents(plain, 1);
    CHECK(pwrite(plain, "x", 1, 0) == 1);
    EQ(fcntl(future, F_GET_SEALS), F_SEAL_FUTURE_WRITE);
    contents(future, 2);
    CHECK(pwrite(future, "x", 1, 0) == -1 && errno == EPERM);
    writable[0] = 'w';
    char c;
    CHECK(pread(future, &c, 1, 0) == 1 && c == 'w');
    if (not_exec >= 0) {
        EQ(fcntl(not_exec, F_GET_SEALS), not_exec_seals);
        CHECK(fchmod(not_exec, 0777) == -1 && errno == EPERM);
        contents(not_exec, 3);
    }
    int fds[4] = {plain, future, not_exec, fd};
    for (int i = 0; i < 4; i++)
        if (fds[i] >= 0) EQ(mode_of(fds[i]), modes[i]);
}

int main(int argc, char **argv) {
    return forms(argc, argv, &(struct kind){make, check, NOT_POLLABLE, false});
}
