/*
 * pattern start MEBIBYTES [PAGES_PER_SECOND] | pace [PAGES_PER_SECOND] | status | stop
 *
 * Keeps writing a known pattern into that much memory and verifies it. Every page holds its number, the generation it
 * was last written in, words that follow from both, and their checksum. A pass visits all pages in order: each must
 * still be exactly what was written into it in the pass before, then gets the next generation. A page that comes back
 * from an older version, half of one, or from another place is an error. Status: "passes P errors E pages N".
 * `pace` has the one that runs go on faster or slower; without a number, as fast as it can.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tools.h"

enum { WORDS = 4096 / sizeof(uint64_t) };

static const char status_path[] = "/run/pattern";
static const char pid_path[] = "/run/pattern.pid";
static const char pace_path[] = "/run/pattern.pace";

static volatile sig_atomic_t is_pace_new;

static void write_page(uint64_t *page, uint64_t number, uint64_t generation)
{
    uint64_t state = (number << 32 ^ generation) | 1;
    page[0] = number;
    page[1] = generation;
    for (int i = 2; i < WORDS - 1; i++)
        page[i] = next_random(&state);
    page[WORDS - 1] = checksum_words(page, WORDS - 1);
}

static int is_intact(const uint64_t *page, uint64_t number, uint64_t generation)
{
    return page[0] == number && page[1] == generation && page[WORDS - 1] == checksum_words(page, WORDS - 1);
}

static int signal_running(int number)
{
    FILE *file = fopen(pid_path, "r");
    int pid, failed = 1;
    if (file && fscanf(file, "%d", &pid) == 1)
        failed = kill(pid, number);
    if (file)
        fclose(file);
    return failed;
}

static void take_pace(int number)
{
    (void)number;
    is_pace_new = 1;
}

static uint64_t read_pace(void)
{
    FILE *file = fopen(pace_path, "r");
    unsigned long long pages_per_second = 0;
    if (file && fscanf(file, "%llu", &pages_per_second) != 1)
        pages_per_second = 0;
    if (file)
        fclose(file);
    return pages_per_second;
}

static void stop_running(void)
{
    signal_running(SIGTERM);
    unlink(pid_path);
    unlink(status_path);
}

static void run(uint64_t pages, uint64_t pages_per_second)
{
    uint64_t *memory = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        write_status(status_path, "out of memory\n");
        _exit(1);
    }
    uint64_t errors = 0, written = 0, reported = 0, started = now_ns();
    for (uint64_t generation = 1;; generation++) {
        for (uint64_t number = 0; number < pages; number++) {
            uint64_t *page = memory + number * WORDS;
            if (generation > 1 && !is_intact(page, number, generation - 1))
                errors++;
            write_page(page, number, generation);
            written++;
            if (written % 64 != 0)
                continue;
            uint64_t now = now_ns();
            if (is_pace_new) {
                is_pace_new = 0;
                pages_per_second = read_pace();
                started = now;
                written = 0;
            }
            uint64_t due = pages_per_second ? started + written * 1000000000 / pages_per_second : 0;
            if (due > now)
                usleep((useconds_t)((due - now) / 1000));
            if (now - reported > 200000000) {
                reported = now;
                write_status(status_path, "passes %llu errors %llu pages %llu\n", (unsigned long long)generation - 1,
                             (unsigned long long)errors, (unsigned long long)pages);
            }
        }
    }
}

int pattern(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "status") == 0)
        return print_status(status_path);
    if (strcmp(verb, "stop") == 0) {
        stop_running();
        return 0;
    }
    if (strcmp(verb, "pace") == 0) {
        write_status(pace_path, "%s\n", argc > 2 ? argv[2] : "0");
        return signal_running(SIGUSR1) != 0;
    }
    if (strcmp(verb, "start") != 0 || argc < 3) {
        fputs("usage: pattern start MEBIBYTES [PAGES_PER_SECOND] | pace [PAGES_PER_SECOND] | status | stop\n", stderr);
        return 2;
    }
    stop_running();
    uint64_t pages = strtoull(argv[2], NULL, 10) * 256;
    uint64_t pages_per_second = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    signal(SIGUSR1, take_pace);
    run_in_background();
    write_status(pid_path, "%d\n", getpid());
    run(pages, pages_per_second);
    return 0;
}
