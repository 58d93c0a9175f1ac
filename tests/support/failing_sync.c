/*
 * A disk that cannot sync: loaded with LD_PRELOAD, fsync and fdatasync of files below a folder `journal` fail with EIO once
 * there is the file FAILING_SYNC. All other syncs are the system's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int file)
{
    char link[64], path[4096];
    const char *marker = getenv("FAILING_SYNC");
    if (!marker || access(marker, F_OK) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return strstr(path, "/journal/") != NULL;
}

static int refused(void)
{
    errno = EIO;
    return -1;
}

int fsync(int file)
{
    return fails(file) ? refused() : (int)syscall(SYS_fsync, file);
}

int fdatasync(int file)
{
    return fails(file) ? refused() : (int)syscall(SYS_fdatasync, file);
}
