// Memory that compresses well, badly, and in parts: text, noise, sparse pages, and all of it side by side. With
// "large" more of it.
#include "maps.h"

static uint64_t state = 88172645463325252ull;

static uint64_t noise(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

// What word i of page p is, for a kind of contents.
static void page(unsigned char *to, size_t p, int kind) {
    state = 88172645463325252ull + p * 1000003 + kind;
    for (size_t i = 0; i < PAGE / 8; i++) {
        uint64_t word = kind == 0 ? i / 16 + p : kind == 1 ? noise() : i % 64 < 32 ? noise() : 0x2020202020202020;
        memcpy(to + 8 * i, &word, 8);
    }
}

static int kind_of(size_t p) {
    size_t chunk = p / 64;
    return chunk % 7 == 6 ? (int)(p % 3) : (int)(chunk % 3);
}

// Every 13th page of some parts is left alone.
static bool hole(size_t p) {
    return p / 64 % 5 == 4 && p % 13 == 0;
}

int main(int argc, char **argv) {
    size_t pages = argc > 1 && strcmp(argv[1], "large") == 0 ? 12288 : 1536;
    unsigned char *memory = map(pages * PAGE, PROT_READ | PROT_WRITE);
    static unsigned char expected[4096];
    for (size_t p = 0; p < pages; p++)
        if (!hole(p)) page(memory + p * PAGE, p, kind_of(p));
    maps_save();
    ready();
    wait_go();
    maps_check();
    for (size_t p = 0; p < pages; p++) {
        memset(expected, 0, PAGE);
        if (!hole(p)) page(expected, p, kind_of(p));
        if (memcmp(expected, memory + p * PAGE, PAGE) != 0) fail("page %zu differs", p);
    }
    return ok();
}
