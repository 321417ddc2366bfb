/* session FILE MILLISECONDS: a session that does nothing but take that long; it appends to the file when it began and when
   it ended, in microseconds. In C for its size: a shell and its `sleep` cost as much as all that starts them. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void stamp(int file, char mark) {
    struct timespec now;
    char line[32];
    clock_gettime(CLOCK_REALTIME, &now);
    int length = snprintf(line, sizeof line, "%c %lld%06ld\n", mark, (long long)now.tv_sec, now.tv_nsec / 1000);
    if (write(file, line, (size_t)length) != length)
        exit(1);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    long pause = atol(argv[2]);
    struct timespec left = {pause / 1000, pause % 1000 * 1000000};
    int file = open(argv[1], O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (file < 0)
        return 1;
    stamp(file, 'b');
    while (nanosleep(&left, &left) != 0)
        ;
    stamp(file, 'e');
    return 0;
}
