// Two threads save the program at the same time: each has its turn.
#include "self.h"

static pthread_barrier_t together;
static int results[2];
static uint64_t ids[2];

static void *save(void *arg) {
    long me = (long)arg;
    char path[20];
    snprintf(path, sizeof path, "both%ld.ckpt", me);
    pthread_barrier_wait(&together);
    results[me] = ckpt_checkpoint(path, NULL, &ids[me]);
    return NULL;
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    pthread_barrier_init(&together, NULL, 2);
    pthread_t threads[2];
    for (long i = 0; i < 2; i++) CHECK(!pthread_create(&threads[i], NULL, save, (void *)i));
    for (int i = 0; i < 2; i++) CHECK(!pthread_join(threads[i], NULL));
    CHECK(results[0] >= 0 && results[1] >= 0);
    CHECK(ids[0] + ids[1] == 3);
    printf("%s %s\n", word(results[0]), word(results[1]));
    return 0;
}
