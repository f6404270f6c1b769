/*
 * ticker start | status | stop: wakes up every millisecond and records the longest time between two wake-ups: the pause
 * that a program in the guest can notice. `start` also begins anew. Status: "ticks N longest_us L stopped_us S pause_us P".
 *
 * L is by the guest's monotonic clock, which stands still while QEMU has the guest stopped: the downtime of a switch-over
 * does not show in it. The machine's real time clock goes on, in seconds: what passes in two of its seconds beyond what the
 * guest's own clock says is S. P is the longest of both together, within two seconds: what somebody outside sees.
 *
 * Two seconds, because a stop may hide the beginning of one: it is then seen as late as the stop ends, and what came after
 * that beginning is missing from the next second.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <time.h>
#include <unistd.h>

#include "tools.h"

static const char status_path[] = "/run/ticker";

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

/* Registers of the MC146818. */
enum { RTC_INDEX = 0x70, RTC_DATA = 0x71, RTC_SECONDS = 0x00, RTC_B = 0x0b, RTC_B_BINARY = 0x04 };

static int read_rtc(int reg)
{
    outb((unsigned char)reg, RTC_INDEX);
    return inb(RTC_DATA);
}

static int rtc_seconds(int is_binary)
{
    int value = read_rtc(RTC_SECONDS);
    return is_binary ? value : (value >> 4) * 10 + (value & 15);
}

/* The beginning of a second of the real time clock, as the guest's own clock had it. */
struct second {
    int number;
    /* The last wake-up before it was seen: it did not begin earlier. */
    uint64_t earliest_ns;
    /* The longest gap between two wake-ups in the second that ended with it. */
    uint64_t gap_ns;
};

static void stop_running(void)
{
    FILE *file = fopen("/run/ticker.pid", "r");
    int pid;
    if (file && fscanf(file, "%d", &pid) == 1)
        kill(pid, SIGTERM);
    if (file)
        fclose(file);
    unlink("/run/ticker.pid");
}

int ticker(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "status") == 0)
        return print_status(status_path);
    if (strcmp(verb, "stop") == 0) {
        stop_running();
        return 0;
    }
    if (strcmp(verb, "start") != 0) {
        fputs("usage: ticker start|status|stop\n", stderr);
        return 2;
    }
    stop_running();
    run_in_background();
    signal(SIGTERM, stop);
    write_status("/run/ticker.pid", "%d\n", getpid());
    int has_rtc = ioperm(RTC_INDEX, 2, 1) == 0;
    int is_binary = has_rtc && (read_rtc(RTC_B) & RTC_B_BINARY);
    /* The last two that were seen to begin, the newest first. */
    struct second seconds[2] = {{0}};
    int seen = 0;
    int second = has_rtc ? rtc_seconds(is_binary) : 0;
    uint64_t gap_in_second = 0;
    uint64_t longest = 0, stopped_longest = 0, pause = 0;
    uint64_t ticks = 0, before = now_ns(), reported = 0;
    while (!stopped) {
        usleep(1000);
        uint64_t now = now_ns();
        uint64_t gap = now - before;
        ticks++;
        if (gap > longest)
            longest = gap;
        if (gap > gap_in_second)
            gap_in_second = gap;
        int current = has_rtc ? rtc_seconds(is_binary) : second;
        if (current != second) {
            if (seen == 2) {
                uint64_t passed = (uint64_t)((current - seconds[1].number + 60) % 60) * 1000000000;
                uint64_t lived = now - seconds[1].earliest_ns;
                uint64_t stood = passed > lived ? passed - lived : 0;
                uint64_t gap_in_both = gap_in_second > seconds[0].gap_ns ? gap_in_second : seconds[0].gap_ns;
                if (stood > stopped_longest)
                    stopped_longest = stood;
                if (stood + gap_in_both > pause)
                    pause = stood + gap_in_both;
            }
            seconds[1] = seconds[0];
            seconds[0] = (struct second){current, before, gap_in_second};
            seen = seen < 2 ? seen + 1 : 2;
            second = current;
            gap_in_second = 0;
        }
        before = now;
        if (now - reported > 100000000 || gap == longest) {
            reported = now;
            write_status(status_path, "ticks %llu longest_us %llu stopped_us %llu pause_us %llu\n",
                         (unsigned long long)ticks, (unsigned long long)longest / 1000,
                         (unsigned long long)stopped_longest / 1000, (unsigned long long)pause / 1000);
        }
    }
    return 0;
}
