// SPDX-License-Identifier: Apache-2.0
//! DPDK devices and their queues. No offloads are used, buffers are one segment.

use super::{EalError, affinity, kernel};
use crate::{Capabilities, MacAddress, PortConfig, PortError, Statistics};
use dpdk_sys as sys;
use pktbuf::{Batch, Packet, raw};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a frame besides the IP packet: Ethernet header and a VLAN tag.
const FRAME_OVERHEAD: usize = 18;

static TRIED: AtomicBool = AtomicBool::new(false);

pub(super) fn version() -> String {
    // SAFETY: answers with a static C string; needs no EAL.
    unsafe { CStr::from_ptr(sys::gh_version()) }.to_string_lossy().into_owned()
}

pub(super) fn start_eal(arguments: Vec<String>) -> Result<(), EalError> {
    if TRIED.swap(true, Ordering::SeqCst) {
        return Err(EalError::Again);
    }
    let words: Result<Vec<_>, _> = arguments.iter().map(|word| CString::new(word.as_str())).collect();
    let words = words.map_err(|_| EalError::Configuration("an argument holds a NUL".to_owned()))?;
    // EAL permutes the array and keeps pointers into it, so both stay for good.
    let mut argv: Vec<*mut c_char> = words.into_iter().map(CString::into_raw).collect();
    argv.push(std::ptr::null_mut());
    let argc = arguments.len() as c_int;
    let cpus = affinity();
    // SAFETY: `argv` holds `argc` C strings and a null, all leaked; first and only call in this process.
    let status = unsafe { sys::gh_eal_init(argc, argv.leak().as_mut_ptr()) };
    // SAFETY: gives this thread the CPUs back that EAL narrowed to one; the set is what the kernel gave.
    unsafe { libc::sched_setaffinity(0, size_of_val(&cpus), &cpus) };
    if status < 0 {
        return Err(EalError::Refused { arguments, reason: reason(status), advice: eal_advice(status) });
    }
    Ok(())
}

fn eal_advice(status: c_int) -> &'static str {
    match -status {
        libc::EACCES | libc::EPERM => {
            "it needs root, or CAP_SYS_ADMIN and IPC_LOCK, for huge pages and PCI devices"
        }
        libc::ENOMEM => "reserve huge pages (sysctl vm.nr_hugepages=512) or start with huge_pages = false",
        libc::ENODEV => "a device string may be wrong, or its driver package (librte-net-*) is missing",
        libc::EALREADY => "something else in this process has started EAL",
        _ => "the lines that EAL wrote to standard error say more",
    }
}

/// Whether the thread was registered; not if EAL does not run or knows it already.
pub(super) fn register_thread() -> Result<bool, EalError> {
    if !eal_runs() {
        return Ok(false);
    }
    // SAFETY: EAL runs (invariant 5).
    match unsafe { sys::gh_thread_register() } {
        status if status == -libc::EALREADY => Ok(false),
        status if status < 0 => Err(EalError::Thread(reason(status))),
        _ => Ok(true),
    }
}

pub(super) fn unregister_thread() {
    // SAFETY: the caller is on the thread that `register_thread` registered: `WorkerThread` is not Send.
    unsafe { sys::gh_thread_unregister() }
}

fn eal_runs() -> bool {
    // SAFETY: reads a flag.
    unsafe { sys::gh_eal_ready() != 0 }
}

/// What DPDK says about a negative errno.
fn reason(status: c_int) -> String {
    // SAFETY: answers with a C string for every number, valid until this thread asks again.
    unsafe { CStr::from_ptr(sys::gh_strerror(-status)) }.to_string_lossy().into_owned()
}

/// Held while devices come and go, since a bus has one list of them. In it the ports that some `Device` has: DPDK gives
/// the number of a port that is removed to the next one at once.
static BUS: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// An open device.
pub(crate) struct Device {
    port: u16,
    mac: MacAddress,
    mtu: u16,
    shift: u16,
    multi_segment: AtomicU64,
    foreign: AtomicU64,
    too_long: AtomicU64,
}

impl Device {
    pub(crate) fn open(device: &str, config: &PortConfig) -> Result<Device, PortError> {
        let setup = Setup { device, config };
        if !eal_runs() {
            return Err(PortError::NoEal { name: config.name.clone(), device: device.to_owned() });
        }
        let port = setup.claim()?;
        // From here on dropping `opened` closes the device again.
        let mut opened = Device {
            port,
            mac: [0; 6],
            mtu: config.mtu,
            shift: config.pool.shift(),
            multi_segment: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            too_long: AtomicU64::new(0),
        };
        let info = setup.check(&opened)?;
        setup.configure(port)?;
        setup.add_queues(port)?;
        setup.settle_mtu(port, &info)?;
        // SAFETY: the port is configured and each of its queues set up.
        setup.step("start", unsafe { sys::gh_port_start(port) })?;
        if config.promiscuous {
            // SAFETY: a started port.
            setup.step_if_supported("promiscuous mode", unsafe { sys::gh_port_promiscuous(port) })?;
        }
        // SAFETY: a live port; the array has the six bytes that are written.
        setup.step("MAC address", unsafe { sys::gh_port_mac(port, opened.mac.as_mut_ptr()) })?;
        Ok(opened)
    }

    pub(crate) fn mac(&self) -> MacAddress {
        self.mac
    }

    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
    }

    /// What the driver says, and for a device over an interface of the kernel (some of whose drivers always say
    /// yes) what the kernel says too.
    pub(crate) fn link_up(&self) -> bool {
        // SAFETY: a live port.
        let device = unsafe { sys::gh_port_link_up(self.port) == 1 };
        let interface = self.info().map_or(0, |info| info.interface_index);
        device && (interface == 0 || kernel::is_running(interface))
    }

    fn info(&self) -> Option<sys::gh_port_info> {
        // SAFETY: integers and characters may be zero.
        let mut info: sys::gh_port_info = unsafe { std::mem::zeroed() };
        // SAFETY: a live port, and a structure for it to fill.
        let status = unsafe { sys::gh_port_info(self.port, &mut info) };
        (status == 0).then_some(info)
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        let Some(info) = self.info() else {
            return Capabilities { driver: String::new(), max_queues: 0, max_mtu: 0, spreads_flows: false };
        };
        Capabilities {
            driver: text(&info.driver),
            max_queues: info.max_rx_queues.min(info.max_tx_queues),
            max_mtu: info.max_mtu,
            spreads_flows: info.rss_types != 0,
        }
    }

    pub(crate) fn statistics(&self) -> Statistics {
        // SAFETY: integers may be zero.
        let mut stats: sys::gh_port_stats = unsafe { std::mem::zeroed() };
        // SAFETY: a live port, and a structure for it to fill. A device without counters leaves it zero.
        unsafe { sys::gh_port_stats(self.port, &mut stats) };
        Statistics {
            rx_packets: stats.rx_packets,
            rx_bytes: stats.rx_bytes,
            tx_packets: stats.tx_packets,
            tx_bytes: stats.tx_bytes,
            rx_missed: stats.rx_missed,
            rx_errors: stats.rx_errors,
            tx_errors: stats.tx_errors,
            rx_no_buffer: stats.rx_no_mbuf,
            rx_multi_segment: self.multi_segment.load(Ordering::Relaxed),
            tx_foreign: self.foreign.load(Ordering::Relaxed),
            tx_too_long: self.too_long.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn named_statistics(&self) -> Vec<(String, u64)> {
        // SAFETY: a live port; nothing is written with no room.
        let count = unsafe { sys::gh_port_named_stats(self.port, std::ptr::null_mut(), 0) };
        let Ok(room) = u32::try_from(count) else { return Vec::new() };
        let empty = sys::gh_port_named_stat { name: [0; 64], value: 0 };
        let mut stats = vec![empty; room as usize];
        // SAFETY: the vector has `room` entries, and no more are written.
        let count = unsafe { sys::gh_port_named_stats(self.port, stats.as_mut_ptr(), room) };
        stats.truncate(usize::try_from(count).unwrap_or(0));
        stats.iter().map(|stat| (text(&stat.name), stat.value)).collect()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let mut claimed = BUS.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.remove(&self.port);
        // SAFETY: by invariant 2 no queue of the port is in use any more. Failures leave the device as it is,
        // and nobody will use it.
        unsafe {
            sys::gh_port_stop(self.port);
            sys::gh_port_remove(self.port);
        }
    }
}

/// The text in a C array that ends in a NUL.
fn text(characters: &[c_char]) -> String {
    let bytes: Vec<u8> = characters.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The steps of opening a device, with the words for what goes wrong.
struct Setup<'a> {
    device: &'a str,
    config: &'a PortConfig,
}

impl Setup<'_> {
    /// The port of the device, that nobody else has.
    fn claim(&self) -> Result<u16, PortError> {
        let mut claimed = BUS.lock().unwrap_or_else(PoisonError::into_inner);
        let port = self.find_or_probe()?;
        if !claimed.insert(port) {
            return Err(self.refuse("the device is open already".to_owned()));
        }
        Ok(port)
    }

    /// The caller holds the bus.
    fn find_or_probe(&self) -> Result<u16, PortError> {
        let arguments =
            CString::new(self.device).map_err(|_| self.refuse("a NUL in the device string".to_owned()))?;
        let name = self.device.split(',').next().unwrap_or_default();
        let name = CString::new(name).map_err(|_| self.refuse("a NUL in the device string".to_owned()))?;
        // SAFETY: EAL runs (checked by the caller), and both are C strings.
        let find = || u16::try_from(unsafe { sys::gh_port_find(name.as_ptr()) }).ok();
        if let Some(port) = find() {
            return Ok(port);
        }
        // SAFETY: as above.
        let status = unsafe { sys::gh_device_probe(arguments.as_ptr()) };
        find().ok_or_else(|| PortError::NoDevice {
            name: self.config.name.clone(),
            device: self.device.to_owned(),
            reason: if status < 0 { reason(status) } else { "it is no network device".to_owned() },
            advice: "check its name and arguments, that the driver's package (librte-net-*) is installed, that a \
                     PCI device is bound to vfio-pci and named in EalConfig::devices, and the process's rights",
        })
    }

    fn check(&self, opened: &Device) -> Result<sys::gh_port_info, PortError> {
        let config = self.config;
        let Some(info) = opened.info() else {
            return Err(self.refuse("the device tells nothing about itself".to_owned()));
        };
        let most = info.max_rx_queues.min(info.max_tx_queues);
        if config.queues == 0 || config.queues > most {
            return Err(self.refuse(format!("{} queues: the device has 1 to {most}", config.queues)));
        }
        if config.pool.as_mempool().is_null() {
            return Err(self.refuse("the pool is not a DPDK pool; use Pool::dpdk".to_owned()));
        }
        let needed = usize::from(config.mtu) + FRAME_OVERHEAD;
        if config.pool.data_bytes() < needed {
            let has = config.pool.data_bytes();
            return Err(self.refuse(format!(
                "an MTU of {} needs {needed} bytes a packet, the pool has {has}",
                config.mtu
            )));
        }
        Ok(info)
    }

    /// With the MTU asked for, or, where a driver will not have it that way, with its own.
    fn configure(&self, port: u16) -> Result<(), PortError> {
        let (queues, rss) = (self.config.queues, c_int::from(self.config.queues > 1));
        // SAFETY: a live port that is stopped.
        let configure = |mtu: u16| unsafe { sys::gh_port_configure(port, queues, u32::from(mtu), rss) };
        if configure(self.config.mtu) == 0 {
            return Ok(());
        }
        self.step("configuration", configure(0))
    }

    fn add_queues(&self, port: u16) -> Result<(), PortError> {
        let (mut rx, mut tx) = (self.config.rx_descriptors, self.config.tx_descriptors);
        // SAFETY: a configured port and two numbers for it to adjust.
        let status = unsafe { sys::gh_port_adjust_descriptors(port, &mut rx, &mut tx) };
        self.step_if_supported("number of descriptors", status)?;
        for queue in 0..self.config.queues {
            // SAFETY: a configured port, and a mempool of mbufs (checked), which lives as long as the process.
            let status =
                unsafe { sys::gh_port_rx_queue(port, queue, rx, self.config.pool.as_mempool().cast()) };
            self.step(&format!("receive queue {queue}"), status)?;
            // SAFETY: a configured port.
            let status = unsafe { sys::gh_port_tx_queue(port, queue, tx) };
            self.step(&format!("transmit queue {queue}"), status)?;
        }
        Ok(())
    }

    /// Sets the MTU where it is not yet what was asked for. Devices without one to set pass what they are given.
    fn settle_mtu(&self, port: u16, info: &sys::gh_port_info) -> Result<(), PortError> {
        let mut mtu = 0;
        // SAFETY: a live port and a number for it to write.
        let known = unsafe { sys::gh_port_mtu(port, &mut mtu) } == 0;
        // The driver may believe what it was configured with and not have told the interface.
        let mtu = match info.interface_index {
            0 => known.then_some(mtu),
            interface => kernel::mtu(interface),
        };
        if mtu == Some(self.config.mtu) {
            return Ok(());
        }
        // SAFETY: a configured port.
        let status = unsafe { sys::gh_port_set_mtu(port, self.config.mtu) };
        self.step_if_supported(&format!("an MTU of {}", self.config.mtu), status)
    }

    fn step(&self, step: &str, status: c_int) -> Result<(), PortError> {
        if status >= 0 {
            return Ok(());
        }
        Err(PortError::Device {
            name: self.config.name.clone(),
            device: self.device.to_owned(),
            step: step.to_owned(),
            reason: reason(status),
        })
    }

    fn step_if_supported(&self, step: &str, status: c_int) -> Result<(), PortError> {
        self.step(step, if status == -libc::ENOTSUP { 0 } else { status })
    }

    fn refuse(&self, what: String) -> PortError {
        PortError::Configuration { name: self.config.name.clone(), device: self.device.to_owned(), what }
    }
}

/// The driver that writes frames where the mbuf's own address says, not `buf_addr`: it gives the kernel the pool's
/// memory and computes `data_off` from where a frame came to lie.
const PLACES_BY_ADDRESS: &str = "net_af_xdp";

/// A queue pair of a device.
pub(crate) struct Queue {
    port: u16,
    index: u16,
    /// What `data_off` of received packets is too large by; 0 but for [`PLACES_BY_ADDRESS`].
    excess: u16,
    /// Bytes of the longest frame that may be transmitted.
    longest: usize,
    device: Arc<Device>,
}

impl Queue {
    pub(crate) fn new(device: &Arc<Device>, index: u16) -> Queue {
        let by_address = device.info().is_some_and(|info| text(&info.driver) == PLACES_BY_ADDRESS);
        let excess = if by_address { device.shift } else { 0 };
        let longest = usize::from(device.mtu) + FRAME_OVERHEAD;
        Queue { port: device.port, index, excess, longest, device: device.clone() }
    }

    #[inline]
    pub(crate) fn receive(&mut self, batch: &mut Batch) -> usize {
        let before = batch.len();
        // A batch has room for BURST packets, which fits.
        let room = batch.remaining_capacity() as u16;
        // SAFETY: the driver writes at most `room` mbuf pointers behind the packets there are, each of them owned
        // by nobody else; a `Packet` is such a pointer. The queue is this thread's alone (invariant 1) and
        // the device is started (invariant 2).
        unsafe {
            let spare = batch.as_mut_ptr().add(before).cast();
            let received = sys::gh_rx_burst(self.port, self.index, spare, room);
            batch.set_len(before + usize::from(received));
        }
        let received = batch.get(before..).unwrap_or_default();
        if received.iter().any(|packet| raw::segments(packet) != 1) {
            self.drop_multi_segment(batch);
        }
        if self.excess != 0 {
            self.account_for_shift(batch, before);
        }
        batch.len() - before
    }

    /// Drops what does not fit one buffer; everything before this burst has one segment already.
    #[cold]
    fn drop_multi_segment(&self, batch: &mut Batch) {
        let before = batch.len();
        batch.retain(|packet| raw::segments(packet) == 1);
        let dropped = before - batch.len();
        self.device.multi_segment.fetch_add(dropped as u64, Ordering::Relaxed);
    }

    /// Corrects what the driver says of the packets from `before` on; drops what does not lie in its buffer.
    #[cold]
    fn account_for_shift(&self, batch: &mut Batch, before: usize) {
        let mut index = 0;
        let excess = self.excess;
        batch.retain(|packet| {
            index += 1;
            index <= before || raw::account_for_shift(packet, excess)
        });
    }

    #[inline]
    pub(crate) fn transmit(&mut self, batch: &mut Batch) -> usize {
        let fits = |packet: &Packet| raw::is_mbuf(packet) && packet.len() <= self.longest;
        let dropped = if batch.iter().all(fits) { 0 } else { self.drop_unfit(batch) };
        if batch.is_empty() {
            // Some drivers look at the first packet even if there is none.
            return dropped;
        }
        // A batch holds at most BURST packets, which fits.
        let count = batch.len() as u16;
        // SAFETY: a `Packet` is the pointer to its mbuf, and all are mbufs that fit (invariant 4). The first
        // `sent` belong to the driver afterwards: the others are moved over them, and the batch's length says
        // so, before anything could drop them twice. Invariants 1 and 2 as in `receive`.
        let sent = unsafe {
            let first = batch.as_mut_ptr();
            let sent = usize::from(sys::gh_tx_burst(self.port, self.index, first.cast(), count));
            let left = batch.len() - sent;
            batch.set_len(left);
            std::ptr::copy(first.add(sent), first, left);
            sent
        };
        dropped + sent
    }

    /// Drops packets that the driver must not see, and counts them.
    #[cold]
    fn drop_unfit(&self, batch: &mut Batch) -> usize {
        let before = batch.len();
        batch.retain(|packet| raw::is_mbuf(packet));
        let foreign = before - batch.len();
        batch.retain(|packet| packet.len() <= self.longest);
        let too_long = before - foreign - batch.len();
        self.device.foreign.fetch_add(foreign as u64, Ordering::Relaxed);
        self.device.too_long.fetch_add(too_long as u64, Ordering::Relaxed);
        foreign + too_long
    }
}
