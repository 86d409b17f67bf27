// SPDX-License-Identifier: Apache-2.0
// DPDK's librte_acl with the rules, headers and classes that `greyhound-perf qos --write-rules` has written: cycles a
// packet in bursts of 64, the median burst of five runs, time to build, and headers of which it says another class.
// Run by scripts/acl-beside.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_acl.h>
#include <rte_cycles.h>
#include <rte_eal.h>

#define BURST 64
#define RUNS 5
#define RULES_MAX (1 << 17)
#define NO_CLASS 65535u
// A header as it lies in the file: protocol and three bytes of padding, addresses and ports in network order, and the
// class that the other classifier says.
#define KEY_BYTES 16
#define HEADER_BYTES (KEY_BYTES + 4)

RTE_ACL_RULE_DEF(tuple_rule, 5);

static const struct rte_acl_field_def FIELDS[5] = {
	{ .type = RTE_ACL_FIELD_TYPE_BITMASK, .size = 1, .field_index = 0, .input_index = 0, .offset = 0 },
	{ .type = RTE_ACL_FIELD_TYPE_MASK, .size = 4, .field_index = 1, .input_index = 1, .offset = 4 },
	{ .type = RTE_ACL_FIELD_TYPE_MASK, .size = 4, .field_index = 2, .input_index = 2, .offset = 8 },
	{ .type = RTE_ACL_FIELD_TYPE_RANGE, .size = 2, .field_index = 3, .input_index = 3, .offset = 12 },
	{ .type = RTE_ACL_FIELD_TYPE_RANGE, .size = 2, .field_index = 4, .input_index = 3, .offset = 14 },
};

static void fail(const char *what)
{
	fprintf(stderr, "acl-beside: %s\n", what);
	exit(1);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static void add_rules(struct rte_acl_ctx *acl, FILE *file)
{
	unsigned s, sl, d, dl, sp, sq, dp, dq, p, pm, class;
	int place = 0;
	while (fscanf(file, "%u/%u %u/%u %u-%u %u-%u %u/%u %u", &s, &sl, &d, &dl, &sp, &sq, &dp, &dq, &p, &pm,
		      &class) == 11) {
		struct tuple_rule rule;
		memset(&rule, 0, sizeof(rule));
		rule.data.category_mask = 1;
		rule.data.priority = RULES_MAX - place++;
		rule.data.userdata = class + 1;
		rule.field[0].value.u8 = p;
		rule.field[0].mask_range.u8 = pm;
		rule.field[1].value.u32 = s;
		rule.field[1].mask_range.u32 = sl;
		rule.field[2].value.u32 = d;
		rule.field[2].mask_range.u32 = dl;
		rule.field[3].value.u16 = sp;
		rule.field[3].mask_range.u16 = sq;
		rule.field[4].value.u16 = dp;
		rule.field[4].mask_range.u16 = dq;
		if (rte_acl_add_rules(acl, (struct rte_acl_rule *)&rule, 1))
			fail("a rule is refused");
	}
}

// Cycles a packet of the median burst; `wrong` counts headers with another class than the file's.
static double run(struct rte_acl_ctx *acl, const uint8_t *headers, long count, long *wrong)
{
	double *bursts = malloc(sizeof(double) * (count / BURST));
	long done = 0;
	*wrong = 0;
	for (long at = 0; at + BURST <= count; at += BURST) {
		uint8_t near[BURST * KEY_BYTES];
		const uint8_t *keys[BURST];
		uint32_t said[BURST], expected;
		for (int i = 0; i < BURST; i++)
			memcpy(near + i * KEY_BYTES, headers + (at + i) * HEADER_BYTES, KEY_BYTES);
		uint64_t start = rte_rdtsc();
		for (int i = 0; i < BURST; i++)
			keys[i] = near + i * KEY_BYTES;
		rte_acl_classify(acl, keys, said, BURST, 1);
		bursts[done++] = (double)(rte_rdtsc() - start) / BURST;
		for (int i = 0; i < BURST; i++) {
			memcpy(&expected, headers + (at + i) * HEADER_BYTES + KEY_BYTES, 4);
			*wrong += (said[i] ? said[i] - 1 : NO_CLASS) != expected;
		}
	}
	qsort(bursts, done, sizeof(double), by_value);
	double median = bursts[done / 2];
	free(bursts);
	return median;
}

int main(int argc, char **argv)
{
	char *eal[] = { argv[0], "--no-huge", "-m", "1500", "--no-pci", "--no-shconf", "--no-telemetry", "-l", "0" };
	if (argc != 3)
		fail("usage: beside RULES HEADERS");
	if (rte_eal_init(sizeof(eal) / sizeof(*eal), eal) < 0)
		fail("EAL does not start");
	FILE *rules = fopen(argv[1], "r"), *file = fopen(argv[2], "rb");
	if (!rules || !file)
		fail("no such file");
	struct rte_acl_param parameters = { .name = "beside", .socket_id = SOCKET_ID_ANY,
					    .rule_size = RTE_ACL_RULE_SZ(5), .max_rule_num = RULES_MAX };
	struct rte_acl_ctx *acl = rte_acl_create(&parameters);
	if (!acl)
		fail("no memory");
	add_rules(acl, rules);
	struct rte_acl_config config = { .num_categories = 1, .num_fields = 5 };
	memcpy(config.defs, FIELDS, sizeof(FIELDS));
	uint64_t start = rte_rdtsc();
	if (rte_acl_build(acl, &config))
		fail("the rules do not build");
	double seconds = (double)(rte_rdtsc() - start) / rte_get_tsc_hz();
	fseek(file, 0, SEEK_END);
	long count = ftell(file) / HEADER_BYTES, wrong = 0;
	rewind(file);
	uint8_t *headers = malloc(count * HEADER_BYTES);
	if (!headers || fread(headers, HEADER_BYTES, count, file) != (size_t)count)
		fail("the headers cannot be read");
	double runs[RUNS];
	for (int i = 0; i < RUNS; i++)
		runs[i] = run(acl, headers, count, &wrong);
	qsort(runs, RUNS, sizeof(double), by_value);
	printf("%.0f (%.0f-%.0f) cycles, built in %.2f s, %ld of %ld differ\n", runs[RUNS / 2], runs[0], runs[RUNS - 1],
	       seconds, wrong, count);
	return wrong != 0;
}
