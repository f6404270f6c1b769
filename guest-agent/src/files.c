#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "port.h"

#define IN "in"
#define OUT "out"
#define PROGRAM "vmmig-agent"
/* How much may wait for the host: it is the guest's memory. */
#define WINDOW (4u << 20)
/* The host opens the files at once, and speaks every few seconds as long as it wants something. */
#define GREETING_S 10
#define SILENCE_S 30

static const char *path;
static int directory = -1, out = -1;
static uint64_t written, acknowledged;
static int heard;
static time_t last_heard;

static time_t now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static void remove_names(void) {
    if (directory < 0) return;
    unlinkat(directory, IN, 0);
    unlinkat(directory, OUT, 0);
    close(directory);
    directory = -1;
    rmdir(path);
}

static void leave(int status) {
    /* The host may not get to closing the file: what it holds then is nothing. */
    if (out >= 0 && ftruncate(out, 0)) status = 1;
    remove_names();
    exit(status);
}

int files_make(const char *name) {
    path = name;
    directory = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return -1;
    unlinkat(directory, PROGRAM, 0);
    out = openat(directory, OUT, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    /* The last to appear: the host waits for it. */
    int in = out >= 0 && !mkfifoat(directory, IN, 0600) ? openat(directory, IN, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
    if (in < 0) remove_names();
    last_heard = now_s();
    return in;
}

long files_heard(long result) {
    time_t now = now_s();
    if (result > 0) {
        if (!heard) remove_names();
        heard = 1;
        last_heard = now;
        return result;
    }
    /* Before the first word there is nobody at the other end; after it, that is the end. */
    if (heard && result != PORT_NOTHING) leave(0);
    if (now - last_heard >= (heard ? SILENCE_S : GREETING_S)) leave(0);
    return PORT_NOTHING;
}

long files_write(const uint8_t *bytes, size_t length) {
    uint64_t room = acknowledged + WINDOW - written;
    if (!room) return PORT_NOTHING;
    ssize_t result = write(out, bytes, length < room ? length : room);
    if (result < 0 && errno == EINTR) return PORT_NOTHING;
    if (result <= 0) leave(1); /* no memory for it */
    written += (uint64_t)result;
    return result;
}

void files_acknowledge(uint64_t total) {
    if (out < 0 || total <= acknowledged || total > written) return;
    fallocate(out, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)total);
    acknowledged = total;
}
