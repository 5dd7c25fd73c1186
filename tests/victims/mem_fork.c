// fork after the restore: copy on write both ways.
#include "victim.h"

int main(void) {
    char *p = map(1 << 20, PROT_READ | PROT_WRITE);
    fill(p, 1 << 20, 1);
    ready();
    wait_go();
    for (int i = 0; i < 5; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            verify(p, 1 << 20, 1);
            fill(p, 1 << 20, 2);
            verify(p, 1 << 20, 2);
            _exit(40 + i);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        EQ(WEXITSTATUS(status), 40 + i);
        verify(p, 1 << 20, 1);
    }
    return ok();
}
