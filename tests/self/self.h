// What programs that save themselves share. Each prints a line for all that it has seen; the first thing that is
// wrong ends it.
#ifndef SELF_H
#define SELF_H

#define _GNU_SOURCE
#include <ckpt.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            printf("line %d: not so: %s (errno %s, ckpt: %s)\n", __LINE__, #what, strerror(errno), ckpt_error());      \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

__attribute__((unused)) static const char *word(int result) {
    return result == CKPT_SAVED ? "saved" : result == CKPT_RESTORED ? "restored" : "failed";
}

// The open descriptors, as a text.
__attribute__((unused)) static const char *descriptors(void) {
    static char text[3][4096];
    static int next;
    char *out = text[next++ % 3];
    size_t len = 0;
    out[0] = 0;
    DIR *dir = opendir("/proc/self/fd");
    CHECK(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.' || atoi(e->d_name) == dirfd(dir)) continue;
        char path[300], link[200];
        snprintf(path, sizeof path, "/proc/self/fd/%s", e->d_name);
        ssize_t n = readlink(path, link, sizeof link - 1);
        if (n < 0) continue;
        link[n] = 0;
        // Numbers of pipes and the like are others after a restore.
        char *number = strchr(link, '[');
        if (number) *number = 0;
        // Images in memory are not the program's.
        if (strstr(link, "memfd:ckpt-image-")) continue;
        len += snprintf(out + len, 4096 - len, "%s=%s ", e->d_name, link);
    }
    closedir(dir);
    return out;
}

// Whether there is, or was, a child that somebody could wait for.
__attribute__((unused)) static int is_childless(void) {
    return waitid(P_ALL, 0, NULL, WEXITED | WNOHANG | WNOWAIT | __WALL) == -1 && errno == ECHILD;
}

#endif
