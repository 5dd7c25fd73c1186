// Files deleted while open: contents with holes, shared by two opens, with another hard link.
#include "victim.h"

#define BIG (8ul << 20)
static char buffer[4 * PAGE];

static void expect(int fd, uint64_t seed, off_t at) {
    CHECK(pread(fd, buffer, PAGE, at) == (ssize_t)PAGE);
    verify(buffer, PAGE, seed);
}

int main(void) {
    int a = open(in_dir("gone"), O_RDWR | O_CREAT | O_TRUNC, 0640);
    int b = open(in_dir("gone"), O_RDONLY);
    CHECK(a >= 0 && b >= 0);
    fill(buffer, PAGE, 1);
    CHECK(pwrite(a, buffer, PAGE, 0) == (ssize_t)PAGE);
    fill(buffer, PAGE, 2);
    CHECK(pwrite(a, buffer, PAGE, BIG) == (ssize_t)PAGE);
    CHECK(ftruncate(a, 2 * BIG + 123) == 0);
    CHECK(lseek(a, 77, SEEK_SET) == 77);
    char *mapped = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, a, 0);
    CHECK(mapped != MAP_FAILED && unlink(in_dir("gone")) == 0);

    int empty = open(in_dir("empty"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(empty >= 0 && unlink(in_dir("empty")) == 0);
    int tmp = open(in_dir("."), O_RDWR | O_TMPFILE, 0600);
    CHECK(tmp >= 0 && write(tmp, "temporary", 9) == 9);
    ready();
    wait_go();
    struct stat s, t;
    CHECK(fstat(a, &s) == 0 && fstat(b, &t) == 0);
    EQ(s.st_size, 2 * BIG + 123);
    EQ(s.st_nlink, 0);
    EQ(s.st_ino, t.st_ino);
    EQ(s.st_mode & 07777, 0640);
    CHECK(s.st_blocks * 512 < (long)BIG);
    EQ(lseek(a, 0, SEEK_CUR), 77);
    EQ(lseek(b, 0, SEEK_CUR), 0);
    expect(b, 1, 0);
    expect(b, 2, BIG);
    CHECK(pread(b, buffer, PAGE, 3 * PAGE) == (ssize_t)PAGE);
    verify_zero(buffer, PAGE);
    verify(mapped, PAGE, 1);
    mapped[PAGE] = 'm';
    CHECK(pread(b, buffer, 1, PAGE) == 1);
    EQ(buffer[0], 'm');
    CHECK(fstat(empty, &s) == 0);
    EQ(s.st_size, 0);
    CHECK(write(empty, "x", 1) == 1);
    CHECK(pread(tmp, buffer, 10, 0) == 9 && !memcmp(buffer, "temporary", 9));
    EQ(lseek(tmp, 0, SEEK_CUR), 9);
    CHECK(access(in_dir("gone"), F_OK) == -1 && access(in_dir("empty"), F_OK) == -1);
    return ok();
}
