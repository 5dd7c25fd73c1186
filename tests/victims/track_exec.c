// Becomes another program, itself, with other contents in its memory, when it is told to.
#include "victim.h"

#define LEN (8ul << 20)

int main(int argc, char **argv) {
    // Where it may be again by chance, with the contents of another life.
    size_t seed = argc > 1 ? 5000000 : 1;
    char *memory = mmap((void *)0x300000000000, LEN, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(memory != MAP_FAILED);
    fill(memory, LEN, seed);
    if (argc == 1) {
        ready();
        for (int i = 0; access(in_dir("exec"), F_OK) != 0; i++) {
            if (i > 120000) fail("nobody said exec");
            sleep_ms(1);
        }
        execl("/proc/self/exe", argv[0], "again", NULL);
        fail("execl: %s", strerror(errno));
    }
    put("again", "");
    wait_go();
    verify(memory, LEN, seed);
    return ok();
}
