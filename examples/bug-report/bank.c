// Two threads that wait for each other for ever, now and then. (Here: always.)
#include <pthread.h>
#include <stdio.h>

struct account {
    const char *owner;
    long balance;
    pthread_mutex_t lock;
};

struct account alice = {"Alice", 1000, PTHREAD_MUTEX_INITIALIZER}, bob = {"Bob", 250, PTHREAD_MUTEX_INITIALIZER};
pthread_barrier_t both;

void transfer(struct account *from, struct account *to, long amount) {
    pthread_mutex_lock(&from->lock);
    pthread_barrier_wait(&both);
    printf("%s sends %ld to %s\n", from->owner, amount, to->owner);
    fflush(stdout);
    pthread_mutex_lock(&to->lock);
    from->balance -= amount;
    to->balance += amount;
    pthread_mutex_unlock(&to->lock);
    pthread_mutex_unlock(&from->lock);
}

void *rent(void *unused) {
    transfer(&alice, &bob, 700);
    return unused;
}

void *salary(void *unused) {
    transfer(&bob, &alice, 42);
    return unused;
}

int main(void) {
    pthread_t a, b;
    pthread_barrier_init(&both, NULL, 2);
    pthread_create(&a, NULL, rent, NULL);
    pthread_create(&b, NULL, salary, NULL);
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    puts("done");
}
