/*
 * Finds the files worth scanning.
 *
 * The walk only goes where the kernel's own name cache (dcache) already knows the way: openat2 with RESOLVE_CACHED
 * fails instead of reading from disk. A directory whose name is not cached has no cached names below it, so whole cold
 * trees cost nothing.
 */
#ifndef VMMIG_WALK_H
#define VMMIG_WALK_H

#include "devmap.h"
#include "mounts.h"

/* Whether this kernel has RESOLVE_CACHED (Linux 5.12). Without it, the walk opens every file. */
int walk_is_cached(void);

/* Scans the files of a file system by name; device is a descriptor of its block device, or -1. 0: stop. */
int walk_filesystem(const struct filesystem *filesystem, int device, const struct devmap *map);

/*
 * Scans files that have no name any more but are in use: upgraded libraries, temporary files. maps[i] belongs to
 * filesystems[i]. 0: stop.
 */
int walk_deleted(const struct filesystem *filesystems, const struct devmap *maps, int count);

#endif
