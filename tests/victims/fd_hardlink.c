// The name it was opened by is gone, but the file has another name.
#include "victim.h"

int main(void) {
    int fd = open(in_dir("first"), O_RDWR | O_CREAT | O_TRUNC, 0644);
    char second[PATH_MAX];
    snprintf(second, sizeof second, "%s", in_dir("second"));
    CHECK(fd >= 0 && write(fd, "content", 7) == 7);
    CHECK(link(in_dir("first"), second) == 0 && unlink(in_dir("first")) == 0);
    CHECK(lseek(fd, 3, SEEK_SET) == 3);
    ready();
    wait_go();
    char text[8] = {0};
    CHECK(read(fd, text, 8) == 4 && !strcmp(text, "tent"));
    CHECK(access(in_dir("first"), F_OK) == -1);
    return ok();
}
