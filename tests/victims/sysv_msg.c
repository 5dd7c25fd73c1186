// System V message queues: messages with their types, in order; owner, mode and limit.
#include "victim.h"
#include "sysv.h"

struct message {
    long type;
    char text[8000];
};

static struct message m;

static void send(int id, long type, size_t len) {
    m.type = type;
    fill(m.text, (len + 7) / 8 * 8, (uint64_t)type);
    CHECK(msgsnd(id, &m, len, 0) == 0);
}

static void receive(int id, long wanted, long type, size_t len) {
    memset(&m, 0, sizeof m);
    EQ(msgrcv(id, &m, sizeof m.text, wanted, IPC_NOWAIT), (long)len);
    EQ(m.type, type);
    verify(m.text, len / 8 * 8, (uint64_t)type);
}

int main(void) {
    key_t key = 0x4d000000 | getpid();
    int id = msgget(key, IPC_CREAT | IPC_EXCL | 0620), small = msgget(IPC_PRIVATE, 0600);
    if (id < 0 && errno == ENOSYS) skip("no System V message queues here");
    CHECK(id >= 0 && small >= 0);
    send(id, 5, 100);
    send(id, 7, 0);
    send(id, 5, 8000);
    send(id, 1l << 40, 16);
    send(small, 3, 64);
    send(small, 4, 64);
    struct msqid_ds was, now;
    CHECK(msgctl(small, IPC_STAT, &was) == 0);
    // Less than what is in it.
    was.msg_qbytes = 70;
    CHECK(msgctl(small, IPC_SET, &was) == 0);
    CHECK(msgctl(id, IPC_STAT, &was) == 0);
    ready();
    wait_go();
    CHECK(msgctl(id, IPC_STAT, &now) == 0);
    EQ(now.msg_perm.__key, key);
    EQ(now.msg_perm.mode, was.msg_perm.mode);
    EQ(now.msg_perm.uid, was.msg_perm.uid);
    EQ(now.msg_perm.cuid, was.msg_perm.cuid);
    EQ(now.msg_qbytes, was.msg_qbytes);
    EQ(now.msg_qnum, 4);
    EQ(now.__msg_cbytes, 8116);
    EQ(msgget(key, 0), id);
    receive(id, 1l << 40, 1l << 40, 16);
    receive(id, 0, 5, 100);
    receive(id, 0, 7, 0);
    receive(id, 5, 5, 8000);
    CHECK(msgrcv(id, &m, sizeof m.text, 0, IPC_NOWAIT) == -1 && errno == ENOMSG);
    CHECK(msgctl(small, IPC_STAT, &now) == 0);
    EQ(now.msg_qbytes, 70);
    CHECK(msgsnd(small, &m, 1, IPC_NOWAIT) == -1 && errno == EAGAIN);
    receive(small, 0, 3, 64);
    receive(small, 0, 4, 64);
    CHECK(msgctl(id, IPC_RMID, NULL) == 0 && msgctl(small, IPC_RMID, NULL) == 0);
    return ok();
}
