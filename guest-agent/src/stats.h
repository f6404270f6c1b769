/* Why resident pages were left out, in pages: the codes are part of the protocol. */
#ifndef VMMIG_STATS_H
#define VMMIG_STATS_H

#include <stdint.h>

enum skip_reason {
    SKIP_DIRTY = 1,     /* newer than the disk */
    SKIP_WRITEBACK = 2, /* on its way to the disk */
    SKIP_DELALLOC = 3,  /* no place on the disk yet */
    SKIP_UNKNOWN = 4,   /* the file system does not say where */
    SKIP_ENCODED = 5,   /* compressed on disk */
    SKIP_ENCRYPTED = 6,
    SKIP_INLINE = 7,    /* inside metadata */
    SKIP_UNALIGNED = 8, /* not whole disk sectors in one piece */
    SKIP_UNWRITTEN = 9, /* allocated, but zeroes by definition */
    SKIP_HOLE = 10,
    SKIP_UNMAPPED = 11, /* the block device is not plainly on a disk: dm-crypt, RAID, loop, XFS real-time */
    SKIP_VANISHED = 12, /* evicted while being looked at */
    SKIP_REASONS
};

struct stats {
    uint64_t skipped[SKIP_REASONS];
    uint64_t pages;   /* in runs, whether news to the host or not */
    uint64_t files;   /* regular files opened */
    uint64_t unknown; /* directory entries not opened, because that could have read from disk */
};

extern struct stats stats;

#endif
