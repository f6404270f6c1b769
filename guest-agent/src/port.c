#define _GNU_SOURCE
#include "port.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "files.h"
#include "kernel.h"

#define PORT_NAME "org.vmmig.agent.0"
#define RETRY_MS 1000

static int port = -1;
static int through_files;
static int main_events = -1;
static int watcher_events = -1;
static pid_t main_thread;
static atomic_int lifted;

/* Guests without udev have no /dev/virtio-ports: look for the name in sysfs. */
static int find_port(char *path, size_t size) {
    snprintf(path, size, "/dev/virtio-ports/%s", PORT_NAME);
    if (!access(path, F_OK)) return 1;
    DIR *ports = opendir("/sys/class/virtio-ports");
    if (!ports) return 0;
    int found = 0;
    for (struct dirent *entry; !found && (entry = readdir(ports));) {
        char name[64] = "";
        snprintf(path, size, "/sys/class/virtio-ports/%.64s/name", entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) continue;
        ssize_t length = read(fd, name, sizeof name - 1);
        close(fd);
        if (length <= 0) continue;
        name[strcspn(name, "\n")] = 0;
        if (strcmp(name, PORT_NAME)) continue;
        snprintf(path, size, "/dev/%.64s", entry->d_name);
        found = 1;
    }
    closedir(ports);
    return found;
}

static void watch(int events, uint32_t mask) {
    struct epoll_event event = {.events = mask | EPOLLET};
    epoll_ctl(events, EPOLL_CTL_ADD, port, &event);
}

static void watch_port(void) {
    if (main_events < 0) main_events = epoll_create1(EPOLL_CLOEXEC);
    /* Edge-triggered: a port without a host is in constant hang-up, and must not wake us all the time. */
    watch(main_events, EPOLLIN | EPOLLOUT);
    watch(watcher_events, EPOLLIN);
}

int port_open_files(const char *directory) {
    port = files_make(directory);
    if (port < 0) return 0;
    through_files = 1;
    watch_port();
    return 1;
}

void port_open(const char *path) {
    char found[128];
    for (;;) {
        if (path || find_port(found, sizeof found)) {
            port = open(path ? path : found, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
            if (port >= 0) break;
        }
        poll(NULL, 0, RETRY_MS);
    }
    struct termios settings;
    if (!tcgetattr(port, &settings)) { /* a serial line instead of a virtio port */
        cfmakeraw(&settings);
        tcsetattr(port, TCSANOW, &settings);
    }
    watch_port();
}

void port_close(void) {
    close(port);
    port = -1;
}

static long port_status(ssize_t result) {
    if (result > 0) return result;
    if (result == 0) return PORT_AWAY;
    if (errno == EAGAIN || errno == EINTR) return PORT_NOTHING;
    return errno == ENODEV || errno == ENXIO ? PORT_GONE : PORT_AWAY;
}

long port_read(uint8_t *bytes, size_t room) {
    long result = port_status(read(port, bytes, room));
    return through_files ? files_heard(result) : result;
}

long port_write(const uint8_t *bytes, size_t length) {
    return through_files ? files_write(bytes, length) : port_status(write(port, bytes, length));
}

void port_acknowledge(uint64_t total) {
    if (through_files) files_acknowledge(total);
}

void port_wait(int timeout_ms) {
    struct epoll_event event;
    epoll_wait(main_events, &event, 1, timeout_ms);
}

static void set_policy(pid_t thread, int policy) {
    struct {
        int priority;
    } parameters = {policy == POLICY_REALTIME};
    syscall(SYS_sched_setscheduler, thread, policy, &parameters);
}

void priority_lift(void) {
    atomic_store(&lifted, 1);
    set_policy(main_thread, POLICY_REALTIME);
}

static void *watcher(void *unused) {
    (void)unused;
    for (;;) {
        struct epoll_event event;
        if (epoll_wait(watcher_events, &event, 1, -1) <= 0) continue;
        priority_lift();
    }
    return NULL;
}

void priority_start(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    main_thread = (pid_t)syscall(SYS_gettid);
    watcher_events = epoll_create1(EPOLL_CLOEXEC);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 16384);
    pthread_create(&thread, &attributes, watcher, NULL);
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, main_thread, IOPRIO_IDLE);
}

void priority_idle(void) {
    atomic_store(&lifted, 0);
    set_policy(main_thread, POLICY_IDLE);
}

void priority_normal(void) {
    set_policy(main_thread, POLICY_NORMAL);
}

void priority_settle(void) {
    if (atomic_load(&lifted)) priority_idle();
}
