/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Greyhound calls of DPDK: inline functions made callable, and structures whose fields differ between
 * releases flattened into plain ones. It includes no DPDK header, so that the bindings are the same for all
 * of them. No decisions are taken here; they are in the Rust crates.
 *
 * Functions that return int return 0 or more for success and a negative errno for failure.
 */
#ifndef GREYHOUND_SHIM_H
#define GREYHOUND_SHIM_H

#include <stddef.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;

/* Asserted in shim.c to be those of the DPDK that is compiled against. */
#define GH_HEADROOM 128
#define GH_MBUF_SIZE 128
#define GH_OBJECT_HEADER_SIZE 64
#define GH_RX_RSS_HASH 2
#define GH_RX_VLAN_STRIPPED 64
#define GH_LAST_FREE_FLAG 40
#define GH_CACHE_MAX 512

/* The first cache line of struct rte_mbuf; every offset is asserted in shim.c. */
struct gh_mbuf_head {
	void *buf_addr;
	uint64_t buf_iova; /* next, where buffers have no bus address */
	uint16_t data_off;
	uint16_t refcnt;
	uint16_t nb_segs;
	uint16_t port;
	uint64_t ol_flags;
	uint32_t packet_type;
	uint32_t pkt_len;
	uint16_t data_len;
	uint16_t vlan_tci;
	uint32_t hash[2];
	uint16_t vlan_tci_outer;
	uint16_t buf_len;
	void *pool;
};

/* EAL. */
int gh_eal_init(int argc, char **argv);
/* Whether gh_eal_init has succeeded in this process. */
int gh_eal_ready(void);
int gh_errno(void);
const char *gh_strerror(int number);
const char *gh_version(void);
/* -EALREADY on a thread that EAL knows. */
int gh_thread_register(void);
void gh_thread_unregister(void);

/* Whether buses of real devices are off and bus addresses are virtual ones. */
int gh_only_virtual_devices(void);

/* Pools; ENODEV before EAL is ready. Each buffer starts `shift` bytes later than DPDK puts it; element_bytes has
 * room for that. `dense` lets elements cross pages, for when gh_only_virtual_devices. */
struct rte_mempool *gh_pool_create(const char *name, uint32_t packets, uint32_t cache,
				   uint32_t element_bytes, uint16_t data_room, uint16_t shift, int dense);
/* Visits each piece of a pool's memory and says what size its pages are. */
void gh_pool_each_chunk(struct rte_mempool *pool,
			void (*visit)(void *context, void *start, size_t bytes, size_t page_bytes), void *context);
uint32_t gh_pool_available(const struct rte_mempool *pool);
struct rte_mbuf *gh_mbuf_alloc(struct rte_mempool *pool);
/* All of them, or none and a negative errno. */
int gh_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);
void gh_mbuf_free(struct rte_mbuf *mbuf);

/* Ports. */
struct gh_port_info {
	char driver[64];
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	uint16_t min_mtu;
	uint16_t max_mtu;
	uint32_t max_rx_frame;
	uint32_t interface_index; /* of the kernel's interface under a virtual device, or 0 */
	uint64_t rx_offloads;
	uint64_t tx_offloads;
	uint64_t rss_types;
};

struct gh_port_stats {
	uint64_t rx_packets;
	uint64_t tx_packets;
	uint64_t rx_bytes;
	uint64_t tx_bytes;
	uint64_t rx_missed;
	uint64_t rx_errors;
	uint64_t tx_errors;
	uint64_t rx_no_mbuf;
};

struct gh_port_named_stat {
	char name[64];
	uint64_t value;
};

int gh_port_find(const char *device);
int gh_device_probe(const char *device);
int gh_port_info(uint16_t port, struct gh_port_info *info);
int gh_port_configure(uint16_t port, uint16_t queues, uint32_t mtu, int rss);
int gh_port_adjust_descriptors(uint16_t port, uint16_t *rx, uint16_t *tx);
int gh_port_rx_queue(uint16_t port, uint16_t queue, uint16_t descriptors, struct rte_mempool *pool);
int gh_port_tx_queue(uint16_t port, uint16_t queue, uint16_t descriptors);
int gh_port_start(uint16_t port);
int gh_port_stop(uint16_t port);
int gh_port_remove(uint16_t port);
int gh_port_promiscuous(uint16_t port);
int gh_port_mac(uint16_t port, uint8_t mac[6]);
int gh_port_link_up(uint16_t port);
int gh_port_mtu(uint16_t port, uint16_t *mtu);
int gh_port_set_mtu(uint16_t port, uint16_t mtu);
int gh_port_stats(uint16_t port, struct gh_port_stats *stats);
/* Writes up to `room` named statistics and returns how many there are. */
int gh_port_named_stats(uint16_t port, struct gh_port_named_stat *stats, uint32_t room);

uint16_t gh_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t gh_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);

#endif
