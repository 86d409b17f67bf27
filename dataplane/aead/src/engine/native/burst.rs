// SPDX-License-Identifier: Apache-2.0
//! The loops over the jobs of a burst.
//!
//! Jobs of other engines or forms among them go their own way. The schedule of a job some packets ahead is
//! asked for before each packet: it hides the way to the second-level cache when there are thousands of keys.

use super::Form;
use crate::engine::Scratch;
use crate::job::{OpenJob, SealJob};
use crate::key::Key;

/// How many packets ahead a schedule is asked for.
const AHEAD: usize = 4;

/// Seals every job of a burst, of which the first has a key of this form.
pub(crate) fn seal_burst(form: Form, jobs: &mut [SealJob<'_>]) {
    let seal = form.entries().seal;
    for at in 0..jobs.len() {
        let ahead = jobs.get(at + AHEAD).map(|job| (job.key, job.text.len()));
        let Some(job) = jobs.get_mut(at) else { break };
        prefetch(ahead, job.key);
        match job.key.native() {
            // SAFETY: a schedule of this form, and the form exists (invariant 7).
            Some(schedule) if schedule.form == form => unsafe {
                seal(schedule, &job.nonce, job.aad.as_slice(), job.text, job.icv);
            },
            _ => job.seal(&mut Scratch::new()),
        }
    }
    form.wipe();
}

/// Opens every job of a burst, of which the first has a key of this form.
pub(crate) fn open_burst(form: Form, jobs: &mut [OpenJob<'_>]) {
    let open = form.entries().open;
    for at in 0..jobs.len() {
        let ahead = jobs.get(at + AHEAD).map(|job| (job.key, job.buffer.len()));
        let Some(job) = jobs.get_mut(at) else { break };
        prefetch(ahead, job.key);
        match (job.key.native(), job.key.split(job.buffer)) {
            (Some(schedule), Some((text, icv))) if schedule.form == form => {
                // SAFETY: a schedule of this form, and the form exists (invariant 7).
                job.verified = unsafe { open(schedule, &job.nonce, job.aad.as_slice(), text, icv) };
                if !job.verified {
                    text.fill(0);
                }
            }
            _ => job.open(&mut Scratch::new()),
        }
    }
    form.wipe();
}

/// Asks for the schedule of a job ahead, unless it is the one that is used now.
#[inline(always)]
fn prefetch(ahead: Option<(&Key, usize)>, now: &Key) {
    if let Some((key, text_bytes)) = ahead
        && !core::ptr::eq(key, now)
        && let Some(schedule) = key.native()
    {
        schedule.blocks.prefetch(schedule.size, text_bytes);
    }
}
