// Regular files: offset, flags, O_APPEND, CLOEXEC, owner and signal, shared descriptions, numbers.
#include "victim.h"

static int high(int fd, int number) {
    CHECK(dup2(fd, number) == number);
    close(fd);
    return number;
}

int main(void) {
    int rw = open(in_dir("a"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    CHECK(write(rw, "0123456789", 10) == 10 && lseek(rw, 4, SEEK_SET) == 4);
    int append = open(in_dir("a"), O_WRONLY | O_APPEND | O_NONBLOCK | O_NOATIME);
    int same = dup(rw);
    int other = open(in_dir("a"), O_RDONLY);
    int far = high(open(in_dir("a"), O_RDONLY), 200);
    int sync = open(in_dir("a"), O_WRONLY | O_DSYNC);
    int path = open(in_dir("a"), O_PATH);
    CHECK(append >= 0 && other >= 0 && sync >= 0 && path >= 0);
    CHECK(fcntl(other, F_SETOWN, getpid()) == 0 && fcntl(other, F_SETSIG, SIGRTMIN + 2) == 0);
    CHECK(lseek(far, 1000000, SEEK_SET) == 1000000);
    int flags[5] = {fcntl(rw, F_GETFL), fcntl(append, F_GETFL), fcntl(other, F_GETFL), fcntl(sync, F_GETFL), fcntl(path, F_GETFL)};
    CHECK(flags[0] >= 0 && flags[4] >= 0);
    ready();
    wait_go();
    EQ(lseek(rw, 0, SEEK_CUR), 4);
    EQ(lseek(same, 0, SEEK_CUR), 4);
    EQ(lseek(other, 0, SEEK_CUR), 0);
    EQ(lseek(far, 0, SEEK_CUR), 1000000);
    EQ(fcntl(rw, F_GETFD), FD_CLOEXEC);
    EQ(fcntl(same, F_GETFD), 0);
    EQ(fcntl(rw, F_GETFL), flags[0]);
    EQ(fcntl(append, F_GETFL), flags[1]);
    EQ(fcntl(other, F_GETFL), flags[2]);
    EQ(fcntl(sync, F_GETFL), flags[3]);
    EQ(fcntl(path, F_GETFL), flags[4]);
    EQ(fcntl(other, F_GETOWN), getpid());
    EQ(fcntl(other, F_GETSIG), SIGRTMIN + 2);
    char c;
    CHECK(read(rw, &c, 1) == 1 && c == '4');
    EQ(lseek(same, 0, SEEK_CUR), 5);
    CHECK(write(append, "A", 1) == 1);
    CHECK(pread(other, &c, 1, 10) == 1 && c == 'A');
    CHECK(read(path, &c, 1) == -1 && errno == EBADF);
    struct stat s;
    CHECK(fstat(path, &s) == 0 && s.st_size == 11);
    for (int fd = 3; fd < 300; fd++) {
        bool ours = fd == rw || fd == append || fd == same || fd == other || fd == far || fd == sync || fd == path;
        if ((fcntl(fd, F_GETFD) >= 0) != ours) fail("descriptor %d should %sbe open", fd, ours ? "" : "not ");
    }
    return ok();
}
