// System V objects, noted for the test, which removes those that outlive a killed victim: "-m ID" in
// CKPT_DIR/sysv, as arguments of ipcrm.
#ifndef VICTIM_SYSV_H
#define VICTIM_SYSV_H

#include "victim.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

static int noted_sysv(char kind, int id) {
    if (id < 0) return id;
    char line[40];
    int len = snprintf(line, sizeof line, "-%c %d\n", kind, id), error = errno;
    int fd = open(in_dir("sysv"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    CHECK(fd >= 0 && write(fd, line, (size_t)len) == len && close(fd) == 0);
    errno = error;
    return id;
}

#define shmget(...) noted_sysv('m', shmget(__VA_ARGS__))
#define semget(...) noted_sysv('s', semget(__VA_ARGS__))
#define msgget(...) noted_sysv('q', msgget(__VA_ARGS__))

#endif
