// Sessions and process groups: those whose leader lives, is a zombie, is gone; groups that were joined from
// another branch of the tree.
#include "tree.h"

enum { SESSION, SESSION_MEMBER, SESSION_GROUP, GROUP_OF_GONE, SESSION_OF_GONE, GROUP_IN_GONE, COUSIN,
       GROUP_OF_ZOMBIE, SESSION_OF_ZOMBIE, ROOTS_GROUP, MEMBERS };

// What a member says of itself before the dump, by a file.
static const char *name_of(int member) {
    static char name[32];
    snprintf(name, sizeof name, "member%d", member);
    return name;
}

static volatile int signals;

static void on_usr1(int sig) {
    (void)sig;
    signals++;
}

static void member(int number) {
    struct ids before = ids();
    char text[32];
    signal(SIGUSR1, on_usr1);
    snprintf(text, sizeof text, "%d", getpid());
    put(name_of(number), text);
    prepared();
    while (!signals) pause();
    same_ids(before);
    EQ(signals, 1);
    _exit(20 + number);
}

static pid_t pid_of(int number) {
    char text[32] = "";
    int fd = open(in_dir(name_of(number)), O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
    close(fd);
    return atoi(text);
}

// A child that leads a session or group, has members, and ends.
static pid_t leads(bool session, int first, int second) {
    pid_t leader = forked();
    if (leader) return leader;
    CHECK(session ? setsid() > 0 : setpgid(0, 0) == 0);
    if (forked() == 0) {
        UNTIL(getppid() != getpgid(0));
        member(first);
    }
    if (second >= 0 && forked() == 0) {
        CHECK(setpgid(0, 0) == 0);
        UNTIL(getppid() != getsid(0));
        member(second);
    }
    forget_prepared();
    _exit(3);
}

int main(void) {
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    tree_begin();
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);

    pid_t session = forked();
    if (session == 0) {
        CHECK(setsid() == getpid());
        pid_t same = forked();
        if (same == 0) member(SESSION_MEMBER);
        pid_t own = forked();
        if (own == 0) {
            CHECK(setpgid(0, 0) == 0);
            member(SESSION_GROUP);
        }
        struct ids before = ids();
        signal(SIGUSR1, on_usr1);
        prepared();
        while (!signals) pause();
        same_ids(before);
        reap(same, EXITED(20 + SESSION_MEMBER));
        reap(own, EXITED(20 + SESSION_GROUP));
        _exit(20 + SESSION);
    }
    pid_t group = leads(false, GROUP_OF_GONE, -1);
    reap(group, EXITED(3));
    pid_t gone = leads(true, SESSION_OF_GONE, GROUP_IN_GONE);
    reap(gone, EXITED(3));
    pid_t zombie_group = leads(false, GROUP_OF_ZOMBIE, -1);
    pid_t zombie_session = leads(true, SESSION_OF_ZOMBIE, -1);
    // Its group is led by a sibling, which came after it.
    pid_t cousin = forked();
    if (cousin == 0) {
        UNTIL(getpgid(0) != getpgid(getppid()));
        member(COUSIN);
    }
    pid_t head = forked();
    if (head == 0) {
        CHECK(setpgid(0, 0) == 0);
        CHECK(setpgid(getpid(), 0) == 0);
        prepared();
        await_go();
        _exit(4);
    }
    setpgid(head, head);
    CHECK(setpgid(cousin, head) == 0);
    pid_t roots = forked();
    if (roots == 0) member(ROOTS_GROUP);
    siginfo_t info;
    CHECK(waitid(P_PID, zombie_group, &info, WEXITED | WNOWAIT) == 0);
    CHECK(waitid(P_PID, zombie_session, &info, WEXITED | WNOWAIT) == 0);
    wait_prepared(MEMBERS + 1);
    // By the groups that were found out, not by those that getpgid() says now.
    struct ids before = ids();
    ready();
    wait_go();

    same_ids(before);
    pid_t pid[MEMBERS];
    for (int i = 0; i < MEMBERS; i++) pid[i] = i == SESSION ? session : pid_of(i);
    EQ(getsid(session), session);
    EQ(getpgid(pid[SESSION_MEMBER]), session);
    EQ(getsid(pid[SESSION_GROUP]), session);
    EQ(getpgid(pid[SESSION_GROUP]), pid[SESSION_GROUP]);
    EQ(getpgid(pid[GROUP_OF_GONE]), group);
    EQ(getsid(pid[GROUP_OF_GONE]), getsid(0));
    EQ(getsid(pid[SESSION_OF_GONE]), gone);
    EQ(getpgid(pid[SESSION_OF_GONE]), gone);
    EQ(getsid(pid[GROUP_IN_GONE]), gone);
    EQ(getpgid(pid[GROUP_IN_GONE]), pid[GROUP_IN_GONE]);
    EQ(getpgid(pid[COUSIN]), head);
    EQ(getpgid(pid[GROUP_OF_ZOMBIE]), zombie_group);
    EQ(getpgid(zombie_group), zombie_group);
    EQ(getsid(pid[SESSION_OF_ZOMBIE]), zombie_session);
    EQ(getpgid(pid[ROOTS_GROUP]), getpgid(0));
    // Nobody is there to be signalled in groups that never were.
    EQ(kill(-head - 1000000, SIGUSR1), -1);
    // Each group is complete, and has nobody else: every member ends with exactly one signal.
    CHECK(sigprocmask(SIG_BLOCK, &usr1, NULL) == 0);
    CHECK(kill(-pid[SESSION_GROUP], SIGUSR1) == 0);
    CHECK(kill(-session, SIGUSR1) == 0);
    CHECK(kill(-group, SIGUSR1) == 0);
    CHECK(kill(-gone, SIGUSR1) == 0);
    CHECK(kill(-pid[GROUP_IN_GONE], SIGUSR1) == 0);
    CHECK(kill(-zombie_group, SIGUSR1) == 0);
    CHECK(kill(-zombie_session, SIGUSR1) == 0);
    CHECK(kill(pid[COUSIN], SIGUSR1) == 0);
    CHECK(kill(pid[ROOTS_GROUP], SIGUSR1) == 0);
    reap(session, EXITED(20 + SESSION));
    for (int i = GROUP_OF_GONE; i < MEMBERS; i++) reap(pid[i], EXITED(20 + i));
    reap(zombie_group, EXITED(3));
    reap(zombie_session, EXITED(3));
    reap(head, EXITED(4));
    no_children();
    return ok();
}
