// SPDX-License-Identifier: Apache-2.0
//! SPD, routes, neighbours, classifier, tunnels: builders and lookups; generation switch.
