// Hooks, in their order: hooks IMAGE
#include "self.h"

static void before(void *name) { printf("before %s\n", (char *)name); }
static void after(uint64_t id, void *name) { printf("after %s %d\n", (char *)name, (int)id); }
static void restored(uint64_t id, void *name) { printf("restored %s %d\n", (char *)name, (int)id); }

static void nested(void *path) {
    CHECK(ckpt_checkpoint(path, NULL, NULL) == CKPT_FAILED);
    CHECK(strstr(ckpt_error(), "hooks cannot"));
    CHECK(ckpt_revert(1) == CKPT_FAILED);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    CHECK(argc == 2);
    ckpt_before(nested, argv[1]);
    ckpt_before(before, "a");
    ckpt_before(before, "b");
    ckpt_after(after, "a");
    ckpt_after(after, "b");
    ckpt_on_restored(restored, "a");
    ckpt_on_restored(restored, "b");
    int result = ckpt_checkpoint(argv[1], NULL, NULL);
    CHECK(result >= 0);
    printf("%s\n", word(result));
    if (result == CKPT_SAVED) {
        CHECK(ckpt_checkpoint("no/such/directory", NULL, NULL) == CKPT_FAILED);
        printf("failed\n");
    }
    return 0;
}
