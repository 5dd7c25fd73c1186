// share_shm anon|memfd|posix|posix-unlinked|file|deleted: memory that processes share: mapped at several
// addresses, moved, partly unmapped, with other protections; written by all afterwards.
#include "tree.h"

#define PAGES 64ul
#define PROCESSES 4

// Page 0 has a word for each process, page 1 the number of those that are through; from page 2 on is data.
static _Atomic uint64_t *words;
static char *data;

static int object(const char *kind) {
    if (!strcmp(kind, "memfd")) return memfd_create("shared", MFD_ALLOW_SEALING);
    if (!strncmp(kind, "posix", 5)) {
        char name[64];
        snprintf(name, sizeof name, "/ckpt-test-%d", getpid());
        int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (fd < 0) skip("no POSIX shared memory: %s", strerror(errno));
        if (kind[5]) CHECK(shm_unlink(name) == 0);
        return fd;
    }
    int fd = open(in_dir("shared"), O_RDWR | O_CREAT | O_EXCL, 0600);
    if (!strcmp(kind, "deleted")) CHECK(unlink(in_dir("shared")) == 0);
    return fd;
}

static void talk(int me) {
    words[me] = mix(me);
    for (int i = 0; i < PROCESSES; i++) UNTIL(words[i] == mix(i));
    words[512]++;
    UNTIL(words[512] == PROCESSES);
}

static uint64_t *page(unsigned long n) {
    return (uint64_t *)(data + n * PAGE);
}

int main(int argc, char **argv) {
    CHECK(argc > 1);
    bool anonymous = !strcmp(argv[1], "anon");
    tree_begin();
    int fd = anonymous ? -1 : object(argv[1]);
    CHECK(anonymous || (fd >= 0 && ftruncate(fd, PAGES * PAGE) == 0));
    data = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | (anonymous ? MAP_ANONYMOUS : 0), fd, 0);
    CHECK(data != MAP_FAILED);
    words = (_Atomic uint64_t *)data;
    fill(data + 2 * PAGE, 30 * PAGE, 5);
    // A hole from page 32 to 47 stays unpopulated.
    fill(data + 48 * PAGE, 16 * PAGE, 6);
    char *own = map(4 * PAGE, PROT_READ | PROT_WRITE);
    fill(own, 4 * PAGE, 50);
    // The same page again at another address.
    char *twice = mremap(data + 8 * PAGE, 0, PAGE, MREMAP_MAYMOVE);
    CHECK(twice != MAP_FAILED);
    pid_t one = forked();
    if (one == 0) {
        // Without its middle, without its descriptor, and with a piece elsewhere.
        CHECK(munmap(data + 16 * PAGE, 8 * PAGE) == 0);
        if (fd >= 0) close(fd);
        pid_t two = forked();
        if (two == 0) {
            char *moved = mremap(data + 48 * PAGE, 16 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, map(16 * PAGE, 0));
            CHECK(moved != MAP_FAILED);
            prepared();
            await_go();
            verify(moved, 15 * PAGE, 6);
            fill(moved + 15 * PAGE, PAGE, 222);
            talk(2);
            verify(twice, PAGE, 111);
            _exit(3);
        }
        fill(own, PAGE, 51);
        prepared();
        await_go();
        verify(data + 2 * PAGE, 6 * PAGE, 5);
        fill(data + 8 * PAGE, PAGE, 111);
        verify(twice, PAGE, 111);
        // Memory of its own is not shared.
        verify(own, PAGE, 51);
        fill(own, 4 * PAGE, 52);
        talk(1);
        reap(two, EXITED(3));
        _exit(1);
    }
    pid_t three = forked();
    if (three == 0) {
        CHECK(mprotect(data + 2 * PAGE, 30 * PAGE, PROT_READ) == 0);
        if (fd >= 0) CHECK(dup2(fd, 70) == 70);
        prepared();
        await_go();
        verify(data + 2 * PAGE, 6 * PAGE, 5);
        *page(40) = 333;
        talk(3);
        verify((char *)page(63), PAGE, 222);
        if (fd >= 0) {
            uint64_t word = 0;
            CHECK(pread(70, &word, 8, 40 * PAGE) == 8);
            EQ(word, 333);
        }
        _exit(4);
    }
    wait_prepared(3);
    if (!strcmp(argv[1], "memfd")) CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
    ready();
    wait_go();
    verify(data + 9 * PAGE, 23 * PAGE, 5 + 7 * 512);
    verify_zero(page(32), 8 * PAGE);
    talk(0);
    reap(one, EXITED(1));
    reap(three, EXITED(4));
    verify(twice, PAGE, 111);
    verify((char *)page(8), PAGE, 111);
    verify((char *)page(63), PAGE, 222);
    EQ(*page(40), 333);
    verify(own, 4 * PAGE, 50);
    if (fd >= 0) {
        struct stat st;
        CHECK(fstat(fd, &st) == 0);
        EQ(st.st_size, PAGES * PAGE);
        EQ(st.st_nlink, !strcmp(argv[1], "file") || !strcmp(argv[1], "posix"));
    }
    if (!strcmp(argv[1], "memfd")) EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK);
    if (!strcmp(argv[1], "posix")) {
        char name[64];
        snprintf(name, sizeof name, "/ckpt-test-%d", getpid());
        // It is still the one of that name.
        int again = shm_open(name, O_RDWR, 0);
        uint64_t word = 0;
        CHECK(again >= 0 && pread(again, &word, 8, 40 * PAGE) == 8);
        EQ(word, 333);
        CHECK(shm_unlink(name) == 0);
    }
    return ok();
}
