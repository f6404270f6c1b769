#define _GNU_SOURCE
#include "devmap.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "disks.h"
#include "kernel.h"
#include "sysfs.h"

#define MAX_DEPTH 8
#define TABLE_BYTES 65536

/* Shared by the levels of the recursion: each is done with its table before it descends (see resolve_dm). */
static union {
    struct dm_ioctl head;
    char bytes[TABLE_BYTES];
} table;

struct linear {
    uint64_t start, length, target_offset; /* bytes */
    dev_t target;                          /* 0: not a linear target */
};

static void append(struct devmap *map, uint64_t start, uint64_t length, int disk, uint64_t disk_offset) {
    struct segment *last = map->count ? &map->segments[map->count - 1] : NULL;
    if (last && last->disk == disk && last->start + last->length == start &&
        (disk < 0 || last->disk_offset + last->length == disk_offset)) {
        last->length += length;
    } else if (map->count < DEVMAP_SEGMENTS) { /* what does not fit counts as being on no disk */
        map->segments[map->count++] = (struct segment){start, length, disk_offset, disk};
    }
}

static void resolve(dev_t device, uint64_t offset, uint64_t length, uint64_t at, int depth, struct devmap *map);

/* Reads the device-mapper table of a device into table; 0 when that is impossible. */
static int read_table(dev_t device) {
    int control = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
    if (control < 0) return 0;
    memset(&table.head, 0, sizeof table.head);
    table.head.version[0] = 4;
    table.head.data_size = TABLE_BYTES;
    table.head.data_start = sizeof table.head;
    table.head.flags = DM_STATUS_TABLE_FLAG;
    /* the kernel's "huge" device number */
    table.head.dev = (minor(device) & 0xff) | (uint64_t)major(device) << 8 | (uint64_t)(minor(device) & ~0xffu) << 12;
    int result = ioctl(control, DM_TABLE_STATUS, &table);
    close(control);
    return !result && !(table.head.flags & DM_BUFFER_FULL_FLAG);
}

/* The index-th target of the table read last; 0 when there are no more. */
static int read_target(unsigned index, struct linear *linear) {
    size_t base = table.head.data_start, at = base;
    struct dm_target_spec spec;
    if (index >= table.head.target_count) return 0;
    for (unsigned i = 0;; i++) {
        if (at + sizeof spec >= TABLE_BYTES) return 0;
        memcpy(&spec, table.bytes + at, sizeof spec);
        if (i == index) break;
        at = base + spec.next;
    }
    unsigned major_number, minor_number;
    unsigned long long sector;
    *linear = (struct linear){spec.sector_start * 512, spec.length * 512, 0, 0};
    table.bytes[TABLE_BYTES - 1] = 0;
    if (!strncmp(spec.target_type, "linear", sizeof spec.target_type) &&
        sscanf(table.bytes + at + sizeof spec, "%u:%u %llu", &major_number, &minor_number, &sector) == 3) {
        linear->target = makedev(major_number, minor_number);
        linear->target_offset = sector * 512;
    }
    return 1;
}

static void resolve_dm(dev_t device, uint64_t offset, uint64_t length, uint64_t at, int depth, struct devmap *map) {
    struct linear linear;
    for (unsigned i = 0; map->count < DEVMAP_SEGMENTS; i++) {
        /* The levels below use the same buffer: read the table again for each of its targets. */
        if (!read_table(device) || !read_target(i, &linear)) return;
        uint64_t from = linear.start > offset ? linear.start : offset;
        uint64_t end = linear.start + linear.length < offset + length ? linear.start + linear.length : offset + length;
        if (from >= end) continue;
        if (linear.target)
            resolve(linear.target, linear.target_offset + from - linear.start, end - from, at + from - offset,
                    depth + 1, map);
        else
            append(map, at + from - offset, end - from, -1, 0);
    }
}

static void resolve(dev_t device, uint64_t offset, uint64_t length, uint64_t at, int depth, struct devmap *map) {
    uint64_t start;
    int disk = disk_index(device);
    dev_t parent;
    if (disk >= 0) {
        append(map, at, length, disk, offset);
    } else if (depth < MAX_DEPTH && (parent = sysfs_parent(device)) && sysfs_number(device, "start", &start)) {
        resolve(parent, offset + start * 512, length, at, depth + 1, map);
    } else if (depth < MAX_DEPTH && sysfs_exists(device, "dm")) {
        resolve_dm(device, offset, length, at, depth, map);
    } else {
        append(map, at, length, -1, 0);
    }
}

void devmap_resolve(dev_t device, struct devmap *map) {
    uint64_t sectors;
    map->count = 0;
    if (sysfs_number(device, "size", &sectors) && sectors) resolve(device, 0, sectors * 512, 0, 0, map);
}

int devmap_lookup(const struct devmap *map, uint64_t offset, uint64_t length, uint64_t *disk_offset) {
    int low = 0, high = map->count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (map->segments[middle].start + map->segments[middle].length <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == map->count) return -1;
    const struct segment *segment = &map->segments[low];
    if (segment->disk < 0 || offset < segment->start || offset + length > segment->start + segment->length) return -1;
    *disk_offset = segment->disk_offset + offset - segment->start;
    return segment->disk;
}

int devmap_useful(const struct devmap *map) {
    for (int i = 0; i < map->count; i++)
        if (map->segments[i].disk >= 0) return 1;
    return 0;
}
