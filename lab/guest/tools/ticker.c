/*
 * ticker start | status | stop: wakes up every millisecond and records the longest time between two wake-ups: the pause
 * that a program in the guest can notice. `start` also begins anew. Status: "ticks N longest_us L stopped_us S pause_us P".
 *
 * L is by the guest's monotonic clock, which stands still while QEMU has the guest stopped: the downtime of a switch-over
 * does not show in it. The machine's real time clock goes on, in seconds: what passes between two of its seconds beyond what
 * the guest's own clock says is S. P is the longest of both together, within one second: what somebody outside sees.
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
    int second = has_rtc ? rtc_seconds(is_binary) : 0;
    /* When the second began, and the longest gap in it; 0 before the first that was seen to begin. */
    uint64_t second_began = 0, gap_in_second = 0;
    uint64_t longest = 0, stopped_longest = 0, pause = 0;
    uint64_t ticks = 0, before = now_ns(), reported = 0;
    while (!stopped) {
        usleep(1000);
        uint64_t now = now_ns();
        uint64_t gap = now - before;
        before = now;
        ticks++;
        if (gap > longest)
            longest = gap;
        if (gap > gap_in_second)
            gap_in_second = gap;
        int current = has_rtc ? rtc_seconds(is_binary) : second;
        if (current != second) {
            uint64_t passed = (uint64_t)((current - second + 60) % 60) * 1000000000;
            uint64_t seen = now - second_began;
            uint64_t stood = second_began && passed > seen ? passed - seen : 0;
            if (stood > stopped_longest)
                stopped_longest = stood;
            if (second_began && stood + gap_in_second > pause)
                pause = stood + gap_in_second;
            second = current;
            second_began = now;
            gap_in_second = 0;
        }
        if (now - reported > 100000000 || gap == longest) {
            reported = now;
            write_status(status_path, "ticks %llu longest_us %llu stopped_us %llu pause_us %llu\n",
                         (unsigned long long)ticks, (unsigned long long)longest / 1000,
                         (unsigned long long)stopped_longest / 1000, (unsigned long long)pause / 1000);
        }
    }
    return 0;
}
