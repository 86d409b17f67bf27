// SPDX-License-Identifier: Apache-2.0
//! AEAD engines behind one burst interface.
