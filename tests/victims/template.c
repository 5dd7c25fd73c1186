// A server that becomes many, each with its own port and directory: `template DIR PORT`.
//
// It has everything open in DIR that a path leads to, and answers a connection with what it sees of it; 'q' ends it.
#include "victim.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>

static const char *dir;

static const char *below(const char *name) {
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static int unix_socket(int kind, const char *name) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    CHECK(strlen(name) < sizeof a.sun_path);
    strcpy(a.sun_path, name);
    int fd = socket(AF_UNIX, kind, 0);
    CHECK(fd >= 0 && bind(fd, (void *)&a, sizeof a) == 0);
    return fd;
}

static void name_of(int fd, char *out, size_t size) {
    struct sockaddr_un a = {0};
    socklen_t len = sizeof a;
    CHECK(getsockname(fd, (void *)&a, &len) == 0);
    snprintf(out, size, "%s", a.sun_path);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    dir = argv[1];
    CHECK(chdir(dir) == 0);
    char c;
    int data = open(below("data"), O_RDONLY);
    CHECK(data >= 0 && read(data, &c, 1) == 1);
    int log = open(below("log"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    CHECK(write(log, "started\n", 8) == 8);
    int folder = open(dir, O_RDONLY | O_DIRECTORY);
    CHECK(mkfifo(below("fifo"), 0600) == 0);
    int fifo = open(below("fifo"), O_RDWR | O_NONBLOCK);
    int file = open(below("state"), O_RDWR);
    int *state = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(log >= 0 && folder >= 0 && fifo >= 0 && file >= 0 && state != MAP_FAILED);
    // Another instance's is another one's.
    char name[PATH_MAX];
    snprintf(name, sizeof name, "/ckpt-template-%s", argv[2]);
    int memory = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(memory >= 0 && ftruncate(memory, PAGE) == 0);
    int *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    CHECK(shared != MAP_FAILED && close(memory) == 0);
    *shared = 1000;
    // Where letters go.
    int sender = socket(AF_UNIX, SOCK_DGRAM, 0);
    int gone = open(below("gone"), O_RDWR | O_CREAT, 0600);
    CHECK(gone >= 0 && write(gone, "gone", 4) == 4 && unlink(below("gone")) == 0);
    int door = unix_socket(SOCK_STREAM, below("door"));
    int mail = unix_socket(SOCK_DGRAM, "mail");
    CHECK(listen(door, 5) == 0);
    struct sockaddr_un post = {.sun_family = AF_UNIX};
    snprintf(post.sun_path, sizeof post.sun_path, "%s", below("post"));
    CHECK(connect(sender, (void *)&post, sizeof post) == 0);
    int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    CHECK(watch >= 0);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK(bind(listener, (void *)&a, sizeof a) == 0 && listen(listener, 5) == 0);
    CHECK(inotify_add_watch(watch, dir, IN_CREATE) == 1);
    ready();
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0 && errno == EINTR) continue;
        CHECK(client >= 0 && read(client, &c, 1) == 1);
        if (c == 'q') return 0;
        char cwd[PATH_MAX], address[200], relative[200], events[4096], text[16] = "";
        CHECK(getcwd(cwd, sizeof cwd) && read(data, &c, 1) == 1);
        name_of(door, address, sizeof address);
        name_of(mail, relative, sizeof relative);
        ssize_t heard = read(watch, events, sizeof events);
        struct stat by_fd, by_path;
        CHECK(fstat(fifo, &by_fd) == 0);
        bool same_fifo = fstatat(folder, "fifo", &by_path, 0) == 0 && by_fd.st_ino == by_path.st_ino;
        CHECK(pread(gone, text, 4, 0) == 4);
        CHECK(send(sender, "letter", 6, 0) == 6);
        CHECK(dprintf(log, "served %d\n", ++*state) > 0);
        CHECK(dprintf(client, "cwd=%s data=%c door=%s mail=%s state=%d fifo=%d heard=%s gone=%s shared=%d\n", cwd, c, address,
                      relative, *state, same_fifo, heard > 0 ? ((struct inotify_event *)events)->name : "", text, ++*shared) > 0);
        CHECK(close(client) == 0);
    }
}
