/* dhcpload INTERFACE CLIENTS OUTSTANDING FIRST_ADDRESS [PATIENCE]
 * Boots CLIENTS virtual Pis, OUTSTANDING at a time: each sends DISCOVER, takes the OFFER, sends REQUEST, takes the ACK, with
 * raw frames and the options of a Pi's boot loader. Pi i has the MAC b8:27:eb:XX:XX:XX with i in its last three bytes, and
 * must be given FIRST_ADDRESS + i. A message without an answer for a second is sent again, PATIENCE times (6).
 * Each reply's checksums and lengths, addresses, xid, chaddr, server identifier and lease time are checked. Prints one
 * JSON line; its seconds end with the last exchange that was answered. Exits with 1 if a reply was wrong. */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

enum { DISCOVER = 1, OFFER = 2, REQUEST = 3, ACK = 5, NAK = 6 };
enum { ETHERNET = 14, IP = 20, UDP = 8, BOOTP = 236, COOKIE = 4, HEADERS = ETHERNET + IP + UDP };
enum { MESSAGE_TYPE = 53, SERVER_IDENTIFIER = 54, LEASE_TIME = 51 };
static const uint32_t FIRST_XID = 0x51000000;
static const double REPEAT_AFTER = 1.0;

struct pi {
    int waits_for; /* OFFER, ACK; 0: not begun; -1: done */
    int tries;
    double began, asked;
    uint32_t offered, server; /* network order */
};

struct reply {
    int type;
    uint32_t xid, address, server, lease; /* address and server in network order */
    const unsigned char *chaddr, *destination;
};

static struct pi *pis;
static int channel;
static struct sockaddr_ll everybody;

static uint32_t sum(const unsigned char *p, size_t size, uint32_t start) {
    for (; size > 1; p += 2, size -= 2)
        start += (uint32_t)(p[0] << 8 | p[1]);
    return size ? start + (uint32_t)(p[0] << 8) : start;
}

static uint16_t fold(uint32_t total) {
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return (uint16_t)total;
}

static void put16(unsigned char *p, unsigned value) { p[0] = (unsigned char)(value >> 8), p[1] = (unsigned char)value; }
static unsigned get16(const unsigned char *p) { return (unsigned)(p[0] << 8 | p[1]); }
static uint32_t get32(const unsigned char *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }

static void mac_of(uint32_t number, unsigned char *mac) {
    const unsigned char bytes[6] = {0xb8, 0x27, 0xeb, (unsigned char)(number >> 16), (unsigned char)(number >> 8),
                                    (unsigned char)number};
    memcpy(mac, bytes, 6);
}

static void say(uint32_t number, int type) {
    static const unsigned char common[] = {60, 32, 'P', 'X', 'E', 'C', 'l', 'i', 'e', 'n', 't', ':', 'A', 'r', 'c', 'h', ':',
                                           '0', '0', '0', '0', '0', ':', 'U', 'N', 'D', 'I', ':', '0', '0', '2', '0', '0', '1',
                                           93, 2, 0, 0, 94, 3, 1, 2, 1, 55, 9, 1, 3, 43, 60, 66, 67, 128, 129, 130, 255};
    struct pi *pi = &pis[number];
    unsigned char frame[600] = {0}, *ip = frame + ETHERNET, *udp = ip + IP, *bootp = udp + UDP, *option = bootp + BOOTP;
    memset(frame, 0xff, 6);
    mac_of(number, frame + 6);
    put16(frame + 12, ETHERTYPE_IP);
    bootp[0] = bootp[1] = 1, bootp[2] = 6;
    put16(bootp + 4, (FIRST_XID + number) >> 16), put16(bootp + 6, FIRST_XID + number);
    mac_of(number, bootp + 28);
    put16(option, 0x6382), put16(option + 2, 0x5363), option += COOKIE;
    *option++ = MESSAGE_TYPE, *option++ = 1, *option++ = (unsigned char)type;
    if (type == REQUEST) {
        *option++ = 50, *option++ = 4, memcpy(option, &pi->offered, 4), option += 4;
        *option++ = SERVER_IDENTIFIER, *option++ = 4, memcpy(option, &pi->server, 4), option += 4;
    }
    memcpy(option, common, sizeof common);
    unsigned payload = (unsigned)(option + sizeof common - bootp);
    payload = payload < 320 ? 320 : payload; /* as a boot loader pads it */
    ip[0] = 0x45, ip[8] = 64, ip[9] = IPPROTO_UDP;
    put16(ip + 2, IP + UDP + payload);
    memset(ip + 16, 0xff, 4);
    put16(ip + 10, (uint16_t)~fold(sum(ip, IP, 0)));
    put16(udp, 68), put16(udp + 2, 67), put16(udp + 4, UDP + payload);
    pi->asked = now();
    pi->waits_for = type == DISCOVER ? OFFER : ACK;
    if (sendto(channel, frame, HEADERS + payload, 0, (struct sockaddr *)&everybody, sizeof everybody) < 0)
        perror("sendto"); /* a full queue: it is said again */
}

/* 1: a reply to a client; 0: another frame; -1: a reply with a defect. Sums are only checked where the kernel filled them in. */
static int read_reply(const unsigned char *frame, size_t size, int sums_ready, struct reply *reply) {
    const unsigned char *ip = frame + ETHERNET, *udp = ip + IP, *bootp = udp + UDP;
    if (size < HEADERS || get16(frame + 12) != ETHERTYPE_IP || ip[0] != 0x45 || ip[9] != IPPROTO_UDP ||
        get16(udp) != 67 || get16(udp + 2) != 68)
        return 0;
    size_t length = get16(udp + 4);
    if (fold(sum(ip, IP, 0)) != 0xffff || get16(ip + 2) != IP + length || size < ETHERNET + IP + length ||
        length < UDP + BOOTP + COOKIE + 1 || bootp[0] != 2 || get32(bootp + BOOTP) != 0x63825363)
        return -1;
    if (sums_ready && get16(udp + 6) && fold(sum(udp, length, sum(ip + 12, 8, IPPROTO_UDP + (uint32_t)length))) != 0xffff)
        return -1;
    *reply = (struct reply){.xid = get32(bootp + 4), .chaddr = bootp + 28, .destination = frame};
    memcpy(&reply->address, bootp + 16, 4);
    const unsigned char *option = bootp + BOOTP + COOKIE, *end = udp + length;
    while (option < end && *option != 255) {
        if (*option == 0) {
            option++;
            continue;
        }
        if (option + 2 > end || option + 2 + option[1] > end)
            return -1;
        if (*option == MESSAGE_TYPE && option[1] == 1)
            reply->type = option[2];
        if (*option == SERVER_IDENTIFIER && option[1] == 4)
            memcpy(&reply->server, option + 2, 4);
        if (*option == LEASE_TIME && option[1] == 4)
            reply->lease = get32(option + 2);
        option += 2 + option[1];
    }
    return option < end ? 1 : -1;
}

static int is_right(const struct reply *reply, uint32_t number, uint32_t first) {
    static const unsigned char all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    unsigned char mac[6];
    mac_of(number, mac);
    return !memcmp(reply->chaddr, mac, 6) && (!memcmp(reply->destination, mac, 6) || !memcmp(reply->destination, all, 6)) &&
           ntohl(reply->address) == first + number && reply->server != 0 && reply->lease > 0;
}

static void open_channel(const char *interface) {
    channel = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_IP));
    if (channel < 0)
        die("socket");
    everybody.sll_family = AF_PACKET;
    everybody.sll_ifindex = (int)if_nametoindex(interface);
    everybody.sll_protocol = htons(ETH_P_IP);
    everybody.sll_halen = 6;
    memset(everybody.sll_addr, 0xff, 6);
    if (bind(channel, (struct sockaddr *)&everybody, sizeof everybody))
        die(interface);
    struct packet_mreq promiscuous = {.mr_ifindex = everybody.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
    setsockopt(channel, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous);
    int one = 1, space = 1 << 25;
    setsockopt(channel, SOL_PACKET, PACKET_AUXDATA, &one, sizeof one);
    setsockopt(channel, SOL_SOCKET, SO_RCVBUFFORCE, &space, sizeof space);
}

/* A frame that another process sent may still lack its checksum: a veth pair leaves that to a card that is not there. */
static ssize_t take(unsigned char *frame, size_t room, int *sums_ready) {
    union {
        struct cmsghdr header;
        unsigned char room[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
    } control;
    struct iovec piece = {frame, room};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t size = recvmsg(channel, &message, MSG_DONTWAIT);
    *sums_ready = 1;
    for (struct cmsghdr *each = CMSG_FIRSTHDR(&message); size >= 0 && each; each = CMSG_NXTHDR(&message, each))
        if (each->cmsg_level == SOL_PACKET && each->cmsg_type == PACKET_AUXDATA)
            *sums_ready = !(((struct tpacket_auxdata *)CMSG_DATA(each))->tp_status & TP_STATUS_CSUMNOTREADY);
    return size;
}

int main(int count, char **words) {
    if (count < 5) {
        fprintf(stderr, "usage: dhcpload INTERFACE CLIENTS OUTSTANDING FIRST_ADDRESS [PATIENCE]\n");
        return 2;
    }
    uint32_t clients = (uint32_t)atoi(words[2]), outstanding = (uint32_t)atoi(words[3]), first = ntohl(inet_addr(words[4]));
    int patience = count > 5 ? atoi(words[5]) : 6;
    open_channel(words[1]);
    pis = calloc(clients, sizeof *pis);
    double *times = calloc(clients, sizeof *times), began = now(), looked = began, last = began;
    uint32_t started = 0, ok = 0, failed = 0, wrong = 0, unanswered = 0, repeated = 0;
    while (ok + failed < clients) {
        for (; started < clients && started - ok - failed < outstanding; started++) {
            pis[started].began = now();
            say(started, DISCOVER);
        }
        struct pollfd readable = {channel, POLLIN, 0};
        poll(&readable, 1, 50);
        unsigned char frame[2048];
        ssize_t size;
        int sums_ready;
        for (int turn = 0; turn < 64 && (size = take(frame, sizeof frame, &sums_ready)) >= 0; turn++) {
            struct reply reply;
            int found = read_reply(frame, (size_t)size, sums_ready, &reply);
            uint32_t number = reply.xid - FIRST_XID;
            if (found <= 0 || number >= started) {
                wrong += found < 0;
                continue;
            }
            struct pi *pi = &pis[number];
            if (pi->waits_for <= 0 || (reply.type != pi->waits_for && reply.type != NAK))
                continue; /* the answer to a repetition */
            if (reply.type == NAK || !is_right(&reply, number, first) || (reply.type == ACK && reply.address != pi->offered)) {
                wrong++, failed++;
                pi->waits_for = -1;
            } else if (reply.type == OFFER) {
                pi->offered = reply.address, pi->server = reply.server, pi->tries = 0;
                say(number, REQUEST);
            } else {
                pi->waits_for = -1;
                last = now();
                times[ok++] = last - pi->began;
            }
        }
        double moment = now();
        if (moment - looked < 0.1)
            continue;
        looked = moment;
        for (uint32_t number = 0; number < started; number++) {
            struct pi *pi = &pis[number];
            if (pi->waits_for <= 0 || moment - pi->asked < REPEAT_AFTER)
                continue;
            if (++pi->tries > patience) {
                pi->waits_for = -1;
                failed++, unanswered++;
            } else {
                repeated++;
                say(number, pi->waits_for == OFFER ? DISCOVER : REQUEST);
            }
        }
    }
    double took = last > began ? last - began : 1;
    printf("{\"ok\": %u, \"unanswered\": %u, \"wrong\": %u, \"repeated\": %u, \"seconds\": %.3f, \"per_s\": %.0f, \"p50_ms\": %.3f, "
           "\"p99_ms\": %.3f}\n",
           ok, unanswered, wrong, repeated, took, ok / took, percentile(times, ok, .5) * 1e3, percentile(times, ok, .99) * 1e3);
    return wrong > 0;
}
