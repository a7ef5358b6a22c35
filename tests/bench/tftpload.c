/* tftpload: many TFTP read transfers at once, in one epoll loop; every byte is compared with a local copy of the file.
 *
 *   gcc -O2 -o tftpload tftpload.c
 *   tftpload ADDRESS PORT NAME COPY CLIENTS TOTAL BLKSIZE WINDOWSIZE
 *
 * NAME is asked for until TOTAL transfers have ended, CLIENTS of them at once. COPY is the file to compare with.
 * BLKSIZE 0 and WINDOWSIZE 0 leave their option out. Prints one line of JSON: transfers that were right and wrong,
 * seconds, MB/s (10^6 bytes), milliseconds per transfer at p50, p99 and the slowest, and packets repeated by us.
 * Exit 1 if any transfer failed or brought other bytes. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RRQ = 1, DATA = 3, ACK = 4, ERROR = 5, OACK = 6 };
enum { LONGEST = 65536, AT_ONCE = 32, TURN = 256, TRIES = 30 };
static const double REPEAT_AFTER = 1.0;
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

struct transfer {
    int channel; /* -1: none */
    int connected;
    int block_size, window;
    int in_window;  /* blocks taken since the last ACK */
    int gap_told;   /* the missing block was asked for; said once until it comes */
    uint32_t next;  /* the block awaited, not wrapped */
    uint64_t taken; /* bytes */
    double began, said;
    int tries;
    unsigned char last[512]; /* what we said last */
    size_t last_length;
};

static struct sockaddr_in server;
static const char *name;
static int want_block, want_window, poller;
static const unsigned char *copy;
static uint64_t size;
static long repeated;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void say(struct transfer *t) {
    if (t->connected)
        (void)!send(t->channel, t->last, t->last_length, 0);
    else
        (void)!sendto(t->channel, t->last, t->last_length, 0, (struct sockaddr *)&server, sizeof server);
    t->said = now();
}

static void acknowledge(struct transfer *t, uint32_t block) {
    unsigned char ack[4] = {0, ACK, block >> 8 & 255, block & 255};
    memcpy(t->last, ack, t->last_length = 4);
    t->in_window = 0;
    say(t);
}

static size_t append(unsigned char *to, size_t at, const char *text) {
    size_t length = strlen(text) + 1;
    if (at + length > sizeof((struct transfer *)0)->last) {
        fprintf(stderr, "the name is too long\n");
        exit(2);
    }
    memcpy(to + at, text, length);
    return at + length;
}

static void begin(struct transfer *t, uint32_t index) {
    int room = 1 << 20;
    char number[12];
    memset(t, 0, sizeof *t);
    t->channel = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (t->channel < 0) {
        perror("socket");
        exit(2);
    }
    setsockopt(t->channel, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    /* Fifty Pis have fifty processors to receive with, we have one: let the kernel hand over together what arrives
     * together. It changes nothing where packets come one by one. */
    int on = want_window > 1;
    setsockopt(t->channel, SOL_UDP, UDP_GRO, &on, sizeof on);
    t->block_size = 512;
    t->window = 1;
    t->next = 1;
    t->began = now();
    t->last[1] = RRQ;
    size_t at = append(t->last, append(t->last, 2, name), "octet");
    if (want_block) {
        snprintf(number, sizeof number, "%d", want_block);
        at = append(t->last, append(t->last, append(t->last, append(t->last, at, "tsize"), "0"), "blksize"), number);
    }
    if (want_window) {
        snprintf(number, sizeof number, "%d", want_window);
        at = append(t->last, append(t->last, at, "windowsize"), number);
    }
    t->last_length = at;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    epoll_ctl(poller, EPOLL_CTL_ADD, t->channel, &event);
    say(t);
}

static void agree(struct transfer *t, const unsigned char *packet, ssize_t length) {
    const char *at = (const char *)packet + 2, *end = (const char *)packet + length;
    while (at < end) {
        const char *option = at, *value = at + strnlen(at, end - at) + 1;
        if (value >= end) break;
        at = value + strnlen(value, end - value) + 1;
        if (!strcasecmp(option, "blksize")) t->block_size = atoi(value);
        if (!strcasecmp(option, "windowsize")) t->window = atoi(value);
    }
    acknowledge(t, 0);
}

/* 1: complete, -1: failed, 0: goes on */
static int take_data(struct transfer *t, const unsigned char *packet, ssize_t length) {
    uint16_t block = packet[2] << 8 | packet[3];
    ssize_t bytes = length - 4;
    if (block != (uint16_t)t->next) {
        int ahead = (uint16_t)(block - (uint16_t)t->next) < 0x8000;
        if (t->window > 1 && ahead && !t->gap_told) {
            t->gap_told = 1;
            repeated++;
            acknowledge(t, t->next - 1);
        }
        return 0;
    }
    if (bytes > t->block_size || t->taken + bytes > size || memcmp(packet + 4, copy + t->taken, bytes)) return -1;
    t->taken += bytes;
    t->next++;
    t->gap_told = 0;
    t->tries = 0;
    t->in_window++;
    int last = bytes < t->block_size;
    if (last || t->in_window >= t->window) acknowledge(t, block);
    return last ? (t->taken == size ? 1 : -1) : 0;
}

static int take_packet(struct transfer *t, unsigned char *packet, ssize_t length) {
    if (length < 4) return 0;
    if (packet[1] != DATA) packet[length] = 0;
    if (packet[1] == OACK && t->next == 1) agree(t, packet, length);
    if (packet[1] == DATA) return take_data(t, packet, length);
    if (packet[1] != ERROR) return 0;
    fprintf(stderr, "error %d: %s\n", packet[3], packet + 4);
    return -1;
}

/* The length of the packets that came as one of this length. */
static int segment(struct msghdr *message, int length) {
    for (struct cmsghdr *c = message->msg_control ? CMSG_FIRSTHDR(message) : 0; c; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(c), sizeof size);
            return size > 0 ? size : length;
        }
    return length > 0 ? length : 1;
}

/* All that is there, in few system calls, so that the server is the bottleneck and not we. */
static int take(struct transfer *t) {
    static unsigned char packets[AT_ONCE][LONGEST + 1];
    static struct iovec parts[AT_ONCE];
    static struct mmsghdr messages[AT_ONCE];
    static char control[AT_ONCE][CMSG_SPACE(sizeof(int))];
    for (;;) {
        struct sockaddr_in from;
        unsigned most = t->connected ? (t->window < AT_ONCE ? t->window : AT_ONCE) : 1;
        for (unsigned i = 0; i < most; i++) {
            parts[i] = (struct iovec){packets[i], LONGEST};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
            if (t->window > 1)
                messages[i].msg_hdr.msg_control = control[i], messages[i].msg_hdr.msg_controllen = sizeof control[i];
        }
        if (!t->connected) messages[0].msg_hdr.msg_name = &from, messages[0].msg_hdr.msg_namelen = sizeof from;
        int got = recvmmsg(t->channel, messages, most, MSG_DONTWAIT, 0);
        if (got <= 0) return 0;
        if (!t->connected) {
            connect(t->channel, (struct sockaddr *)&from, sizeof from);
            t->connected = 1;
        }
        for (int i = 0; i < got; i++) {
            int length = messages[i].msg_len, each = segment(&messages[i].msg_hdr, length);
            for (int at = 0; at < length; at += each) {
                int end = take_packet(t, packets[i] + at, at + each < length ? each : length - at);
                if (end) return end;
            }
        }
        if (got < (int)most || most == 1) return 0; /* epoll comes back */
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void map(const char *path) {
    struct stat status;
    int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &status)) {
        perror(path);
        exit(2);
    }
    size = status.st_size;
    copy = size ? mmap(0, size, PROT_READ, MAP_SHARED | MAP_POPULATE, file, 0) : (const unsigned char *)"";
    if (copy == MAP_FAILED) {
        perror(path);
        exit(2);
    }
}

int main(int count, char **words) {
    if (count != 9) {
        fprintf(stderr, "usage: tftpload ADDRESS PORT NAME COPY CLIENTS TOTAL BLKSIZE WINDOWSIZE\n");
        return 2;
    }
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(words[2]));
    int clients = atoi(words[5]), total = atoi(words[6]);
    if (inet_pton(AF_INET, words[1], &server.sin_addr) != 1 || clients < 1 || total < 1) {
        fprintf(stderr, "an address, at least one client and one transfer are needed\n");
        return 2;
    }
    name = words[3];
    map(words[4]);
    want_block = atoi(words[7]);
    want_window = atoi(words[8]);
    poller = epoll_create1(0);
    struct transfer *all = calloc(clients, sizeof *all);
    double *times = calloc(total, sizeof *times);
    if (poller < 0 || !all || !times) {
        perror("tftpload");
        return 2;
    }
    int begun = 0, right = 0, wrong = 0;
    double started = now(), looked = started;
    for (int i = 0; i < clients; i++) {
        all[i].channel = -1;
        if (begun < total) begin(&all[i], i), begun++;
    }
    while (right + wrong < total) {
        struct epoll_event events[TURN];
        int ready = epoll_wait(poller, events, TURN, 100);
        double when = now();
        int look = when - looked > 0.2;
        if (look) looked = when;
        for (int i = 0; i < (ready > 0 ? ready : 0) + (look ? clients : 0); i++) {
            uint32_t index = i < ready ? events[i].data.u32 : (uint32_t)(i - (ready > 0 ? ready : 0));
            struct transfer *t = &all[index];
            if (t->channel < 0) continue;
            int end = 0;
            if (i < ready)
                end = take(t);
            else if (when - t->said > REPEAT_AFTER) {
                if (++t->tries > TRIES) {
                    end = -1;
                } else {
                    repeated++;
                    say(t);
                }
            }
            if (!end) continue;
            if (end > 0)
                times[right++] = now() - t->began;
            else
                wrong++;
            close(t->channel);
            t->channel = -1;
            if (begun < total) begin(t, index), begun++;
        }
    }
    double taken = now() - started;
    qsort(times, right, sizeof *times, by_value);
    double none = 0, *p50 = right ? &times[right / 2] : &none, *p99 = right ? &times[(int)(right * 0.99)] : &none;
    printf("{\"right\": %d, \"wrong\": %d, \"seconds\": %.3f, \"mb_per_s\": %.1f, \"p50_ms\": %.1f, \"p99_ms\": %.1f, "
           "\"slowest_ms\": %.1f, \"repeated\": %ld}\n",
           right, wrong, taken, right * (double)size / taken / 1e6, *p50 * 1e3, *p99 * 1e3,
           (right ? times[right - 1] : 0) * 1e3, repeated);
    return wrong != 0;
}
