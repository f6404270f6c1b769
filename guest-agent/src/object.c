#define _GNU_SOURCE
#include "object.h"

#include <stddef.h>

#include "extents.h"
#include "groups.h"
#include "resident.h"
#include "session.h"
#include "stats.h"

/* Asked in one go whether anything is resident, where the kernel can tell. */
#define SPAN_WINDOWS 64

static uint64_t pfns[WINDOW_PAGES];
static struct run runs[WINDOW_PAGES];
static uint32_t run_count;
static struct extents extents;

static void add_page(uint64_t pfn, uint32_t disk, uint64_t disk_offset) {
    uint32_t page_sectors = session_sectors_per_page();
    struct run *last = run_count ? &runs[run_count - 1] : NULL;
    stats.pages++;
    if (last && last->pfn + last->pages == pfn && last->disk == disk &&
        last->sector + (uint64_t)last->pages * page_sectors == disk_offset / 512)
        last->pages++;
    else
        runs[run_count++] = (struct run){pfn, disk_offset / 512, 1, disk};
}

static int eligible(uint64_t pfn) {
    return pfn && pfn != NOT_CLEAN;
}

/* The device's own pages: the offset in the file is the offset on the device. */
static void locate_device(const struct object *object, uint64_t offset, uint32_t pages) {
    uint32_t page_size = session_page_size();
    for (uint32_t i = 0; i < pages; i++) {
        uint64_t disk_offset;
        if (!eligible(pfns[i])) continue;
        int disk = devmap_lookup(object->map, offset + (uint64_t)i * page_size, page_size, &disk_offset);
        if (disk < 0) stats.skipped[SKIP_UNMAPPED]++;
        else add_page(pfns[i], (uint32_t)disk, disk_offset);
    }
}

/* Why nothing of this file is plainly on the disk, whatever its extents say; 0 when it may be. */
static enum skip_reason file_reason(int file) {
    long inode_flags = 0;
    struct fsxattr attributes = {0};
    if (!ioctl(file, FS_IOC_GETFLAGS, &inode_flags) && inode_flags & FS_ENCRYPT_FL) return SKIP_ENCRYPTED;
    if (!ioctl(file, FS_IOC_FSGETXATTR, &attributes) && attributes.xflags & FS_XFLAG_REALTIME) return SKIP_UNMAPPED;
    return 0;
}

/* Finds the disk of the page at an offset in the file, given the first extent that ends behind that offset. */
static enum skip_reason locate_page(const struct object *object, const struct fiemap_extent *extent, uint64_t at,
                                    int *disk, uint64_t *disk_offset) {
    uint64_t page_end = at + session_page_size();
    if (!extent || extent->logical >= page_end) return SKIP_HOLE;
    enum skip_reason reason = extent_reason(extent);
    if (reason) return reason;
    if (extent->logical > at || extent->logical + extent->length < page_end) return SKIP_UNALIGNED;
    *disk = devmap_lookup(object->map, extent->physical + (at - extent->logical), page_end - at, disk_offset);
    return *disk < 0 ? SKIP_UNMAPPED : 0;
}

static void locate_file(const struct object *object, uint64_t offset, uint32_t pages) {
    uint32_t page_size = session_page_size(), first = 0, end = pages;
    while (first < end && !eligible(pfns[first])) first++;
    while (end > first && !eligible(pfns[end - 1])) end--;
    if (first == end) return;
    enum skip_reason whole_file = file_reason(object->fd);
    struct fiemap_extent extent;
    extents_open(&extents, object->fd, offset + (uint64_t)first * page_size, offset + (uint64_t)end * page_size);
    int more = extents_next(&extents, &extent);
    for (uint32_t i = first; i < end; i++) {
        uint64_t at = offset + (uint64_t)i * page_size, disk_offset = 0;
        int disk = -1;
        if (!eligible(pfns[i])) continue;
        while (more && extent.logical + extent.length <= at) more = extents_next(&extents, &extent);
        enum skip_reason reason = locate_page(object, more ? &extent : NULL, at, &disk, &disk_offset);
        if (whole_file) reason = whole_file;
        if (reason) stats.skipped[reason]++;
        else add_page(pfns[i], (uint32_t)disk, disk_offset);
    }
}

static int is_new(void *id) {
    return !group_seen(*(uint64_t *)id);
}

static int scan_window(const struct object *object, uint64_t number, int whole_blocks) {
    uint32_t page_size = session_page_size();
    uint64_t id = group_id(object->device, object->inode, number), offset = number * WINDOW_PAGES * page_size;
    uint64_t rest = object->size - offset;
    /* A device's last, partial page is not a whole page of the disk. */
    uint64_t pages = object->inode ? (rest + page_size - 1) / page_size : rest / page_size;
    struct window window = {object->fd, offset, pages < WINDOW_PAGES ? (uint32_t)pages : WINDOW_PAGES, whole_blocks};
    if (!window.pages || !resident_window(&window, pfns, is_new, &id)) return 1;
    run_count = 0;
    if (object->inode) locate_file(object, offset, window.pages);
    else locate_device(object, offset, window.pages);
    return group_add(id, runs, run_count);
}

int object_scan(const struct object *object) {
    uint64_t window_bytes = (uint64_t)WINDOW_PAGES * session_page_size();
    int block_size = 0;
    if (!object->inode) ioctl(object->fd, BLKBSZGET, &block_size);
    for (uint64_t number = 0; number * window_bytes < object->size; number++) {
        if (!session_tick()) return 0;
        if (number % SPAN_WINDOWS == 0 && object->size > 4 * window_bytes &&
            !resident_count(object->fd, number * window_bytes, SPAN_WINDOWS * window_bytes)) {
            number += SPAN_WINDOWS - 1;
            continue;
        }
        if (!scan_window(object, number, block_size == (int)session_page_size())) return 0;
    }
    return 1;
}
