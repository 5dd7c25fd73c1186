// What the victims with fanotify groups have in common.
#ifndef FANOTIFY_H
#define FANOTIFY_H
#include "forms.h"
#include <sys/fanotify.h>

static const char *at(const char *name) {
    static char paths[2][PATH_MAX];
    static int turn;
    char *path = paths[turn ^= 1];
    snprintf(path, PATH_MAX, "%s/%s", in_dir("marked"), name);
    return path;
}

static int group_or_skip(unsigned flags, unsigned event_flags) {
    int fd = fanotify_init(flags | FAN_CLOEXEC | FAN_NONBLOCK, event_flags);
    if (fd < 0) skip("no fanotify here: %s", strerror(errno));
    return fd;
}

static void add(int fd, unsigned flags, uint64_t mask, const char *path) {
    if (fanotify_mark(fd, FAN_MARK_ADD | flags, mask, AT_FDCWD, path)) fail("mark %#x on %s: %s", flags, path, strerror(errno));
}

static void touch(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    CHECK(fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0);
}

// The one event that waits; what is behind it.
static struct fanotify_event_metadata *event(int fd, uint64_t mask) {
    static char room[4096] __attribute__((aligned(8)));
    struct fanotify_event_metadata *e = (void *)room;
    ssize_t n = read(fd, room, sizeof room);
    if (n < 0) fail("no event %#llx: %s", (unsigned long long)mask, strerror(errno));
    EQ(e->vers, FANOTIFY_METADATA_VERSION);
    EQ(e->mask, mask);
    EQ(e->event_len, n);
    EQ(e->pid, getpid());
    return e;
}

static void none(int fd) {
    char room[4096] __attribute__((aligned(8)));
    struct fanotify_event_metadata *e = (void *)room;
    if (read(fd, room, sizeof room) != -1) fail("an event %#llx too many", (unsigned long long)e->mask);
    EQ(errno, EAGAIN);
}

// An event that comes with its file.
__attribute__((unused)) static void expect_file(int fd, uint64_t mask, const char *path, int access) {
    struct stat there, wanted;
    struct fanotify_event_metadata *e = event(fd, mask);
    CHECK(e->fd >= 0 && fstat(e->fd, &there) == 0 && stat(path, &wanted) == 0);
    CHECK(there.st_dev == wanted.st_dev && there.st_ino == wanted.st_ino);
    EQ(fcntl(e->fd, F_GETFL) & O_ACCMODE, access);
    close(e->fd);
}

// An event that comes with the directory and the name.
__attribute__((unused)) static void expect_name(int fd, uint64_t mask, const char *dir, const char *name) {
    struct {
        struct file_handle head;
        char bytes[128];
    } wanted = {.head = {.handle_bytes = 128}};
    struct fanotify_event_metadata *e = event(fd, mask);
    EQ(e->fd, FAN_NOFD);
    struct fanotify_event_info_fid *info = (void *)(e + 1);
    EQ(info->hdr.info_type, FAN_EVENT_INFO_TYPE_DFID_NAME);
    struct file_handle *found = (void *)info->handle;
    int mount;
    CHECK(name_to_handle_at(AT_FDCWD, dir, &wanted.head, &mount, 0) == 0);
    EQ(found->handle_bytes, wanted.head.handle_bytes);
    EQ(found->handle_type, wanted.head.handle_type);
    EQ(memcmp(found->f_handle, wanted.head.f_handle, found->handle_bytes), 0);
    const char *seen = (char *)found->f_handle + found->handle_bytes;
    if (strcmp(seen, name)) fail("event of %s, expected %s", seen, name);
}

__attribute__((unused)) static void blocks_never(int fd) {
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
}

#endif
