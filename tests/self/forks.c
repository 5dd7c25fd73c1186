// Children of forks have the library's locks, whatever other threads do with them: forks
#include "self.h"

static atomic_bool end;

static void *save(void *arg) {
    (void)arg;
    while (!end) CHECK(ckpt_checkpoint(NULL, NULL, NULL) < 0);
    return NULL;
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    // Fails when the program has been stopped and observed.
    setenv("CKPT_FAILPOINT", "after-plan", 1);
    pthread_t saver;
    CHECK(!pthread_create(&saver, NULL, save, NULL));
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (!child) {
            ckpt_list(NULL, 0);
            // Or it is in the midst of being dumped with its parent.
            CHECK(ckpt_checkpoint("no/such/directory", NULL, NULL) == CKPT_FAILED);
            CHECK(strstr(ckpt_error(), "directory") || strstr(ckpt_error(), "already traced"));
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    end = true;
    CHECK(!pthread_join(saver, NULL));
    printf("ok\n");
    return 0;
}
