/* A slower disk: each fsync() and fdatasync() of the program takes at least SLOW_DISK_US microseconds.
 *
 * usage: LD_PRELOAD=… SLOW_DISK_US=2000 PROGRAM
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

static int no_sooner(const char *name, int fd) {
    const char *text = getenv("SLOW_DISK_US");
    long us = text == NULL ? 0 : atol(text);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += us % 1000000 * 1000;
    until.tv_sec += us / 1000000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    int (*call)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = call(fd), error = errno;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ; /* a signal does not make the disk faster */
    errno = error;
    return result;
}

int fsync(int fd) { return no_sooner("fsync", fd); }

int fdatasync(int fd) { return no_sooner("fdatasync", fd); }
