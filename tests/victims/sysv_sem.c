// System V semaphores: values, owner, mode, and what the end of the process gives back (SEM_UNDO).
#include "victim.h"
#include "sysv.h"

static struct semid_ds state(int id) {
    struct semid_ds ds;
    CHECK(semctl(id, 0, IPC_STAT, &ds) == 0);
    return ds;
}

static void op(int id, int number, int change, int flags) {
    struct sembuf b = {(unsigned short)number, (short)change, (short)flags};
    CHECK(semop(id, &b, 1) == 0);
}

static void *second(void *id) {
    op(*(int *)id, 2, 4, SEM_UNDO);
    return NULL;
}

static int set;
static void *thread_of_its_own(void *go) {
    CHECK(unshare(CLONE_SYSVSEM) == 0);
    op(set, 0, 3, SEM_UNDO);
    char c;
    CHECK(read(*(int *)go, &c, 1) == 0);
    return NULL;
}

// One thread has adjustments of its own.
static int apart(void) {
    int go[2];
    pthread_t thread;
    set = semget(IPC_PRIVATE, 1, 0600);
    CHECK(set >= 0 && pipe(go) == 0 && pthread_create(&thread, NULL, thread_of_its_own, go) == 0);
    while (semctl(set, 0, GETVAL) != 3) sleep_ms(1);
    ready();
    wait_go();
    close(go[1]);
    CHECK(pthread_join(thread, NULL) == 0);
    for (int i = 0; semctl(set, 0, GETVAL) != 0 && i < 1000; i++) sleep_ms(1);
    EQ(semctl(set, 0, GETVAL), 0);
    CHECK(semctl(set, 0, IPC_RMID) == 0);
    return ok();
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) return apart();
    key_t key = 0x53000000 | getpid();
    int id = semget(key, 40, IPC_CREAT | IPC_EXCL | 0640);
    if (id < 0 && errno == ENOSYS) skip("no System V semaphores here");
    CHECK(id >= 0);
    unsigned short values[40];
    for (int i = 0; i < 40; i++) values[i] = (unsigned short)(i * 3);
    values[5] = 32767;
    CHECK(semctl(id, 0, SETALL, values) == 0);
    int two = semget(IPC_PRIVATE, 2, 0600);
    CHECK(two >= 0 && semctl(two, 0, SETVAL, 100) == 0 && semctl(two, 1, SETVAL, 0) == 0);
    op(id, 1, -3, SEM_UNDO);
    op(id, 2, 7, SEM_UNDO);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, second, &id) == 0 && pthread_join(thread, NULL) == 0);
    op(id, 5, -32767, SEM_UNDO);
    op(id, 6, 32767 - 18, 0);
    op(id, 6, -32767, SEM_UNDO);
    op(id, 39, 1, 0);
    op(two, 0, -30, SEM_UNDO);
    op(two, 0, 10, 0);
    op(two, 1, 32767, SEM_UNDO);
    op(two, 1, -32767, 0);
    struct semid_ds was = state(id);
    unsigned short before[40], after[40];
    CHECK(semctl(id, 0, GETALL, before) == 0);
    EQ(before[0], 0);
    ready();
    wait_go();
    struct semid_ds now = state(id);
    EQ(now.sem_perm.__key, key);
    EQ(now.sem_perm.mode, was.sem_perm.mode);
    EQ(now.sem_perm.uid, was.sem_perm.uid);
    EQ(now.sem_perm.cuid, was.sem_perm.cuid);
    EQ(now.sem_nsems, 40);
    EQ(semget(key, 0, 0), id);
    CHECK(semctl(id, 0, GETALL, after) == 0);
    for (int i = 0; i < 40; i++) EQ(after[i], before[i]);
    EQ(semctl(two, 0, GETVAL), 80);
    EQ(semctl(two, 1, GETVAL), 0);
    EQ(semctl(id, 39, GETPID), getpid());
    // As at the end of the process.
    CHECK(unshare(CLONE_SYSVSEM) == 0);
    EQ(semctl(id, 1, GETVAL), before[1] + 3);
    EQ(semctl(id, 2, GETVAL), before[2] - 11);
    EQ(semctl(id, 3, GETVAL), before[3]);
    EQ(semctl(id, 5, GETVAL), 32767);
    EQ(semctl(id, 6, GETVAL), 32767);
    EQ(semctl(id, 39, GETVAL), before[39]);
    EQ(semctl(two, 0, GETVAL), 110);
    EQ(semctl(two, 1, GETVAL), 0);
    CHECK(semctl(id, 0, IPC_RMID) == 0 && semctl(two, 0, IPC_RMID) == 0);
    return ok();
}
