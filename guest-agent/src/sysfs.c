#define _GNU_SOURCE
#include "sysfs.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static long read_text(const char *path, char *text, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    long length = read(fd, text, size - 1);
    close(fd);
    text[length > 0 ? length : 0] = 0;
    return length;
}

static void attribute_path(dev_t device, const char *attribute, char *path, size_t size) {
    snprintf(path, size, "/sys/dev/block/%u:%u/%s", major(device), minor(device), attribute);
}

long sysfs_read(dev_t device, const char *attribute, char *text, size_t size) {
    char path[128];
    attribute_path(device, attribute, path, sizeof path);
    return read_text(path, text, size);
}

int sysfs_number(dev_t device, const char *attribute, uint64_t *value) {
    char text[32];
    if (sysfs_read(device, attribute, text, sizeof text) <= 0) return 0;
    *value = strtoull(text, NULL, 10);
    return 1;
}

int sysfs_exists(dev_t device, const char *attribute) {
    char path[128];
    attribute_path(device, attribute, path, sizeof path);
    return !access(path, F_OK);
}

void sysfs_name(dev_t device, char *name, size_t size) {
    char text[1024], *found = NULL;
    if (sysfs_read(device, "uevent", text, sizeof text) > 0) found = strstr(text, "DEVNAME=");
    snprintf(name, size, "%s", found ? found + 8 : "");
    name[strcspn(name, "\n")] = 0;
}

static dev_t parse_device(const char *text) {
    unsigned major_number, minor_number;
    return sscanf(text, "%u:%u", &major_number, &minor_number) == 2 ? makedev(major_number, minor_number) : 0;
}

dev_t sysfs_parent(dev_t partition) {
    char text[32];
    if (!sysfs_exists(partition, "partition")) return 0;
    return sysfs_read(partition, "../dev", text, sizeof text) > 0 ? parse_device(text) : 0;
}

dev_t sysfs_device(const char *entry) {
    char path[320], text[32];
    snprintf(path, sizeof path, "/sys/class/block/%.255s/dev", entry);
    return read_text(path, text, sizeof text) > 0 ? parse_device(text) : 0;
}
