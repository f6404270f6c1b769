/*
 * dm-linear NAME SECTORS DEVICE FIRST_SECTOR [SECTORS DEVICE FIRST_SECTOR]...: maps the given ranges, one after the
 * other, as /dev/NAME (what an LVM linear volume is, without LVM). <linux/dm-ioctl.h> describes the calls.
 */
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tools.h"

static union {
    struct dm_ioctl header;
    char bytes[16384];
} request;

static void prepare(const char *name)
{
    memset(&request, 0, sizeof request);
    request.header.version[0] = DM_VERSION_MAJOR;
    request.header.data_size = sizeof request;
    request.header.data_start = sizeof request.header;
    snprintf(request.header.name, sizeof request.header.name, "%s", name);
}

int dm_linear(int argc, char **argv)
{
    if (argc < 5 || (argc - 2) % 3 != 0) {
        fputs("usage: dm-linear NAME SECTORS DEVICE FIRST_SECTOR ...\n", stderr);
        return 2;
    }
    int control = open("/dev/mapper/control", O_RDWR);
    prepare(argv[1]);
    if (control < 0 || ioctl(control, DM_DEV_CREATE, &request) != 0) {
        perror("dm-linear: create");
        return 1;
    }
    prepare(argv[1]);
    char *at = request.bytes + sizeof request.header;
    uint64_t start = 0;
    for (int i = 2; i < argc; i += 3) {
        struct dm_target_spec *target = (struct dm_target_spec *)at;
        size_t length = sizeof *target + strlen(argv[i + 1]) + 32;
        if (at + length > request.bytes + sizeof request.bytes)
            return 1;
        target->sector_start = start;
        target->length = strtoull(argv[i], NULL, 10);
        target->next = (uint32_t)((length + 7) & ~7UL);
        strcpy(target->target_type, "linear");
        sprintf(at + sizeof *target, "%s %s", argv[i + 1], argv[i + 2]);
        start += target->length;
        at += target->next;
        request.header.target_count++;
    }
    if (ioctl(control, DM_TABLE_LOAD, &request) != 0) {
        perror("dm-linear: table");
        return 1;
    }
    prepare(argv[1]);
    if (ioctl(control, DM_DEV_SUSPEND, &request) != 0) {
        perror("dm-linear: resume");
        return 1;
    }
    char node[64];
    snprintf(node, sizeof node, "/dev/%s", argv[1]);
    dev_t device = (dev_t)request.header.dev;
    return mknod(node, S_IFBLK | 0600, device) == 0 ? 0 : 1;
}
