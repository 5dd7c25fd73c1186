// Huge pages from the pool.
#include "maps.h"

int main(void) {
    size_t huge = 2 << 20;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB;
    char *p = mmap(NULL, 2 * huge, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (p == MAP_FAILED) skip("no huge pages in the pool (vm.nr_hugepages)");
    char *shared = mmap(NULL, huge, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (shared == MAP_FAILED) skip("only %d huge pages in the pool (vm.nr_hugepages)", 2);
    fill(p, huge, 1);
    fill(shared, huge, 2);
    maps_save();
    ready();
    wait_go();
    maps_check();
    verify(p, huge, 1);
    verify_zero(p + huge, huge);
    verify(shared, huge, 2);
    return ok();
}
