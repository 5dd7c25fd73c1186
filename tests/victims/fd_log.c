// Appends a line to its log for every ping, and one more at the end.
#include "victim.h"

int main(void) {
    int log = open(in_dir("log.txt"), O_WRONLY | O_CREAT | O_APPEND, 0644);
    CHECK(log >= 0 && write(log, "first line\n", 11) == 11);
    ready();
    wait_go();
    CHECK(write(log, "last line\n", 10) == 10);
    return ok();
}
