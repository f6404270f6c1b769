/*
 * Takes the place of scan.c in an agent that has nothing to do with the machine it runs on: tells, over all that is real
 * of the agent, of as many pages as SYNTHETIC_GROUPS says, in groups of 4096 that lie on one disk in runs of 4.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "groups.h"
#include "scan.h"
#include "stats.h"

#define RUN_PAGES 4
#define RUNS (WINDOW_PAGES / RUN_PAGES)

struct stats stats;

static uint8_t frame[FRAME_HEADER + 128];

static size_t encode_disks(uint8_t *at) {
    static const uint8_t disk[] = {1, 0, 0, 0, 0, 0, 0, 16, 0, 0, 3, 'v', 'd', 'a', 1, 's', 0};
    memcpy(at, disk, sizeof disk);
    return sizeof disk;
}

static int send_group(uint64_t group) {
    struct run runs[RUNS];
    for (uint64_t i = 0; i < RUNS; i++) {
        uint64_t at = group * RUNS + i;
        /* Every second stretch of the memory, and every third of the disk. */
        runs[i] = (struct run){.pfn = at * RUN_PAGES * 2, .sector = at * RUN_PAGES * 8 * 3, .pages = RUN_PAGES};
    }
    stats.pages += WINDOW_PAGES;
    return session_tick() && group_add(group_id(1, 1, group), runs, RUNS);
}

void scan(enum scan_mode mode) {
    const char *count = getenv("SYNTHETIC_GROUPS"), *pause = getenv("SYNTHETIC_PAUSE_US");
    int more = session_send(FRAME_DISKS, frame, encode_disks(frame + FRAME_HEADER));
    memset(&stats, 0, sizeof stats);
    groups_begin(mode == SCAN_FULL);
    for (long group = 0; more && group < atol(count ? count : "1"); group++) {
        more = send_group((uint64_t)group);
        if (pause) usleep((unsigned)atol(pause));
    }
    if (!more) groups_flush();
    else more = groups_finish();
    uint8_t *payload = frame + FRAME_HEADER;
    payload[0] = (uint8_t)mode;
    put_u32(payload + 1, 1);
    session_end(FRAME_DONE, frame, (size_t)(put_varint(payload + 5, stats.pages) - payload));
}
