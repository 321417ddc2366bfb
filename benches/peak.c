/* peak PROGRAM ARGUMENT...: runs it and prints its peak memory in KiB.
   In C for its size: a process begins with the memory of the one it was forked from, which counts as its own peak. */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int status = 1;
    struct rusage usage;
    pid_t child = argc > 1 ? vfork() : -1;
    if (child == 0) {
        execv(argv[1], argv + 1);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &usage) != child || status != 0)
        return 1;
    fprintf(stderr, "%ld\n", usage.ru_maxrss);
    return 0;
}
