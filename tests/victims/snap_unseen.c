// Would notice a copy of itself: a child, a signal, an open end of a pipe, a member of its group.
#include "victim.h"
#include "sysv.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

static volatile sig_atomic_t signals;

static void on_child(int sig) {
    (void)sig;
    signals++;
}

int main(int argc, char **argv) {
    bool subreaper = argc > 1 && strcmp(argv[1], "subreaper") == 0;
    CHECK(signal(SIGCHLD, on_child) != SIG_ERR);
    if (subreaper) CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    int ends[2], id = shmget(IPC_PRIVATE, PAGE, 0600);
    CHECK(id >= 0 && pipe(ends) == 0);
    void *segment = shmat(id, NULL, 0);
    CHECK(segment != (void *)-1);
    ready();
    wait_go();
    int status, is = -1;
    CHECK(waitpid(-1, &status, __WALL | WNOHANG) == -1 && errno == ECHILD);
    EQ(signals, 0);
    CHECK(prctl(PR_GET_CHILD_SUBREAPER, &is) == 0);
    EQ(is, subreaper);
    char list[100];
    snprintf(list, sizeof list, "/proc/self/task/%d/children", getpid());
    FILE *f = fopen(list, "r");
    if (f) CHECK(fgetc(f) == EOF);
    if (f) fclose(f);
    // If anybody else has the end for writing, this waits without end.
    close(ends[1]);
    char byte;
    EQ(read(ends[0], &byte, 1), 0);
    struct shmid_ds info;
    CHECK(shmctl(id, IPC_STAT, &info) == 0);
    EQ(info.shm_nattch, 1);
    // A fork inherits the segment, as ever.
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        *(volatile char *)segment = 1;
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    EQ(status, 0);
    EQ(*(volatile char *)segment, 1);
    CHECK(shmctl(id, IPC_RMID, NULL) == 0);
    return ok();
}
