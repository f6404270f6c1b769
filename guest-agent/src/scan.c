#define _GNU_SOURCE
#include "scan.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "disks.h"
#include "groups.h"
#include "kernel.h"
#include "object.h"
#include "port.h"
#include "resident.h"
#include "stats.h"
#include "sysfs.h"
#include "walk.h"

/* Codes of counters that are no reasons to skip pages. */
#define COUNTER_FILES 64
#define COUNTER_UNKNOWN 65
#define COUNTER_FILE_CACHE 66

struct stats stats;

static struct filesystem filesystems[MAX_FILESYSTEMS];
static struct devmap *maps; /* one for each file system, and one more */
static uint8_t frame[FRAME_HEADER + FRAME_MAX_PAYLOAD];

static uint32_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)(now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

/* Opens the node of a block device if it is in /dev under the kernel's name for it. */
static int open_device(dev_t device) {
    char name[64], path[80];
    struct stat status;
    sysfs_name(device, name, sizeof name);
    if (!name[0]) return -1;
    snprintf(path, sizeof path, "/dev/%s", name);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOATIME | O_CLOEXEC);
    if (fd < 0) return -1;
    if (!fstat(fd, &status) && S_ISBLK(status.st_mode) && status.st_rdev == device) return fd;
    close(fd);
    return -1;
}

/* The page cache of a block device: file system metadata, and what was read from the device directly. */
static int scan_device(dev_t device) {
    struct devmap *map = &maps[MAX_FILESYSTEMS];
    int more = 1;
    devmap_resolve(device, map);
    int fd = devmap_useful(map) ? open_device(device) : -1;
    if (fd < 0) return 1;
    struct object object = {fd, device, 0, 0, map};
    if (!ioctl(fd, BLKGETSIZE64, &object.size)) more = object_scan(&object);
    close(fd);
    return more;
}

/*
 * XFS has a cache of its own for metadata, beside that of its block device: what happens to be in the latter is not kept
 * up to date.
 */
static int is_stale(dev_t device, int count) {
    for (int i = 0; i < count; i++)
        if (filesystems[i].device == device && !filesystems[i].is_ext4) return 1;
    return 0;
}

static int scan_devices(int count) {
    DIR *blocks = opendir("/sys/class/block");
    int more = 1;
    if (!blocks) return 1;
    for (struct dirent *entry; more && (entry = readdir(blocks));) {
        dev_t device = sysfs_device(entry->d_name);
        if (device && !is_stale(device, count)) more = session_tick() && scan_device(device);
    }
    closedir(blocks);
    return more;
}

static int scan_filesystems(int count) {
    int more = 1;
    for (int i = 0; more && i < count; i++) {
        devmap_resolve(filesystems[i].device, &maps[i]);
        int device = open_device(filesystems[i].device);
        more = walk_filesystem(&filesystems[i], device, &maps[i]);
        if (device >= 0) close(device);
    }
    return more && walk_deleted(filesystems, maps, count);
}

/* Pages of files and block devices in memory, by the kernel's own count: what a perfect scan would find. */
static uint64_t file_cache_pages(void) {
    char line[128];
    unsigned long kib;
    uint64_t sum = 0;
    FILE *memory = fopen("/proc/meminfo", "re");
    if (!memory) return 0;
    while (fgets(line, sizeof line, memory))
        if (sscanf(line, "Active(file): %lu", &kib) == 1 || sscanf(line, "Inactive(file): %lu", &kib) == 1) sum += kib;
    fclose(memory);
    return sum * 1024 / session_page_size();
}

static size_t encode_done(uint8_t *payload, enum scan_mode mode, uint32_t took_ms) {
    uint8_t *at = payload + 5;
    payload[0] = (uint8_t)mode;
    put_u32(payload + 1, took_ms);
    at = put_varint(at, stats.pages);
    for (unsigned reason = 1; reason < SKIP_REASONS; reason++) {
        if (!stats.skipped[reason]) continue;
        at = put_varint(at, reason);
        at = put_varint(at, stats.skipped[reason]);
    }
    at = put_varint(put_varint(at, COUNTER_FILES), stats.files);
    at = put_varint(put_varint(at, COUNTER_UNKNOWN), stats.unknown);
    at = put_varint(put_varint(at, COUNTER_FILE_CACHE), file_cache_pages());
    return (size_t)(at - payload);
}

void scan(enum scan_mode mode) {
    uint32_t started = now_ms();
    memset(&stats, 0, sizeof stats);
    if (!maps) maps = calloc(MAX_FILESYSTEMS + 1, sizeof *maps);
    if (!maps || !resident_open()) {
        put_u16(frame + FRAME_HEADER, ERROR_UNSUPPORTED);
        session_end(FRAME_ERROR, frame, 2);
        return;
    }
    priority_idle();
    disks_refresh();
    groups_begin(mode == SCAN_FULL);
    int count = mounts_open(filesystems);
    int more = session_send(FRAME_DISKS, frame, disks_encode(frame + FRAME_HEADER, FRAME_MAX_PAYLOAD)) &&
               scan_devices(count) && scan_filesystems(count) && groups_finish();
    mounts_close(filesystems, count);
    if (!more) groups_flush();
    session_end(FRAME_DONE, frame, encode_done(frame + FRAME_HEADER, mode, now_ms() - started));
}
