#define _GNU_SOURCE
#include "mounts.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static void unescape(char *text) {
    char *to = text;
    for (const char *from = text; *from; to++) {
        unsigned code;
        if (*from == '\\' && sscanf(from + 1, "%3o", &code) == 1) {
            *to = (char)code;
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = 0;
}

/* Opens a mount point, unless another mount hides it. */
static int open_root(const char *path, dev_t device) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOATIME | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return -1;
    if (!fstat(fd, &status) && status.st_dev == device) return fd;
    close(fd);
    return -1;
}

/* A line: id parent major:minor root mount-point options [optional...] - type source options */
static void add_line(char *line, struct filesystem *list, size_t *root_lengths, int *count) {
    static char root[PATH_MAX], path[PATH_MAX];
    unsigned major_number, minor_number;
    char type[16], *rest = strstr(line, " - ");
    if (!rest || sscanf(rest, " - %15s", type) != 1) return;
    int is_ext4 = !strcmp(type, "ext4");
    if (!is_ext4 && strcmp(type, "xfs")) return;
    if (sscanf(line, "%*u %*u %u:%u %4095s %4095s", &major_number, &minor_number, root, path) != 4) return;
    dev_t device = makedev(major_number, minor_number);
    size_t length = strlen(root);
    int at = 0;
    while (at < *count && list[at].device != device) at++;
    if (at == MAX_FILESYSTEMS || (at < *count && root_lengths[at] <= length)) return;
    unescape(path);
    int fd = open_root(path, device);
    if (fd < 0) return;
    if (at < *count) close(list[at].root);
    else ++*count;
    list[at] = (struct filesystem){device, is_ext4, fd};
    root_lengths[at] = length;
}

int mounts_open(struct filesystem *filesystems) {
    static char line[3 * PATH_MAX];
    size_t root_lengths[MAX_FILESYSTEMS];
    int count = 0;
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    if (!mounts) return 0;
    while (fgets(line, sizeof line, mounts)) add_line(line, filesystems, root_lengths, &count);
    fclose(mounts);
    return count;
}

void mounts_close(struct filesystem *filesystems, int count) {
    for (int i = 0; i < count; i++) close(filesystems[i].root);
}
