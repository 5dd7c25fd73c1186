// Protections, and code made at run time.
#include "maps.h"

// mov eax, N; ret
static void code(unsigned char *p, unsigned n) {
    p[0] = 0xb8;
    memcpy(p + 1, &n, 4);
    p[5] = 0xc3;
}

int main(void) {
    unsigned char *rwx = map(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    unsigned char *rx = map(2 * PAGE, PROT_READ | PROT_WRITE);
    unsigned char *x = map(3 * PAGE, PROT_READ | PROT_WRITE);
    char *w = map(4 * PAGE, PROT_READ | PROT_WRITE);
    code(rwx, 1234);
    code(rx, 5678);
    code(x, 91011);
    fill(w, PAGE, 4);
    CHECK(mprotect(rx, 2 * PAGE, PROT_READ | PROT_EXEC) == 0);
    CHECK(mprotect(x, 3 * PAGE, PROT_EXEC) == 0);
    CHECK(mprotect(w, 4 * PAGE, PROT_WRITE) == 0);
    maps_save();
    ready();
    wait_go();
    maps_check();
    EQ(((unsigned (*)(void))rwx)(), 1234);
    EQ(((unsigned (*)(void))rx)(), 5678);
    EQ(((unsigned (*)(void))x)(), 91011);
    code(rwx, 4321);
    EQ(((unsigned (*)(void))rwx)(), 4321);
    fill(w + PAGE, PAGE, 5);
    CHECK(mprotect(w, 4 * PAGE, PROT_READ) == 0);
    verify(w, PAGE, 4);
    verify(w + PAGE, PAGE, 5);
    return ok();
}
