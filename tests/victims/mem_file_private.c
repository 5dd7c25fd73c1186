// Private file mappings: clean pages are the file's, dirty ones are ours, also in the last, partial
// page, at an offset, read-only and executable.
#include "maps.h"

#define LEN (10 * PAGE + 100)

int main(void) {
    static char content[LEN + 4];
    fill(content, LEN, 1);
    int fd = open(in_dir("mapped"), O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(write(fd, content, LEN) == LEN);
    char *rw = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    char *ro = mmap(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE, fd, 3 * PAGE);
    char *was_rw = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, PAGE);
    char *none = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(rw != MAP_FAILED && ro != MAP_FAILED && was_rw != MAP_FAILED && none != MAP_FAILED);
    close(fd);
    fill(rw + 2 * PAGE, PAGE, 2);
    fill(rw + 5 * PAGE, 2 * PAGE, 5);
    rw[LEN + 10] = 'x'; // behind the end of the file, in its last page
    fill(was_rw + PAGE, PAGE, 7);
    CHECK(mprotect(was_rw, 4 * PAGE, PROT_READ) == 0);
    none[0] = 'n';
    CHECK(mprotect(none, 2 * PAGE, PROT_NONE) == 0);
    maps_save();
    ready();
    wait_go();
    maps_check();
    EQ(memcmp(rw, content, 2 * PAGE), 0);
    verify(rw + 2 * PAGE, PAGE, 2);
    EQ(memcmp(rw + 3 * PAGE, content + 3 * PAGE, 2 * PAGE), 0);
    verify(rw + 5 * PAGE, 2 * PAGE, 5);
    EQ(memcmp(rw + 7 * PAGE, content + 7 * PAGE, LEN - 7 * PAGE), 0);
    EQ(rw[LEN + 10], 'x');
    EQ(rw[LEN + 11], 0);
    EQ(memcmp(ro, content + 3 * PAGE, 4 * PAGE), 0);
    EQ(memcmp(was_rw, content + PAGE, PAGE), 0);
    verify(was_rw + PAGE, PAGE, 7);
    EQ(memcmp(was_rw + 2 * PAGE, content + 3 * PAGE, 2 * PAGE), 0);
    CHECK(mprotect(none, 2 * PAGE, PROT_READ) == 0);
    EQ(none[0], 'n');
    EQ(memcmp(none + 1, content + 1, 2 * PAGE - 1), 0);
    // DONTNEED of a private file mapping gives the file again.
    CHECK(madvise(rw + 2 * PAGE, PAGE, MADV_DONTNEED) == 0);
    EQ(memcmp(rw + 2 * PAGE, content + 2 * PAGE, PAGE), 0);
    fill(rw, PAGE, 9);
    char on_disk[8];
    fd = open(in_dir("mapped"), O_RDONLY);
    CHECK(read(fd, on_disk, 8) == 8);
    EQ(memcmp(on_disk, content, 8), 0);
    return ok();
}
