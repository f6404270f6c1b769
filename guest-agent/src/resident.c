#define _GNU_SOURCE
#include "resident.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kernel.h"
#include "session.h"
#include "stats.h"

#define TOUCH_BATCH 256
#define FLAG_BATCH 512
/* With a page that it has to map, the kernel maps what is in memory beside it, so far. */
#define FAULT_AROUND_BYTES 65536
/* The largest page cache folio there can be: a huge page. */
#define MAX_FOLIO_PAGES 512

static int pagemap = -1, kpageflags = -1;
static uint8_t incore[WINDOW_PAGES];
static uint64_t flags[FLAG_BATCH], folio_flags[MAX_FOLIO_PAGES];

int resident_open(void) {
    if (pagemap < 0) pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (kpageflags < 0) kpageflags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
    return pagemap >= 0 && kpageflags >= 0;
}

int64_t resident_count(int file, uint64_t offset, uint64_t length) {
    struct cachestat_range range = {offset, length};
    struct cachestat result;
    return syscall(SYS_CACHESTAT, file, &range, &result, 0) ? -1 : (int64_t)result.cached;
}

int resident_sees_blocks(void) {
    static int known = -1;
    if (known < 0) known = resident_count(pagemap, 0, 1) >= 0 || errno != ENOSYS;
    return known;
}

/*
 * Marks the pages that mincore does not see (see resident_count). Mapping one of them reads nothing: all its blocks are
 * there, so the kernel only notes that the page is complete.
 */
static void mark_blocks(const struct window *window, uint32_t from, uint32_t pages) {
    size_t page_size = session_page_size();
    int64_t count = resident_count(window->file, window->offset + from * page_size, pages * page_size);
    if (count <= 0) return;
    if (count >= pages) {
        for (uint32_t i = from; i < from + pages; i++) incore[i] = 1;
        return;
    }
    mark_blocks(window, from, pages / 2);
    mark_blocks(window, from + pages / 2, pages - pages / 2);
}

/*
 * Has the kernel look at one byte of a page in every `stride` bytes; nothing of it is used. Unlike touching the page, that
 * cannot raise SIGBUS when the file is truncated meanwhile.
 */
static void look(uint8_t *start, uint8_t *end, size_t stride) {
    struct iovec from[TOUCH_BATCH];
    uint8_t bytes[TOUCH_BATCH];
    while (start < end) {
        size_t count = 0;
        for (; count < TOUCH_BATCH && start < end; count++) {
            from[count] = (struct iovec){start, 1};
            start = (uint8_t *)(((uintptr_t)start / stride + 1) * stride);
        }
        struct iovec into = {bytes, count};
        process_vm_readv(getpid(), &into, 1, from, count, 0);
    }
}

/*
 * Puts resident pages into our page table, each by itself. A page evicted since mincore is the one case in which the kernel
 * would read from disk; MADV_RANDOM keeps it at that one page. Kernels before 5.14 have no MADV_POPULATE_READ.
 */
static void populate(uint8_t *start, size_t length, size_t page_size) {
    if (madvise(start, length, MADV_POPULATE_READ) && errno == EINVAL) look(start, start + length, page_size);
}

int resident_read(int file, uint64_t offset, size_t length, uint8_t *bytes) {
    size_t page_size = session_page_size();
    if (resident_count(file, offset, length) <= 0) return 0;
    uint8_t *memory = mmap(NULL, page_size, PROT_READ, MAP_SHARED, file, (off_t)(offset & ~(page_size - 1)));
    if (memory == MAP_FAILED) return 0;
    madvise(memory, page_size, MADV_RANDOM);
    struct iovec from = {memory + offset % page_size, length}, into = {bytes, length};
    ssize_t copied = process_vm_readv(getpid(), &into, 1, &from, 1, 0);
    munmap(memory, page_size);
    return copied == (ssize_t)length;
}

/* Until Linux 6.10 the flags of a large folio were shown at its first page only. */
static uint64_t head_flags(uint64_t tail) {
    uint64_t first = tail & ~(uint64_t)(MAX_FOLIO_PAGES - 1), count = tail - first;
    if (!count || pread(kpageflags, folio_flags, count * 8, (off_t)(first * 8)) != (ssize_t)(count * 8)) return 0;
    while (count--)
        if (folio_flags[count] & KPF_COMPOUND_HEAD) return folio_flags[count];
    return 0;
}

static enum skip_reason judge(uint64_t flag) {
    if (flag & KPF_WRITEBACK) return SKIP_WRITEBACK;
    if (flag & KPF_DIRTY) return SKIP_DIRTY;
    if (flag & (KPF_NOPAGE | KPF_HWPOISON | KPF_ANON | KPF_ERROR) || !(flag & KPF_UPTODATE)) return SKIP_VANISHED;
    return 0;
}

/* Judges pages with consecutive page frame numbers. */
static void judge_run(uint64_t *pfns, uint32_t count) {
    uint64_t head = 0;
    for (uint32_t done = 0; done < count;) {
        uint32_t batch = count - done < FLAG_BATCH ? count - done : FLAG_BATCH;
        uint64_t first = pfns[done];
        ssize_t length = pread(kpageflags, flags, batch * 8, (off_t)(first * 8));
        for (uint32_t i = 0; i < batch; i++, done++) {
            uint64_t flag = (ssize_t)(8 * i + 8) <= length ? flags[i] : KPF_NOPAGE;
            if (flag & KPF_COMPOUND_HEAD) head = flag;
            if (flag & KPF_COMPOUND_TAIL) {
                if (!head) head = head_flags(first + i);
                flag |= head;
            } else if (!(flag & KPF_COMPOUND_HEAD)) {
                head = 0;
            }
            enum skip_reason reason = judge(flag);
            if (!reason) continue;
            pfns[done] = NOT_CLEAN;
            stats.skipped[reason]++;
        }
    }
}

/* The frames of those that are in our page table; 0 for the others. */
static void read_frames(const uint8_t *memory, size_t page_size, uint32_t from, uint32_t end, uint64_t *pfns) {
    size_t length = (end - from) * 8;
    off_t at = (off_t)(((uintptr_t)memory / page_size + from) * 8);
    ssize_t got = pread(pagemap, pfns + from, length, at);
    for (uint32_t i = from; i < end; i++)
        pfns[i] = got == (ssize_t)length && pfns[i] & PAGEMAP_PRESENT ? pfns[i] & PAGEMAP_PFN_MASK : 0;
}

static void find_frames(uint8_t *memory, size_t page_size, uint32_t from, uint32_t end, uint64_t *pfns) {
    look(memory + from * page_size, memory + end * page_size, FAULT_AROUND_BYTES);
    read_frames(memory, page_size, from, end, pfns);
    for (uint32_t i = from, next; i < end; i = next) {
        for (next = i + 1; next < end && !pfns[next] == !pfns[i];) next++;
        if (pfns[i]) continue;
        populate(memory + i * page_size, (next - i) * page_size, page_size);
        read_frames(memory, page_size, i, next, pfns);
    }
    for (uint32_t i = from, next; i < end; i = next) {
        for (next = i + 1; next < end && pfns[next] == pfns[next - 1] + 1;) next++;
        if (pfns[i]) judge_run(pfns + i, next - i);
        else stats.skipped[SKIP_VANISHED]++;
    }
}

int resident_window(const struct window *window, uint64_t *pfns, int (*once)(void *), void *argument) {
    size_t page_size = session_page_size(), length = window->pages * page_size;
    uint8_t *memory = mmap(NULL, length, PROT_READ, MAP_SHARED, window->file, (off_t)window->offset);
    int found = 0;
    if (memory == MAP_FAILED) return 0;
    if (mincore(memory, length, incore)) goto done;
    if (window->whole_blocks) mark_blocks(window, 0, window->pages);
    for (uint32_t i = 0, next; i < window->pages; i = next) {
        next = i + 1;
        pfns[i] = 0;
        if (!(incore[i] & 1)) continue;
        if (!found) {
            if (!once(argument)) goto done;
            madvise(memory, length, MADV_RANDOM);
        }
        while (next < window->pages && incore[next] & 1) next++;
        found += (int)(next - i);
        find_frames(memory, page_size, i, next, pfns);
    }
    /* Unmapping counts as an access, and would promote every page, unless the mapping is marked as sequential. */
    if (found) madvise(memory, length, MADV_SEQUENTIAL);
done:
    munmap(memory, length);
    return found;
}
