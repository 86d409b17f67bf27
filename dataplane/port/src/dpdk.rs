// SPDX-License-Identifier: Apache-2.0
//! DPDK's environment abstraction layer (EAL): started once for each process and always such that no file outlives the
//! process with packet bytes in it: `--in-memory` with huge pages, `--no-huge --no-shconf` without.
//!
//! Workers are threads of ours, not EAL's: they pin themselves, then call [`register_worker_thread`].

#[cfg(have_dpdk)]
mod device;
#[cfg(have_dpdk)]
mod kernel;

#[cfg(have_dpdk)]
pub(crate) use device::{Device, Queue};

use std::marker::PhantomData;

/// How EAL is to be started.
#[derive(Clone, Debug)]
pub struct EalConfig {
    /// Name that keeps several processes on one machine apart (`--file-prefix`): letters, digits, `-`, `_`, `.`.
    pub instance: String,
    /// Memory for pools and devices in MiB. With huge pages it is what is taken at the start; more is taken as
    /// needed. Without, it is all there is.
    pub memory_mib: u32,
    /// Whether memory comes from huge pages (`vm.nr_hugepages`). PCI devices want them; virtual ones do not.
    pub huge_pages: bool,
    /// Device strings. PCI devices must be named here, virtual ones may also come with `Port::open`.
    pub devices: Vec<String>,
    /// CPU on which EAL does its own work; by default the first that this process may use.
    pub main_cpu: Option<u16>,
    /// How much EAL and the drivers write to standard error.
    pub log_level: LogLevel,
    /// Whether DPDK opens its telemetry socket.
    pub telemetry: bool,
    /// Further arguments, passed through.
    pub extra: Vec<String>,
}

impl Default for EalConfig {
    fn default() -> EalConfig {
        EalConfig {
            instance: "greyhound".to_owned(),
            memory_mib: 512,
            huge_pages: true,
            devices: Vec::new(),
            main_cpu: None,
            log_level: LogLevel::Warning,
            telemetry: false,
            extra: Vec::new(),
        }
    }
}

/// The least severity that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// And warnings.
    #[default]
    Warning,
    /// And notices.
    Notice,
    /// And what goes on.
    Info,
    /// Everything.
    Debug,
}

impl LogLevel {
    fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warning => "warning",
            LogLevel::Notice => "notice",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
        }
    }
}

/// Why EAL did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EalError {
    /// The build has no DPDK.
    #[error("this build has no DPDK; install libdpdk-dev and build again")]
    NoDpdk,
    /// It has been tried before in this process.
    #[error("EAL can be initialised only once in a process, and that has been tried already")]
    Again,
    /// The configuration cannot be.
    #[error("EAL configuration: {0}")]
    Configuration(String),
    /// EAL refused.
    #[error("EAL with arguments {arguments:?}: {reason}; {advice}")]
    Refused {
        /// What it was called with.
        arguments: Vec<String>,
        /// What it says.
        reason: String,
        /// What to look at.
        advice: &'static str,
    },
    /// A thread could not be registered.
    #[error("EAL knows no more threads: {0}")]
    Thread(String),
}

/// Proof that EAL runs. It runs until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Eal(());

impl Eal {
    /// Starts EAL. The calling thread keeps its CPUs.
    ///
    /// # Errors
    /// If the configuration cannot be, EAL refuses, it has been tried before, or this build has no DPDK.
    pub fn init(config: &EalConfig) -> Result<Eal, EalError> {
        let arguments = arguments(config)?;
        start(arguments).map(|()| Eal(()))
    }

    /// The DPDK release, or nothing in a build without DPDK.
    #[must_use]
    pub fn version() -> Option<String> {
        #[cfg(have_dpdk)]
        return Some(device::version());
        #[cfg(not(have_dpdk))]
        None
    }
}

#[cfg(have_dpdk)]
fn start(arguments: Vec<String>) -> Result<(), EalError> {
    device::start_eal(arguments)
}

#[cfg(not(have_dpdk))]
fn start(_arguments: Vec<String>) -> Result<(), EalError> {
    Err(EalError::NoDpdk)
}

/// A thread's registration with EAL, which gives it a cache of packets in each DPDK pool. Ends when dropped, on the
/// same thread.
#[derive(Debug)]
pub struct WorkerThread {
    registered: bool,
    stays_on_its_thread: PhantomData<*const ()>,
}

/// Registers the calling thread with EAL. Pin it first. Without EAL, and on a thread that EAL knows already, it does
/// nothing.
///
/// # Errors
/// If EAL knows too many threads.
pub fn register_worker_thread() -> Result<WorkerThread, EalError> {
    #[cfg(have_dpdk)]
    let registered = device::register_thread()?;
    #[cfg(not(have_dpdk))]
    let registered = false;
    Ok(WorkerThread { registered, stays_on_its_thread: PhantomData })
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        if self.registered {
            #[cfg(have_dpdk)]
            device::unregister_thread();
        }
    }
}

/// The arguments for `rte_eal_init`, program name included.
fn arguments(config: &EalConfig) -> Result<Vec<String>, EalError> {
    let refuse = |what: String| Err(EalError::Configuration(what));
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if config.instance.is_empty() || !config.instance.chars().all(allowed) {
        return refuse(format!("instance {:?}: use letters, digits, '-', '_' and '.'", config.instance));
    }
    if config.memory_mib == 0 {
        return refuse("memory_mib is 0; a port with a small pool needs some 64".to_owned());
    }
    let mut arguments = vec![
        "greyhound".to_owned(),
        format!("--file-prefix={}", config.instance),
        format!("--log-level={}", config.log_level.name()),
        "-m".to_owned(),
        config.memory_mib.to_string(),
    ];
    arguments.push(format!("--lcores=0@{}", config.main_cpu.unwrap_or_else(first_cpu)));
    let mut switch = |on: bool, name: &str| arguments.extend(on.then(|| name.to_owned()));
    // EAL does not know the two together. What it shares between processes is then the only thing in files.
    switch(config.huge_pages, "--in-memory");
    switch(!config.huge_pages, "--no-huge");
    switch(!config.huge_pages, "--no-shconf");
    switch(!config.telemetry, "--no-telemetry");
    // Without an allow list EAL would take every device that is bound to vfio. Virtual devices have no use for
    // physical addresses, which would cut pools into pieces.
    let only_virtual = config.devices.iter().all(|device| is_virtual(device));
    switch(only_virtual, "--no-pci");
    switch(only_virtual, "--iova-mode=va");
    for device in &config.devices {
        let option = if is_virtual(device) { "--vdev" } else { "-a" };
        arguments.extend([option.to_owned(), device.clone()]);
    }
    arguments.extend(config.extra.iter().cloned());
    match arguments.iter().find(|argument| argument.contains('\0')) {
        Some(argument) => refuse(format!("{argument:?} holds a NUL")),
        None => Ok(arguments),
    }
}

/// Whether a device string names a virtual device, as opposed to one on a bus.
fn is_virtual(device: &str) -> bool {
    device.starts_with("net_") || device.starts_with("eth_")
}

/// The first CPU that this thread may run on.
fn first_cpu() -> u16 {
    let cpus = affinity();
    // SAFETY: CPU_ISSET reads one bit of the set; the numbers are below its size.
    let may_run = |cpu: &u16| unsafe { libc::CPU_ISSET(usize::from(*cpu), &cpus) };
    (0..libc::CPU_SETSIZE as u16).find(may_run).unwrap_or(0)
}

/// The CPUs that this thread may run on; none if the kernel does not say.
fn affinity() -> libc::cpu_set_t {
    // SAFETY: an all-zero set is the empty set.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as large as the size says, and the kernel only writes to it.
    let status = unsafe { libc::sched_getaffinity(0, size_of_val(&cpus), &mut cpus) };
    if status != 0 {
        // SAFETY: as above.
        cpus = unsafe { std::mem::zeroed() };
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::{EalConfig, EalError, LogLevel, arguments, is_virtual};

    fn config(devices: &[&str]) -> EalConfig {
        EalConfig {
            devices: devices.iter().map(|&device| device.to_owned()).collect(),
            main_cpu: Some(3),
            ..EalConfig::default()
        }
    }

    #[test]
    fn a_machine_without_pci_devices_is_not_searched_for_them() {
        let arguments = arguments(&config(&["net_af_packet0,iface=eth1"])).unwrap();
        assert!(arguments.contains(&"--no-pci".to_owned()));
        assert!(arguments.windows(2).any(|pair| pair == ["--vdev", "net_af_packet0,iface=eth1"]));
    }

    #[test]
    fn of_pci_devices_only_those_named_are_taken() {
        let arguments = arguments(&config(&["0000:3b:00.0,x=1", "net_null0"])).unwrap();
        assert!(!arguments.iter().any(|argument| argument == "--no-pci" || argument == "--iova-mode=va"));
        assert!(arguments.windows(2).any(|pair| pair == ["-a", "0000:3b:00.0,x=1"]));
        assert!(arguments.windows(2).any(|pair| pair == ["--vdev", "net_null0"]));
    }

    #[test]
    fn memory_is_never_in_a_file_and_no_socket_is_opened_unasked() {
        let with =
            |huge_pages, telemetry| arguments(&EalConfig { huge_pages, telemetry, ..config(&[]) }).unwrap();
        let has = |arguments: &[String], name: &str| arguments.iter().any(|argument| argument == name);
        assert!(has(&with(true, false), "--in-memory") && !has(&with(true, false), "--no-huge"));
        assert!(has(&with(false, false), "--no-shconf") && has(&with(false, false), "--no-huge"));
        assert!(has(&with(true, false), "--no-telemetry") && !has(&with(true, true), "--no-telemetry"));
    }

    #[test]
    fn huge_pages_log_level_cpu_and_instance_are_said() {
        let config = EalConfig {
            huge_pages: false,
            instance: "left-1".to_owned(),
            log_level: LogLevel::Debug,
            ..config(&[])
        };
        let arguments = arguments(&config).unwrap();
        for expected in ["--no-huge", "--file-prefix=left-1", "--log-level=debug", "--lcores=0@3"] {
            assert!(arguments.contains(&expected.to_owned()), "{expected} in {arguments:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for instance in ["", "a/b", "a b", "a\0b"] {
            let config = EalConfig { instance: instance.to_owned(), ..config(&[]) };
            assert!(matches!(arguments(&config), Err(EalError::Configuration(_))));
        }
        assert!(arguments(&EalConfig { memory_mib: 0, ..config(&[]) }).is_err());
        assert!(arguments(&config(&["net_null0\0"])).is_err());
    }

    #[test]
    fn device_strings_are_told_apart() {
        assert!(is_virtual("net_memif0,role=client") && is_virtual("net_null0"));
        assert!(!is_virtual("0000:3b:00.0") && !is_virtual("auxiliary:mlx5_core.sf.2"));
    }
}
