/*
 * Which pages of a window of a file are in the page cache, clean, and where in guest memory. Nothing is read from
 * disk for it.
 */
#ifndef VMMIG_RESIDENT_H
#define VMMIG_RESIDENT_H

#include <stddef.h>
#include <stdint.h>

#include "groups.h"

#define NOT_CLEAN (~0ULL)

/* Opens what it takes; 0 when this kernel does not let us. */
int resident_open(void);

/*
 * A part of a file, at most WINDOW_PAGES. resident_window fills pfns[i] for each of the window's pages: its page frame number, 0 when it is not in memory, or NOT_CLEAN
 * (counted in stats). Returns the number of pages in memory. once(argument) is asked as soon as there is one; when it
 * says no, the rest of the work is left.
 */
struct window {
    int file;
    uint64_t offset;
    uint32_t pages;
    int whole_blocks; /* a block device whose blocks are pages: one block in memory is a whole page */
};
int resident_window(const struct window *window, uint64_t *pfns, int (*once)(void *), void *argument);

/*
 * Pages of a range that are in memory, or -1 when this kernel cannot tell (cachestat is in Linux 6.5).
 *
 * Unlike mincore this counts pages that the file system reads block by block, the metadata of ext4 in its block
 * device: those are complete only in the eyes of their file system, and invisible to older kernels' interfaces.
 */
int resident_sees_blocks(void);
int64_t resident_count(int file, uint64_t offset, uint64_t length);
/*
 * Copies bytes of one page if the page is in memory; 0 if it is not. What read(2) would not do: it reads ahead, also when
 * all that was asked for is cached.
 */
int resident_read(int file, uint64_t offset, size_t length, uint8_t *bytes);

#endif
