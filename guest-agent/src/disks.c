#define _GNU_SOURCE
#include "disks.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "frame.h"
#include "sysfs.h"

#define MAX_TEXT 64

struct disk {
    dev_t device;
    uint64_t size;
    char name[MAX_TEXT], serial[MAX_TEXT], pci[MAX_TEXT];
};

static struct disk disks[MAX_DISKS];
static uint8_t present[MAX_DISKS];
static int disk_count;

static void trim(char *text) {
    size_t length = strlen(text);
    while (length && isspace((unsigned char)text[length - 1])) text[--length] = 0;
    memmove(text, text + strspn(text, " "), strlen(text + strspn(text, " ")) + 1);
    for (char *at = text; *at; at++)
        if (*at < 0x20 || *at > 0x7e) *at = '?';
}

/* virtio-blk and NVMe have a serial attribute; SCSI and ATA the unit serial number page, cached by the kernel. */
static void read_serial(dev_t device, char *serial) {
    char page[4 + MAX_TEXT] = "";
    if (sysfs_read(device, "serial", serial, MAX_TEXT) <= 0 &&
        sysfs_read(device, "device/serial", serial, MAX_TEXT) <= 0) {
        serial[0] = 0;
        if (sysfs_read(device, "device/vpd_pg80", page, sizeof page) > 4) snprintf(serial, MAX_TEXT, "%s", page + 4);
    }
    trim(serial);
}

static int is_pci_address(const char *text) {
    unsigned domain, bus, slot, function;
    int used = 0;
    return sscanf(text, "%x:%x:%x.%x%n", &domain, &bus, &slot, &function, &used) == 4 && !text[used];
}

/* The last component of the device's path that is a PCI address: dddd:bb:dd.f. */
static void read_pci(dev_t device, char *pci) {
    char path[64], real[PATH_MAX];
    pci[0] = 0;
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/device", major(device), minor(device));
    if (!realpath(path, real)) return;
    for (char *part = strtok(real, "/"); part; part = strtok(NULL, "/"))
        if (strlen(part) < MAX_TEXT && is_pci_address(part)) strcpy(pci, part);
}

static int describe(dev_t device, struct disk *disk) {
    uint64_t sectors, removable;
    if (!sysfs_exists(device, "device") || sysfs_exists(device, "partition")) return 0;
    if (!sysfs_number(device, "removable", &removable) || removable) return 0;
    if (!sysfs_number(device, "size", &sectors) || !sectors) return 0;
    memset(disk, 0, sizeof *disk);
    disk->device = device;
    disk->size = sectors * 512;
    sysfs_name(device, disk->name, sizeof disk->name);
    trim(disk->name);
    read_serial(device, disk->serial);
    read_pci(device, disk->pci);
    return 1;
}

static void add(dev_t device) {
    struct disk now;
    if (!describe(device, &now)) return;
    for (int i = 0; i < disk_count; i++) {
        if (memcmp(&disks[i], &now, sizeof now)) continue;
        present[i] = 1;
        return;
    }
    if (disk_count == MAX_DISKS) return;
    disks[disk_count] = now;
    present[disk_count++] = 1;
}

void disks_refresh(void) {
    memset(present, 0, sizeof present);
    DIR *blocks = opendir("/sys/block");
    if (!blocks) return;
    for (struct dirent *entry; (entry = readdir(blocks));) {
        dev_t device = sysfs_device(entry->d_name);
        if (device) add(device);
    }
    closedir(blocks);
}

int disk_index(dev_t device) {
    for (int i = 0; i < disk_count; i++)
        if (present[i] && disks[i].device == device) return i;
    return -1;
}

void disks_reset(void) {
    disk_count = 0;
}

static uint8_t *put_text(uint8_t *at, const char *text) {
    size_t length = strlen(text);
    *at++ = (uint8_t)length;
    memcpy(at, text, length);
    return at + length;
}

size_t disks_encode(uint8_t *payload, size_t room) {
    uint8_t *at = payload + 2;
    int count = 0;
    for (; count < disk_count && (size_t)(at - payload) + 8 + 3 * MAX_TEXT <= room; count++) {
        put_u64(at, disks[count].size);
        at = put_text(at + 8, disks[count].name);
        at = put_text(at, disks[count].serial);
        at = put_text(at, disks[count].pci);
    }
    put_u16(payload, (uint16_t)count);
    return (size_t)(at - payload);
}
