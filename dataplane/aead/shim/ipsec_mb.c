// SPDX-License-Identifier: Apache-2.0
/* Initialises intel-ipsec-mb and hands its direct GCM functions to src/engine/ipsec_mb.rs.
 *
 * The functions are taken out of the manager, which is freed again: they do not use it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <intel-ipsec-mb.h>

#if IMB_VERSION_NUM < IMB_VERSION(1, 3, 0)
#error "intel-ipsec-mb 1.3.0 or later is wanted"
#endif

/* KEY_DATA_BYTES and CONTEXT_BYTES in ipsec_mb.rs. */
#define SHIM_KEY_DATA_BYTES 1024
#define SHIM_CONTEXT_BYTES 88
_Static_assert(sizeof(struct gcm_key_data) <= SHIM_KEY_DATA_BYTES, "KEY_DATA_BYTES in ipsec_mb.rs is too small");
_Static_assert(sizeof(struct gcm_context_data) <= SHIM_CONTEXT_BYTES, "CONTEXT_BYTES in ipsec_mb.rs is too small");

/* RawLibrary in ipsec_mb.rs: one of each function for keys of 128, 192 and 256 bits. */
struct shim_library {
	aes_gcm_enc_dec_t seal[3];
	aes_gcm_enc_dec_t open[3];
	aes_gcm_pre_t expand[3];
	const char *version;
	const char *path;
};

/* The variant of the code that was chosen: what its symbol adds to the function's name, or the architecture. */
static const char *path_of(aes_gcm_enc_dec_t seal, IMB_ARCH arch)
{
	static const char prefix[] = "aes_gcm_enc_128_";
	Dl_info symbol;

	if (dladdr((const void *)(uintptr_t)seal, &symbol) && symbol.dli_sname &&
	    strncmp(symbol.dli_sname, prefix, sizeof(prefix) - 1) == 0)
		return symbol.dli_sname + sizeof(prefix) - 1;
	switch (arch) {
	case IMB_ARCH_SSE:
		return "sse";
	case IMB_ARCH_AVX:
		return "avx";
	case IMB_ARCH_AVX2:
		return "avx2";
	case IMB_ARCH_AVX512:
		return "avx512";
	default:
		return "other";
	}
}

/* 0, or -1 when the library does not run on this CPU or failed its self test. */
int32_t greyhound_ipsec_mb_open(struct shim_library *library)
{
	const uint64_t wanted = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ;
	IMB_ARCH arch = IMB_ARCH_NONE;
	IMB_MGR *manager = alloc_mb_mgr(0);
	int32_t result = -1;

	if (manager == NULL)
		return -1;
	init_mb_mgr_auto(manager, &arch);
	if (imb_get_errno(manager) != 0 || arch < IMB_ARCH_SSE || (manager->features & wanted) != wanted ||
	    (manager->features & IMB_FEATURE_AESNI_EMU) != 0)
		goto out;
	if ((manager->features & IMB_FEATURE_SELF_TEST) != 0 &&
	    (manager->features & IMB_FEATURE_SELF_TEST_PASS) == 0)
		goto out;
	*library = (struct shim_library){
		.seal = {manager->gcm128_enc, manager->gcm192_enc, manager->gcm256_enc},
		.open = {manager->gcm128_dec, manager->gcm192_dec, manager->gcm256_dec},
		.expand = {manager->gcm128_pre, manager->gcm192_pre, manager->gcm256_pre},
		.version = imb_get_version_str(),
		.path = path_of(manager->gcm128_enc, arch),
	};
	result = 0;
out:
	free_mb_mgr(manager);
	return result;
}
