#define _GNU_SOURCE
#include "extents.h"

#include <string.h>

void extents_open(struct extents *extents, int file, uint64_t start, uint64_t end) {
    extents->file = file;
    extents->next = start;
    extents->end = end;
    extents->count = extents->at = 0;
    extents->last = 0;
}

static const struct fiemap_extent *peek(struct extents *extents) {
    if (extents->at == extents->count) {
        if (extents->last || extents->next >= extents->end) return NULL;
        struct fiemap *head = &extents->map.head;
        memset(head, 0, sizeof *head);
        head->start = extents->next;
        head->length = extents->end - extents->next;
        head->extent_count = EXTENT_BATCH;
        extents->at = extents->count = 0;
        if (ioctl(extents->file, FS_IOC_FIEMAP, head) || !head->mapped_extents) {
            extents->last = 1;
            return NULL;
        }
        extents->count = head->mapped_extents;
        const struct fiemap_extent *final = &extents->map.list[extents->count - 1];
        /* A file system that makes no progress must not keep us here. */
        extents->last = final->flags & FIEMAP_EXTENT_LAST || final->logical + final->length <= extents->next;
        extents->next = final->logical + final->length;
    }
    return &extents->map.list[extents->at];
}

int extents_next(struct extents *extents, struct fiemap_extent *extent) {
    const struct fiemap_extent *next = peek(extents);
    if (!next) return 0;
    *extent = *next;
    while (extents->at++, (next = peek(extents))) {
        if (extent_reason(extent) || extent_reason(next) || next->logical != extent->logical + extent->length ||
            next->physical != extent->physical + extent->length)
            break;
        extent->length += next->length;
    }
    return 1;
}

enum skip_reason extent_reason(const struct fiemap_extent *extent) {
    uint32_t flags = extent->flags;
    if (flags & FIEMAP_EXTENT_DELALLOC) return SKIP_DELALLOC;
    if (flags & (FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_DATA_TAIL)) return SKIP_INLINE;
    if (flags & FIEMAP_EXTENT_DATA_ENCRYPTED) return SKIP_ENCRYPTED;
    if (flags & FIEMAP_EXTENT_ENCODED) return SKIP_ENCODED;
    if (flags & FIEMAP_EXTENT_UNKNOWN) return SKIP_UNKNOWN;
    if (flags & FIEMAP_EXTENT_UNWRITTEN) return SKIP_UNWRITTEN;
    if (flags & FIEMAP_EXTENT_NOT_ALIGNED || (extent->physical | extent->logical) % 512) return SKIP_UNALIGNED;
    return 0;
}
