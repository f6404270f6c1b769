/*
 * Which pages of a window of a file are in the page cache, clean, and where in guest memory. Nothing is read from
 * disk for it.
 */
#ifndef VMMIG_RESIDENT_H
#define VMMIG_RESIDENT_H

#include <stdint.h>

#include "groups.h"

#define NOT_CLEAN (~0ULL)

/* Opens what it takes; 0 when this kernel does not let us. */
int resident_open(void);

/*
 * Fills pfns[i] for each of the window's pages: its page frame number, 0 when it is not in memory, or NOT_CLEAN
 * (counted in stats). Returns the number of pages in memory. once(argument) is asked as soon as there is one; when it
 * says no, the rest of the work is left.
 */
int resident_window(int file, uint64_t offset, uint32_t pages, uint64_t *pfns, int (*once)(void *), void *argument);

/* Whether anything of a range may be in memory; never wrong about a no. */
int resident_maybe(int file, uint64_t offset, uint64_t length);

#endif
