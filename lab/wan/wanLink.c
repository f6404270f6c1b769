/*
 * wan-link PARAMETER_FILE COUNTER_FILE DEVICE_A DEVICE_B
 *
 * A long line between two TUN devices. In each direction a packet waits for the transmitter (rate), which takes as long
 * as the packet's frames have bits, and then travels (delay). A packet that would have to wait longer than the queue is
 * long is dropped, as at any router. With rate 0 the transmitter takes no time, and nothing is ever dropped here: when
 * more is under way than the buffer holds, reading stops and the device's own queue fills.
 *
 * The parameter file is a line "DELAY_US RATE_BPS QUEUE_US"; SIGHUP reads it again. The counter file holds two
 * native 64-bit numbers: bytes of frames that came out at B, and at A.
 *
 * Segmentation and checksum offloads are passed through (struct virtio_net_hdr travels with the packet untouched), so
 * that a bulk transfer costs one read and one write per batch of segments. Rate and counters go by the frames that the
 * batch stands for, with 14 bytes of Ethernet header each.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
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

enum { MAX_PACKET = 65536 + 64, BUFFER_BYTES = 64 << 20, BATCH = 64, ETHERNET_HEADER = 14 };

struct parameters {
    int64_t delay_ns, queue_ns;
    double ns_per_byte;
};

struct packet {
    int64_t release_ns;
    uint32_t length;
    uint32_t wire_bytes;
};

/* A ring of packets, each a header and its bytes, never wrapped in the middle. */
struct direction {
    int from, to;
    uint64_t *delivered;
    /* When the transmitter has sent all it was given. */
    double idle_at_ns;
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

static struct parameters read_parameters(const char *path)
{
    long long delay_us, rate_bps, queue_us;
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%lld %lld %lld", &delay_us, &rate_bps, &queue_us) != 3)
        die(path);
    fclose(file);
    return (struct parameters){
        .delay_ns = delay_us * 1000,
        .queue_ns = queue_us * 1000,
        .ns_per_byte = rate_bps > 0 ? 8e9 / (double)rate_bps : 0,
    };
}

static uint64_t *map_counters(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, 2 * sizeof(uint64_t)) != 0)
        die(path);
    uint64_t *counters = mmap(NULL, 2 * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (counters == MAP_FAILED)
        die(path);
    return counters;
}

/* The bytes of all frames that a packet, or a batch of TCP segments in one, is on the wire. */
static uint32_t wire_bytes(const void *bytes, uint32_t length)
{
    const struct virtio_net_hdr *offload = bytes;
    const uint8_t *ip = (const uint8_t *)bytes + sizeof *offload;
    uint32_t ip_bytes = length - (uint32_t)sizeof *offload, frames = 1, headers = 0;
    if (offload->gso_type != VIRTIO_NET_HDR_GSO_NONE && offload->gso_size > 0) {
        headers = ip[0] >> 4 == 4 ? (ip[0] & 15) * 4u : 40u;
        headers += (ip[headers + 12] >> 4) * 4u;
        frames = (ip_bytes - headers + offload->gso_size - 1) / offload->gso_size;
    }
    return ip_bytes + (frames - 1) * headers + frames * ETHERNET_HEADER;
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

static void take_in(struct direction *line, const struct parameters *parameters)
{
    for (int i = 0; i < BATCH; i++) {
        struct packet *packet = room(line);
        if (!packet)
            return;
        ssize_t got = read(line->from, packet + 1, MAX_PACKET);
        if (got <= (ssize_t)sizeof(struct virtio_net_hdr))
            return;
        packet->length = (uint32_t)got;
        packet->wire_bytes = wire_bytes(packet + 1, packet->length);
        double now = (double)now_ns();
        double begin = line->idle_at_ns > now ? line->idle_at_ns : now;
        if (parameters->ns_per_byte > 0 && begin - now > (double)parameters->queue_ns)
            continue;
        line->idle_at_ns = begin + packet->wire_bytes * parameters->ns_per_byte;
        packet->release_ns = (int64_t)line->idle_at_ns + parameters->delay_ns;
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
        *line->delivered += packet->wire_bytes;
        line->tail += size_of(packet);
    }
    return -1;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fputs("usage: wan-link PARAMETER_FILE COUNTER_FILE DEVICE_A DEVICE_B\n", stderr);
        return 2;
    }
    struct sigaction action = {.sa_handler = on_hangup};
    sigaction(SIGHUP, &action, NULL);
    int a = open_tun(argv[3]), b = open_tun(argv[4]);
    uint64_t *counters = map_counters(argv[2]);
    struct direction lines[2] = {
        {.from = a, .to = b, .delivered = &counters[0]},
        {.from = b, .to = a, .delivered = &counters[1]},
    };
    for (int i = 0; i < 2; i++) {
        lines[i].buffer = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (lines[i].buffer == MAP_FAILED)
            die("mmap");
    }
    /* Being late is being wrong: ahead of the guests, which use every CPU there is. */
    struct sched_param priority = {.sched_priority = 10};
    sched_setscheduler(0, SCHED_FIFO, &priority);
    prctl(PR_SET_TIMERSLACK, 1);

    struct parameters parameters = {0};
    for (;;) {
        if (reread) {
            reread = 0;
            parameters = read_parameters(argv[1]);
        }
        int64_t next = -1;
        struct pollfd pollers[2];
        for (int i = 0; i < 2; i++) {
            take_in(&lines[i], &parameters);
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
