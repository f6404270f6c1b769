/*
 * fswriter start DIRECTORY [MEBIBYTES] | status | stop
 *
 * Writes, fsyncs, rereads and deletes files of known contents, for as long as it runs. Half of the rereads go to the
 * disk (POSIX_FADV_DONTNEED first), the others to the page cache; both must give what was written. Files live for a few
 * rounds, so that a page cache page may well be one that was read, freed and used again.
 * Status: "rounds R errors E files N".
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools.h"

enum { FILES = 16, BLOCK_WORDS = 65536 / sizeof(uint64_t) };

static const char status_path[] = "/run/fswriter";
static const char pid_path[] = "/run/fswriter.pid";

static uint64_t block[BLOCK_WORDS], found[BLOCK_WORDS];

static void fill_block(uint64_t seed, uint64_t index)
{
    uint64_t state = (seed << 24 ^ index) | 1;
    for (int i = 0; i < BLOCK_WORDS; i++)
        block[i] = next_random(&state);
}

static int write_file(const char *path, uint64_t seed, uint64_t blocks)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        return -1;
    int failed = 0;
    for (uint64_t i = 0; i < blocks && !failed; i++) {
        fill_block(seed, i);
        failed = write(fd, block, sizeof block) != sizeof block;
    }
    failed |= fsync(fd);
    close(fd);
    return failed ? -1 : 0;
}

static int check_file(const char *path, uint64_t seed, uint64_t blocks, int from_disk)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return -1;
    if (from_disk)
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    int failed = 0;
    for (uint64_t i = 0; i < blocks && !failed; i++) {
        fill_block(seed, i);
        failed = read(fd, found, sizeof found) != sizeof found || memcmp(found, block, sizeof block) != 0;
    }
    close(fd);
    return failed ? -1 : 0;
}

static void stop_running(void)
{
    FILE *file = fopen(pid_path, "r");
    int pid;
    if (file && fscanf(file, "%d", &pid) == 1)
        kill(pid, SIGTERM);
    if (file)
        fclose(file);
    unlink(pid_path);
    unlink(status_path);
}

static void run(const char *directory, uint64_t blocks)
{
    uint64_t seeds[FILES] = {0}, errors = 0, state = 88172645463325252ULL;
    char path[256];
    for (uint64_t round = 1;; round++) {
        uint64_t slot = next_random(&state) % FILES;
        snprintf(path, sizeof path, "%s/fswriter-%llu", directory, (unsigned long long)slot);
        if (seeds[slot] != 0) {
            errors += check_file(path, seeds[slot], blocks, round & 1) != 0;
            errors += unlink(path) != 0;
        }
        seeds[slot] = round;
        errors += write_file(path, round, blocks) != 0;
        errors += check_file(path, round, blocks, round & 2) != 0;
        write_status(status_path, "rounds %llu errors %llu files %d\n", (unsigned long long)round,
                     (unsigned long long)errors, FILES);
    }
}

int fswriter(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "status") == 0)
        return print_status(status_path);
    if (strcmp(verb, "stop") == 0) {
        stop_running();
        return 0;
    }
    if (strcmp(verb, "start") != 0 || argc < 3) {
        fputs("usage: fswriter start DIRECTORY [MEBIBYTES] | status | stop\n", stderr);
        return 2;
    }
    stop_running();
    uint64_t blocks = (argc > 3 ? strtoull(argv[3], NULL, 10) : 16) * 16 / FILES;
    run_in_background();
    write_status(pid_path, "%d\n", getpid());
    run(argv[2], blocks ? blocks : 1);
    return 0;
}
