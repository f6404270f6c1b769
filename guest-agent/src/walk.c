#define _GNU_SOURCE
#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "ext4dir.h"
#include "kernel.h"
#include "object.h"
#include "session.h"
#include "stats.h"

#define MAX_DEPTH 100
#define FILE_FLAGS (O_RDONLY | O_NOFOLLOW | O_NOATIME | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

struct walk {
    const struct filesystem *filesystem;
    const struct devmap *map;
    int device;
    size_t block_size;
};

struct level {
    const struct walk *walk;
    int directory, depth;
};

static int cached_walk = -1;

static int open_cached(int directory, const char *name, int flags) {
    struct open_how how = {.flags = (uint64_t)flags,
                           .resolve = RESOLVE_CACHED | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS};
    if (!walk_is_cached()) return openat(directory, name, flags);
    int fd = (int)syscall(SYS_OPENAT2, directory, name, &how, sizeof how);
    /* A rename anywhere at the same time gives the same error as a name that is not cached: ask twice. */
    if (fd < 0 && errno == EAGAIN) fd = (int)syscall(SYS_OPENAT2, directory, name, &how, sizeof how);
    if (fd < 0 && errno == EAGAIN) stats.unknown++;
    return fd;
}

int walk_is_cached(void) {
    if (cached_walk < 0) {
        struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_CACHED};
        int fd = (int)syscall(SYS_OPENAT2, AT_FDCWD, "/", &how, sizeof how);
        cached_walk = fd >= 0 || errno == EAGAIN;
        if (fd >= 0) close(fd);
    }
    return cached_walk;
}

static int list(const struct walk *walk, int directory, int depth);

/* For file systems that do not store types in directories. */
static unsigned char find_type(int directory, const char *name) {
    struct stat status;
    int fd = open_cached(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return DT_UNKNOWN;
    int known = !fstat(fd, &status);
    close(fd);
    return !known ? DT_UNKNOWN : S_ISREG(status.st_mode) ? DT_REG : S_ISDIR(status.st_mode) ? DT_DIR : DT_UNKNOWN;
}

static int visit(void *context, const char *name, unsigned char type) {
    const struct level *level = context;
    const struct walk *walk = level->walk;
    struct stat status;
    int more = session_tick();
    if (!more) return 0;
    if (type == DT_UNKNOWN) type = find_type(level->directory, name);
    if (type != DT_REG && (type != DT_DIR || level->depth == MAX_DEPTH)) return 1;
    int fd = open_cached(level->directory, name, FILE_FLAGS | (type == DT_DIR ? O_DIRECTORY : 0));
    if (fd < 0) return 1;
    if (!fstat(fd, &status) && status.st_dev == walk->filesystem->device) {
        if (S_ISDIR(status.st_mode)) {
            more = list(walk, fd, level->depth + 1);
        } else if (S_ISREG(status.st_mode)) {
            struct object object = {fd, status.st_dev, status.st_ino, (uint64_t)status.st_size, walk->map};
            stats.files++;
            more = object_scan(&object);
        }
    }
    close(fd);
    return more;
}

static int list_plainly(struct level *level) {
    char buffer[4096] __attribute__((aligned(8)));
    long length;
    /* What is not cached of the directory has to be read, but not what happens to be beside it on the disk. */
    posix_fadvise(level->directory, 0, 0, POSIX_FADV_RANDOM);
    while ((length = syscall(SYS_getdents64, level->directory, buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < length;) {
            struct dirent *entry = (struct dirent *)(buffer + at);
            at += entry->d_reclen;
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
            if (!visit(level, entry->d_name, entry->d_type)) return 0;
        }
    }
    return 1;
}

static int list(const struct walk *walk, int directory, int depth) {
    struct level level = {walk, directory, depth};
    if (walk->device >= 0 && walk_is_cached()) {
        int result = ext4dir_list(walk->device, directory, walk->block_size, visit, &level);
        if (result >= 0) return result;
    }
    return list_plainly(&level);
}

int walk_filesystem(const struct filesystem *filesystem, int device, const struct devmap *map) {
    struct statfs status;
    struct walk walk = {filesystem, map, filesystem->is_ext4 ? device : -1, 0};
    if (fstatfs(filesystem->root, &status)) return 1;
    walk.block_size = (size_t)status.f_bsize;
    /* Not the descriptor of the mount itself: reading moves its position. */
    int root = openat(filesystem->root, ".", FILE_FLAGS | O_DIRECTORY);
    if (root < 0) return 1;
    int more = list(&walk, root, 0);
    close(root);
    return more;
}
