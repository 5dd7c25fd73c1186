// A POSIX message queue between processes: one waits for a message, one has a description in common with its
// parent.
#include "tree.h"
#include <mqueue.h>

int main(void) {
    char name[50], text[64];
    unsigned priority;
    snprintf(name, sizeof name, "/ckpt-tree-%d", getpid());
    struct mq_attr attr = {.mq_maxmsg = 5, .mq_msgsize = 64};
    mqd_t jobs = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
    if (jobs < 0 && errno == ENOSYS) skip("no POSIX message queues here");
    char back_name[60];
    snprintf(back_name, sizeof back_name, "%s-back", name);
    mqd_t back = mq_open(back_name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
    CHECK(jobs >= 0 && back >= 0 && mq_unlink(back_name) == 0);
    CHECK(mq_send(back, "early", 5, 0) == 0);
    tree_begin();
    pid_t child = forked();
    if (child == 0) {
        mqd_t own = mq_open(name, O_RDONLY);
        CHECK(own >= 0);
        prepared();
        ssize_t n;
        while ((n = mq_receive(own, text, sizeof text, &priority)) < 0 && errno == EINTR) {
        }
        EQ(n, 3);
        EQ(priority, 4);
        CHECK(mq_send(back, text, 3, 2) == 0);
        // The description is the parent's, too.
        CHECK(mq_getattr(jobs, &attr) == 0);
        EQ(attr.mq_flags, O_NONBLOCK);
        _exit(6);
    }
    wait_prepared(1);
    sleep_ms(20);
    ready();
    wait_go();
    attr.mq_flags = O_NONBLOCK;
    CHECK(mq_setattr(jobs, &attr, NULL) == 0);
    CHECK(mq_send(jobs, "job", 3, 4) == 0);
    reap(child, EXITED(6));
    EQ(mq_receive(back, text, sizeof text, &priority), 3);
    EQ(priority, 2);
    EQ(mq_receive(back, text, sizeof text, &priority), 5);
    CHECK(mq_unlink(name) == 0);
    return ok();
}
