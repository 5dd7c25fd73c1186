// Copies standard input to standard output, line by line, until it ends; exits with the status given.
#include "victim.h"

int main(int argc, char **argv) {
    char line[1000];
    setvbuf(stdout, NULL, _IOLBF, 0);
    fprintf(stderr, "started\n");
    ready();
    wait_go();
    while (fgets(line, sizeof line, stdin)) printf("<%s", line);
    CHECK(!ferror(stdin));
    fprintf(stderr, "ended\n");
    put("result", "ok");
    return argc > 1 ? atoi(argv[1]) : 0;
}
