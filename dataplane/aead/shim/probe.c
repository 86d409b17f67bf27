// SPDX-License-Identifier: Apache-2.0
/* Compiles and links where intel-ipsec-mb 1.3 or later is installed; build.rs asks, nothing runs it. */
#include <stdlib.h>

#include <intel-ipsec-mb.h>

#if IMB_VERSION_NUM < IMB_VERSION(1, 3, 0)
#error "intel-ipsec-mb 1.3.0 or later is wanted"
#endif

int main(void)
{
	return alloc_mb_mgr(0) == NULL;
}
