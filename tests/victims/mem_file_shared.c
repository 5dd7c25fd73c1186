// A shared file mapping writes to the file, before and after; two mappings see each other.
#include "maps.h"

int main(void) {
    int fd = open(in_dir("shared"), O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(ftruncate(fd, 16 * PAGE) == 0);
    char *a = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *b = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, fd, 4 * PAGE);
    CHECK(a != MAP_FAILED && b != MAP_FAILED);
    close(fd);
    fill(a, 8 * PAGE, 1);
    maps_save();
    ready();
    wait_go();
    maps_check();
    verify(a, 8 * PAGE, 1);
    verify_zero(a + 8 * PAGE, 8 * PAGE);
    fill(a + 5 * PAGE, PAGE, 77);
    verify(b + PAGE, PAGE, 77);
    static char content[PAGE];
    fd = open(in_dir("shared"), O_RDWR);
    CHECK(pread(fd, content, PAGE, 5 * PAGE) == PAGE);
    verify(content, PAGE, 77);
    CHECK(pwrite(fd, "hello", 6, 0) == 6);
    EQ(strcmp(a, "hello"), 0);
    return ok();
}
