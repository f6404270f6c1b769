/* Scans one object with a page cache of its own: a file, or a block device. */
#ifndef VMMIG_OBJECT_H
#define VMMIG_OBJECT_H

#include <stdint.h>
#include <sys/types.h>

#include "devmap.h"

struct object {
    int fd;
    dev_t device; /* of the file system, or the block device itself */
    uint64_t inode; /* 0: the block device */
    uint64_t size;
    const struct devmap *map; /* of the device */
};

/* 0 when the scan must end. */
int object_scan(const struct object *object);

#endif
