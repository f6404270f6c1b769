/*
 * delay-line PARAMETER_FILE DEVICE_A DEVICE_B
 *
 * Creates two TUN devices and carries every packet from one to the other, each held back for the time the parameter file
 * names, in microseconds. SIGHUP reads the file again. Packets are never reordered and never dropped here: when more is
 * under way than the buffer holds, it stops reading and the device's own queue fills.
 *
 * Segmentation and checksum offloads are passed through (struct virtio_net_hdr travels with the packet untouched), so
 * that a bulk transfer costs one read and one write per 64 KiB, not per 1500 bytes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PACKET = 65536 + 64, BUFFER_BYTES = 64 << 20, BATCH = 64 };

struct packet {
    int64_t release_ns;
    uint32_t length;
};

/* A ring of packets, each a header and its bytes, never wrapped in the middle. */
struct direction {
    int from, to;
    char *buffer;
    size_t head, tail, wrap;
};

static volatile sig_atomic_t reread = 1;

static void on_hangup(int number)
{
    (void)number;
    reread = 1;
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int open_tun(const char *name)
{
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    struct ifreq request = {0};
    request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0)
        die(name);
    if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) != 0)
        die("TUNSETOFFLOAD");
    return fd;
}

static int64_t read_delay_ns(const char *path)
{
    long long delay_us = 0;
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%lld", &delay_us) != 1 || delay_us < 0)
        die(path);
    fclose(file);
    return delay_us * 1000;
}

static int is_empty(const struct direction *line)
{
    return line->head == line->tail;
}

/* Where a packet of the largest size fits, or NULL when the buffer is full. */
static struct packet *room(struct direction *line)
{
    const size_t need = sizeof(struct packet) + MAX_PACKET;
    if (line->head >= line->tail) {
        if (line->head + need <= BUFFER_BYTES)
            return (struct packet *)(line->buffer + line->head);
        if (line->tail <= need)
            return NULL;
        line->wrap = line->head;
        line->head = 0;
        return (struct packet *)line->buffer;
    }
    return line->head + need < line->tail ? (struct packet *)(line->buffer + line->head) : NULL;
}

static struct packet *oldest(struct direction *line)
{
    if (line->head < line->tail && line->tail == line->wrap)
        line->tail = 0;
    return is_empty(line) ? NULL : (struct packet *)(line->buffer + line->tail);
}

static size_t size_of(const struct packet *packet)
{
    return (sizeof *packet + packet->length + 15) & ~(size_t)15;
}

static void take_in(struct direction *line, int64_t delay_ns)
{
    for (int i = 0; i < BATCH; i++) {
        struct packet *packet = room(line);
        if (!packet)
            return;
        ssize_t got = read(line->from, packet + 1, MAX_PACKET);
        if (got <= 0)
            return;
        packet->length = (uint32_t)got;
        packet->release_ns = now_ns() + delay_ns;
        line->head += size_of(packet);
    }
}

/* Lets out what is due; returns when the next packet will be, or -1. */
static int64_t let_out(struct direction *line)
{
    struct packet *packet;
    int64_t now = now_ns();
    while ((packet = oldest(line)) != NULL) {
        if (packet->release_ns > now && packet->release_ns > (now = now_ns()))
            return packet->release_ns;
        /* An error means the device is down: the packet is lost, as on a cut cable. */
        if (write(line->to, packet + 1, packet->length) < 0 && errno == EAGAIN)
            return now + 100000;
        line->tail += size_of(packet);
    }
    return -1;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("usage: delay-line PARAMETER_FILE DEVICE_A DEVICE_B\n", stderr);
        return 2;
    }
    struct sigaction action = {.sa_handler = on_hangup};
    sigaction(SIGHUP, &action, NULL);
    int a = open_tun(argv[2]), b = open_tun(argv[3]);
    struct direction lines[2] = {{.from = a, .to = b}, {.from = b, .to = a}};
    for (int i = 0; i < 2; i++) {
        lines[i].buffer = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (lines[i].buffer == MAP_FAILED)
            die("mmap");
    }
    /* Being late is being wrong: ahead of the guests, which use every CPU there is. */
    struct sched_param priority = {.sched_priority = 10};
    sched_setscheduler(0, SCHED_FIFO, &priority);
    prctl(PR_SET_TIMERSLACK, 1);

    int64_t delay_ns = 0;
    for (;;) {
        if (reread) {
            reread = 0;
            delay_ns = read_delay_ns(argv[1]);
        }
        int64_t next = -1;
        struct pollfd pollers[2];
        for (int i = 0; i < 2; i++) {
            take_in(&lines[i], delay_ns);
            int64_t due = let_out(&lines[i]);
            if (due >= 0 && (next < 0 || due < next))
                next = due;
            pollers[i] = (struct pollfd){.fd = room(&lines[i]) ? lines[i].from : -1, .events = POLLIN};
        }
        int64_t wait_ns = next < 0 ? 1000000000 : next - now_ns();
        if (wait_ns < 0)
            wait_ns = 0;
        struct timespec timeout = {.tv_sec = wait_ns / 1000000000, .tv_nsec = wait_ns % 1000000000};
        ppoll(pollers, 2, &timeout, NULL);
    }
}
