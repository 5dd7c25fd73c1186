// System V IPC between processes: segments that several attach, a process that waits for a semaphore, one
// that waits for a message, and one whose end gives back what it took.
#include "tree.h"
#include "sysv.h"

static int shm, gone, sem, queue;
static char *both, *removed;

struct message {
    long type;
    char text[24];
};

static void op(int number, int change, int flags) {
    struct sembuf b = {(unsigned short)number, (short)change, (short)flags};
    while (semop(sem, &b, 1))
        if (errno != EINTR) fail("semop: %s", strerror(errno));
}

static void waits_for_semaphore(void) {
    char *again = shmat(shm, NULL, SHM_RDONLY);
    CHECK(again != (void *)-1 && shmdt(both) == 0);
    prepared();
    op(0, -2, SEM_UNDO);
    // The parent wrote that after the restore.
    verify(again + PAGE, PAGE, 7);
    verify(removed, PAGE, 2);
    _exit(3);
}

static void waits_for_message(void) {
    struct message m;
    CHECK(shmdt(both) == 0 && shmdt(removed) == 0);
    prepared();
    ssize_t n;
    while ((n = msgrcv(queue, &m, sizeof m.text, 9, 0)) < 0 && errno == EINTR) {
    }
    EQ(n, 24);
    fill(both = shmat(shm, NULL, 0), 8, (uint64_t)m.type);
    _exit(4);
}

static void gives_back(void) {
    op(1, -5, SEM_UNDO);
    op(2, 4, SEM_UNDO);
    op(2, -1, 0);
    prepared();
    await_go();
    verify(both, PAGE, 1);
    _exit(5);
}

int main(void) {
    shm = shmget(0x54000000 | getpid(), 4 * PAGE, IPC_CREAT | IPC_EXCL | 0600);
    if (shm < 0 && errno == ENOSYS) skip("no System V IPC here");
    gone = shmget(IPC_PRIVATE, PAGE, 0600);
    sem = semget(IPC_PRIVATE, 3, 0600);
    queue = msgget(IPC_PRIVATE, 0600);
    CHECK(shm >= 0 && gone >= 0 && sem >= 0 && queue >= 0);
    unsigned short values[] = {1, 9, 0};
    CHECK(semctl(sem, 0, SETALL, values) == 0);
    both = shmat(shm, NULL, 0), removed = shmat(gone, NULL, 0);
    CHECK(both != (void *)-1 && removed != (void *)-1 && shmctl(gone, IPC_RMID, NULL) == 0);
    fill(both, PAGE, 1);
    fill(removed, PAGE, 2);
    struct message m = {5, "not for you"};
    CHECK(msgsnd(queue, &m, sizeof m.text, 0) == 0);
    tree_begin();
    void (*doing[])(void) = {waits_for_semaphore, waits_for_message, gives_back};
    pid_t children[3];
    for (int i = 0; i < 3; i++)
        if ((children[i] = forked()) == 0) doing[i]();
    wait_prepared(3);
    // Until they wait.
    UNTIL(semctl(sem, 0, GETNCNT) == 1);
    sleep_ms(20);
    ready();
    wait_go();
    struct shmid_ds ds;
    reap(children[2], EXITED(5));
    EQ(semctl(sem, 1, GETVAL), 9);
    EQ(semctl(sem, 2, GETVAL), 0);
    EQ(semctl(sem, 0, GETVAL), 1);
    verify(both, PAGE, 1);
    fill(both + PAGE, PAGE, 7);
    op(0, 1, 0);
    reap(children[0], EXITED(3));
    EQ(semctl(sem, 0, GETVAL), 2);
    m.type = 9;
    CHECK(msgsnd(queue, &m, sizeof m.text, 0) == 0);
    reap(children[1], EXITED(4));
    verify(both, 8, 9);
    EQ(msgrcv(queue, &m, sizeof m.text, 0, IPC_NOWAIT), 24);
    EQ(m.type, 5);
    CHECK(shmctl(shm, IPC_STAT, &ds) == 0);
    EQ(ds.shm_nattch, 1);
    verify(removed, PAGE, 2);
    CHECK(shmctl(gone, IPC_STAT, &ds) == 0);
    EQ(ds.shm_nattch, 1);
    CHECK(shmctl(shm, IPC_RMID, NULL) == 0 && semctl(sem, 0, IPC_RMID) == 0 && msgctl(queue, IPC_RMID, NULL) == 0);
    return ok();
}
