/*
 * Where the bytes of a block device are on whole disks: through partitions and device-mapper linear targets (LVM),
 * in any nesting. Everything else (dm-crypt, RAID, loop) is "nowhere": its bytes on disk are others.
 */
#ifndef VMMIG_DEVMAP_H
#define VMMIG_DEVMAP_H

#include <stdint.h>
#include <sys/types.h>

#define DEVMAP_SEGMENTS 512

struct segment {
    uint64_t start, length; /* bytes of the device, ascending */
    uint64_t disk_offset;
    int disk; /* -1: not plainly on a disk */
};

struct devmap {
    int count;
    struct segment segments[DEVMAP_SEGMENTS];
};

void devmap_resolve(dev_t device, struct devmap *map);
/*
 * Disk of a byte range of the device, with *disk_offset set; -1 when it is on no disk, or not all of it is in one
 * place.
 */
int devmap_lookup(const struct devmap *map, uint64_t offset, uint64_t length, uint64_t *disk_offset);
/* Whether any byte of the device is on a disk. */
int devmap_useful(const struct devmap *map);

#endif
