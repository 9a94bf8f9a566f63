//! The kinds of image files: their names, their magic numbers.

/// First word of every image but the inventory and raw ones.
pub const COMMON_MAGIC: u32 = 0x5456_4319;
/// First word of files beside the images: statistics, caches.
pub const SERVICE_MAGIC: u32 = 0x5510_5940;

/// How a file of a kind begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The common magic, then the kind's own.
    Common,
    /// The service magic, then the kind's own.
    Service,
    /// Only the kind's own magic: the inventory, which says whether others have a common one.
    Own,
    /// No head and no entries.
    Raw,
}

/// How a file of a kind is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// Exactly this.
    Plain(&'static str),
    /// A prefix, a decimal ID, a suffix.
    Decimal(&'static str, &'static str),
    /// A prefix, a hexadecimal ID, a suffix.
    Hex(&'static str, &'static str),
}

macro_rules! kinds {
    ($($variant:ident $crit:literal $magic:literal $head:ident $name:expr;)*) => {
        /// A kind of image file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names are the files' own")]
        pub enum ImageKind { $($variant),* }

        impl ImageKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name that crit uses for it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $crit),* }
            }

            /// Its own magic, 0 for a raw one.
            #[must_use]
            pub const fn magic(self) -> u32 {
                match self { $(Self::$variant => $magic),* }
            }

            /// How its files begin.
            #[must_use]
            pub const fn head(self) -> Head {
                match self { $(Self::$variant => Head::$head),* }
            }

            const fn pattern(self) -> Name {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

use Name::{Decimal, Hex, Plain};
kinds! {
    Inventory "INVENTORY" 0x5831_3116 Own Plain("inventory.img");
    Fdinfo "FDINFO" 0x5621_3732 Common Decimal("fdinfo-", ".img");
    Pagemap "PAGEMAP" 0x5608_4025 Common Decimal("pagemap-", ".img");
    ShmemPagemap "PAGEMAP" 0x5608_4025 Common Decimal("pagemap-shmem-", ".img");
    Pages "PAGES" 0 Raw Decimal("pages-", ".img");
    Core "CORE" 0x5505_3847 Common Decimal("core-", ".img");
    Ids "IDS" 0x5443_2030 Common Decimal("ids-", ".img");
    Mm "MM" 0x5749_2820 Common Decimal("mm-", ".img");
    Pstree "PSTREE" 0x5027_3030 Common Plain("pstree.img");
    Files "FILES" 0x5630_3138 Common Plain("files.img");
    PipesData "PIPES_DATA" 0x5645_3709 Common Plain("pipes-data.img");
    FifoData "FIFO_DATA" 0x5933_3054 Common Plain("fifo-data.img");
    Fs "FS" 0x5140_3912 Common Decimal("fs-", ".img");
    TtyInfo "TTY_INFO" 0x5945_3036 Common Plain("tty-info.img");
    TtyData "TTY_DATA" 0x5941_3026 Common Plain("tty-data.img");
    RemapFpath "REMAP_FPATH" 0x5913_3954 Common Plain("remap-fpath.img");
    GhostFile "GHOST_FILE" 0x5258_3605 Common Hex("ghost-file-", ".img");
    MemfdInode "MEMFD_INODE" 0x4845_3499 Common Plain("memfd.img");
    FileLocks "FILE_LOCKS" 0x5432_3616 Common Plain("filelocks.img");
    Seccomp "SECCOMP" 0x6441_3049 Common Plain("seccomp.img");
    Cgroup "CGROUP" 0x5938_3330 Common Plain("cgroup.img");
    Timens "TIMENS" 0x4311_4433 Common Decimal("timens-", ".img");
    Pidns "PIDNS" 0x6115_7326 Common Decimal("pidns-", ".img");
    Userns "USERNS" 0x5547_4906 Common Decimal("userns-", ".img");
    Utsns "UTSNS" 0x5447_3203 Common Decimal("utsns-", ".img");
    IpcnsVar "IPCNS_VAR" 0x5311_5007 Common Decimal("ipcns-var-", ".img");
    IpcnsShm "IPCNS_SHM" 0x4628_3044 Common Decimal("ipcns-shm-", ".img");
    IpcnsMsg "IPCNS_MSG" 0x5545_3737 Common Decimal("ipcns-msg-", ".img");
    IpcnsSem "IPCNS_SEM" 0x5957_3019 Common Decimal("ipcns-sem-", ".img");
    Mnts "MNTS" 0x5556_3928 Common Decimal("mountpoints-", ".img");
    Netdev "NETDEV" 0x5737_3951 Common Decimal("netdev-", ".img");
    Netns "NETNS" 0x5593_3752 Common Decimal("netns-", ".img");
    SkQueues "SK_QUEUES" 0x5626_4026 Common Plain("sk-queues.img");
    TcpStream "TCP_STREAM" 0x5146_5506 Common Hex("tcp-stream-", ".img");
    Cpuinfo "CPUINFO" 0x6140_4013 Common Plain("cpuinfo.img");
    Apparmor "APPARMOR" 0x5942_3047 Common Plain("apparmor.img");
    Autofs "AUTOFS" 0x4935_3943 Common Decimal("autofs-", ".img");
    BinfmtMisc "BINFMT_MISC" 0x6734_3323 Common Plain("binfmt-misc.img");
    BpfmapData "BPFMAP_DATA" 0x6432_4033 Common Plain("bpfmap-data.img");
    StatsDump "STATS" 0x5709_3306 Service Plain("stats-dump");
    StatsRestore "STATS" 0x5709_3306 Service Plain("stats-restore");
    // Trees of CRIU before 2.12: one image per kind of file, and per kind of task state.
    RegFiles "REG_FILES" 0x5036_3636 Common Plain("reg-files.img");
    ExtFiles "EXT_FILES" 0x5925_5641 Common Plain("ext-files.img");
    NsFiles "NS_FILES" 0x6139_4011 Common Plain("ns-files.img");
    EventfdFile "EVENTFD_FILE" 0x4452_3722 Common Plain("eventfd.img");
    EventpollFile "EVENTPOLL_FILE" 0x4502_3858 Common Plain("eventpoll.img");
    EventpollTfd "EVENTPOLL_TFD" 0x4443_3746 Common Plain("eventpoll-tfd.img");
    Signalfd "SIGNALFD" 0x5732_3820 Common Plain("signalfd.img");
    InotifyFile "INOTIFY_FILE" 0x4842_4431 Common Plain("inotify.img");
    InotifyWd "INOTIFY_WD" 0x5456_2009 Common Plain("inotify-wd.img");
    FanotifyFile "FANOTIFY_FILE" 0x5509_6122 Common Plain("fanotify.img");
    FanotifyMark "FANOTIFY_MARK" 0x5650_6035 Common Plain("fanotify-mark.img");
    Pipes "PIPES" 0x5651_3555 Common Plain("pipes.img");
    Fifo "FIFO" 0x5836_4939 Common Plain("fifo.img");
    Unixsk "UNIXSK" 0x5437_3943 Common Plain("unixsk.img");
    Inetsk "INETSK" 0x5644_3851 Common Plain("inetsk.img");
    Packetsk "PACKETSK" 0x6045_4618 Common Plain("packetsk.img");
    NetlinkSk "NETLINK_SK" 0x5800_5614 Common Plain("netlinksk.img");
    TtyFiles "TTY_FILES" 0x5943_3025 Common Plain("tty.img");
    Tunfile "TUNFILE" 0x5714_3751 Common Plain("tunfile.img");
    Timerfd "TIMERFD" 0x5049_3712 Common Plain("timerfd.img");
    BpfmapFile "BPFMAP_FILE" 0x5750_6142 Common Plain("bpfmap-file.img");
    Pidfd "PIDFD" 0x5443_5556 Common Plain("pidfd.img");
    Vmas "VMAS" 0x5412_3737 Common Decimal("vmas-", ".img");
    Sigact "SIGACT" 0x5534_4201 Common Decimal("sigacts-", ".img");
    Itimers "ITIMERS" 0x5746_4056 Common Decimal("itimers-", ".img");
    PosixTimers "POSIX_TIMERS" 0x5260_3957 Common Decimal("posix-timers-", ".img");
    Creds "CREDS" 0x5402_3547 Common Decimal("creds-", ".img");
    Rlimit "RLIMIT" 0x5711_3925 Common Decimal("rlimit-", ".img");
    Signal "SIGNAL" 0x5925_5647 Common Decimal("signal-s-", ".img");
    Psignal "PSIGNAL" 0x5925_5647 Common Decimal("signal-p-", ".img");
}

impl ImageKind {
    /// The file name of the image with this ID; `None` if the kind has IDs and none is given, or
    /// has none and one is.
    #[must_use]
    pub fn file_name(self, id: Option<u64>) -> Option<String> {
        match (self.pattern(), id) {
            (Plain(name), None) => Some(name.to_owned()),
            (Decimal(pre, post), Some(id)) => Some(format!("{pre}{id}{post}")),
            (Hex(pre, post), Some(id)) => Some(format!("{pre}{id:x}{post}")),
            _ => None,
        }
    }

    /// The kind and the ID that a file name stands for.
    #[must_use]
    pub fn from_file_name(name: &str) -> Option<(Self, Option<u64>)> {
        Self::ALL.iter().find_map(|&kind| {
            let id = match kind.pattern() {
                Plain(n) => return (n == name).then_some((kind, None)),
                Decimal(pre, post) => name.strip_prefix(pre)?.strip_suffix(post)?.parse().ok()?,
                Hex(pre, post) => u64::from_str_radix(name.strip_prefix(pre)?.strip_suffix(post)?, 16).ok()?,
            };
            // `+7` and `007` parse, too.
            (kind.file_name(Some(id)).as_deref() == Some(name)).then_some((kind, Some(id)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_name_leads_back_to_its_kind() {
        for &kind in ImageKind::ALL {
            let id = kind.file_name(None).is_none().then_some(123);
            let name = kind.file_name(id).unwrap();
            assert_eq!(ImageKind::from_file_name(&name), Some((kind, id)), "{name}");
        }
        assert_eq!(ImageKind::from_file_name("core-+7.img"), None);
        assert_eq!(ImageKind::from_file_name("core-007.img"), None);
        assert_eq!(ImageKind::from_file_name("dump.log"), None);
    }
}
