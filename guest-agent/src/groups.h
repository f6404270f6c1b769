/*
 * Runs on their way to the host, in groups, and what the host already knows.
 *
 * A group is one 16 MiB window of a file or block device. Of every group sent only a 64-bit digest is kept, so a
 * re-scan can tell which groups changed without remembering the pages. The table is bounded; groups that do not fit
 * are sent every time.
 */
#ifndef VMMIG_GROUPS_H
#define VMMIG_GROUPS_H

#include <stdint.h>

#define WINDOW_PAGES 4096

struct run {
    uint64_t pfn;
    uint64_t sector; /* disk offset in units of 512 bytes */
    uint32_t pages;
    uint32_t disk;
};

/* Forgets everything, and what ids mean: a new session. */
void groups_reset(void);
/* Starts a scan. A full one forgets what the host knows. */
void groups_begin(int full);
/* The id of a window; says nothing about the file to whoever does not know the session's secret. */
uint64_t group_id(uint64_t device, uint64_t inode, uint64_t window);
/* Whether this scan has been there already, through another name of the same file. */
int group_seen(uint64_t id);
/* Takes a window's runs (at most WINDOW_PAGES) and sends them if they are news; 0 when the scan must end. */
int group_add(uint64_t id, const struct run *runs, uint32_t count);
/* Sends what is collected; a scan that ends early needs it too, or the table would promise what the host never got. */
int groups_flush(void);
/* Sends what is collected, and which groups are no more; 0 when the scan must end. */
int groups_finish(void);

#endif
