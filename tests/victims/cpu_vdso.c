// The vDSO: where libc cached its functions, and by its symbols; clocks never go back.
#include "victim.h"
#include <elf.h>
#include <link.h>
#include <sys/auxv.h>

typedef int (*clock_fn)(clockid_t, struct timespec *);
typedef long (*getcpu_fn)(unsigned *, unsigned *, void *);

static void *vdso_symbol(const char *name) {
    char *base = (char *)getauxval(AT_SYSINFO_EHDR);
    CHECK(base);
    ElfW(Ehdr) *ehdr = (void *)base;
    ElfW(Phdr) *phdr = (void *)(base + ehdr->e_phoff);
    uint64_t slide = (uint64_t)base;
    ElfW(Dyn) *dyn = NULL;
    for (int i = 0; i < ehdr->e_phnum; i++) {
        if (phdr[i].p_type == PT_LOAD) slide = (uint64_t)base + phdr[i].p_offset - phdr[i].p_vaddr;
        if (phdr[i].p_type == PT_DYNAMIC) dyn = (void *)(base + phdr[i].p_offset);
    }
    CHECK(dyn);
    ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;
    uint64_t end = 0;
    for (; dyn->d_tag; dyn++) {
        if (dyn->d_tag == DT_SYMTAB) symbols = (void *)(slide + dyn->d_un.d_ptr);
        if (dyn->d_tag == DT_STRTAB) strings = (char *)(slide + dyn->d_un.d_ptr);
    }
    CHECK(symbols && strings);
    end = (uint64_t)strings;
    for (ElfW(Sym) *s = symbols; (uint64_t)s < end; s++)
        if (strcmp(strings + s->st_name, name) == 0) return (void *)(slide + s->st_value);
    return NULL;
}

static clock_fn direct;
static getcpu_fn cpu;

static void check_clocks(long long *mono, long long *real) {
    struct timespec t;
    for (int i = 0; i < 1000; i++) {
        long long a = now_ns(CLOCK_MONOTONIC);
        CHECK(a >= *mono);
        *mono = a;
        CHECK(direct(CLOCK_MONOTONIC, &t) == 0);
        a = t.tv_sec * 1000000000ll + t.tv_nsec;
        CHECK(a >= *mono);
        *mono = a;
        // The kernel agrees.
        CHECK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t) == 0);
        a = t.tv_sec * 1000000000ll + t.tv_nsec;
        CHECK(a >= *mono && a - *mono < 1000000000);
        a = now_ns(CLOCK_REALTIME);
        CHECK(a >= *real);
        *real = a;
        CHECK(time(NULL) >= *real / 1000000000 - 1);
    }
    unsigned c = 9999, node;
    CHECK(cpu(&c, &node, NULL) == 0 && c < 9999);
    CHECK(sched_getcpu() >= 0);
}

int main(void) {
    direct = (clock_fn)vdso_symbol("__vdso_clock_gettime");
    cpu = (getcpu_fn)vdso_symbol("__vdso_getcpu");
    CHECK(direct && cpu);
    long long mono = 0, real = 0;
    check_clocks(&mono, &real);
    ready();
    wait_go();
    if (moved()) mono = 0;
    check_clocks(&mono, &real);
    CHECK((clock_fn)vdso_symbol("__vdso_clock_gettime") == direct);
    return ok();
}
