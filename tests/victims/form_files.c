// form_files FORM KIND: files whose state is more than a path and an offset, in all forms.
#include "forms.h"
#include <sys/statfs.h>
#include <sys/syscall.h>

static char buffer[4 * PAGE] __attribute__((aligned(4096)));
static struct stat before;

static void same_file(int fd) {
    struct stat s;
    CHECK(fstat(fd, &s) == 0);
    EQ(s.st_ino, before.st_ino);
    EQ(s.st_mode, before.st_mode);
}

// A file with these contents; its name.
static const char *file(const char *name, const char *text) {
    int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0);
    return in_dir(name);
}

static const char *fd_path(int fd) {
    static char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return path;
}

static void expect(int fd, const char *text) {
    char got[100];
    EQ(pread(fd, got, sizeof got, 0), strlen(text));
    EQ(memcmp(got, text, strlen(text)), 0);
}

static void link_shows(int fd, const char *path) {
    char got[PATH_MAX] = {0};
    CHECK(readlink(fd_path(fd), got, sizeof got - 1) > 0);
    if (strcmp(got, path)) fail("descriptor %d leads to %s, expected %s", fd, got, path);
}

// --- O_PATH ---

static int path_file(void) {
    int fd = open(file("f", "by path"), O_PATH);
    CHECK(fstat(fd, &before) == 0);
    return fd;
}

static void check_path_file(int fd) {
    char c;
    CHECK(read(fd, &c, 1) == -1 && errno == EBADF);
    same_file(fd);
    int again = open(fd_path(fd), O_RDONLY);
    CHECK(again >= 0);
    expect(again, "by path");
}

static int path_directory(void) {
    CHECK(mkdir(in_dir("d"), 0755) == 0);
    file("d/f", "in the directory");
    return open(in_dir("d"), O_PATH | O_DIRECTORY);
}

static void check_path_directory(int fd) {
    int f = openat(fd, "f", O_RDONLY);
    CHECK(f >= 0);
    expect(f, "in the directory");
    CHECK(syscall(SYS_getdents64, fd, buffer, sizeof buffer) == -1 && errno == EBADF);
}

static int path_symlink(void) {
    CHECK(symlink("nowhere at all", in_dir("link")) == 0);
    return open(in_dir("link"), O_PATH | O_NOFOLLOW);
}

static void check_path_symlink(int fd) {
    EQ(readlinkat(fd, "", buffer, sizeof buffer), 14);
    EQ(memcmp(buffer, "nowhere at all", 14), 0);
}

static int path_fifo(void) {
    CHECK(mkfifo(in_dir("fifo"), 0600) == 0);
    return open(in_dir("fifo"), O_PATH);
}

static void check_path_fifo(int fd) {
    int end = open(fd_path(fd), O_RDWR);
    CHECK(end >= 0 && write(end, "x", 1) == 1 && read(end, buffer, 1) == 1);
}

static int path_tty(void) { return open("/dev/tty", O_PATH); }

static void check_path_tty(int fd) {
    struct stat s;
    CHECK(fstat(fd, &s) == 0);
    EQ(s.st_rdev, 0x500);
}

// --- files without a name ---

static int tmpfile_made(void) {
    int fd = open(in_dir("."), O_TMPFILE | O_RDWR, 0640);
    if (fd < 0) skip("no O_TMPFILE here: %s", strerror(errno));
    CHECK(write(fd, "temporary", 9) == 9 && lseek(fd, 3, SEEK_SET) == 3);
    return fd;
}

static void check_tmpfile(int fd) {
    struct stat s;
    CHECK(fstat(fd, &s) == 0);
    EQ(s.st_nlink, 0);
    EQ(s.st_mode, S_IFREG | 0640);
    expect(fd, "temporary");
    EQ(lseek(fd, 0, SEEK_CUR), 3);
    CHECK(write(fd, "P", 1) == 1);
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s", in_dir("named"));
    CHECK(linkat(AT_FDCWD, fd_path(fd), AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0);
    int named = open(name, O_RDONLY);
    CHECK(named >= 0);
    expect(named, "temPorary");
    struct stat t;
    CHECK(fstat(named, &t) == 0);
    EQ(t.st_dev, s.st_dev);
    EQ(t.st_ino, s.st_ino);
}

static int tmpfile_write_only(void) {
    int fd = open(in_dir("."), O_TMPFILE | O_WRONLY | O_APPEND, 0640);
    if (fd < 0) skip("no O_TMPFILE here: %s", strerror(errno));
    CHECK(write(fd, "abc", 3) == 3);
    return fd;
}

static void check_tmpfile_write_only(int fd) {
    struct stat s;
    CHECK(fstat(fd, &s) == 0);
    EQ(s.st_mode, S_IFREG | 0640);
    EQ(s.st_size, 3);
    char c;
    CHECK(read(fd, &c, 1) == -1 && errno == EBADF);
    CHECK(write(fd, "d", 1) == 1 && fstat(fd, &s) == 0);
    EQ(s.st_size, 4);
}

// Deleted, and its mode does not allow what it is open for.
static int deleted_read_only(void) {
    int fd = open(in_dir("gone"), O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0 && write(fd, "precious", 8) == 8 && fchmod(fd, 0) == 0 && unlink(in_dir("gone")) == 0);
    return fd;
}

static void check_deleted_read_only(int fd) {
    struct stat s;
    CHECK(fstat(fd, &s) == 0);
    EQ(s.st_mode, S_IFREG);
    expect(fd, "precious");
    CHECK(pwrite(fd, "P", 1, 0) == 1);
    expect(fd, "Precious");
    CHECK(geteuid() == 0 || (open(fd_path(fd), O_RDONLY) == -1 && errno == EACCES));
}

// Together with its directory.
static int in_deleted_directory(void) {
    CHECK(mkdir(in_dir("p"), 0755) == 0 && mkdir(in_dir("p/q"), 0755) == 0);
    int fd = open(in_dir("p/q/f"), O_RDWR | O_CREAT | O_EXCL, 0644);
    CHECK(fd >= 0 && write(fd, "orphan", 6) == 6 && fstat(fd, &before) == 0);
    CHECK(unlink(in_dir("p/q/f")) == 0 && rmdir(in_dir("p/q")) == 0 && rmdir(in_dir("p")) == 0);
    return fd;
}

static void check_in_deleted_directory(int fd) {
    struct stat s;
    CHECK(fstat(fd, &s) == 0);
    // On the file system that it was on, not in memory.
    EQ(s.st_dev, before.st_dev);
    EQ(s.st_nlink, 0);
    expect(fd, "orphan");
    CHECK(access(in_dir("p"), F_OK) == -1);
}

static int deleted_directory(void) {
    CHECK(mkdir(in_dir("p"), 0750) == 0 && mkdir(in_dir("p/q"), 0750) == 0);
    int fd = open(in_dir("p/q"), O_RDONLY | O_DIRECTORY);
    CHECK(fd >= 0 && rmdir(in_dir("p/q")) == 0 && rmdir(in_dir("p")) == 0);
    return fd;
}

static void check_deleted_directory(int fd) {
    struct stat s;
    CHECK(fstat(fd, &s) == 0);
    EQ(s.st_mode, S_IFDIR | 0750);
    EQ(s.st_nlink, 0);
    CHECK(openat(fd, "new", O_WRONLY | O_CREAT, 0600) == -1 && errno == ENOENT);
    CHECK(access(in_dir("p"), F_OK) == -1);
}

// --- huge and sparse ---

#define HUGE_SIZE (10ul << 30)
static const off_t places[] = {0, 1ul << 20, 5ul << 30, HUGE_SIZE - PAGE};

static int sparse(void) {
    int fd = open(in_dir("sparse"), O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0 && unlink(in_dir("sparse")) == 0);
    if (ftruncate(fd, HUGE_SIZE)) skip("no files of 10 GiB here: %s", strerror(errno));
    for (int i = 0; i < 4; i++) {
        fill(buffer, PAGE, i);
        CHECK(pwrite(fd, buffer, PAGE, places[i]) == (ssize_t)PAGE);
    }
    return fd;
}

static void check_sparse(int fd) {
    struct stat s;
    CHECK(fstat(fd, &s) == 0);
    EQ(s.st_size, HUGE_SIZE);
    CHECK(s.st_blocks < 1000);
    off_t at = 0;
    for (int i = 0; i < 4; i++) {
        EQ(lseek(fd, at, SEEK_DATA), places[i]);
        EQ((at = lseek(fd, places[i], SEEK_HOLE)), places[i] + PAGE);
        CHECK(pread(fd, buffer, PAGE, places[i]) == (ssize_t)PAGE);
        verify(buffer, PAGE, i);
    }
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
}

// --- flags ---

static int direct(void) {
    int fd = open(in_dir("direct"), O_RDWR | O_CREAT | O_DIRECT, 0644);
    if (fd < 0) skip("no O_DIRECT here: %s", strerror(errno));
    fill(buffer, PAGE, 5);
    CHECK(write(fd, buffer, PAGE) == (ssize_t)PAGE);
    return fd;
}

static void check_direct(int fd) {
    CHECK(fcntl(fd, F_GETFL) & O_DIRECT);
    EQ(lseek(fd, 0, SEEK_CUR), PAGE);
    CHECK(pwrite(fd, buffer, PAGE, PAGE) == (ssize_t)PAGE);
    // Not aligned: what O_DIRECT forbids on most file systems.
    struct statfs f;
    if (fstatfs(fd, &f) == 0 && f.f_type == 0xef53) CHECK(pread(fd, buffer + 1, 11, 3) == -1 && errno == EINVAL);
}

static int all_flags(void) {
    int fd = open(file("f", "flags"), O_WRONLY | O_SYNC | O_NOATIME | O_APPEND | O_NONBLOCK);
    CHECK(fd >= 0);
    return fd;
}

static void check_flags(int fd) {
    int flags = O_WRONLY | O_SYNC | O_NOATIME | O_APPEND;
    EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_SYNC | O_NOATIME | O_APPEND), flags);
    CHECK(write(fd, "!", 1) == 1);
    int other = open(in_dir("f"), O_RDONLY);
    expect(other, "flags!");
}

// --- names ---

static char expected[PATH_MAX];

static int renamed(void) {
    file("before", "moved");
    int fd = open(in_dir("before"), O_RDWR);
    CHECK(mkdir(in_dir("sub"), 0755) == 0);
    snprintf(expected, sizeof expected, "%s", in_dir("sub/after"));
    CHECK(rename(in_dir("before"), expected) == 0 && fstat(fd, &before) == 0);
    return fd;
}

static void check_renamed(int fd) {
    link_shows(fd, expected);
    same_file(fd);
    expect(fd, "moved");
}

// Its directory is closed to its owner, too.
static int closed(void) {
    CHECK(mkdir(in_dir("closed"), 0700) == 0);
    int fd = open(file("closed/f", "inside"), O_RDWR);
    CHECK(fd >= 0 && chmod(in_dir("closed"), 0) == 0);
    return fd;
}

static void check_closed(int fd) {
    expect(fd, "inside");
    CHECK(chmod(in_dir("closed"), 0700) == 0);
}

// Another file has its name by now.
static int replaced(void) {
    file("f", "the old one");
    int fd = open(in_dir("f"), O_RDWR);
    char new[PATH_MAX];
    snprintf(new, sizeof new, "%s", file("g", "the new one"));
    CHECK(rename(new, in_dir("f")) == 0);
    return fd;
}

static void check_replaced(int fd) {
    struct stat s;
    CHECK(fstat(fd, &s) == 0);
    EQ(s.st_nlink, 0);
    expect(fd, "the old one");
    int new = open(in_dir("f"), O_RDONLY);
    expect(new, "the new one");
}

// --- directories in the middle ---

#define ENTRIES 2000
static char seen[ENTRIES];
static char many[PATH_MAX];

struct entry {
    uint64_t ino;
    int64_t off;
    unsigned short len;
    unsigned char type;
    char name[];
};

// So many calls, or until the end.
static int list(int fd, int calls) {
    char small[1000];
    int got = 0;
    while (calls--) {
        long n = syscall(SYS_getdents64, fd, small, sizeof small);
        CHECK(n >= 0);
        if (n == 0) break;
        for (long at = 0; at < n; at += ((struct entry *)(small + at))->len) {
            const char *name = ((struct entry *)(small + at))->name;
            if (name[0] != 'f') continue;
            if (seen[atoi(name + 1)]++) fail("%s is listed twice", name);
            got++;
        }
    }
    return got;
}

static int first_part;

static int directory_at(const char *path) {
    snprintf(many, sizeof many, "%s", path);
    CHECK(mkdir(path, 0755) == 0);
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < ENTRIES; i++) {
        char name[20];
        snprintf(name, sizeof name, "f%d", i);
        CHECK(close(openat(fd, name, O_WRONLY | O_CREAT | O_EXCL, 0600)) == 0);
    }
    first_part = list(fd, 20);
    CHECK(first_part > 100 && first_part < ENTRIES - 100);
    return fd;
}

static int directory(void) { return directory_at(in_dir("many")); }

static int directory_in_memory(void) {
    char path[60];
    snprintf(path, sizeof path, "/dev/shm/ckpt-many-%d", (int)getpid());
    struct statfs f;
    if (statfs("/dev/shm", &f) || f.f_type != 0x01021994) skip("/dev/shm is no tmpfs");
    return directory_at(path);
}

static void check_directory(int fd) {
    EQ(list(fd, ENTRIES), ENTRIES - first_part);
    // Not left in /dev/shm.
    for (int i = 0; i < ENTRIES; i++) {
        char name[20];
        snprintf(name, sizeof name, "f%d", i);
        unlinkat(fd, name, 0);
    }
    rmdir(many);
}

// --- files that the kernel writes ---

static int kernel_file(void) {
    int fd = open("/proc/sys/kernel/ostype", O_RDONLY);
    CHECK(read(fd, buffer, 2) == 2);
    return fd;
}

static void check_kernel_file(int fd) {
    EQ(read(fd, buffer, 100), 4);
    EQ(memcmp(buffer, "nux\n", 4), 0);
}

static int sys_file(void) {
    int fd = open("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", O_RDONLY);
    if (fd < 0) skip("no huge pages here: %s", strerror(errno));
    EQ(read(fd, buffer, 100), 8);
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

static void check_sys_file(int fd) {
    // Changes were seen: a poll for them (POLLPRI) must not say that there is something new.
    struct pollfd p = {fd, POLLPRI, 0};
    EQ(poll(&p, 1, 0), 0);
    EQ(read(fd, buffer, 100), 8);
    EQ(memcmp(buffer, "2097152\n", 8), 0);
}

static bool in_child;

static int own_status(void) {
    return open("/proc/self/status", O_RDONLY);
}

static void check_status_of(int fd, int pid) {
    ssize_t n = pread(fd, buffer, sizeof buffer - 1, 0);
    CHECK(n > 0);
    buffer[n] = 0;
    const char *line = strstr(buffer, "\nPid:");
    CHECK(line);
    EQ(atoi(line + 5), pid);
}

static void check_own_status(int fd) { check_status_of(fd, in_child ? getppid() : getpid()); }

static int own_directory(void) {
    return open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
}

static void check_own_directory(int fd) {
    char name[20], target[PATH_MAX] = {0};
    int f = open("/dev/null", O_RDONLY);
    snprintf(name, sizeof name, "%d", f);
    CHECK(readlinkat(fd, name, target, sizeof target - 1) > 0);
    EQ(strcmp(target, "/dev/null"), 0);
}

// --- leases and notification ---

static int read_lease(void) {
    int fd = open(file("leased", "lease"), O_RDONLY);
    CHECK(fcntl(fd, F_SETLEASE, F_RDLCK) == 0 && fcntl(fd, F_SETSIG, SIGRTMIN + 3) == 0);
    return fd;
}

static int write_lease(void) {
    int fd = open(file("leased", "lease"), O_RDWR);
    CHECK(fcntl(fd, F_SETLEASE, F_WRLCK) == 0 && fcntl(fd, F_SETSIG, SIGRTMIN + 3) == 0);
    return fd;
}

static void check_lease(int fd, int kind) {
    EQ(fcntl(fd, F_GETLEASE), kind);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 3);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    // Whoever opens it has to wait, and the holder is told.
    CHECK(open(in_dir("leased"), O_RDWR | O_NONBLOCK) == -1 && errno == EWOULDBLOCK);
    siginfo_t info;
    CHECK(sigtimedwait(&set, &info, &(struct timespec){20, 0}) == SIGRTMIN + 3);
    // Of one that was duplicated it is the number that it had then.
    if (fd != 401) EQ(info.si_fd, fd);
    CHECK(fcntl(fd, F_SETLEASE, F_UNLCK) == 0);
    CHECK(open(in_dir("leased"), O_RDWR | O_NONBLOCK) >= 0);
}

static void check_read_lease(int fd) { check_lease(fd, F_RDLCK); }
static void check_write_lease(int fd) { check_lease(fd, F_WRLCK); }

static const struct {
    const char *name;
    struct kind kind;
} kinds[] = {
    {"path_file", {path_file, check_path_file, NOT_POLLABLE, false}},
    {"path_directory", {path_directory, check_path_directory, NOT_POLLABLE, false}},
    {"path_symlink", {path_symlink, check_path_symlink, NOT_POLLABLE, false}},
    {"path_fifo", {path_fifo, check_path_fifo, NOT_POLLABLE, false}},
    {"path_tty", {path_tty, check_path_tty, NOT_POLLABLE, false}},
    {"tmpfile", {tmpfile_made, check_tmpfile, NOT_POLLABLE, false}},
    {"tmpfile_write_only", {tmpfile_write_only, check_tmpfile_write_only, NOT_POLLABLE, false}},
    {"deleted_read_only", {deleted_read_only, check_deleted_read_only, NOT_POLLABLE, false}},
    {"in_deleted_directory", {in_deleted_directory, check_in_deleted_directory, NOT_POLLABLE, false}},
    {"deleted_directory", {deleted_directory, check_deleted_directory, NOT_POLLABLE, false}},
    {"sparse", {sparse, check_sparse, NOT_POLLABLE, false}},
    {"direct", {direct, check_direct, NOT_POLLABLE, false}},
    {"flags", {all_flags, check_flags, NOT_POLLABLE, false}},
    {"renamed", {renamed, check_renamed, NOT_POLLABLE, false}},
    {"closed", {closed, check_closed, NOT_POLLABLE, false}},
    {"replaced", {replaced, check_replaced, NOT_POLLABLE, false}},
    {"directory", {directory, check_directory, NOT_POLLABLE, false}},
    {"directory_in_memory", {directory_in_memory, check_directory, NOT_POLLABLE, false}},
    {"kernel_file", {kernel_file, check_kernel_file, EPOLLIN | EPOLLOUT, false}},
    {"sys_file", {sys_file, check_sys_file, EPOLLIN | EPOLLOUT, false}},
    {"own_status", {own_status, check_own_status, NOT_POLLABLE, false}},
    {"own_directory", {own_directory, check_own_directory, NOT_POLLABLE, true}},
    {"read_lease", {read_lease, check_read_lease, NOT_POLLABLE, true}},
    {"write_lease", {write_lease, check_write_lease, NOT_POLLABLE, true}},
};

int main(int argc, char **argv) {
    in_child = argc > 1 && !strcmp(argv[1], "shared");
    for (size_t i = 0; argc > 2 && i < sizeof kinds / sizeof kinds[0]; i++)
        if (!strcmp(argv[2], kinds[i].name)) return forms(argc, argv, &kinds[i].kind);
    fail("form_files FORM KIND");
}
