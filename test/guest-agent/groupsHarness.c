/*
 * groups-harness FIRST SECOND: runs the agent's group table without a guest. Reports FIRST groups of one page each in a
 * full scan, then SECOND of them, with every tenth at another place, in a scan for changes. Prints what was sent, and
 * the most memory that was used, in KiB.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "groups.h"
#include "session.h"

static unsigned long frames, bytes, removed;

int session_send(enum frame_type type, uint8_t *frame, size_t length) {
    (void)frame;
    frames++;
    bytes += length;
    if (type == FRAME_REMOVED) removed += length / 8;
    return 1;
}

uint32_t session_sectors_per_page(void) {
    return 8;
}

static void report(const char *name) {
    printf("%s %lu %lu %lu\n", name, frames, bytes, removed);
    frames = bytes = removed = 0;
}

int main(int argc, char **argv) {
    unsigned long first = argc > 2 ? strtoul(argv[1], NULL, 10) : 0, second = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    char line[128];
    groups_reset();
    groups_begin(1);
    for (unsigned long i = 0; i < first; i++) {
        struct run run = {i * 7 % first, i * 24, 1, 0};
        if (!group_add(group_id(1, i + 2, 0), &run, 1)) return 1;
    }
    groups_finish();
    report("full");
    groups_begin(0);
    for (unsigned long i = 0; i < second; i++) {
        struct run run = {i * 7 % first, i * 24 + (i % 10 ? 0 : 8), 1, 0};
        uint64_t id = group_id(1, i + 2, 0);
        if (group_seen(id) || !group_add(id, &run, 1)) return 1;
    }
    groups_finish();
    report("changes");
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (!strncmp(line, "VmHWM:", 6)) printf("memory %ld 0 0\n", strtol(line + 6, NULL, 10));
    return 0;
}
