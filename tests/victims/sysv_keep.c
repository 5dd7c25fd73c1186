// One object of each kind, whose ids the test is told (as arguments of ipcrm). sysv_keep KEY [leave]: leaves
// one segment with that key behind.
#include "victim.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

int main(int argc, char **argv) {
    key_t key = argc > 1 ? atoi(argv[1]) : 0x4b000000 | getpid();
    int shm = shmget(key, PAGE, IPC_CREAT | IPC_EXCL | 0600);
    if (argc > 2) return shm < 0;
    int sem = semget(key, 1, IPC_CREAT | IPC_EXCL | 0600), msg = msgget(key, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(shm >= 0 && sem >= 0 && msg >= 0);
    char *p = shmat(shm, NULL, 0);
    CHECK(p != (void *)-1);
    fill(p, PAGE, 1);
    struct {
        long type;
        char text[8];
    } m = {2, "text"};
    CHECK(semctl(sem, 0, SETVAL, 6) == 0 && msgsnd(msg, &m, 8, 0) == 0);
    char text[100];
    snprintf(text, sizeof text, "-m %d -s %d -q %d", shm, sem, msg);
    put("ids", text);
    ready();
    wait_go();
    verify(p, PAGE, 1);
    EQ(shmget(key, 0, 0), shm);
    EQ(semget(key, 0, 0), sem);
    EQ(msgget(key, 0), msg);
    EQ(semctl(sem, 0, GETVAL), 6);
    EQ(msgrcv(msg, &m, 8, 0, IPC_NOWAIT), 8);
    CHECK(shmctl(shm, IPC_RMID, NULL) == 0 && semctl(sem, 0, IPC_RMID) == 0 && msgctl(msg, IPC_RMID, NULL) == 0);
    return ok();
}
