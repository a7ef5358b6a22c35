/* ntpload ADDRESS PORT SECONDS OUTSTANDING
 * Keeps OUTSTANDING NTP client requests under way and checks each answer: length, version, mode, stratum, and that it
 * carries the transmit time of a request of ours that was not answered yet. What half a second of silence leaves open is
 * lost, and asked again. Prints one JSON line: requests a second, the offset that a client would compute (RFC 5905, section
 * 8; our clock is the server's, so a perfect answer has 0), and the round trip. Exits with 1 after a wrong answer, or when
 * more than 1 in 1000 were lost. */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

enum { SIZE = 48, MAX_OUTSTANDING = 1024, MAX_SAMPLES = 4000000 };
static const uint64_t EPOCH = 2208988800u; /* 1970 in seconds since 1900 */

struct request {
    uint64_t stamp;  /* as sent; 0: answered */
    uint64_t before; /* of the one that was given up: its answer may still come */
};
static struct request requests[MAX_OUTSTANDING];
static double offsets[MAX_SAMPLES], round_trips[MAX_SAMPLES];
static int channel;

static uint64_t stamp_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return ((uint64_t)t.tv_sec + EPOCH) << 32 | (((uint64_t)t.tv_nsec << 32) / 1000000000u);
}

/* Seconds from `b` to `a`: of the difference only, since a double cannot hold today to the nanosecond. */
static double between(uint64_t a, uint64_t b) { return (double)(int64_t)(a - b) / 4294967296.0; }

static uint64_t read_stamp(const unsigned char *p) {
    uint64_t value;
    memcpy(&value, p, 8);
    return be64toh(value);
}

static void ask(int slot) {
    unsigned char packet[SIZE] = {0x23, 0, 6};                 /* version 4, client; poll 64 s */
    uint64_t stamp = (stamp_now() & ~(uint64_t)1023) | (uint64_t)slot; /* the slot is in what is below 0.3 us */
    requests[slot].stamp = stamp;
    uint64_t wire = htobe64(stamp);
    memcpy(packet + 40, &wire, 8);
    if (send(channel, packet, SIZE, 0) != SIZE && errno != EAGAIN && errno != ENOBUFS && errno != ECONNREFUSED)
        die("send");
}

int main(int count, char **words) {
    if (count != 5) {
        fprintf(stderr, "usage: ntpload ADDRESS PORT SECONDS OUTSTANDING\n");
        return 2;
    }
    double duration = atof(words[3]);
    int outstanding = atoi(words[4]);
    if (outstanding < 1 || outstanding > MAX_OUTSTANDING)
        return 2;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(words[2]))};
    inet_pton(AF_INET, words[1], &to.sin_addr);
    channel = socket(AF_INET, SOCK_DGRAM, 0);
    if (channel < 0 || connect(channel, (struct sockaddr *)&to, sizeof to))
        die("socket");
    struct timeval patience = {.tv_usec = 500000};
    setsockopt(channel, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);

    size_t ok = 0, lost = 0, wrong = 0;
    for (int slot = 0; slot < outstanding; slot++)
        ask(slot);
    double began = now();
    while (now() - began < duration && ok < MAX_SAMPLES) {
        unsigned char answer[512];
        ssize_t size = recv(channel, answer, sizeof answer, 0);
        uint64_t arrived = stamp_now();
        if (size < 0) {
            for (int slot = 0; slot < outstanding; slot++, lost++) {
                requests[slot].before = requests[slot].stamp;
                ask(slot);
            }
            continue;
        }
        uint64_t origin = size == SIZE ? read_stamp(answer + 24) : 0;
        int slot = (int)(origin & 1023);
        if (origin && requests[slot].before == origin) {
            requests[slot].before = 0;
            continue; /* late */
        }
        if (size != SIZE || (answer[0] & 0x3f) != 0x24 || answer[1] < 1 || answer[1] > 15 || slot >= outstanding ||
            origin == 0 || requests[slot].stamp != origin) {
            wrong++;
            continue;
        }
        requests[slot].stamp = 0;
        uint64_t received = read_stamp(answer + 32), sent = read_stamp(answer + 40);
        if ((int64_t)(sent - received) < 0)
            wrong++;
        offsets[ok] = (between(received, origin) + between(sent, arrived)) / 2;
        round_trips[ok] = between(arrived, origin) - between(sent, received);
        ok++;
        ask(slot);
    }
    double took = now() - began;
    printf("{\"ok\": %zu, \"lost\": %zu, \"wrong\": %zu, \"seconds\": %.3f, \"per_s\": %.0f, \"offset_us_p50\": %.3f, "
           "\"offset_us_p99\": %.3f, \"rtt_us_p50\": %.2f, \"rtt_us_p99\": %.2f}\n",
           ok, lost, wrong, took, (double)ok / took, percentile(offsets, ok, .5) * 1e6, percentile(offsets, ok, .99) * 1e6,
           percentile(round_trips, ok, .5) * 1e6, percentile(round_trips, ok, .99) * 1e6);
    return wrong > 0 || ok == 0 || lost > ok / 1000 + (size_t)outstanding;
}
