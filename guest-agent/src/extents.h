/* Where the file system has put a file's bytes, read with FS_IOC_FIEMAP (which writes nothing back). */
#ifndef VMMIG_EXTENTS_H
#define VMMIG_EXTENTS_H

#include <stdint.h>

#include "kernel.h"
#include "stats.h"

#define EXTENT_BATCH 64

struct extents {
    int file;
    uint64_t end; /* of the range asked for */
    uint64_t next;
    unsigned count, at;
    int last;
    struct {
        struct fiemap head;
        struct fiemap_extent list[EXTENT_BATCH];
    } map;
};

/* Walks the extents of file that touch [start, end), ascending. */
void extents_open(struct extents *extents, int file, uint64_t start, uint64_t end);
/* Takes the next extent; 0 when there are no more. Extents that continue each other on disk come as one. */
int extents_next(struct extents *extents, struct fiemap_extent *extent);
/* Why an extent's bytes are not plainly on disk; 0 when they are. */
enum skip_reason extent_reason(const struct fiemap_extent *extent);

#endif
