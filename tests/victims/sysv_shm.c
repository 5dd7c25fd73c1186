// System V shared memory: by id and key, attached read-only, twice, in parts, removed, locked, in huge pages,
// not attached at all, and shared with a child. With an argument, the child stays.
#include "maps.h"
#include "sysv.h"

static struct shmid_ds state(int id) {
    struct shmid_ds ds;
    CHECK(shmctl(id, IPC_STAT, &ds) == 0);
    return ds;
}

static void same(int id, const struct shmid_ds *was) {
    struct shmid_ds now = state(id);
    EQ(now.shm_perm.__key, was->shm_perm.__key);
    EQ(now.shm_perm.mode, was->shm_perm.mode);
    EQ(now.shm_perm.uid, was->shm_perm.uid);
    EQ(now.shm_perm.gid, was->shm_perm.gid);
    EQ(now.shm_perm.cuid, was->shm_perm.cuid);
    EQ(now.shm_perm.cgid, was->shm_perm.cgid);
    EQ(now.shm_segsz, was->shm_segsz);
    EQ(now.shm_nattch, was->shm_nattch);
}

static int make(key_t key, size_t size, int mode) {
    int id = shmget(key, size, IPC_CREAT | IPC_EXCL | mode);
    if (id < 0 && errno == ENOSYS) skip("no System V shared memory here");
    CHECK(id >= 0);
    return id;
}

static char *attach(int id, const void *where, int flags) {
    char *p = shmat(id, where, flags);
    CHECK(p != (void *)-1);
    return p;
}

int main(void) {
    key_t key = 0x43000000 | getpid();
    int keyed = make(key, 8 * PAGE + 100, 0640), removed = make(IPC_PRIVATE, 3 * PAGE, 0600);
    int idle = make(IPC_PRIVATE, 2 * PAGE, 0600), big = make(IPC_PRIVATE, 300 * PAGE, 0600);
    char *a = attach(keyed, NULL, 0), *b = attach(keyed, NULL, SHM_RDONLY);
    fill(a, 2 * PAGE, 1);
    fill(a + 8 * PAGE, 96, 2);
    char *c = attach(removed, NULL, 0);
    fill(c, 3 * PAGE, 3);
    CHECK(shmctl(removed, IPC_RMID, NULL) == 0);
    char *d = attach(idle, NULL, 0);
    fill(d, PAGE, 4);
    CHECK(shmdt(d) == 0);
    // What is left of it: two pieces, one of them read-only.
    char *e = attach(big, NULL, 0);
    fill(e, 300 * PAGE, 5);
    CHECK(munmap(e + 10 * PAGE, 50 * PAGE) == 0);
    CHECK(mprotect(e + 100 * PAGE, 10 * PAGE, PROT_READ) == 0);
    CHECK(munmap(e, PAGE) == 0);
    int locked = make(IPC_PRIVATE, PAGE, 0600);
    char *f = attach(locked, NULL, 0);
    bool is_locked = shmctl(locked, SHM_LOCK, NULL) == 0;
    // Attached before its mode forbids that.
    int closed = make(IPC_PRIVATE, PAGE, 0600);
    char *h = attach(closed, NULL, 0);
    struct shmid_ds ds = state(closed);
    ds.shm_perm.mode = 0400;
    CHECK(shmctl(closed, IPC_SET, &ds) == 0);
    fill(h, PAGE, 10);
    int huge = shmget(IPC_PRIVATE, 2 << 20, 0600 | SHM_HUGETLB);
    char *g = huge < 0 ? NULL : shmat(huge, NULL, 0);
    if (g == (void *)-1) g = NULL;
    if (g) fill(g, PAGE, 6);
    struct shmid_ds was[] = {state(keyed), state(removed), state(idle), state(big), state(locked), state(closed)};
    maps_save();
    ready();
    wait_go();
    maps_check();
    int ids[] = {keyed, removed, idle, big, locked, closed};
    for (int i = 0; i < 6; i++) same(ids[i], &was[i]);
    EQ(!!(was[1].shm_perm.mode & SHM_DEST), 1);
    EQ(!!(was[4].shm_perm.mode & SHM_LOCKED), is_locked);
    EQ(shmget(key, 0, 0), keyed);
    verify(a, 2 * PAGE, 1);
    verify_zero(a + 2 * PAGE, 6 * PAGE);
    verify(a + 8 * PAGE, 96, 2);
    fill(a + PAGE, PAGE, 7);
    verify(b + PAGE, PAGE, 7);
    CHECK(mprotect(b, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
    verify(c, 3 * PAGE, 3);
    d = attach(idle, NULL, 0);
    verify(d, PAGE, 4);
    verify_zero(d + PAGE, PAGE);
    char *whole = attach(big, NULL, 0);
    verify(whole, 300 * PAGE, 5);
    fill(whole + 4 * PAGE, PAGE, 8);
    verify(e + 4 * PAGE, PAGE, 8);
    CHECK(mprotect(e + 100 * PAGE, 10 * PAGE, PROT_READ | PROT_WRITE) == 0);
    if (g) verify(g, PAGE, 6);
    if (fork() == 0) {
        fill(a + 3 * PAGE, PAGE, 9);
        _exit(0);
    }
    CHECK(wait(NULL) > 0);
    verify(b + 3 * PAGE, PAGE, 9);
    // shmdt takes all pieces of one attachment.
    CHECK(shmdt(e) == 0 && shmdt(whole) == 0);
    EQ(state(big).shm_nattch, 0);
    CHECK(shmdt(c) == 0);
    CHECK(shmat(removed, NULL, 0) == (void *)-1 && errno == EINVAL);
    (void)f;
    verify(h, PAGE, 10);
    fill(h, PAGE, 11);
    for (int i = 0; i < 6; i++)
        if (i != 1) CHECK(shmctl(ids[i], IPC_RMID, NULL) == 0);
    if (huge >= 0) shmctl(huge, IPC_RMID, NULL);
    return ok();
}
