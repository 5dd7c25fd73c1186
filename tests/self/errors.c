// What cannot be saved, in words: errors IMAGE [OPTION]...
#include "self.h"

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    CHECK(argc >= 2);
    sigset_t before, after;
    sigprocmask(SIG_SETMASK, NULL, &before);
    const char *open_before = descriptors();
    int result = ckpt_checkpoint(argv[1], (const char *const *)argv + 2, NULL);
    sigprocmask(SIG_SETMASK, NULL, &after);
    CHECK(!memcmp(&before, &after, 8));
    CHECK(!strcmp(open_before, descriptors()));
    CHECK(is_childless());
    CHECK(ckpt_list(NULL, 0) == (result >= 0));
    printf("%d %s\n", result, result < 0 ? ckpt_error() : word(result));
    return 0;
}
