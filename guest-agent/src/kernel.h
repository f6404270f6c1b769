/*
 * The few kernel interfaces that musl has no header for, written down from the kernel's user-space API
 * documentation, so that the agent builds without kernel headers.
 */
#ifndef VMMIG_KERNEL_H
#define VMMIG_KERNEL_H

#include <stdint.h>
#include <sys/ioctl.h>

/* madvise(2), Linux 5.14 */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* openat2(2), Linux 5.6; RESOLVE_CACHED since 5.12 */
struct open_how {
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};
#define SYS_OPENAT2 437
#define RESOLVE_NO_XDEV 0x01
#define RESOLVE_NO_SYMLINKS 0x04
#define RESOLVE_CACHED 0x20

/* cachestat(2), Linux 6.5 */
struct cachestat_range {
    uint64_t offset;
    uint64_t length;
};
struct cachestat {
    uint64_t cached, dirty, writeback, evicted, recently_evicted;
};
#define SYS_CACHESTAT 451

/* ioprio_set(2) */
#define IOPRIO_WHO_PROCESS 1
#define IOPRIO_IDLE (3 << 13)

/* sched_setscheduler(2); musl's wrapper only answers ENOSYS */
#define POLICY_NORMAL 0
#define POLICY_REALTIME 1 /* SCHED_FIFO */
#define POLICY_IDLE 5

/* Documentation/filesystems/fiemap.rst */
struct fiemap_extent {
    uint64_t logical, physical, length;
    uint64_t reserved64[2];
    uint32_t flags;
    uint32_t reserved[3];
};
struct fiemap {
    uint64_t start, length;
    uint32_t flags, mapped_extents, extent_count, reserved;
};
#define FS_IOC_FIEMAP _IOWR('f', 11, struct fiemap)
#define FIEMAP_EXTENT_LAST 0x0001
#define FIEMAP_EXTENT_UNKNOWN 0x0002
#define FIEMAP_EXTENT_DELALLOC 0x0004
#define FIEMAP_EXTENT_ENCODED 0x0008
#define FIEMAP_EXTENT_DATA_ENCRYPTED 0x0080
#define FIEMAP_EXTENT_NOT_ALIGNED 0x0100
#define FIEMAP_EXTENT_DATA_INLINE 0x0200
#define FIEMAP_EXTENT_DATA_TAIL 0x0400
#define FIEMAP_EXTENT_UNWRITTEN 0x0800

/* inode flags of ext4, extended attributes of XFS */
#define FS_IOC_GETFLAGS _IOR('f', 1, long)
#define FS_ENCRYPT_FL 0x0800
struct fsxattr {
    uint32_t xflags, extsize, nextents, projid, cowextsize;
    uint8_t pad[8];
};
#define FS_IOC_FSGETXATTR _IOR('X', 31, struct fsxattr)
#define FS_XFLAG_REALTIME 0x00000001

#define BLKBSZGET _IOR(0x12, 112, size_t)
#define BLKGETSIZE64 _IOR(0x12, 114, size_t)

/* Documentation/admin-guide/mm/pagemap.rst */
#define PAGEMAP_PRESENT (1ULL << 63)
#define PAGEMAP_PFN_MASK ((1ULL << 55) - 1)
#define KPF_ERROR (1ULL << 1)
#define KPF_UPTODATE (1ULL << 3)
#define KPF_DIRTY (1ULL << 4)
#define KPF_WRITEBACK (1ULL << 8)
#define KPF_ANON (1ULL << 12)
#define KPF_COMPOUND_HEAD (1ULL << 15)
#define KPF_COMPOUND_TAIL (1ULL << 16)
#define KPF_HWPOISON (1ULL << 19)
#define KPF_NOPAGE (1ULL << 20)

/* device mapper control, /dev/mapper/control */
struct dm_ioctl {
    uint32_t version[3];
    uint32_t data_size, data_start, target_count;
    int32_t open_count;
    uint32_t flags, event_nr, padding;
    uint64_t dev;
    char name[128];
    char uuid[129];
    char data[7];
};
struct dm_target_spec {
    uint64_t sector_start, length;
    int32_t status;
    uint32_t next;
    char target_type[16];
};
#define DM_TABLE_STATUS _IOWR(0xfd, 12, struct dm_ioctl)
#define DM_STATUS_TABLE_FLAG (1 << 4)
#define DM_BUFFER_FULL_FLAG (1 << 8)

#endif
