//! Memory maps of files. When a page of one cannot be read, the system sends SIGBUS, which would end the process. Here the page
//! becomes zeroes and its map says so: the CRC of what lies there does not match, and the reader reports that the disk refused.

#![expect(unsafe_code, reason = "memory maps and signal handlers have no safe interface")]

use std::fs::File;
use std::io;
use std::mem::{MaybeUninit, transmute};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Once, OnceLock};

use bytes::Bytes;
use libc::{c_int, c_void, sigaction, siginfo_t};
use memmap2::Mmap;

/// A mapped file. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct MappedFile {
    pub(crate) bytes: Bytes,
    slot: &'static Slot,
}

impl MappedFile {
    /// Maps the file, as long as it is now. It holds the token as long as anything of the map is left.
    pub(crate) fn new(file: &File, token: &Arc<()>) -> io::Result<Self> {
        handle_faults();
        // SAFETY: the directory is locked and ours: what is given out of a map was written before and is not written again while
        // the map is there, as its token tells, and files are not shortened while they are mapped. README.md states this as an assumption. A page that cannot be read all
        // the same becomes zeroes, before anyone has seen anything else there, or after it was dropped from memory.
        let map = unsafe { Mmap::map(file)? };
        let slot = Slot::claim(map.as_ptr().addr(), map.len());
        Ok(Self { bytes: Bytes::from_owner(Watched { map, slot, _token: Arc::clone(token) }), slot })
    }

    /// Returns whether a page of it could not be read, and shows zeroes.
    pub(crate) fn has_faulted(&self) -> bool {
        self.slot.faulted.load(Ordering::Acquire)
    }
}

/// A map whose faults are handled.
struct Watched {
    map: Mmap,
    slot: &'static Slot,
    /// Goes last, once there is no map.
    _token: Arc<()>,
}

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Before the map goes, and other memory may take its place.
        self.slot.release();
    }
}

/// The place of a map. The handler reads it at any time, in any thread. It never goes away, and serves one map after the other.
#[derive(Debug)]
struct Slot {
    /// 0: it is free; 1: someone has claimed it.
    start: AtomicUsize,
    /// 0 unless there is a map. Written after `start`, and taken back before it.
    end: AtomicUsize,
    faulted: AtomicBool,
}

const SLOTS: usize = 64;

/// Slots, and further ones.
#[derive(Debug)]
struct Slots {
    slots: [Slot; SLOTS],
    /// Never freed once it is there.
    next: AtomicPtr<Slots>,
}

static FIRST: Slots = Slots::new();

impl Slots {
    const fn new() -> Self {
        Self { slots: [const { Slot::new() }; SLOTS], next: AtomicPtr::new(ptr::null_mut()) }
    }

    fn next(&self) -> Option<&'static Self> {
        // SAFETY: it is null, or was leaked from a box when it was set.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }

    fn all() -> impl Iterator<Item = &'static Self> {
        std::iter::successors(Some(&FIRST), |slots| slots.next())
    }
}

impl Slot {
    const fn new() -> Self {
        Self { start: AtomicUsize::new(0), end: AtomicUsize::new(0), faulted: AtomicBool::new(false) }
    }

    /// A slot for the map at the address.
    fn claim(start: usize, bytes: usize) -> &'static Self {
        let claimed = loop {
            let is_free = |slot: &&'static Self| {
                slot.start.load(Ordering::Relaxed) == 0
                    && slot.start.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            };
            if let Some(slot) = Slots::all().flat_map(|slots| &slots.slots).find(is_free) {
                break slot;
            }
            let more = Box::into_raw(Box::new(Slots::new()));
            for last in Slots::all().filter(|slots| slots.next().is_none()) {
                if last.next.compare_exchange(ptr::null_mut(), more, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    break;
                }
            }
        };
        debug_assert!(start > 1, "a map at an address that marks a slot as free, or as claimed");
        debug_assert_eq!(claimed.end.load(Ordering::Relaxed), 0, "a slot is claimed that has a map");
        claimed.faulted.store(false, Ordering::Relaxed);
        claimed.start.store(start, Ordering::Release);
        claimed.end.store(start.saturating_add(bytes), Ordering::Release);
        claimed
    }

    fn release(&self) {
        debug_assert!(self.start.load(Ordering::Relaxed) > 1, "a slot is released that has no map");
        self.end.store(0, Ordering::Release);
        self.start.store(0, Ordering::Release);
    }

    /// The slot of the map that the address is in.
    fn of(address: usize) -> Option<&'static Self> {
        let holds = |slot: &&'static Self| {
            let end = slot.end.load(Ordering::Acquire);
            let start = slot.start.load(Ordering::Acquire);
            // The slot of the map that has faulted does not change: the thread that reads it holds it. Another may.
            start <= address && address < end && end == slot.end.load(Ordering::Acquire)
        };
        Slots::all().flat_map(|slots| &slots.slots).find(holds)
    }
}

type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

static PREVIOUS: OnceLock<sigaction> = OnceLock::new();

/// Installs the handler, once for the process.
fn handle_faults() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = install(None);
        let _ = PREVIOUS.set(previous);
        let mut action = default_action();
        let handler: Handler = on_bus_error;
        #[expect(clippy::as_conversions, reason = "this is how an address becomes a number")]
        let address = handler as usize;
        action.sa_sigaction = address;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        install(Some(&action));
    });
}

/// Tells the kernel what to do at a SIGBUS, if anything; what it did so far.
fn install(action: Option<&sigaction>) -> sigaction {
    let mut previous = default_action();
    let action = action.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: both point to a sigaction or are null; the signal's number is valid, so it cannot fail.
    unsafe { sigaction(libc::SIGBUS, action, &raw mut previous) };
    previous
}

fn default_action() -> sigaction {
    // SAFETY: all zeroes is a valid sigaction: the default action, no flags, no signal blocked.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Runs in the thread that has faulted, between two of its instructions: takes no lock and allocates nothing.
extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a valid one, as SA_SIGINFO asks for it; the codes below have an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    let cannot_be_read = matches!(code, libc::BUS_ADRERR | libc::BUS_OBJERR | libc::BUS_MCEERR_AR);
    if !(cannot_be_read && Slot::of(address).is_some_and(|slot| zero_page(slot, address))) {
        not_ours(signal, info, context);
    }
}

/// Puts a page of zeroes where the address is, inside the slot's map.
fn zero_page(slot: &Slot, address: usize) -> bool {
    let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
    slot.faulted.store(true, Ordering::Release);
    // SAFETY: the page lies in a map of ours, which begins at a page and which the faulting thread holds; system calls only. The
    // code that was interrupted must find its errno again.
    unsafe {
        let page_bytes = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(4096);
        let page = ptr::without_provenance_mut(address & !(page_bytes - 1));
        let errno = libc::__errno_location();
        let before = *errno;
        let mapped = libc::mmap(page, page_bytes, protection, flags, -1, 0);
        *errno = before;
        mapped != libc::MAP_FAILED
    }
}

/// Does what would be done without this handler.
fn not_ours(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let previous = PREVIOUS.get().copied().unwrap_or_else(default_action);
    match previous.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            install(Some(&default_action()));
            // SAFETY: a system call; the process ends when this handler returns.
            unsafe { libc::raise(signal) };
        }
        // SAFETY: the address and its kind are what the kernel was told before.
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => unsafe {
            transmute::<usize, Handler>(handler)(signal, info, context);
        },
        // SAFETY: as above.
        handler => unsafe { transmute::<usize, extern "C" fn(c_int)>(handler)(signal) },
    }
}
