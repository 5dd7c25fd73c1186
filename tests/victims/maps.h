// The process's own map, before and after: the same VMAs with the same flags.
#ifndef MAPS_H
#define MAPS_H
#include "victim.h"
#include <sys/auxv.h>

struct vma {
    uint64_t start, end, offset, ino, flags[2];
    char perms[5], dev[8], name[100];
};

#define MAX_VMAS 12000
struct maps {
    int count;
    struct vma vma[MAX_VMAS];
};

// Flags are two letters: a set of them as a bit mask of letter pairs would need 676 bits; a sum of
// mixed values is enough to compare. "sd" (soft-dirty) is not a property of the VMA; "dw" (deny-write,
// until 5.14) only execve can set.
static void add_flag(struct vma *v, const char *two) {
    if (memcmp(two, "sd", 2) == 0 || memcmp(two, "dw", 2) == 0) return;
    uint64_t h = mix((uint64_t)two[0] << 8 | (uint64_t)two[1]);
    v->flags[0] += h;
    v->flags[1] ^= h * 31;
}

static void maps_line(struct maps *m, char *line) {
    struct vma v = {0};
    int at = 0;
    if (strncmp(line, "VmFlags: ", 9) == 0) {
        for (char *f = line + 9; f[0] && f[1]; f += f[2] ? 3 : 2) add_flag(&m->vma[m->count - 1], f);
    } else if (sscanf(line, "%lx-%lx %4s %lx %7s %lu %n", &v.start, &v.end, v.perms, &v.offset, v.dev, &v.ino,
                      &at) == 6) {
        snprintf(v.name, sizeof v.name, "%s", line + at);
        size_t len = strlen(v.name);
        // Recreated objects have other inodes.
        if (len > 10 && strcmp(v.name + len - 10, " (deleted)") == 0) v.ino = 0, strcpy(v.dev, "-");
        if (m->count == MAX_VMAS) fail("more than %d VMAs", MAX_VMAS);
        m->vma[m->count++] = v;
    }
}

// Leaves what does not depend on the kernel and the file system.
static void maps_portable(struct maps *m) {
    int to = 0;
    for (int i = 0; i < m->count; i++) {
        struct vma v = m->vma[i];
        // Another kernel's vDSO: the old one's code stays where it was, and leads to the new one.
        if (strncmp(v.name, "[v", 2) == 0 || v.start == getauxval(AT_SYSINFO_EHDR)) continue;
        v.ino = !!v.ino, v.flags[0] = v.flags[1] = 0, strcpy(v.dev, "-");
        m->vma[to++] = v;
    }
    m->count = to;
}

// Without stdio, which would change the map.
static void maps_read(struct maps *m) {
    static char buffer[1 << 16];
    size_t have = 0;
    m->count = 0;
    int fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    for (ssize_t n; (n = read(fd, buffer + have, sizeof buffer - 1 - have)) > 0;) {
        have += (size_t)n;
        buffer[have] = 0;
        char *line = buffer;
        for (char *end; (end = strchr(line, '\n')); line = end + 1) {
            *end = 0;
            maps_line(m, line);
        }
        have -= (size_t)(line - buffer);
        memmove(buffer, line, have);
    }
    close(fd);
}

static bool same_kind(const struct vma *a, const struct vma *b) {
    return a->ino == b->ino && a->flags[0] == b->flags[0] && a->flags[1] == b->flags[1] &&
           !strcmp(a->perms, b->perms) && !strcmp(a->dev, b->dev) && !strcmp(a->name, b->name);
}

// Neighbours that differ in nothing count as one: the kernel merges them when it can.
static void maps_merge(struct maps *m) {
    int to = 0;
    for (int i = 1; i < m->count; i++) {
        struct vma *a = &m->vma[to], *b = &m->vma[i];
        bool follows = a->ino ? b->offset == a->offset + (a->end - a->start) : true;
        if (a->end == b->start && same_kind(a, b) && follows) a->end = b->end;
        else m->vma[++to] = *b;
    }
    m->count = to + 1;
}

static struct maps maps_before, maps_after;

// Grows the stack by more than the victim's own functions need from here on.
__attribute__((noinline)) static void touch_stack(void) {
    volatile char room[128 << 10];
    for (size_t i = 0; i < sizeof room; i += PAGE) room[i] = 1;
}

__attribute__((noinline)) static void maps_save(void) {
    touch_stack();
    maps_read(&maps_before);
    // The second reading sees what the first one changed (the stack, for instance).
    maps_read(&maps_before);
}

static void maps_show(const char *what, const struct vma *v) {
    fprintf(stderr, "%s %lx-%lx %s %lx %s %lu %s [%lx]\n", what, v->start, v->end, v->perms, v->offset, v->dev,
            v->ino, v->name, v->flags[0]);
}

// Also fails when VMAs were split that were one, though each part is right.
__attribute__((noinline)) static void maps_check(void) {
    maps_read(&maps_after);
    if (moved()) maps_portable(&maps_before), maps_portable(&maps_after);
    int raw_before = maps_before.count, raw_after = maps_after.count;
    maps_merge(&maps_before);
    maps_merge(&maps_after);
    int differences = 0;
    for (int a = 0, b = 0; a < maps_before.count || b < maps_after.count;) {
        struct vma *va = a < maps_before.count ? &maps_before.vma[a] : NULL;
        struct vma *vb = b < maps_after.count ? &maps_after.vma[b] : NULL;
        bool same_place = va && vb && va->start == vb->start;
        if (same_place && va->end == vb->end && same_kind(va, vb) && (!va->ino || va->offset == vb->offset)) {
            a++, b++;
            continue;
        }
        if (differences++ < 40) {
            if (va && (!vb || va->start <= vb->start)) maps_show("before", va);
            if (vb && (!va || vb->start <= va->start)) maps_show("after ", vb);
        }
        if (same_place) a++, b++;
        else if (va && (!vb || va->start < vb->start)) a++;
        else b++;
    }
    if (differences) fail("%d differences between the maps before and after (see stderr)", differences);
    if (raw_after > raw_before) fail("%d VMAs became %d", raw_before, raw_after);
}
#endif
