/* SPDX-License-Identifier: Apache-2.0 */
/* See shim.h. Written for DPDK 22.11 and the LTS releases after it. */
#include "shim.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_memory.h>
#include <rte_mempool.h>
#include <rte_version.h>

#define SAME(field) \
	_Static_assert(offsetof(struct gh_mbuf_head, field) == offsetof(struct rte_mbuf, field) && \
		       sizeof(((struct gh_mbuf_head *)0)->field) == sizeof(((struct rte_mbuf *)0)->field), \
		       "rte_mbuf." #field " is not where pktbuf has it")
SAME(buf_addr);
SAME(data_off);
SAME(refcnt);
SAME(nb_segs);
SAME(port);
SAME(ol_flags);
SAME(packet_type);
SAME(pkt_len);
SAME(data_len);
SAME(vlan_tci);
SAME(hash);
SAME(vlan_tci_outer);
SAME(buf_len);
SAME(pool);
_Static_assert(offsetof(struct rte_mbuf, hash.rss) == offsetof(struct gh_mbuf_head, hash), "rte_mbuf.hash.rss");
_Static_assert(sizeof(struct rte_mbuf) == GH_MBUF_SIZE, "size of rte_mbuf");
_Static_assert(RTE_PKTMBUF_HEADROOM == GH_HEADROOM, "RTE_PKTMBUF_HEADROOM");
_Static_assert(RTE_CACHE_LINE_ROUNDUP(sizeof(struct rte_mempool_objhdr)) == GH_OBJECT_HEADER_SIZE,
	       "size of rte_mempool_objhdr");
_Static_assert(RTE_MBUF_F_RX_RSS_HASH == GH_RX_RSS_HASH, "RTE_MBUF_F_RX_RSS_HASH");
_Static_assert(RTE_MBUF_F_RX_VLAN_STRIPPED == GH_RX_VLAN_STRIPPED, "RTE_MBUF_F_RX_VLAN_STRIPPED");
_Static_assert(RTE_MBUF_F_LAST_FREE == 1ULL << GH_LAST_FREE_FLAG, "RTE_MBUF_F_LAST_FREE");
_Static_assert(RTE_MEMPOOL_CACHE_MAX_SIZE >= GH_CACHE_MAX, "RTE_MEMPOOL_CACHE_MAX_SIZE");
_Static_assert(RTE_ETH_XSTATS_NAME_SIZE <= sizeof(((struct gh_port_named_stat *)0)->name), "xstats names");

/* Written once, by the thread that initialises EAL before it makes others. */
static atomic_int eal_ready;

int gh_eal_init(int argc, char **argv)
{
	if (rte_eal_init(argc, argv) < 0)
		return rte_errno == 0 ? -EIO : -rte_errno;
	atomic_store(&eal_ready, 1);
	return 0;
}

int gh_eal_ready(void)
{
	return atomic_load(&eal_ready);
}

int gh_errno(void)
{
	return rte_errno;
}

const char *gh_strerror(int number)
{
	return rte_strerror(number);
}

const char *gh_version(void)
{
	return rte_version();
}

int gh_thread_register(void)
{
	if (rte_lcore_id() != LCORE_ID_ANY)
		return -EALREADY;
	return rte_thread_register() < 0 ? -rte_errno : 0;
}

void gh_thread_unregister(void)
{
	rte_thread_unregister();
}

int gh_only_virtual_devices(void)
{
	return !rte_eal_has_pci() && rte_eal_iova_mode() == RTE_IOVA_VA;
}

static void shift_buffer(struct rte_mempool *pool, void *shift, void *object, unsigned int index)
{
	struct rte_mbuf *mbuf = object;
	uint16_t bytes = *(const uint16_t *)shift;

	(void)pool;
	(void)index;
	rte_iova_t iova = rte_mbuf_iova_get(mbuf);
	mbuf->buf_addr = RTE_PTR_ADD(mbuf->buf_addr, bytes);
	/* A dense pool has been told no bus addresses; there they are virtual ones. */
	iova = rte_eal_iova_mode() == RTE_IOVA_VA ? (rte_iova_t)(uintptr_t)mbuf->buf_addr : iova + bytes;
	rte_mbuf_iova_set(mbuf, iova);
}

/* As rte_pktmbuf_pool_create, but with elements longer than the data room, the stride as it is asked for, and
 * the buffers shifted. */
struct rte_mempool *gh_pool_create(const char *name, uint32_t packets, uint32_t cache,
				   uint32_t element_bytes, uint16_t data_room, uint16_t shift, int dense)
{
	struct rte_pktmbuf_pool_private private_data = { .mbuf_data_room_size = data_room };
	struct rte_mempool *pool;
	unsigned int flags = RTE_MEMPOOL_F_NO_SPREAD | (dense ? RTE_MEMPOOL_F_NO_IOVA_CONTIG : 0);
	int status;

	if (!gh_eal_ready()) {
		rte_errno = ENODEV;
		return NULL;
	}
	if (element_bytes < sizeof(struct rte_mbuf) + data_room + shift) {
		rte_errno = EINVAL;
		return NULL;
	}
	pool = rte_mempool_create_empty(name, packets, element_bytes, cache, sizeof(private_data),
					(int)SOCKET_ID_ANY, flags);
	if (pool == NULL)
		return NULL;
	status = rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL);
	if (status == 0) {
		rte_pktmbuf_pool_init(pool, &private_data);
		status = rte_mempool_populate_default(pool);
	}
	if (status < 0) {
		rte_mempool_free(pool);
		rte_errno = -status;
		return NULL;
	}
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	rte_mempool_obj_iter(pool, shift_buffer, &shift);
	return pool;
}

struct visitor {
	void (*visit)(void *context, void *start, size_t bytes, size_t page_bytes);
	void *context;
};

static void visit_chunk(struct rte_mempool *pool, void *opaque, struct rte_mempool_memhdr *chunk, unsigned int index)
{
	const struct visitor *visitor = opaque;
	const struct rte_memseg_list *segments = rte_mem_virt2memseg_list(chunk->addr);
	size_t page_bytes = segments == NULL ? (size_t)sysconf(_SC_PAGESIZE) : segments->page_sz;

	(void)pool;
	(void)index;
	visitor->visit(visitor->context, chunk->addr, chunk->len, page_bytes);
}

void gh_pool_each_chunk(struct rte_mempool *pool,
			void (*visit)(void *context, void *start, size_t bytes, size_t page_bytes), void *context)
{
	struct visitor visitor = { visit, context };

	rte_mempool_mem_iter(pool, visit_chunk, &visitor);
}

uint32_t gh_pool_available(const struct rte_mempool *pool)
{
	return rte_mempool_avail_count(pool);
}

struct rte_mbuf *gh_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

/* As rte_pktmbuf_alloc_bulk, but of each mbuf only the first cache line is written, in few stores. In a pool an mbuf has
 * one reference, one segment and nothing behind it, and without flags its transmit offloads mean nothing. */
int gh_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	int status = rte_mempool_get_bulk(pool, (void **)mbufs, count);

	if (status < 0)
		return status;
	for (unsigned int i = 0; i < count; i++) {
		struct rte_mbuf *mbuf = mbufs[i];

		__rte_mbuf_raw_sanity_check(mbuf);
		mbuf->data_off = RTE_PKTMBUF_HEADROOM;
		mbuf->port = RTE_MBUF_PORT_INVALID;
		mbuf->ol_flags = 0;
		mbuf->packet_type = 0;
		mbuf->pkt_len = 0;
		mbuf->data_len = 0;
		mbuf->vlan_tci = 0;
	}
	return 0;
}

void gh_mbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

int gh_port_find(const char *device)
{
	struct rte_dev_iterator iterator;
	uint16_t port;

	if (rte_eth_dev_get_port_by_name(device, &port) == 0)
		return port;
	if (rte_eth_iterator_init(&iterator, device) != 0)
		return -ENODEV;
	port = rte_eth_iterator_next(&iterator);
	if (port == RTE_MAX_ETHPORTS)
		return -ENODEV;
	rte_eth_iterator_cleanup(&iterator);
	return port;
}

int gh_device_probe(const char *device)
{
	return rte_dev_probe(device);
}

int gh_port_info(uint16_t port, struct gh_port_info *info)
{
	struct rte_eth_dev_info dev;
	int status = rte_eth_dev_info_get(port, &dev);

	if (status < 0)
		return status;
	memset(info, 0, sizeof(*info));
	strncpy(info->driver, dev.driver_name == NULL ? "" : dev.driver_name, sizeof(info->driver) - 1);
	info->max_rx_queues = dev.max_rx_queues;
	info->max_tx_queues = dev.max_tx_queues;
	info->min_mtu = dev.min_mtu;
	info->max_mtu = dev.max_mtu;
	info->max_rx_frame = dev.max_rx_pktlen;
	info->interface_index = dev.if_index;
	info->rx_offloads = dev.rx_offload_capa;
	info->tx_offloads = dev.tx_offload_capa;
	info->rss_types = dev.flow_type_rss_offloads;
	return 0;
}

/* `mtu` 0 leaves it to the driver; `rss` spreads flows over the queues as far as the device can. */
int gh_port_configure(uint16_t port, uint16_t queues, uint32_t mtu, int rss)
{
	const uint64_t types = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP | RTE_ETH_RSS_ESP;
	struct rte_eth_dev_info dev;
	struct rte_eth_conf conf;
	int status = rte_eth_dev_info_get(port, &dev);

	if (status < 0)
		return status;
	memset(&conf, 0, sizeof(conf));
	conf.rxmode.mtu = mtu;
	conf.rx_adv_conf.rss_conf.rss_hf = types & dev.flow_type_rss_offloads;
	if (rss && conf.rx_adv_conf.rss_conf.rss_hf != 0) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rxmode.offloads = RTE_ETH_RX_OFFLOAD_RSS_HASH & dev.rx_offload_capa;
	} else {
		conf.rx_adv_conf.rss_conf.rss_hf = 0;
	}
	return rte_eth_dev_configure(port, queues, queues, &conf);
}

int gh_port_adjust_descriptors(uint16_t port, uint16_t *rx, uint16_t *tx)
{
	return rte_eth_dev_adjust_nb_rx_tx_desc(port, rx, tx);
}

int gh_port_rx_queue(uint16_t port, uint16_t queue, uint16_t descriptors, struct rte_mempool *pool)
{
	return rte_eth_rx_queue_setup(port, queue, descriptors, (unsigned int)SOCKET_ID_ANY, NULL, pool);
}

int gh_port_tx_queue(uint16_t port, uint16_t queue, uint16_t descriptors)
{
	return rte_eth_tx_queue_setup(port, queue, descriptors, (unsigned int)SOCKET_ID_ANY, NULL);
}

int gh_port_start(uint16_t port)
{
	return rte_eth_dev_start(port);
}

int gh_port_stop(uint16_t port)
{
	return rte_eth_dev_stop(port);
}

/* Closes the port and takes its device off the bus, so that it can be probed again. */
int gh_port_remove(uint16_t port)
{
	struct rte_eth_dev_info dev;
	int status = rte_eth_dev_info_get(port, &dev);

	if (status < 0)
		return status;
	status = rte_eth_dev_close(port);
	if (status < 0)
		return status;
	return rte_dev_remove(dev.device);
}

int gh_port_promiscuous(uint16_t port)
{
	return rte_eth_promiscuous_enable(port);
}

int gh_port_mac(uint16_t port, uint8_t mac[6])
{
	struct rte_ether_addr address;
	int status = rte_eth_macaddr_get(port, &address);

	if (status == 0)
		memcpy(mac, address.addr_bytes, 6);
	return status;
}

int gh_port_link_up(uint16_t port)
{
	struct rte_eth_link link;
	int status = rte_eth_link_get_nowait(port, &link);

	return status < 0 ? status : link.link_status == RTE_ETH_LINK_UP;
}

int gh_port_mtu(uint16_t port, uint16_t *mtu)
{
	return rte_eth_dev_get_mtu(port, mtu);
}

int gh_port_set_mtu(uint16_t port, uint16_t mtu)
{
	return rte_eth_dev_set_mtu(port, mtu);
}

int gh_port_stats(uint16_t port, struct gh_port_stats *stats)
{
	struct rte_eth_stats from;
	int status = rte_eth_stats_get(port, &from);

	if (status < 0)
		return status;
	stats->rx_packets = from.ipackets;
	stats->tx_packets = from.opackets;
	stats->rx_bytes = from.ibytes;
	stats->tx_bytes = from.obytes;
	stats->rx_missed = from.imissed;
	stats->rx_errors = from.ierrors;
	stats->tx_errors = from.oerrors;
	stats->rx_no_mbuf = from.rx_nombuf;
	return 0;
}

int gh_port_named_stats(uint16_t port, struct gh_port_named_stat *stats, uint32_t room)
{
	struct rte_eth_xstat_name *names = NULL;
	struct rte_eth_xstat *values = NULL;
	int count = rte_eth_xstats_get_names(port, NULL, 0);

	if (count <= 0 || room < (uint32_t)count)
		return count;
	names = calloc(count, sizeof(*names));
	values = calloc(count, sizeof(*values));
	if (names == NULL || values == NULL)
		count = -ENOMEM;
	else if (rte_eth_xstats_get_names(port, names, count) != count ||
		 rte_eth_xstats_get(port, values, count) != count)
		count = -EAGAIN;
	for (int i = 0; i < count; i++) {
		/* Entries come in the order of their identifiers, but only the identifier is promised. */
		uint64_t id = values[i].id < (uint64_t)count ? values[i].id : (uint64_t)i;

		memcpy(stats[i].name, names[id].name, sizeof(names[id].name));
		stats[i].name[sizeof(stats[i].name) - 1] = 0;
		stats[i].value = values[i].value;
	}
	free(names);
	free(values);
	return count;
}

uint16_t gh_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t gh_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}
