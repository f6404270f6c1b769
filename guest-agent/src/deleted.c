#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "object.h"
#include "session.h"
#include "stats.h"
#include "walk.h"

#define DELETED " (deleted)"

/* Scans the file behind a /proc link if it is an unlinked regular file of one of the file systems. */
static int scan_link(int directory, const char *name, const struct filesystem *filesystems,
                     const struct devmap *maps, int count) {
    char target[4096];
    struct stat status;
    long length = readlinkat(directory, name, target, sizeof target);
    long suffix = (long)strlen(DELETED);
    if (length <= suffix || length == sizeof target || memcmp(target + length - suffix, DELETED, (size_t)suffix))
        return 1;
    /* Asked before opening: opening a pipe or a device could do something. */
    if (fstatat(directory, name, &status, 0) || !S_ISREG(status.st_mode) || status.st_nlink) return 1;
    int at = 0, more = 1;
    while (at < count && filesystems[at].device != status.st_dev) at++;
    if (at == count) return 1;
    int fd = openat(directory, name, O_RDONLY | O_NOATIME | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) return 1;
    if (!fstat(fd, &status) && S_ISREG(status.st_mode) && status.st_dev == filesystems[at].device) {
        struct object object = {fd, status.st_dev, status.st_ino, (uint64_t)status.st_size, &maps[at]};
        stats.files++;
        more = object_scan(&object);
    }
    close(fd);
    return more;
}

int walk_deleted(const struct filesystem *filesystems, const struct devmap *maps, int count) {
    static const char *const kinds[] = {"fd", "map_files"};
    DIR *processes = opendir("/proc");
    int more = 1;
    if (!processes) return 1;
    for (struct dirent *process; more && (process = readdir(processes));) {
        if (process->d_name[0] < '1' || process->d_name[0] > '9') continue;
        for (int kind = 0; more && kind < 2; kind++) {
            char path[300];
            snprintf(path, sizeof path, "/proc/%s/%s", process->d_name, kinds[kind]);
            DIR *links = opendir(path);
            if (!links) continue;
            for (struct dirent *link; more && (link = readdir(links));) {
                if (link->d_name[0] == '.') continue;
                more = session_tick() && scan_link(dirfd(links), link->d_name, filesystems, maps, count);
            }
            closedir(links);
        }
    }
    closedir(processes);
    return more;
}
