// Threads allocate and take a lock, while one of them saves them all: threads IMAGE
#include "self.h"

#define WORKERS 4
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_long done[WORKERS];
static atomic_bool end;
static long counted;

static void *work(void *arg) {
    long me = (long)arg, mine = 0;
    while (!end) {
        char *some = malloc(100 + mine % 5000);
        memset(some, me, 100);
        pthread_mutex_lock(&lock);
        counted++;
        pthread_mutex_unlock(&lock);
        free(some);
        mine++;
        done[me]++;
        usleep(50);
    }
    return (void *)mine;
}

static void *save(void *path) {
    uint64_t id;
    int result = ckpt_checkpoint(path, NULL, &id);
    return (void *)(long)result;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    CHECK(argc == 2);
    pthread_t workers[WORKERS], saver;
    for (long i = 0; i < WORKERS; i++) CHECK(!pthread_create(&workers[i], NULL, work, (void *)i));
    for (int i = 0; i < WORKERS; i++)
        while (done[i] < 20) usleep(100);
    void *result;
    CHECK(!pthread_create(&saver, NULL, save, argv[1]));
    CHECK(!pthread_join(saver, &result));
    CHECK((long)result >= 0);
    // They all go on.
    for (int i = 0; i < WORKERS; i++)
        for (long before = done[i]; done[i] < before + 20;) usleep(100);
    end = true;
    long sum = 0;
    for (int i = 0; i < WORKERS; i++) {
        void *mine;
        CHECK(!pthread_join(workers[i], &mine));
        sum += (long)mine;
    }
    CHECK(sum == counted);
    printf("%s\n", word((int)(long)result));
    return 0;
}
